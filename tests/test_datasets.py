"""The tables: mapping, digests, refusals, split and distinct rows."""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from captum_robust.datasets import (
    TabularDataset,
    _bundle,
    adult,
    bank,
    build,
    distinct,
    load_adult,
    load_bank,
    load_breast_cancer,
    split,
)

# Rows of the original files, the features that a reader of the mapping finds in them, the target.
ADULT = {
    0: (
        "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, "
        "Male, 2174, 0, 40, United-States, <=50K",
        {
            "age>=30",
            "workclass=Government",
            "education=Bachelors",
            "marital=Single",
            "occupation=White-Collar",
            "race=White",
            "gender=Male",
        },
        0,
    ),
    4: (
        "28, Private, 338409, Bachelors, 13, Married-civ-spouse, Prof-specialty, Wife, Black, "
        "Female, 0, 0, 40, Cuba, <=50K",
        {
            "workclass=Private",
            "education=Bachelors",
            "marital=Married",
            "occupation=Professional",
        },
        0,
    ),
    27: (
        "54, ?, 180211, Some-college, 10, Married-civ-spouse, ?, Husband, Asian-Pac-Islander, "
        "Male, 0, 0, 60, South, >50K",
        {
            "age>=30",
            "age>=45",
            "hours-per-week>40",
            "workclass=Other/Unknown",
            "education=Some-college",
            "marital=Married",
            "occupation=Other/Unknown",
            "gender=Male",
        },
        1,
    ),
    160: (
        "68, ?, 38317, 1st-4th, 2, Divorced, ?, Not-in-family, White, Female, 0, 0, 20, "
        "United-States, <=50K",
        {
            "age>=30",
            "age>=45",
            "workclass=Other/Unknown",
            "education=School",
            "marital=Divorced",
            "occupation=Other/Unknown",
            "race=White",
        },
        0,
    ),
    # The first and the last row of adult.test, whose labels end in a full stop.
    32561: (
        "25, Private, 226802, 11th, 7, Never-married, Machine-op-inspct, Own-child, Black, Male, "
        "0, 0, 40, United-States, <=50K.",
        {
            "workclass=Private",
            "education=School",
            "marital=Single",
            "occupation=Blue-Collar",
            "gender=Male",
        },
        0,
    ),
    48841: (
        "35, Self-emp-inc, 182148, Bachelors, 13, Married-civ-spouse, Exec-managerial, Husband, "
        "White, Male, 0, 0, 60, United-States, >50K.",
        {
            "age>=30",
            "hours-per-week>40",
            "workclass=Self-Employed",
            "education=Bachelors",
            "marital=Married",
            "occupation=White-Collar",
            "race=White",
            "gender=Male",
        },
        1,
    ),
}

BANK_HEADER = (
    '"age";"job";"marital";"education";"default";"balance";"housing";"loan";"contact";"day";'
    '"month";"duration";"campaign";"pdays";"previous";"poutcome";"y"'
)
BANK = {
    0: (
        '58;"management";"married";"tertiary";"no";2143;"yes";"no";"unknown";5;"may";261;1;-1;0;'
        '"unknown";"no"',
        {
            "marital=married",
            "education=tertiary",
            "contact=unknown",
            "poutcome=unknown",
            "housing=yes",
            "duration>180",
        },
        0,
    ),
    1: (
        '44;"technician";"single";"secondary";"no";29;"yes";"no";"unknown";5;"may";151;1;-1;0;'
        '"unknown";"no"',
        {
            "marital=single",
            "education=secondary",
            "contact=unknown",
            "poutcome=unknown",
            "housing=yes",
        },
        0,
    ),
    24080: (
        '56;"technician";"married";"secondary";"no";589;"yes";"no";"unknown";23;"oct";518;1;147;2;'
        '"success";"yes"',
        {
            "marital=married",
            "education=secondary",
            "contact=unknown",
            "poutcome=success",
            "housing=yes",
            "duration>180",
        },
        1,
    ),
    45210: (
        '37;"entrepreneur";"married";"secondary";"no";2971;"no";"no";"cellular";17;"nov";361;2;188;'
        '11;"other";"no"',
        {
            "marital=married",
            "education=secondary",
            "contact=cellular",
            "poutcome=other",
            "duration>180",
        },
        0,
    ),
}

