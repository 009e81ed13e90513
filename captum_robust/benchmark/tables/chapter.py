"""A chapter of the report of a run: a title and its tables."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from captum_robust._utils.tables import Table, markdown

__all__ = ["Chapter", "markdown_of"]


class Chapter(NamedTuple):
    """A title and its tables.

    Attributes:
        title: title of the chapter.
        tables: its tables, with their captions and notes.
        lead: paragraph under the title.
    """

    title: str
    tables: Sequence[Table]
    lead: str = ""


def markdown_of(lead: str, chapters: Iterable[Chapter]) -> str:
    """Write a first paragraph and chapters in Markdown."""
    paragraphs = [lead]
    for chapter in chapters:
        paragraphs += [f"## {chapter.title}", chapter.lead]
        for table in chapter.tables:
            caption = f"### {table.caption}" if table.caption else ""
            paragraphs += [caption, table.lead, markdown(table), table.note]
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)
