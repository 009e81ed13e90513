"""Read back the Markdown that our own text reports are made of."""

import math
import re
from collections.abc import Iterator
from itertools import pairwise

from captum_robust._html.blocks import Cell, Column, Section, Table, Text

__all__ = ["sections"]

_BAR = re.compile(r"(?<!\\)(?:\\\\)*\|")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")


def sections(text: str) -> Iterator[Section]:
    r"""Headings of level 2 begin a section, those of level 3 name what follows them.

    >>> report = "## adult\n\n### AUC\n\n| method | AUC |\n| --- | --- |\n| sp | 0.9 ± 0.1 |"
    >>> (section,) = sections(report)
    >>> (table,) = section.blocks
    >>> section.title, table.caption, table.rows[0][1]
    ('adult', 'AUC', Cell(text='0.9 ± 0.1', key=0.9))
    """
    title, caption = "Overview", ""
    blocks: list[Table | Text] = []
    for part in text.split("\n\n"):
        if part.startswith("## "):
            if blocks:
                yield Section(title, tuple(blocks), folded=True)
            title, caption, blocks = part.removeprefix("## "), "", []
        elif part.startswith("### "):
            caption = part.removeprefix("### ")
        elif part.startswith("| "):
            blocks.append(_table(caption, part.splitlines()))
            caption = ""
        elif part.strip():
            if caption:
                blocks.append(Text(caption, is_title=True))
                caption = ""
            blocks.append(Text(part))
    if blocks:
        yield Section(title, tuple(blocks), folded=True)


def _table(caption: str, lines: list[str]) -> Table:
    header, _, *body = (_cells(line) for line in lines)
    keys = [[_key(text) for text in row] for row in body]
    numeric = [
        any(not math.isnan(k) for k in column) and all(
            not math.isnan(k) or row[i] in ("", "nan")
            for k, row in zip(column, body, strict=True)
        )
        for i, column in enumerate(map(list, zip(*keys, strict=True)))
    ] or [False] * len(header)  # fmt: skip
    return Table(
        caption,
        [Column(name, is_numeric) for name, is_numeric in zip(header, numeric, strict=True)],
        [
            [
                Cell(text or "–", key if is_numeric else None)
                for text, key, is_numeric in zip(row, row_keys, numeric, strict=True)
            ]
            for row, row_keys in zip(body, keys, strict=True)
        ],
    )


def _cells(line: str) -> list[str]:
    bars = [match.end() - 1 for match in _BAR.finditer(line)]
    return [re.sub(r"\\([\\|])", r"\1", line[a + 1 : b].strip()) for a, b in pairwise(bars)]


def _key(text: str) -> float:
    """The number that a cell begins with; NaN where there is none."""
    found = _NUMBER.match(text)
    return float(found.group()) if found else math.nan
