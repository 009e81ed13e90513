"""Write a table as Markdown, LaTeX or CSV."""

import csv
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["latex_table", "markdown_table", "write_csv"]

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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A table of GitHub's Markdown; bars in cells are escaped.

    >>> print(markdown_table(["map", "P@3"], [["a|b", "1.00"]]))
    | map | P@3 |
    | --- | --- |
    | a\|b | 1.00 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)


def latex_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A LaTeX ``tabular``, which needs no package; special characters are escaped.

    >>> print(latex_table(["map", "P@3"], [["50 % & more", "[1]"]]))
    \begin{tabular}{ll}
    \hline
    map & P@3 \\
    \hline
    50 \% \& more & {[}1{]} \\
    \hline
    \end{tabular}
    """
    head, *body = (" & ".join(map(_latex, line)) + r" \\" for line in (header, *rows))
    rule, columns = r"\hline", "l" * len(header)
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, rule, head, rule, *body, rule, end])


def write_csv(path: str | Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file in UTF-8, whole or not at all."""
    path = Path(path)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows])
        os.chmod(draft, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise


def _markdown(cell: str) -> str:
    return " ".join(cell.split()).replace("\\", "\\\\").replace("|", "\\|")


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(cell.split()))
