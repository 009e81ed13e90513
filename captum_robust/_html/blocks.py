"""The blocks of a page; all texts are plain and are escaped when the page is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from captum_robust._html.charts import Chart
from captum_robust._utils.tables import Table

__all__ = [
    "Block",
    "Charts",
    "Code",
    "Facts",
    "Finding",
    "Note",
    "Notes",
    "Page",
    "Section",
    "Tone",
]


@dataclass(frozen=True)
class Charts:
    """Charts side by side, with one legend."""

    charts: Sequence[Chart]
    note: str = ""

    @property
    def legend(self) -> dict[str, str]:
        """The names of the lines by their style."""
        return {line.style: line.name for chart in self.charts for line in chart.lines}


class Note(NamedTuple):
    """A paragraph with a title."""

    title: str
    text: str


@dataclass(frozen=True)
class Notes:
    """Paragraphs with titles."""

    notes: Sequence[Note]


@dataclass(frozen=True)
class Facts:
    """Names with their values."""

    facts: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Code:
    """Text with a button that copies it."""

    text: str
    label: str


Block = Table | Charts | Notes | Facts | Code


@dataclass(frozen=True)
class Section:
    """A heading and the blocks below it; a folded section is opened by the reader."""

    title: str
    blocks: Sequence[Block] = ()
    lead: str = ""
    folded: bool = False


#: Colour of a verdict in the style sheet.
Tone = Literal["alarm", "info", "success", "caution", "quiet", "neutral"]


class Finding(NamedTuple):
    """A verdict at the head of a page.

    Attributes:
        tone: colour of the verdict.
        name: what the verdict is about.
        word: the verdict in one or two words; may be empty.
        sentence: the verdict in a sentence.
        details: further sentences.
    """

    tone: Tone
    name: str
    word: str
    sentence: str
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Page:
    """A page: what it is, its title, its verdicts, and its sections."""

    kind: str
    title: str
    lead: str
    findings: Sequence[Finding]
    sections: Sequence[Section] = field(default_factory=tuple)
