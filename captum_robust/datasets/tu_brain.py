"""KKI, OHSU and Peking_1: three small sets of brain networks in the text layout of TUDataset."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from captum_robust.datasets._originals import VARIABLE, File, named_root
from captum_robust.datasets.brain import N_REGIONS
from captum_robust.datasets.graphs import BrainGraphs

Name = Literal["KKI", "OHSU", "Peking_1"]

_PARTS = ("A", "graph_indicator", "graph_labels", "node_labels")


def load_tu_brain(name: Name, root: str | os.PathLike[str] | None = None) -> BrainGraphs:
    r"""KKI, OHSU or Peking_1 of TUDataset; the target is ADHD (KKI, Peking_1) or hyperactivity.

    83, 79 and 85 subjects of ADHD-200. Each graph has some of the 190 regions of the CC200 atlas,
    27, 82 and 39 on average, named by the labels of its nodes. The edges are placed among all 190
    regions; the other regions have no edges. **A network can hardly learn these labels** (area
    under the curve 0.45 to 0.55): see :func:`load_adhd200`.

    Args:
        name: ``"KKI"``, ``"OHSU"`` or ``"Peking_1"``.
        root: Folder with ``KKI.zip``, ``KKI/KKI_A.txt`` or ``KKI/raw/KKI_A.txt`` (and so on),
            directly or in its subfolder ``brain``. None: the folder that the environment variable
            ``CAPTUM_ROBUST_DATA`` names. The files are not downloaded; use
            ``torch_geometric.datasets.TUDataset(root, name)``.

    Returns:
        Graphs of 0 and 1, ``edges`` (N, 17955), ``targets`` 1 for the larger of the two labels.

    Raises:
        FileNotFoundError: If the files are missing; the message names the required files.
        ValueError: If ``name`` is unknown, or a file is malformed; the message names the file and
            the line, counted from 1.

    Source:
        Morris and others (2020), TUDataset, arXiv 2007.08663; Pan and others (2017), IEEE
        Transactions on Cybernetics 47(3).

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for part, text in {"A": "1, 2\n2, 1\n", "graph_indicator": "1\n1\n2\n",
        ...             "graph_labels": "-1\n1\n", "node_labels": "0\n1\n5\n"}.items():
        ...         _ = Path(folder, f"KKI_{part}.txt").write_text(text)
        ...     graphs = load_tu_brain("KKI", folder)
        >>> graphs.edges.shape, graphs.edges.sum(dim=1), graphs.targets
        (torch.Size([2, 17955]), tensor([1., 0.]), tensor([0, 1]))
    """
    if name not in get_args(Name):
        raise ValueError(f"name: got {name!r}, accepted: {', '.join(get_args(Name))}")
    argument, root = ("root", root) if root is not None else (VARIABLE, named_root())
    files = _find(name, argument, root)
    graph_of, labels = (_column(files[part]) for part in ("graph_indicator", "graph_labels"))
    regions = _regions(files["node_labels"], graph_of)
    n_graphs = len(labels)
    for line, graph in enumerate(graph_of.tolist(), start=1):
        if not 1 <= graph <= n_graphs:
            raise _refusal(
                files["graph_indicator"], line, graph, f"1 to {n_graphs}, the number of labels"
            )
    classes = np.unique(labels)
    if len(classes) != 2:
        raise ValueError(
            f"{files['graph_labels']}: got {len(classes)} different labels, accepted: 2"
        )
    adjacency = np.zeros((n_graphs, N_REGIONS, N_REGIONS), dtype=np.float32)
    for line, ends in _numbers(files["A"], 2):
        if not all(1 <= node <= len(graph_of) for node in ends):
            raise _refusal(files["A"], line, ends, f"nodes from 1 to {len(graph_of)}")
        nodes = np.array(ends) - 1
        graph, other = graph_of[nodes] - 1
        if graph != other or nodes[0] == nodes[1]:
            raise _refusal(files["A"], line, ends, "two different nodes of one graph")
        first, second = regions[nodes]
        adjacency[graph, first, second] = adjacency[graph, second, first] = 1
    rows, columns = np.triu_indices(N_REGIONS, 1)
    return BrainGraphs(
        torch.from_numpy(adjacency[:, rows, columns]),
        torch.from_numpy((labels == classes[1]).astype(np.int64)),
        N_REGIONS,
        name,
        f"{name}, TUDataset, https://chrsmrrs.github.io/datasets; from ADHD-200, non-commercial "
        "research use",
    )


def _find(name: str, argument: str, root: str | os.PathLike[str] | None) -> dict[str, File]:
    """Return the four files, in a zip archive or a folder."""
    texts = {part: f"{name}_{part}.txt" for part in _PARTS}
    for base in () if root is None else (Path(root), Path(root) / "brain"):
        archive = base / f"{name}.zip"
        if archive.is_file():
            return _members(archive, name, texts)
        for folder in (base, base / name, base / name / "raw"):
            files: dict[str, File] = {part: folder / text for part, text in texts.items()}
            if files["A"].is_file():
                missing = [str(file) for file in files.values() if not file.is_file()]
                if missing:
                    raise FileNotFoundError(
                        f"{argument}: got {os.fspath(folder)!r} without {', '.join(missing)}, "
                        f"accepted: a folder with {', '.join(texts.values())}"
                    )
                return files
    raise FileNotFoundError(
        f"{argument}: got {root if root is None else os.fspath(root)!r}, accepted: a folder that "
        f"holds {name}.zip, {name}/{texts['A']} or {name}/raw/{texts['A']}, itself or in its "
        f"subfolder brain; torch_geometric.datasets.TUDataset(root, {name!r}) downloads them"
    )


def _members(archive: Path, name: str, texts: dict[str, str]) -> dict[str, File]:
    try:
        with zipfile.ZipFile(archive) as content:
            names = set(content.namelist())
            broken = content.testzip()
    except (EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{archive}: got a damaged file ({error}), accepted: a zip") from error
    members = {part: f"{name}/{text}" for part, text in texts.items()}
    missing = [member for member in members.values() if member not in names]
    if missing or broken:
        fault = f"without {', '.join(missing)}" if missing else f"with a damaged {broken}"
        raise ValueError(
            f"{archive}: got an archive {fault}, accepted: one with {', '.join(members.values())}"
        )
    return {part: zipfile.Path(archive, member) for part, member in members.items()}


def _regions(file: File, graph_of: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the region of each node, from 0; no graph may have a region twice."""
    labels = _column(file)
    if len(labels) != len(graph_of):
        raise ValueError(
            f"{file}: got {len(labels)} lines, accepted: {len(graph_of)}, one per node"
        )
    first = int(labels.max() == N_REGIONS)  # the atlas counts from 1, the public files from 0
    seen: set[tuple[int, int]] = set()
    for line, (graph, label) in enumerate(zip(graph_of.tolist(), labels.tolist(), strict=True), 1):
        if not first <= label < N_REGIONS + first:
            raise _refusal(file, line, label, f"{first} to {N_REGIONS - 1 + first}")
        if (graph, label) in seen:
            raise _refusal(file, line, label, f"each region once in graph {graph}")
        seen.add((graph, label))
    return labels - first


def _column(file: File) -> NDArray[np.int64]:
    values = [row[0] for _, row in _numbers(file, 1)]
    if not values:
        raise ValueError(f"{file}: got no lines, accepted: one or more")
    return np.array(values, dtype=np.int64)


def _numbers(file: File, count: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the number of each line and its whole numbers; an empty last line is skipped."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: got a damaged file ({error}), accepted: text") from error
    for number, line in enumerate(lines, start=1):
        if not line and number == len(lines):
            return
        fields = [field.strip() for field in line.split(",")]
        digits = [field.removeprefix("-") for field in fields]
        if len(fields) != count or not all(
            digit.isascii() and digit.isdigit() and len(digit) < 10 for digit in digits
        ):
            raise _refusal(file, number, line, f"{count} whole numbers, between commas")
        yield number, tuple(int(field) for field in fields)


def _refusal(file: File, line: int, got: object, accepted: str) -> ValueError:
    return ValueError(f"{file}, line {line}: got {got!r}, accepted: {accepted}")
