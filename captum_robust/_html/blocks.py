"""What a page is made of; all texts are plain and are escaped when the page is written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from captum_robust._html.charts import Chart

__all__ = [
    "Cell",
    "Charts",
    "Code",
    "Column",
    "Facts",
    "Finding",
    "Note",
    "Notes",
    "Page",
    "Section",
    "Table",
    "Text",
    "number",
]


class Cell(NamedTuple):
    """A cell and what it is sorted by: a number, or else its text; last where that is NaN."""

    text: str
    key: float | None = None

    @property
    def sort_key(self) -> str:
        """The key as the script reads it; empty for a text."""
        return "" if self.key is None else "nan" if math.isnan(self.key) else repr(self.key)


class Column(NamedTuple):
    """A column of a table."""

    title: str
    is_numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A table that is sorted by its headers."""

    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Charts:
    """Charts side by side, and the legend that they share."""

    charts: Sequence[Chart]
    note: str = ""
    kind: ClassVar[str] = "charts"

    @property
    def legend(self) -> dict[str, str]:
        """What the lines are called, by their style."""
        return {line.style: line.name for chart in self.charts for line in chart.lines}


class Note(NamedTuple):
    """A paragraph under its title."""

    title: str
    text: str


@dataclass(frozen=True)
class Notes:
    """Paragraphs under their titles."""

    notes: Sequence[Note]
    kind: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Facts:
    """Names and their values."""

    facts: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Code:
    """Text to be copied."""

    text: str
    label: str
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Text:
    """A paragraph, or the title of what follows."""

    text: str
    is_title: bool = False
    kind: ClassVar[str] = "text"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; folded: only when the reader opens it."""

    title: str
    blocks: Sequence[Table | Charts | Notes | Facts | Code | Text]
    lead: str = ""
    folded: bool = False


class Finding(NamedTuple):
    """A verdict: one of the states that have a colour, a word, the sentence and what follows."""

    status: str
    name: str
    word: str
    sentence: str
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """A report."""

    kind: str
    title: str
    lead: str
    findings: Sequence[Finding]
    sections: Sequence[Section] = field(default_factory=tuple)


def number(value: float, digits: int = 3) -> Cell:
    """A number, or a dash for NaN."""
    return Cell("–" if math.isnan(value) else f"{value:.{digits}f}", value)
