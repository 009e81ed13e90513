"""Files broken at random: refused with file, row and column, or read as what they still say."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from captum_robust.datasets import TabularDataset, adult, bank, compas, load_adult, load_bank
from captum_robust.datasets._columns import Column
from tests.datasets.rows import ADULT, BANK, BANK_HEADER, COMPAS_HEADER, compas_row

ADULT_TEST = "|1x3 Cross validator\n" + ADULT[48841][0] + "\n"


@dataclass(frozen=True)
class Format:
    """A table's file: its lines of fields, and the number of those that are a header."""

    load: Callable[[Path], TabularDataset]
    file: str
    delimiter: str
    lines: list[list[str]]
    headers: int
    names: Sequence[str]
    columns: Sequence[Column]

    def text(self, lines: Sequence[Sequence[str]]) -> str:
        buffer = io.StringIO()
        writer = csv.writer(
            buffer, delimiter=self.delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n"
        )
        writer.writerows(lines)
        return buffer.getvalue()

    def read(self, content: str | bytes, compressed: bool = False) -> TabularDataset:
        data = content.encode() if isinstance(content, str) else content
        with TemporaryDirectory() as folder:
            Path(folder, self.file + ".gz" * compressed).write_bytes(data)
            if self.file == "adult.data":
                Path(folder, "adult.test").write_text(ADULT_TEST)
            return self.load(Path(folder))

    def refusal(self, lines: Sequence[Sequence[str]]) -> str:
        with pytest.raises(ValueError, match=re.escape(self.file)) as caught:
            self.read(self.text(lines))
        message = str(caught.value)
        assert "got" in message
        assert "accepted" in message
        return message


def fields(raw: Sequence[str], delimiter: str) -> list[list[str]]:
    return list(csv.reader(raw, delimiter=delimiter, skipinitialspace=True))


FORMATS = {
    "adult": Format(
        load_adult,
        "adult.data",
        ",",
        fields([ADULT[row][0] for row in (0, 4, 27, 160)], ","),
        0,
        adult.HEADER,
        adult.TABLE.columns,
    ),
    "bank": Format(
        load_bank,
        "bank-full.csv",
        ";",
        fields([BANK_HEADER, *(raw for raw, _, _ in BANK.values())], ";"),
        1,
        fields([BANK_HEADER], ";")[0],
        bank.TABLE.columns,
    ),
    "compas": Format(
        compas.load_compas,
        "compas-scores-two-years.csv",
        ",",
        fields(
            [
                COMPAS_HEADER,
                compas_row(),
                compas_row(sex="Male", c_charge_degree="F", score_text="High"),
                compas_row(age="20", priors_count="12", two_year_recid="1"),
                compas_row(days_b_screening_arrest=""),
            ],
            ",",
        ),
        1,
        COMPAS_HEADER.split(","),
        [column for group in compas.GROUPS for column in group],
    ),
}
formats = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
many = settings(max_examples=60, deadline=None, derandomize=True)


def near(value: str) -> st.SearchStrategy[str]:
    """Text of any kind, and what a slip makes of a value."""
    slips = [
        value.swapcase(),
        value[:-1],
        value[1:],
        value + "x",
        value + " ",
        value + ".",
        "-" + value,
        value + ".0",
        value * 20,
        f'"{value}"',
        f"{value}\N{SUPERSCRIPT TWO}",
        "",
        "nan",
    ]
    anything = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=12)
    return st.sampled_from(slips) | anything


@formats
@many
@given(data=st.data())
def test_a_value_that_is_not_accepted_has_its_place(form: Format, data: st.DataObject) -> None:
    row = data.draw(st.integers(form.headers, len(form.lines) - 1))
    column = data.draw(st.sampled_from(form.columns))
    place = form.names.index(column.name)
    value = data.draw(near(form.lines[row][place]))
    takes = [other.encode(value) for other in form.columns if other.name == column.name]
    assume(None in takes)
    lines = [list(line) for line in form.lines]
    lines[row][place] = value
    message = form.refusal(lines)
    assert f"row {row + 1}, column {column.name}: got {value!r}, accepted: " in message


