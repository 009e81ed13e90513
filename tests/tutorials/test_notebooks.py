"""What can be told of the tutorials without running them; `make docs` runs them."""

import json
import re
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).parents[2] / "tutorials"
NOTEBOOKS = sorted(TUTORIALS.glob("*.ipynb"))

# Where people keep things, and what only the machine that ran a notebook knows.
OF_A_MACHINE = re.compile(r"(?<![\w./])/(home|root|Users|private|var)/|[A-Z]:\\\\|site-packages")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path, kind):
    """The cells of a kind, in their order."""
    return [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == kind]


def text(lines):
    """What a notebook stores as a string or as a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def test_there_are_tutorials():
    assert len(NOTEBOOKS) == 7


@each_notebook
def test_is_a_valid_notebook(path):
    nbformat = pytest.importorskip("nbformat", reason="nbformat is in the extra docs")
    nbformat.validate(nbformat.read(path, as_version=4))


@each_notebook
def test_was_run_from_the_first_cell_to_the_last(path):
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


@each_notebook
def test_shows_no_error_and_no_warning(path):
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", text(output["text"])


@each_notebook
def test_tells_nothing_of_the_machine(path):
    assert not OF_A_MACHINE.search(path.read_text("utf-8"))
    assert str(TUTORIALS.parent) not in path.read_text("utf-8")
    notebook = json.loads(path.read_text("utf-8"))
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert notebook["metadata"]["language_info"] == {"name": "python"}
    assert all(cell["metadata"] == {} for cell in notebook["cells"])


@each_notebook
def test_is_small(path):
    assert path.stat().st_size < 1_000_000


@each_notebook
def test_is_listed_under_its_title(path):
    title = text(cells(path, "markdown")[0]["source"]).splitlines()[0].removeprefix("# ")
    assert f"[{title}]({path.name})" in (TUTORIALS / "README.md").read_text("utf-8")


@each_notebook
def test_says_what_next_with_links_that_lead_somewhere(path):
    page = "\n".join(text(cell["source"]) for cell in cells(path, "markdown"))
    assert "## What next" in page
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page):
        assert link.startswith("https://") or (TUTORIALS / link).exists(), link