LOADERS = {"adult": load_adult, "bank": load_bank}
RAW = {"adult": ADULT, "bank": BANK}
# Digests of the uint8 inputs (C order) and targets, rows, features, positives, distinct rows.
GOLDEN = {
    "adult": (
        "2b477abce7d873ac827843045db2cded5bb9ebee05a7551d905f1bb67a7de994",
        "fbb4fd549817ddafd149218cfb86db9307542d84adbaad5db363293f5c437fc4",
        (48842, 28),
        11687,
        4879,
    ),
    "bank": (
        "1b3bf62c1ea35a7ee0c9e6000485ad010a078d7e7c356647ee54dc15f230df4b",
        "4d7719680459fcf358ba63298a51a4df22302553e4ef111ef2880300ee6f6624",
        (45211, 18),
        5289,
        887,
    ),
}


def adult_folder(folder: Path, rows: list[str]) -> Path:
    """A folder of Adult files, with the comment and the blank last line of the originals."""
    cut = len(rows) // 2
    (folder / "adult.data").write_text("\n".join(rows[:cut]) + "\n\n")
    (folder / "adult.test").write_text("|1x3 Cross validator\n" + "\n".join(rows[cut:]) + "\n\n")
    return folder


def bank_folder(folder: Path, rows: list[str], header: str = BANK_HEADER) -> Path:
    (folder / "bank-full.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def on(dataset: TabularDataset, row: int) -> set[str]:
    """The names of the features that are 1 in a row."""
    return {dataset.feature_names[i] for i in dataset.inputs[row].nonzero().flatten().tolist()}


def assert_golden(dataset: TabularDataset) -> None:
    inputs, targets, shape, positives, distinct_rows = GOLDEN[dataset.name]
    assert dataset.inputs.dtype == torch.float32
    assert dataset.targets.dtype == torch.int64
    assert dataset.inputs.shape == shape
    assert int(dataset.targets.sum()) == positives
    assert len(distinct(dataset.inputs)) == distinct_rows
    for tensor, digest in ((dataset.inputs, inputs), (dataset.targets, targets)):
        assert torch.equal(tensor, tensor.bool().to(tensor.dtype))
        assert hashlib.sha256(tensor.to(torch.uint8).numpy().tobytes()).hexdigest() == digest


@pytest.fixture
def originals() -> str:
    root = os.environ.get("CAPTUM_ROBUST_DATA")
    if root is None:
        pytest.skip("CAPTUM_ROBUST_DATA does not name a folder of original UCI files")
    return root


@pytest.mark.parametrize("name", LOADERS)
def test_bundled_table_is_golden(name: str) -> None:
    dataset = LOADERS[name]()
    assert dataset.name == name
    assert "CC BY 4.0" in dataset.source
    assert_golden(dataset)


@pytest.mark.parametrize("name", LOADERS)
def test_original_files_are_golden(name: str, originals: str) -> None:
    assert_golden(LOADERS[name](originals))


@pytest.mark.parametrize("name", LOADERS)
def test_bundled_rows_read_by_hand(name: str) -> None:
    dataset = LOADERS[name]()
    for row, (_, features, target) in RAW[name].items():
        assert on(dataset, row) == features
        assert dataset.targets[row] == target


@pytest.mark.parametrize(
    ("name", "folder"), [("adult", adult_folder), ("bank", bank_folder)], ids=["adult", "bank"]
)
@pytest.mark.parametrize("subfolder", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_raw_rows_read_by_hand(
    name: str,
    folder: Callable[[Path, list[str]], Path],
    subfolder: bool,
    compressed: bool,
    tmp_path: Path,
) -> None:
    place = tmp_path / name if subfolder else tmp_path
    place.mkdir(exist_ok=True)
    folder(place, [raw for raw, _, _ in RAW[name].values()])
    if compressed:
        for file in list(place.iterdir()):
            (place / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    dataset = LOADERS[name](tmp_path)
    assert len(dataset) == len(RAW[name])
    for row, (_, features, target) in enumerate(RAW[name].values()):
        assert on(dataset, row) == features
        assert dataset.targets[row] == target


@pytest.mark.parametrize(
    ("age", "hours", "features"),
    [
        (29, 40, set()),
        (30, 41, {"age>=30", "hours-per-week>40"}),
        (44, 99, {"age>=30", "hours-per-week>40"}),
        (45, 1, {"age>=30", "age>=45"}),
    ],
)
def test_adult_thresholds(age: int, hours: int, features: set[str], tmp_path: Path) -> None:
    fields = ADULT[0][0].split(", ")
    fields[0], fields[12] = str(age), str(hours)
    table = load_adult(adult_folder(tmp_path, [", ".join(fields)] * 2))
    assert {name for name in on(table, 0) if name.startswith(("age", "hours"))} == features


@pytest.mark.parametrize(("seconds", "longer"), [(0, False), (180, False), (181, True)])
def test_bank_threshold(seconds: int, longer: bool, tmp_path: Path) -> None:
    table = load_bank(bank_folder(tmp_path, [BANK[0][0].replace(";261;", f";{seconds};")]))
    assert ("duration>180" in on(table, 0)) == longer


def test_bank_columns_are_found_by_name(tmp_path: Path) -> None:
    turned = [";".join(reversed(line.split(";"))) for line in (BANK_HEADER, BANK[0][0])]
    assert on(load_bank(bank_folder(tmp_path, turned[1:], turned[0])), 0) == BANK[0][1]


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


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_names_the_files_that_are_missing(
    load: Callable[[Path], TabularDataset], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"root: got .*accepted: a folder that holds .*gz"):
        load(tmp_path)


@pytest.mark.parametrize("table", [adult.TABLE, bank.TABLE], ids=lambda table: table.name)
class TestBundle:
    def bits(self, table: _bundle.Table) -> np.ndarray:
        dataset = _bundle.load(table)
        columns = (dataset.inputs, dataset.targets.unsqueeze(1))
        return torch.cat(columns, dim=1).to(torch.uint8).numpy()

    def test_round_trip_is_deterministic(self, table: _bundle.Table, tmp_path: Path) -> None:
        bits = self.bits(table)
        first = _bundle.save(table, bits, tmp_path).read_bytes()
        assert _bundle.save(table, bits, tmp_path).read_bytes() == first
        assert [path.name for path in tmp_path.iterdir()] == [table.file]
        with np.load(tmp_path / table.file) as ours, np.load(build.FOLDER / table.file) as shipped:
            assert sorted(ours) == sorted(shipped) == ["bits", "shape", "source"]
            assert all(np.array_equal(ours[key], shipped[key]) for key in ours)

    @pytest.mark.parametrize(("column", "part"), [(0, "inputs"), (-1, "targets")])
    def test_save_refuses_other_bits(
        self, table: _bundle.Table, column: int, part: str, tmp_path: Path
    ) -> None:
        bits = self.bits(table)
        bits[7, column] ^= 1
        with pytest.raises(ValueError, match=rf"{table.name}: got {part} of SHA-256"):
            _bundle.save(table, bits, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_save_leaves_no_draft_behind(
        self, table: _bundle.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object, **kwargs: object) -> None:
            raise OSError("no space left")

        bits = self.bits(table)
        monkeypatch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="no space left"):
            _bundle.save(table, bits, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_load_refuses_a_flipped_bit(
        self, table: _bundle.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bits = self.bits(table)
        bits[-1, 3] ^= 1
        (tmp_path / "data").mkdir()
        np.savez(tmp_path / "data" / table.file, bits=np.packbits(bits), shape=np.array(bits.shape))
        monkeypatch.setattr(_bundle, "files", lambda package: tmp_path)
        with pytest.raises(ValueError, match=rf"{table.file}: got inputs of SHA-256"):
            _bundle.load(table)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: content[:10],
            lambda content: content[:-1],
            lambda content: content[:58] + b"\xff" * 42 + content[100:],
            lambda content: content.replace(b"bits.npy", b"bats.npy"),
        ],
        ids=["empty", "only a start", "cut", "not compressed", "renamed"],
    )
    def test_load_refuses_a_damaged_file(
        self,
        table: _bundle.Table,
        damage: Callable[[bytes], bytes],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "data").mkdir()
        damaged = damage((build.FOLDER / table.file).read_bytes())
        (tmp_path / "data" / table.file).write_bytes(damaged)
        monkeypatch.setattr(_bundle, "files", lambda package: tmp_path)
        with pytest.raises(ValueError, match=rf"{table.file}: got a damaged file"):
            _bundle.load(table)


def test_build_makes_the_shipped_tables(originals: str, tmp_path: Path) -> None:
    for path in build.build(originals, tmp_path):
        with np.load(path) as ours, np.load(build.FOLDER / path.name) as shipped:
            assert all(np.array_equal(ours[key], shipped[key]) for key in shipped)


def toy(rows: int) -> TabularDataset:
    inputs = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    return TabularDataset("toy", inputs, torch.arange(rows), ("row",), "by hand")


@given(rows=st.integers(10, 300), seed=st.integers(0, 2**32))
def test_split_cuts_the_permutation(rows: int, seed: int) -> None:
    parts = split(toy(rows), seed)
    order = np.random.default_rng(seed).permutation(rows).tolist()
    cuts = [0, int(rows * 8 / 10), int(rows * 9 / 10), rows]
    assert parts._fields == ("train", "validation", "test")
    for part, start, stop in zip(parts, cuts, cuts[1:], strict=False):
        assert part.targets.tolist() == order[start:stop]
        assert part.inputs[:, 0].tolist() == order[start:stop]
        assert part.feature_names == ("row",)


def test_split_leaves_the_global_random_state() -> None:
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    split(toy(50), 3)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_split_refuses() -> None:
    with pytest.raises(ValueError, match="seed: got -1, accepted: 0 or more"):
        split(toy(50), -1)
    with pytest.raises(ValueError, match="dataset: got 9 rows, accepted: 10 or more"):
        split(toy(9), 0)


@given(
    rows=st.lists(st.lists(st.integers(-1, 1), min_size=3, max_size=3), max_size=30),
    dtype=st.sampled_from([torch.uint8, torch.int64, torch.float32, torch.float64]),
)
def test_distinct_keeps_the_first_of_each(rows: list[list[int]], dtype: torch.dtype) -> None:
    inputs = torch.tensor(rows, dtype=torch.int64).reshape(-1, 3).to(dtype)
    seen: list[list[float]] = []
    for row in inputs.tolist():
        if row not in seen:
            seen.append(row)
    result = distinct(inputs)
    assert result.dtype == dtype
    assert result.tolist() == seen


def test_distinct_takes_images() -> None:
    images = torch.tensor([3.0, 1.0, 3.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    assert torch.equal(distinct(images), images[:2])


@pytest.mark.parametrize(
    ("inputs", "targets", "names", "message"),
    [
        (torch.zeros(3), torch.zeros(3), ("a",), r"inputs: got shape \(3,\), accepted: \(N, n\)"),
        (torch.zeros(3, 1), torch.zeros(3, 1), ("a",), r"targets: got shape \(3, 1\)"),
        (torch.zeros(3, 1), torch.zeros(2), ("a",), r"targets: .* accepted: \(3,\)"),
        (torch.zeros(3, 1), torch.zeros(3), ("a", "b"), "feature_names: got 2 .* accepted: 1"),
    ],
)
def test_dataset_refuses_shapes(
    inputs: Tensor, targets: Tensor, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        TabularDataset("bad", inputs, targets, names, "by hand")


def test_breast_cancer_is_standardised() -> None:
    from sklearn import datasets
    from sklearn.preprocessing import StandardScaler

    raw = datasets.load_breast_cancer()
    dataset = load_breast_cancer()
    expected = StandardScaler().fit_transform(raw.data).astype(np.float32)
    np.testing.assert_allclose(dataset.inputs.numpy(), expected, rtol=1e-6, atol=1e-7)
    assert dataset.inputs.dtype == torch.float32
    assert dataset.targets.dtype == torch.int64
    assert dataset.targets.tolist() == raw.target.tolist()
    assert dataset.feature_names[0] == "mean radius"


def test_breast_cancer_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError, match=r"scikit-learn: pip install 'captum-robust\[benchmark\]"):
        load_breast_cancer()
