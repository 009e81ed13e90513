"""The table, its split, its distinct rows; Breast Cancer."""

from __future__ import annotations

import math
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_robust.datasets import TabularDataset, distinct, load_bank, load_breast_cancer, split

many = settings(max_examples=60, deadline=None, derandomize=True)


def toy(rows: int) -> TabularDataset:
    inputs = torch.arange(rows, dtype=torch.float32).unsqueeze(1)
    return TabularDataset("toy", inputs, torch.arange(rows), ("row",), "by hand")


@many
@given(
    rows=st.integers(100, 300),
    seed=st.integers(0, 2**32),
    ends=st.none()
    | st.tuples(st.integers(1, 98), st.integers(1, 98)).filter(lambda e: e[0] != e[1]),
)
def test_split_cuts_the_permutation(rows: int, seed: int, ends: tuple[int, int] | None) -> None:
    if ends is None:
        first, second = 80, 90
        parts = split(toy(rows), seed)
    else:
        first, second = sorted(ends)
        parts = split(toy(rows), seed, percent=(first, second - first, 100 - second))
    order = np.random.default_rng(seed).permutation(rows).tolist()
    cuts = [
        0,
        math.floor(Fraction(rows * first, 100)),
        math.floor(Fraction(rows * second, 100)),
        rows,
    ]
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
    with pytest.raises(ValueError, match=r"dataset: got 4 rows, accepted: .* \(80, 10, 10\) %"):
        split(toy(4), 0)


@pytest.mark.parametrize("percent", [(70, 15, 10), (70, 30), (100, 0, 0), (110, -20, 10)])
def test_split_refuses_percentages(percent: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"percent: got \(.*accepted: three whole numbers"):
        split(toy(50), 0, percent)


def test_split_refuses_fractions() -> None:
    with pytest.raises(ValueError, match=r"percent: got \(0\.7, .*accepted: three whole numbers"):
        split(toy(50), 0, (0.7, 0.15, 0.15))


@many
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


@many
@given(
    rows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=20),
    others=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=6),
)
def test_distinct_leaves_out_other_rows(
    rows: list[tuple[int, int]], others: list[tuple[int, int]]
) -> None:
    seen = [row for row in dict.fromkeys(rows) if row not in others]
    inputs, other_than = (torch.tensor(part).reshape(-1, 2) for part in (rows, others))
    result = distinct(inputs.float(), other_than.float())
    assert result.dtype == torch.float32
    assert [tuple(row) for row in result.tolist()] == seen


@pytest.mark.parametrize("others", [torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.float64)])
def test_distinct_refuses_other_rows_of_another_kind(others: Tensor) -> None:
    with pytest.raises(ValueError, match=r"other_than: got torch\.float.*accepted: torch\.float32"):
        distinct(torch.zeros(4, 2), others)


@pytest.mark.parametrize("percent", [(80, 10, 10), (70, 15, 15)])
def test_parts_of_a_table_of_bits_share_most_rows(percent: tuple[int, int, int]) -> None:
    """As the docs state, most test rows of Bank have an equal row in the training part."""
    train, _, test = split(load_bank(), 0, percent)
    trained = {tuple(row) for row in train.inputs.tolist()}
    rows = [tuple(row) for row in test.inputs.tolist()]
    unseen = {row for row in rows if row not in trained}
    assert sum(row in trained for row in rows) > 0.99 * len(rows)
    result = distinct(test.inputs, other_than=train.inputs)
    assert {tuple(row) for row in result.tolist()} == unseen
    assert 0 < len(unseen) == len(result) < len(distinct(test.inputs)) / 10


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
