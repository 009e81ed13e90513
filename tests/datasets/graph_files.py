"""Small files in the layouts of the public sources, made up by the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

KKI = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 5\n5, 4\n",
    "graph_indicator": "1\n1\n1\n2\n2\n",
    "graph_labels": "1\n-1\n",
    "node_labels": "189\n3\n7\n0\n1\n",
}


def kki_folder(folder: Path, **changes: str) -> Path:
    """Graph 1 joins regions 3 to 189 and 7, graph 2 regions 0 and 1."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in (KKI | changes).items():
        (folder / f"KKI_{part}.txt").write_text(text)
    return folder


SITES = ["NYU", "NYU", "Peking_1", "NYU", "Peking_1", "KKI"]
DIAGNOSES = [0, 1, 0, 0, 1, 0]


def adhd_folder(folder: Path, **changes: np.ndarray) -> Path:
    """Six subjects; subject i has the edges i and i + 1 alone."""
    edges = np.zeros((6, 17955), dtype=np.uint8)
    for row in range(6):
        edges[row, row : row + 2] = 1
    arrays = {
        "triu": edges,
        "y": np.array(DIAGNOSES, dtype=np.uint8),
        "site": np.array(SITES),
        "n_nodes": np.array(190),
    }
    np.savez_compressed(folder / "adhd200_cc200_fc10.npz", **(arrays | changes))
    return folder


def sizes(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def mnist_files(folder: Path, part: str, labels: list[int]) -> Path:
    """Image i has the byte i in each pixel of its first row."""
    images = np.zeros((len(labels), 28, 28), dtype=np.uint8)
    images[:, 0] = np.arange(len(labels), dtype=np.uint8)[:, None]
    name = {"train": "train", "test": "t10k"}[part]
    head = sizes(0x803, len(labels), 28, 28)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(sizes(0x801, len(labels)) + bytes(labels))
    return folder
