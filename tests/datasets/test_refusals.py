"""Values, rows, headers and files that are refused, each with its place."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from captum_robust.datasets import load_adult, load_bank, load_compas
from tests.datasets.rows import (
    ADULT,
    BANK,
    BANK_HEADER,
    COMPAS_HEADER,
    adult_folder,
    bank_folder,
    compas_folder,
    compas_row,
)


@pytest.mark.parametrize(
    ("column", "place"),
    [
        ("age", 0),
        ("workclass", 1),
        ("education", 3),
        ("marital-status", 5),
        ("occupation", 6),
        ("race", 8),
        ("sex", 9),
        ("hours-per-week", 12),
        ("income", 14),
    ],
)
@pytest.mark.parametrize("value", ["", "nan", "-5", "39.5", "1_000", "٣", "private"])
def test_adult_refuses_a_value(column: str, place: int, value: str, tmp_path: Path) -> None:
    fields = ADULT[0][0].split(", ")
    fields[place] = value
    rows = [ADULT[4][0], ", ".join(fields), ADULT[27][0], ADULT[160][0]]
    with pytest.raises(ValueError, match="accepted") as caught:
        load_adult(adult_folder(tmp_path, rows))
    assert f"adult.data, row 2, column {column}: got {value!r}" in str(caught.value)


def test_adult_counts_the_comment_as_a_row(tmp_path: Path) -> None:
    rows = [ADULT[0][0], ADULT[4][0].replace("Private", "Secret")]
    with pytest.raises(
        ValueError, match=r"adult\.test, row 2, column workclass: got 'Secret', .*Private"
    ):
        load_adult(adult_folder(tmp_path, rows))


@pytest.mark.parametrize(
    ("column", "old", "new"),
    [
        ("marital", '"married"', '"Married"'),
        ("education", '"tertiary"', '"higher"'),
        ("contact", '"unknown";5', '"post";5'),
        ("poutcome", '0;"unknown"', '0;""'),
        ("default", '"no";2143', '"maybe";2143'),
        ("housing", '"yes"', '"1"'),
        ("loan", '"no";"unknown"', '"NO";"unknown"'),
        ("duration", ";261;", ";261.0;"),
        ("duration", ";261;", ";-1;"),
        ("y", '"unknown";"no"', '"unknown";"n"'),
    ],
)
def test_bank_refuses_a_value(column: str, old: str, new: str, tmp_path: Path) -> None:
    raw = BANK[0][0]
    assert raw.count(old) == 1
    with pytest.raises(ValueError, match=rf"bank-full\.csv, row 3, column {column}: got"):
        load_bank(bank_folder(tmp_path, [BANK[1][0], raw.replace(old, new)]))


@pytest.mark.parametrize("change", [lambda row: row.rsplit(",", 1)[0], lambda row: row + ", x"])
def test_adult_refuses_a_row_of_another_length(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    rows = [ADULT[0][0], change(ADULT[4][0]), ADULT[27][0], ADULT[160][0]]
    with pytest.raises(
        ValueError, match=r"adult\.data, row 2: got 1[46] columns, accepted: 15 \(age, workclass"
    ):
        load_adult(adult_folder(tmp_path, rows))


def test_bank_refuses_a_header_without_a_column(tmp_path: Path) -> None:
    header = BANK_HEADER.replace('"duration"', '"length"')
    with pytest.raises(ValueError, match=r"bank-full\.csv, row 1, column duration: got .* 0 times"):
        load_bank(bank_folder(tmp_path, [BANK[0][0]], header))


def test_bank_refuses_a_header_that_repeats_a_column(tmp_path: Path) -> None:
    header = BANK_HEADER.replace('"campaign"', '"duration"')
    with pytest.raises(ValueError, match=r"row 1, column duration: got .* 2 times, accepted: once"):
        load_bank(bank_folder(tmp_path, [BANK[0][0]], header))


@pytest.mark.parametrize("text", ["", "\n\n", "|1x3 Cross validator\n"])
def test_adult_refuses_an_empty_file(text: str, tmp_path: Path) -> None:
    adult_folder(tmp_path, [ADULT[0][0], ADULT[4][0]])
    (tmp_path / "adult.test").write_text(text)
    with pytest.raises(ValueError, match=r"adult\.test: got no rows, accepted: at least one"):
        load_adult(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("", "row 1"), (BANK_HEADER, "got no rows")])
def test_bank_refuses_an_empty_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bank-full.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"bank-full\.csv.*{message}"):
        load_bank(tmp_path)


def whole_bank(rows: int) -> bytes:
    return "\n".join([BANK_HEADER, *[BANK[0][0]] * rows]).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bank-full.csv.gz", gzip.compress(whole_bank(9))[:-9]),
        ("bank-full.csv.gz", whole_bank(9)),
        ("bank-full.csv.gz", gzip.compress(whole_bank(9))[:40] + b"\xff" * 40),
        ("bank-full.csv", whole_bank(9).replace(b"married", b"\xff\xfe")),
        ("bank-full.csv", whole_bank(9)[:-1]),
    ],
    ids=["cut gzip", "not gzip", "damaged gzip", "not text", "open quote"],
)
def test_refuses_a_file_that_breaks_off(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(name)}: got a file that breaks off .*row"):
        load_bank(tmp_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sex", "male"),
        ("age", "39.0"),
        ("age", "-1"),
        ("age", "9" * 5000),
        ("race", "African American"),
        ("juv_fel_count", ""),
        ("juv_misd_count", "no"),
        ("juv_other_count", "NA"),
        ("priors_count", "1e1"),
        ("days_b_screening_arrest", "--1"),
        ("days_b_screening_arrest", "-1.0"),
        ("days_b_screening_arrest", "-"),
        ("is_recid", "2"),
        ("c_charge_degree", "f"),
        ("score_text", "low"),
        ("two_year_recid", "-1"),
        ("two_year_recid", ""),
    ],
)
@pytest.mark.parametrize("kept", ["-1", "400"])
def test_compas_refuses_a_value(column: str, value: str, kept: str, tmp_path: Path) -> None:
    """Also in a row that the filter would drop."""
    changes = {"days_b_screening_arrest": kept, column: value}
    folder = compas_folder(tmp_path, [compas_row(), compas_row(**changes)])
    place = rf"two-years\.csv, row 3, column {column}: got '{re.escape(value)}', accepted: "
    with pytest.raises(ValueError, match=place):
        load_compas(folder)


@pytest.mark.parametrize("column", ["sex", "priors_count", "two_year_recid", "score_text"])
def test_compas_refuses_a_header_without_a_column(column: str, tmp_path: Path) -> None:
    header = re.sub(rf"(^|,){column}(?=,|$)", rf"\1no_{column}", COMPAS_HEADER)
    with pytest.raises(ValueError, match=rf"\.csv, row 1, column {column}: got .* 0 times"):
        load_compas(compas_folder(tmp_path, [compas_row()], header))


def test_compas_refuses_a_header_that_repeats_a_column(tmp_path: Path) -> None:
    header = COMPAS_HEADER.replace("in_custody", "sex", 1)
    with pytest.raises(ValueError, match=r"row 1, column sex: got .* 2 times, accepted: once"):
        load_compas(compas_folder(tmp_path, [compas_row()], header))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "got no rows, accepted"),
        ([compas_row(is_recid="-1")] * 2, "got no rows that pass ProPublica's filter"),
    ],
)
def test_compas_refuses_a_file_without_rows(rows: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"compas-scores-two-years\.csv: {message}"):
        load_compas(compas_folder(tmp_path, rows))


@pytest.mark.parametrize("row", [1, 2])
def test_adult_refuses_a_comment_that_is_not_the_first_row(row: int, tmp_path: Path) -> None:
    rows = [ADULT[number][0] for number in (0, 4, 27, 160)]
    rows[row - 1] = "|" + rows[row - 1]
    with pytest.raises(ValueError, match=rf"adult\.data, row {row}, column age: got '\|"):
        load_adult(adult_folder(tmp_path, rows))
