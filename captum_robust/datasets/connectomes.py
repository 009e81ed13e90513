"""Connectomes of the user, with strict checks."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from captum_robust.datasets.graphs import BrainGraphs

#: Largest difference of two entries that should be equal, as a fraction of the largest weight.
ROUNDING = 1e-5


def load_connectomes(
    source: str | os.PathLike[str] | ArrayLike | Tensor,
    targets: ArrayLike | Tensor | None = None,
    key: str | None = None,
    target_key: str | None = None,
    name: str | None = None,
) -> BrainGraphs:
    """Return your own connectomes: symmetric matrices of weights, one per subject, and classes.

    The upper triangle is kept and the diagonal is ignored. Matrices that would silently invalidate
    a study are refused, with the file and the number of the matrix: asymmetric matrices (beyond
    rounding, 1e-5 of the largest weight), weights that are not finite, matrices that are not
    square.

    Args:
        source: A file ``.npz``, ``.npy`` or ``.mat`` (up to MATLAB 7.2, with scipy), or the
            matrices themselves: an array, tensor or list of shape (N, n, n). A file may also have
            the shape (n, n, N), which is usual in MATLAB.
        targets: Class of each matrix, N whole numbers, which become 0, 1, … in ascending order: -1
            and 1 become 0 and 1. None: the classes of the file.
        key: Name of the matrices in a file. None: the only array that is a stack of matrices.
        target_key: Name of the classes in a file. None: the only array with N numbers.
        name: Short name. None: that of the file.

    Returns:
        The graphs, ``edges`` of shape (N, n (n - 1) / 2).

    Raises:
        FileNotFoundError: If the file is missing.
        ImportError: If the file is a ``.mat`` and scipy is not installed.
        ValueError: If the file has another type, is damaged, or has several arrays that fit (the
            message lists them); and for matrices and classes as above.

    Example:
        >>> connectomes = [[[1.0, 0.3], [0.3, 1.0]], [[1.0, -0.2], [-0.2, 1.0]]]
        >>> graphs = load_connectomes(connectomes, targets=[-1, 1])
        >>> graphs.edges, graphs.targets
        (tensor([[ 0.3000],
                [-0.2000]]), tensor([0, 1]))
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        arrays = _read(path)
        where = str(path)
        matrices = _stack(arrays, key, where)
        if targets is None:
            targets = _classes(arrays, target_key, len(matrices), where)
        name = path.stem if name is None else name
    else:
        where = "source"
        matrices = _array(source, where)
        if targets is None:
            raise ValueError("targets: got None, accepted: the class of each matrix")
        name = "connectomes" if name is None else name
    check_matrices(matrices, where)
    labels = _array(targets, "targets").reshape(-1)
    if len(labels) != len(matrices):
        raise ValueError(f"targets: got {len(labels)} for {where}, accepted: {len(matrices)}")
    if not np.isfinite(labels).all() or (labels != np.round(labels)).any():
        raise ValueError(f"targets: got {labels.tolist()[:5]}…, accepted: whole numbers")
    n_nodes = matrices.shape[1]
    rows, columns = np.triu_indices(n_nodes, 1)
    edges = (matrices[:, rows, columns] + matrices[:, columns, rows]) / 2
    _, classes = np.unique(labels, return_inverse=True)
    return BrainGraphs(
        torch.from_numpy(edges.astype(np.float32)),
        torch.from_numpy(classes.reshape(-1).astype(np.int64)),
        n_nodes,
        name,
        where,
    )


