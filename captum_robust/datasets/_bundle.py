"""Tables of binary features in the package: packed, compressed, checked by SHA-256."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from captum_robust.datasets._columns import Column
from captum_robust.datasets.tabular import TabularDataset


@dataclass(frozen=True)
class Table:
    """The description of a table; the last column is the target."""

    name: str
    file: str
    columns: tuple[Column, ...]
    source: str
    inputs_sha256: str
    targets_sha256: str

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the input features, in order."""
        return tuple(feature for column in self.columns[:-1] for feature in column.features)

    def check(self, bits: NDArray[np.uint8], where: str) -> None:
        """Raise ValueError for other bits than those of the table: inputs and target, uint8."""
        for part, rows, expected in (
            ("inputs", bits[:, :-1], self.inputs_sha256),
            ("targets", bits[:, -1], self.targets_sha256),
        ):
            digest = hashlib.sha256(rows.tobytes()).hexdigest()
            if digest != expected:
                raise ValueError(f"{where}: got {part} of SHA-256 {digest}, accepted: {expected}")

    def dataset(self, bits: NDArray[np.uint8]) -> TabularDataset:
        """Return the bits as tensors."""
        return TabularDataset(
            name=self.name,
            inputs=torch.from_numpy(bits[:, :-1].astype(np.float32)),
            targets=torch.from_numpy(bits[:, -1].astype(np.int64)),
            feature_names=self.feature_names,
            source=self.source,
        )


def load(table: Table) -> TabularDataset:
    """Return a table of the package, checked against its digests."""
    with files(__package__).joinpath("data", table.file).open("rb") as file:
        try:
            with np.load(file, allow_pickle=False) as archive:
                bits = _unpack(archive["bits"], archive["shape"])
        except (EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(
                f"{table.file}: got a damaged file ({error}), accepted: the file of the package; "
                "install captum-robust again"
            ) from error
    table.check(bits, table.file)
    return table.dataset(bits)


def save(table: Table, bits: NDArray[np.uint8], folder: Path) -> Path:
    """Write a table into ``folder`` whole or not at all; equal bits give equal files."""
    table.check(bits, table.name)
    handle, draft = tempfile.mkstemp(dir=folder, suffix=".npz")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez_compressed(
                file, bits=np.packbits(bits), shape=np.array(bits.shape), source=table.source
            )
        os.chmod(draft, 0o644)  # mkstemp makes it readable by its owner only
        os.replace(draft, folder / table.file)
    except BaseException:
        os.unlink(draft)
        raise
    return folder / table.file


def _unpack(packed: NDArray[np.uint8], shape: NDArray[np.int64]) -> NDArray[np.uint8]:
    rows, columns = (int(size) for size in shape)
    return np.unpackbits(packed, count=rows * columns).reshape(rows, columns)
