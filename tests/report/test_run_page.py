"""The page of a run: every table of the text, and verdicts that the numbers bear."""

from pathlib import Path

import pytest

from captum_robust._html.blocks import Table
from captum_robust._utils.tables import markdown_table
from captum_robust.benchmark.folder import as_html, as_text
from captum_robust.benchmark.plan.store import Store, StoreError
from captum_robust.benchmark.tables.markdown import sections
from captum_robust.benchmark.tables.page import _compared, run_page
from captum_robust.benchmark.tables.report import report
from captum_robust.benchmark.tables.results import Findings
from tests.benchmark_runner.made_up import fill


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return fill(tmp_path_factory.mktemp("run"))


def test_every_table_of_the_text_is_on_the_page(store: Store) -> None:
    lines = report(store.folder).splitlines()
    n_tables = sum(line.startswith("| ---") for line in lines)
    n_rows = sum(line.startswith("| ") for line in lines) - 2 * n_tables
    tables = [
        block for section in run_page(store.folder).sections if section.folded
        for block in section.blocks if isinstance(block, Table)
    ]  # fmt: skip
    assert (len(tables), sum(len(t.rows) for t in tables)) == (n_tables, n_rows)
    assert n_tables > 3


def test_every_model_has_its_verdict(store: Store) -> None:
    findings = Findings(store.folder)
    (dataset,) = findings.datasets
    page = run_page(store.folder)
    (table,) = (b for b in page.sections[0].blocks if isinstance(b, Table))
    assert [row[0].text for row in table.rows] == [str(m) for m in findings.models(dataset)]
    part = findings.main_part(dataset)
    for model, row in zip(findings.models(dataset), table.rows, strict=True):
        kept = findings.precision(dataset, model, part, 1.0)
        assert row[2].key == pytest.approx(sum(kept.values()) / len(kept))


@pytest.mark.parametrize(
    ("gain", "half", "said"),
    [
        (0.2, 0.1, "More stable than"), (-0.2, 0.1, "Less stable than"),
        (0.1, 0.1, "No clear difference from"), (-0.05, 0.1, "No clear difference from"),
        (0.2, float("nan"), "Too few seeds"),
    ],
)  # fmt: skip
def test_a_difference_within_its_interval_is_none(gain: float, half: float, said: str) -> None:
    assert _compared(gain, half).startswith(said)


def test_the_folder_decides_what_is_shown(store: Store, tmp_path: Path) -> None:
    as_html(store.folder, tmp_path / "new" / "page.html")
    text = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "results of a run" in text and "breast-cancer" in text
    assert as_text(store.folder) == report(store.folder)
    with pytest.raises(StoreError):
        as_html(tmp_path, tmp_path / "other.html")


def test_markdown_is_read_as_it_was_written() -> None:
    rows = [["a|b", "0.5 ± 0.1 †", "r2et"], ["c\\d", "", "3 of 4"], ["x\\|y", "nan", "-1"]]
    text = markdown_table(["method", "P@8", "best"], rows)
    (section,) = sections(f"## one\n\nsome text\n\n### title\n\n{text}\n\nafter")
    first, table, last = section.blocks
    assert isinstance(table, Table) and table.caption == "title"
    assert [[cell.text for cell in row] for row in table.rows] == [
        [text or "–" for text in row] for row in rows
    ]
    assert [column.is_numeric for column in table.columns] == [False, True, False]
    assert table.rows[0][1].key == 0.5 and table.rows[1][1].sort_key == "nan"
    assert (first.kind, last.kind) == ("text", "text")
