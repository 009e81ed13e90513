"""A user's own connectomes: read as they are, or refused by file and matrix."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from captum_robust.datasets import load_connectomes


def stack(count: int = 4, n: int = 3) -> np.ndarray:
    weights = np.random.default_rng(0).uniform(-1, 1, (count, n, n))
    weights = np.triu(weights, 1)
    return weights + weights.transpose(0, 2, 1) + np.eye(n)


LABELS = np.array([1, -1, -1, 1])


def check(graphs: Any, name: str) -> None:
    assert (graphs.name, graphs.n_nodes) == (name, 3)
    expected = [[m[0, 1], m[0, 2], m[1, 2]] for m in stack()]
    np.testing.assert_allclose(graphs.edges.numpy(), expected, rtol=1e-6)
    assert graphs.targets.tolist() == [1, 0, 0, 1]
    assert (graphs.edges.dtype, graphs.targets.dtype) == (torch.float32, torch.int64)


@pytest.mark.parametrize(
    "make",
    [np.asarray, torch.from_numpy, lambda a: a.tolist(), list],
    ids=["array", "tensor", "list", "arrays"],
)
def test_matrices(make: Any) -> None:
    check(load_connectomes(make(stack()), make(LABELS)), "connectomes")
    check(load_connectomes(make(stack()), make(LABELS), name="mine"), "mine")


@pytest.mark.parametrize("layout", ["first", "last"])
@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_files(kind: str, column: bool, layout: str, tmp_path: Path) -> None:
    matrices = stack() if layout == "first" else np.moveaxis(stack(), 0, 2)
    labels = LABELS[:, None] if column else LABELS
    arrays = {"fmri": matrices, "diagnosis": labels, "atlas": np.array(["a", "b"])}
    path = tmp_path / f"bp.{kind}"
    savemat(path, arrays) if kind == "mat" else np.savez(path, **arrays)
    check(load_connectomes(path), "bp")
    check(load_connectomes(str(path), key="fmri", target_key="diagnosis"), "bp")
    check(load_connectomes(path, targets=LABELS * 3, name="mine"), "mine")


def test_a_stack_in_a_file(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", stack())
    check(load_connectomes(tmp_path / "own.npy", LABELS), "own")


def test_as_many_graphs_as_regions(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=stack(3, 3), y=LABELS[:3])
    assert torch.equal(
        load_connectomes(tmp_path / "a.npz").edges, load_connectomes(stack(3, 3), LABELS[:3]).edges
    )


def test_the_diagonal_is_dropped_whatever_it_holds() -> None:
    matrices = stack()
    matrices[:, [0, 1, 2], [0, 1, 2]] = [np.nan, np.inf, 7]
    check(load_connectomes(matrices, LABELS), "connectomes")


def test_rounding_is_not_asymmetry() -> None:
    matrices = stack()
    matrices[2, 0, 1] *= 1 + 1e-7
    check(load_connectomes(matrices, LABELS), "connectomes")
    matrices[2, 0, 1] += 1e-3
    with pytest.raises(ValueError, match="source, matrix 2: got"):
        load_connectomes(matrices, LABELS)


def spoilt(number: int, i: int, j: int, value: float) -> np.ndarray:
    matrices = stack()
    matrices[number, i, j] = value
    return matrices


@pytest.mark.parametrize(
    ("matrices", "message"),
    [
        (
            spoilt(2, 1, 0, 9),
            r", matrix 2: got .* at \[0, 1\] and 9\.0 at \[1, 0\], accepted: a sym",
        ),
        (spoilt(1, 1, 2, np.nan), r", matrix 1: got nan at \[1, 2\], accepted: finite weights"),
        (spoilt(3, 2, 0, -np.inf), r", matrix 3: got -inf at \[2, 0\], accepted: finite weights"),
        (stack()[:, :2], r": got shape \(4, 2, 3\), accepted: \(N, n, n\)"),
        (stack()[0], r": got shape \(3, 3\), accepted: \(N, n, n\)"),
        (stack(4, 1), r": got shape \(4, 1, 1\), accepted: .* 2 regions or more"),
        (stack()[:0], ": got no matrices, accepted: one or more"),
    ],
)
def test_refuses_matrices_by_number(matrices: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^source{message}"):
        load_connectomes(matrices, np.zeros(len(matrices)))
    path = tmp_path / "own.npz"
    np.savez(path, x=matrices)
    with pytest.raises(ValueError, match=rf"own\.npz{message}"):
        load_connectomes(path, np.zeros(len(matrices)), key="x")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "targets: got None, accepted: the class of each matrix"),
        ([0, 1], "targets: got 2 for source, accepted: 4"),
        ([0, 1, 0, 0.5], "targets: got .*accepted: whole numbers"),
        ([0, 1, 0, np.nan], "targets: got .*accepted: whole numbers"),
        (["a", "b", "a", "b"], "targets: got could not convert .*accepted: an array of numbers"),
    ],
)
def test_refuses_targets(targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_connectomes(stack(), targets)


def test_refuses_lists_of_different_sizes() -> None:
    with pytest.raises(ValueError, match=r"source: got .*accepted: an array of numbers"):
        load_connectomes([[[1, 2], [2, 1]], [[1.0]]], [0, 1])


@pytest.mark.parametrize("kind", ["npz", "mat"])
def test_a_file_that_leaves_it_open(kind: str, tmp_path: Path) -> None:
    def save(**arrays: np.ndarray) -> Path:
        path = tmp_path / f"bp.{kind}"
        savemat(path, arrays) if kind == "mat" else np.savez(path, **arrays)
        return path

    path = save(fmri=stack(), dti=stack(), label=LABELS)
    with pytest.raises(ValueError, match=r"key: got None and 2 candidates.*fmri \(4, 3, 3\), dti"):
        load_connectomes(path)
    check(load_connectomes(path, key="dti"), "bp")
    with pytest.raises(ValueError, match=r"key: got 'eeg', accepted: a name in .*which holds fmri"):
        load_connectomes(path, key="eeg")
    path = save(fmri=stack(), label=LABELS, age=LABELS + 30)
    with pytest.raises(ValueError, match="target_key: got None and 2 candidates"):
        load_connectomes(path)
    check(load_connectomes(path, target_key="label"), "bp")
    with pytest.raises(ValueError, match="key: got None and 0 candidates"):
        load_connectomes(save(label=LABELS))


@pytest.mark.parametrize("kind", ["npz", "npy", "mat"])
@pytest.mark.parametrize("size", [0, 60, 150])
def test_refuses_a_file_that_breaks_off(kind: str, size: int, tmp_path: Path) -> None:
    path = tmp_path / f"own.{kind}"
    if kind == "mat":
        savemat(path, {"x": stack(), "y": LABELS})
    elif kind == "npz":
        np.savez(path, x=stack(), y=LABELS)
    else:
        np.save(path, stack())
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"own\.{kind}: got a (damaged )?file"):
        load_connectomes(path, LABELS)


def test_refuses_a_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"own\.npy: got a damaged file"):
        load_connectomes(tmp_path / "own.npy", LABELS)


def test_refuses_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"own\.csv: got a file \.csv, accepted: \.npz, \.npy"):
        load_connectomes(tmp_path / "own.csv")
    with pytest.raises(
        FileNotFoundError, match=r"source: got .*gone\.npz', accepted: an existing file"
    ):
        load_connectomes(tmp_path / "gone.npz")


def test_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    savemat(tmp_path / "bp.mat", {"x": stack(), "y": LABELS})
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ImportError, match=r"bp\.mat: reading it needs scipy: pip install"):
        load_connectomes(tmp_path / "bp.mat")