@formats
@many
@given(data=st.data())
def test_a_row_of_another_length_has_its_place(form: Format, data: st.DataObject) -> None:
    row = data.draw(st.integers(form.headers, len(form.lines) - 1))
    width = len(form.names)
    keep = data.draw(st.integers(1, 2 * width).filter(lambda keep: keep != width))
    lines = [list(line) for line in form.lines]
    lines[row] = (lines[row] * 2)[:keep]
    assert f"row {row + 1}: got {keep} columns, accepted: {width} (" in form.refusal(lines)


@formats
@many
@given(data=st.data())
def test_a_missing_column_is_named(form: Format, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(form.columns)).name
    kept = [place for place, other in enumerate(form.names) if other != name]
    lines = [[line[place] for place in kept] for line in form.lines]
    message = form.refusal(lines)
    if form.headers:
        assert f"row 1, column {name}: got a header that names it 0 times" in message
    else:
        assert f"row 1: got {len(kept)} columns, accepted: 15 (" in message


@formats
@many
@given(data=st.data())
def test_a_header_in_a_wrong_place_is_refused(form: Format, data: st.DataObject) -> None:
    row = data.draw(st.integers(form.headers, len(form.lines)))
    lines = [*form.lines[:row], list(form.names), *form.lines[row:]]
    message = form.refusal(lines)
    found = re.search(rf"row {row + 1}, column (.*): got '(.*?)', accepted", message)
    assert found
    assert found[1] == found[2]


@pytest.mark.parametrize("name", ["bank", "compas"])
def test_a_header_that_is_missing_is_refused(name: str) -> None:
    form = FORMATS[name]
    message = form.refusal(form.lines[1:])
    assert f"row 1, column {form.columns[0].name}: got a header that names it 0 times" in message


@formats
@many
@given(data=st.data())
def test_a_text_that_breaks_off_is_refused_or_ends_early(form: Format, data: st.DataObject) -> None:
    text = form.text(form.lines)
    whole = form.read(text)
    end = data.draw(st.integers(0, len(text) - 1))
    try:
        part = form.read(text[:end])
    except ValueError as error:
        assert form.file in str(error)
    else:
        # adult.test, which is whole, stands behind adult.data.
        tail = 1 if form.file == "adult.data" else 0
        kept = len(part) - tail
        assert text[:end].removesuffix("\n").count("\n") + 1 - form.headers >= kept > 0
        assert torch.equal(part.inputs[:kept], whole.inputs[:kept])
        assert torch.equal(part.targets[:kept], whole.targets[:kept])


@formats
@many
@given(data=st.data())
def test_a_gzip_that_breaks_off_is_refused(form: Format, data: st.DataObject) -> None:
    content = gzip.compress(form.text(form.lines).encode())
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ValueError, match=re.escape(f"{form.file}.gz")):
        form.read(content[:end], compressed=True)


@formats
@many
@given(data=st.data())
def test_a_gzip_with_a_damaged_byte_is_never_misread(form: Format, data: st.DataObject) -> None:
    text = form.text(form.lines)
    whole = form.read(text)
    content = bytearray(gzip.compress(text.encode()))
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        dataset = form.read(bytes(content), compressed=True)
    except ValueError as error:
        assert f"{form.file}.gz" in str(error)
    else:  # the byte was one of gzip's time stamp or the like
        assert torch.equal(dataset.inputs, whole.inputs)
        assert torch.equal(dataset.targets, whole.targets)


@formats
@many
@given(content=st.binary(max_size=200), compressed=st.booleans())
def test_any_bytes_are_refused(form: Format, content: bytes, compressed: bool) -> None:
    with pytest.raises(ValueError, match=re.escape(form.file)):
        form.read(content, compressed)
