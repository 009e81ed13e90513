"""The features of the tables: digests of whole tables, rows read by hand, thresholds."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from captum_robust.datasets import (
    TabularDataset,
    adult,
    distinct,
    load_adult,
    load_bank,
    load_compas,
)
from tests.datasets.conftest import data_folder
from tests.datasets.rows import (
    ADULT,
    BANK,
    BANK_HEADER,
    COMPAS_HEADER,
    adult_folder,
    bank_folder,
    compas_folder,
    compas_row,
    on,
)

LOADERS = {"adult": load_adult, "bank": load_bank}
RAW = {"adult": ADULT, "bank": BANK}
COMPAS_INPUTS = "77083b0c151c4f9f9ac0b9a6892ecbb0ef9138aeafa570b7848c887efbf01bf2"
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
    "compas": (
        COMPAS_INPUTS,
        "7e9be3b8978bcdddff5f8d4702b682a127489c8aa4e6b2eec3a2b258275e65ee",
        (6172, 16),
        2751,
        599,
    ),
    "compas-two-year-recid": (
        COMPAS_INPUTS,
        "7069e3c1b261d300b742f01787630de3532e21921fdac2c744046a121cf19392",
        (6172, 16),
        2809,
        599,
    ),
}


def assert_golden(dataset: TabularDataset, name: str) -> None:
    inputs, targets, shape, positives, distinct_rows = GOLDEN[name]
    assert dataset.name == name
    assert dataset.inputs.dtype == torch.float32
    assert dataset.targets.dtype == torch.int64
    assert dataset.inputs.shape == shape
    assert int(dataset.targets.sum()) == positives
    assert len(distinct(dataset.inputs)) == distinct_rows
    for tensor, digest in ((dataset.inputs, inputs), (dataset.targets, targets)):
        assert torch.equal(tensor, tensor.bool().to(tensor.dtype))
        assert hashlib.sha256(tensor.to(torch.uint8).numpy().tobytes()).hexdigest() == digest


@pytest.mark.parametrize("name", LOADERS)
def test_bundled_table_is_golden(name: str) -> None:
    dataset = LOADERS[name]()
    assert "CC BY 4.0" in dataset.source
    assert_golden(dataset, name)


@pytest.mark.parametrize("name", LOADERS)
def test_original_files_are_golden(name: str) -> None:
    assert_golden(LOADERS[name](data_folder(name)), name)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("compas", load_compas),
        ("compas", partial(load_compas, label="score")),
        ("compas-two-year-recid", partial(load_compas, label="two_year_recid")),
    ],
    ids=["default", "score", "two_year_recid"],
)
def test_compas_is_golden(name: str, load: Callable[[str], TabularDataset]) -> None:
    assert_golden(load(data_folder("compas")), name)


def test_pinned_digests_of_adult_are_those_of_its_files() -> None:
    root = data_folder("adult")
    for original in adult.ORIGINALS:
        path = original.within(root)
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        assert hashlib.sha256(content).hexdigest() == original.sha256


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
    ("changes", "features"),
    [
        ({}, set()),
        ({"sex": "Male"}, {"sex=Male"}),
        ({"c_charge_degree": "F"}, {"charge=Felony"}),
        ({"juv_fel_count": "2"}, {"juvenile offences>0"}),
        ({"juv_misd_count": "1"}, {"juvenile offences>0"}),
        ({"juv_other_count": "1", "juv_misd_count": "3"}, {"juvenile offences>0"}),
        ({"race": "African-American"}, {"race=African-American"}),
        ({"race": "Caucasian"}, {"race=Caucasian"}),
        ({"race": "Hispanic"}, {"race=Hispanic"}),
        ({"race": "Asian"}, set()),
        ({"race": "Native American"}, set()),
        ({"age": "55"}, set()),
        ({"age": "54"}, {"age<55"}),
        ({"age": "44"}, {"age<55", "age<45"}),
        ({"age": "45"}, {"age<55"}),
        ({"age": "34"}, {"age<55", "age<45", "age<35"}),
        ({"age": "29"}, {"age<55", "age<45", "age<35", "age<30"}),
        ({"age": "24"}, {"age<55", "age<45", "age<35", "age<30", "age<25"}),
        ({"priors_count": "1"}, {"priors>=1"}),
        ({"priors_count": "3"}, {"priors>=1", "priors>=2"}),
        ({"priors_count": "6"}, {"priors>=1", "priors>=2", "priors>=4"}),
        ({"priors_count": "10"}, {"priors>=1", "priors>=2", "priors>=4", "priors>=7"}),
        (
            {"priors_count": "11"},
            {"priors>=1", "priors>=2", "priors>=4", "priors>=7", "priors>=11"},
        ),
    ],
    ids=lambda value: str(value if isinstance(value, dict) else sorted(value)),
)
def test_compas_features(changes: dict[str, str], features: set[str], tmp_path: Path) -> None:
    table = load_compas(compas_folder(tmp_path, [compas_row(), compas_row(**changes)]))
    assert on(table, 0) == set()
    assert on(table, 1) == features


def test_compas_features_stand_in_the_order_of_the_mapping(tmp_path: Path) -> None:
    names = load_compas(compas_folder(tmp_path, [compas_row()])).feature_names
    assert names == (
        *("sex=Male", "charge=Felony", "juvenile offences>0"),
        *("age<25", "age<30", "age<35", "age<45", "age<55"),
        *("priors>=1", "priors>=2", "priors>=4", "priors>=7", "priors>=11"),
        *("race=African-American", "race=Caucasian", "race=Hispanic"),
    )


@pytest.mark.parametrize(
    ("score", "relapse"), [("Low", "0"), ("Low", "1"), ("Medium", "0"), ("High", "1")]
)
def test_compas_labels(score: str, relapse: str, tmp_path: Path) -> None:
    folder = compas_folder(tmp_path, [compas_row(score_text=score, two_year_recid=relapse)])
    assert load_compas(folder).targets.tolist() == [int(score != "Low")]
    assert load_compas(folder, label="two_year_recid").targets.tolist() == [int(relapse)]


@pytest.mark.parametrize(
    ("column", "value", "kept"),
    [
        ("days_b_screening_arrest", "30", True),
        ("days_b_screening_arrest", "-30", True),
        ("days_b_screening_arrest", "31", False),
        ("days_b_screening_arrest", "-31", False),
        ("days_b_screening_arrest", "", False),
        ("is_recid", "1", True),
        ("is_recid", "-1", False),
        ("c_charge_degree", "F", True),
        ("c_charge_degree", "O", False),
        ("score_text", "High", True),
        ("score_text", "N/A", False),
        ("score_text", "", False),
    ],
)
def test_compas_rows_pass_the_filter(column: str, value: str, kept: bool, tmp_path: Path) -> None:
    rows = [compas_row(sex="Male"), compas_row(**{column: value}), compas_row(race="Hispanic")]
    table = load_compas(compas_folder(tmp_path, rows))
    assert len(table) == (3 if kept else 2)
    assert on(table, 0) == {"sex=Male"}
    assert on(table, -1) == {"race=Hispanic"}


def test_compas_columns_are_found_by_name(tmp_path: Path) -> None:
    header = ",".join(sorted(set(COMPAS_HEADER.split(","))))
    rows = [compas_row(header, sex="Male", age="30", score_text="High")]
    table = load_compas(compas_folder(tmp_path, rows, header))
    assert on(table, 0) == {"sex=Male", "age<35", "age<45", "age<55"}
    assert table.targets.tolist() == [1]


def test_compas_without_names_is_found_and_the_original_comes_first(tmp_path: Path) -> None:
    compas_folder(tmp_path, [compas_row()])
    anonymous = tmp_path / "compas-scores-two-years.anon.csv"
    (tmp_path / "compas-scores-two-years.csv").rename(anonymous)
    assert len(load_compas(tmp_path)) == 1
    assert len(load_compas(compas_folder(tmp_path, [compas_row()] * 2))) == 2


def test_compas_refuses_a_label(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="label: got 'recid', accepted: score or two_year_recid"):
        load_compas(tmp_path, label="recid")