def check_matrices(matrices: NDArray[Any], where: str) -> None:
    """Raise ValueError for anything but a stack of symmetric matrices of finite numbers."""
    if matrices.ndim != 3 or matrices.shape[1] != matrices.shape[2] or matrices.shape[1] < 2:
        raise ValueError(
            f"{where}: got shape {matrices.shape}, accepted: (N, n, n), square matrices of 2 "
            "regions or more"
        )
    if not len(matrices):
        raise ValueError(f"{where}: got no matrices, accepted: one or more")
    for number, matrix in enumerate(matrices):
        off = matrix.copy()
        np.fill_diagonal(off, 0)
        bad = np.argwhere(~np.isfinite(off))
        if len(bad):
            i, j = bad[0]
            raise ValueError(
                f"{where}, matrix {number}: got {matrix[i, j]} at [{i}, {j}], accepted: finite "
                "weights"
            )
        difference = np.abs(off - off.T)
        if difference.max() > ROUNDING * np.abs(off).max():
            i, j = np.unravel_index(difference.argmax(), difference.shape)
            raise ValueError(
                f"{where}, matrix {number}: got {matrix[i, j]} at [{i}, {j}] and {matrix[j, i]} "
                f"at [{j}, {i}], accepted: a symmetric matrix"
            )


def _read(path: Path) -> Mapping[str, NDArray[Any]]:
    """Return the arrays of a file, by name."""
    if not path.is_file():
        raise FileNotFoundError(f"source: got {str(path)!r}, accepted: an existing file")
    readers = {".npz": _read_numpy, ".npy": _read_numpy, ".mat": _read_matlab}
    if path.suffix not in readers:
        raise ValueError(f"{path}: got a file {path.suffix}, accepted: {', '.join(readers)}")
    return readers[path.suffix](path)


def _read_numpy(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        with path.open("rb") as file:  # NumPy would leave a damaged one open
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {path.stem: content}
            return {name: content[name] for name in content}
    except (EOFError, OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: got a damaged file ({error}), accepted: NumPy's") from error


def _read_matlab(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ImportError(
            f"{path}: reading it needs scipy: pip install 'captum-robust[benchmark]'"
        ) from error
    try:
        content = loadmat(path)
    except Exception as error:  # scipy has many, one of them for the later format
        raise ValueError(
            f"{path}: got a file that scipy does not read ({error}), accepted: MATLAB 7.2 or "
            "earlier (in MATLAB: save -v7)"
        ) from error
    return {name: content[name] for name in content if not name.startswith("__")}


def _stack(arrays: Mapping[str, NDArray[Any]], key: str | None, where: str) -> NDArray[Any]:
    """Return the array that is a stack of square matrices, in the shape (N, n, n)."""
    if key is None:
        key = _only(arrays, _is_stack, "key", "one array of shape (N, n, n)", where)
    array = _array(_named(arrays, key, "key", where), f"{where}, {key}")
    if array.ndim == 3 and array.shape[0] == array.shape[1] != array.shape[2]:
        return np.moveaxis(array, 2, 0)
    return array


def _classes(
    arrays: Mapping[str, NDArray[Any]], key: str | None, count: int, where: str
) -> NDArray[Any]:
    if key is None:
        key = _only(
            arrays,
            lambda array: array.dtype.kind in "biuf" and array.size == count == max(array.shape),
            "target_key",
            f"one array of {count} numbers, the classes",
            where,
        )
    return _array(_named(arrays, key, "target_key", where), f"{where}, {key}")


def _is_stack(array: NDArray[Any]) -> bool:
    return (
        array.dtype.kind in "biuf"
        and array.ndim == 3
        and (array.shape[1] == array.shape[2] or array.shape[0] == array.shape[1])
    )


def _only(
    arrays: Mapping[str, NDArray[Any]],
    fits: Callable[[NDArray[Any]], bool],
    argument: str,
    accepted: str,
    where: str,
) -> str:
    names = [name for name, array in arrays.items() if fits(array)]
    if len(names) != 1:
        raise ValueError(
            f"{argument}: got None and {len(names)} candidates in {where}, which holds "
            f"{_listed(arrays)}, accepted: the name of one, or a file with {accepted}"
        )
    return names[0]


def _named(arrays: Mapping[str, NDArray[Any]], key: str, argument: str, where: str) -> NDArray[Any]:
    if key not in arrays:
        raise ValueError(
            f"{argument}: got {key!r}, accepted: a name in {where}, which holds {_listed(arrays)}"
        )
    return arrays[key]


def _listed(arrays: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"


def _array(values: Any, where: str) -> NDArray[np.float64]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: got {error}, accepted: an array of numbers") from error
