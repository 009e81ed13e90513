"""Tables: which columns are numbers, and the same cells in every form."""

import csv
import math
import re
from pathlib import Path

import pytest

from captum_robust._html.blocks import Page, Section
from captum_robust._html.page import render
from captum_robust._utils.tables import Cell, Table, latex, markdown, number, write_csv

TABLE = Table(
    ["method", "P@8", "best", "seeds"],
    [
        ["a|b", Cell("0.5 ± 0.1 †", 0.5), "r2et", Cell("3", 3)],
        ["c\\d", Cell("", math.nan), Cell("3 of 4", 0.75), Cell("10", 10)],
        ["<i>", number(1 / 3), "", Cell("2", 2)],
    ],
    caption="A caption",
    lead="A lead.",
    note="A note.",
)


def test_a_column_of_numbers_has_a_number_or_misses_one_in_every_row() -> None:
    assert [TABLE.is_numeric(i) for i in range(4)] == [False, True, False, True]
    assert not Table(["empty"], []).is_numeric(0)


def test_markdown_and_latex_escape_what_would_be_a_sign() -> None:
    assert markdown(TABLE).splitlines()[2:] == [
        r"| a\|b | 0.5 ± 0.1 † | r2et | 3 |",
        r"| c\\d |  | 3 of 4 | 10 |",
        "| <i> | 0.333 |  | 2 |",
    ]
    assert r"c\textbackslash{}d &  & 3 of 4 & 10 \\" in latex(TABLE).splitlines()


def test_csv_has_the_numbers_at_full_precision(tmp_path: Path) -> None:
    write_csv(tmp_path / "table.csv", TABLE)
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        header, first, second, third = csv.reader(file)
    assert header == TABLE.header and first == ["a|b", "0.5", "r2et", "3"]
    assert second == ["c\\d", "nan", "0.75", "10"]
    assert float(third[1]) == 1 / 3


def test_a_page_shows_the_same_cells_and_sorts_by_their_numbers() -> None:
    html = render(Page("kind", "title", "lead", [], [Section("One", [TABLE])]))
    assert re.findall("<span>(.*?)</span>", html) == [
        "a|b", "0.5 ± 0.1 †", "r2et", "3",
        "c\\d", "–", "3 of 4", "10",
        "&lt;i&gt;", "0.333", "–", "2",
    ]  # fmt: skip
    keys = [
        re.findall('data-key="(.*?)"', row) for row in re.findall("<tr.*?</tr>", html, re.DOTALL)
    ]
    assert keys == [[], ["", "0.5", "", "3"], ["", "nan", "", "10"], ["", repr(1 / 3), "", "2"]]
    places = [html.index(text) for text in ("A caption", "A lead.", "<table", "A note.")]
    assert places == sorted(places)


def test_without_a_lead_the_title_is_the_caption_of_the_table() -> None:
    html = render(Page("kind", "title", "lead", [], [Section("One", [Table(["a"], [], "Title")])]))
    assert "<caption>Title</caption>" in html


@pytest.mark.parametrize("value", [math.nan, 0.12345])
def test_a_number(value: float) -> None:
    cell = number(value, 2)
    assert cell.text == ("" if math.isnan(value) else "0.12") and cell.value is value
