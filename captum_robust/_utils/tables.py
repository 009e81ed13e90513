"""A table, and its writers in Markdown, LaTeX and CSV."""

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from captum_robust._utils.files import write_whole

__all__ = ["Cell", "Row", "Table", "latex", "markdown", "number", "write_csv"]

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "[": "{[}",  # after a line break it would be an optional argument
    "]": "{]}",
}


class Cell(NamedTuple):
    """A cell of a table.

    Attributes:
        text: what is shown; empty where there is nothing to show.
        value: the number behind the text, by which the cell is sorted; NaN where the number is
            missing. None for a cell that is a text.
    """

    text: str
    value: float | None = None


#: The cells of a row; a str is a cell of text.
Row = Sequence[Cell | str]


class Table:
    """A table.

    Args:
        header: titles of the columns.
        rows: the rows.
        caption: title of the table.
        lead: paragraph before the table.
        note: paragraph after the table.
    """

    def __init__(
        self,
        header: Sequence[str],
        rows: Iterable[Row],
        caption: str = "",
        lead: str = "",
        note: str = "",
    ) -> None:
        self.header = list(header)
        self.rows = [[Cell(c) if isinstance(c, str) else c for c in row] for row in rows]
        self.caption = caption
        self.lead = lead
        self.note = note

    def is_numeric(self, column: int) -> bool:
        """Return whether every cell of a column is a number or misses one."""
        return bool(self.rows) and all(row[column].value is not None for row in self.rows)


def number(value: float, digits: int = 3) -> Cell:
    """Make a cell of a number; without text where the number is NaN.

    >>> number(0.98765)
    Cell(text='0.988', value=0.98765)
    """
    return Cell("" if math.isnan(value) else f"{value:.{digits}f}", value)


def markdown(table: Table) -> str:
    r"""Write the grid of a table in GitHub's Markdown; bars in cells are escaped.

    >>> print(markdown(Table(["map", "P@3"], [["a|b", "1.00"]])))
    | map | P@3 |
    | --- | --- |
    | a\|b | 1.00 |
    """
    rule = ["---"] * len(table.header)
    lines = [table.header, rule, *([cell.text for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)


def latex(table: Table) -> str:
    r"""Write the grid of a table as a LaTeX ``tabular``, which needs no package.

    Special characters are escaped.

    >>> print(latex(Table(["map", "P@3"], [["50 % & more", "[1]"]])))
    \begin{tabular}{ll}
    \hline
    map & P@3 \\
    \hline
    50 \% \& more & {[}1{]} \\
    \hline
    \end{tabular}
    """
    lines = [table.header, *([cell.text for cell in row] for row in table.rows)]
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in lines)
    rule, columns = r"\hline", "l" * len(table.header)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, rule, head, rule, *body, rule, end])


def write_csv(path: str | Path, table: Table) -> None:
    """Write the grid of a table as CSV in UTF-8, numbers at full precision.

    The file is written completely or not at all.
    """

    def save(draft: Path) -> None:
        with draft.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([table.header, *(map(_raw, row) for row in table.rows)])

    write_whole(Path(path), save)


def _raw(cell: Cell) -> str | float:
    return cell.text if cell.value is None else cell.value


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
