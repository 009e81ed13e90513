"""The page of a run: the tables of the text, and verdicts that follow from the numbers."""

import re
from pathlib import Path

import pytest

from captum_robust import cli
from captum_robust._utils.tables import Table
from captum_robust.benchmark.plan.store import Store
from captum_robust.benchmark.tables.page import compared, run_page
from captum_robust.benchmark.tables.report import report
from captum_robust.benchmark.tables.results import StudyResults
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
    results = StudyResults(store.folder)
    (dataset,) = results.datasets
    page = run_page(store.folder)
    (table,) = (b for b in page.sections[0].blocks if isinstance(b, Table))
    assert [row[0].text for row in table.rows] == [str(m) for m in results.models(dataset)]
    for model, row in zip(results.models(dataset), table.rows, strict=True):
        kept = results.main_precision(dataset, model, 1.0)
        assert row[2].value == pytest.approx(sum(kept.values()) / len(kept))


@pytest.mark.parametrize(
    ("gain", "half", "said"),
    [
        (0.2, 0.1, "More stable than"), (-0.2, 0.1, "Less stable than"),
        (0.1, 0.1, "No clear difference from"), (-0.05, 0.1, "No clear difference from"),
        (0.2, float("nan"), "Too few seeds"),
    ],
)  # fmt: skip
def test_a_difference_within_its_interval_is_none(gain: float, half: float, said: str) -> None:
    assert compared(gain, half).startswith(said)


def test_the_folder_decides_what_is_shown(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "page.html"
    assert cli.main(["report", str(store.folder), "--html", str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "results of a run" in text and "breast-cancer" in text
    assert cli.main(["report", str(store.folder)]) == 0
    assert capsys.readouterr().out == f"{report(store.folder)}\n"
    with pytest.raises(SystemExit):
        cli.main(["report", str(tmp_path), "--html", str(tmp_path / "other.html")])
    assert "nothing was run there" in capsys.readouterr().err


def test_the_page_has_the_numbers_of_the_text(store: Store) -> None:
    """Each cell of a Markdown table is one of the page, in the same order."""
    lines = [line for line in report(store.folder).splitlines() if line.startswith("| ")]
    cells = [
        [re.sub(r"\\([\\|])", r"\1", cell.strip()) for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines
        if not line.startswith("| ---")
    ]
    shown = [
        row for section in run_page(store.folder).sections if section.folded
        for table in section.blocks if isinstance(table, Table)
        for row in (table.header, *([cell.text for cell in row] for row in table.rows))
    ]  # fmt: skip
    assert shown == cells
