"""What a folder holds, a run or an audit, as text or as a page."""

from pathlib import Path

from captum_robust._html.blocks import Page
from captum_robust._html.page import write_page
from captum_robust.auditing.page import audit_page
from captum_robust.auditing.result import FILE, Audit

__all__ = ["as_html", "as_text"]


def as_text(folder: Path) -> str:
    """The tables of a run in Markdown, or the verdicts of an audit.

    Raises:
        AuditError: for a damaged audit.
        StoreError: for a folder that holds neither, or a damaged store.
    """
    if (folder / FILE).is_file():
        return str(Audit.load(folder))
    from captum_robust.benchmark.tables.report import report

    return report(folder)


def as_html(folder: Path, path: Path) -> None:
    """Write the page of a run or an audit; raises as :func:`as_text`."""
    write_page(_page(folder), path)


def _page(folder: Path) -> Page:
    if (folder / FILE).is_file():
        return audit_page(Audit.load(folder))
    from captum_robust.benchmark.tables.page import run_page

    return run_page(folder)
