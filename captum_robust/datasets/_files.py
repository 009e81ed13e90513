"""The original UCI files, read row by row; anything unexpected is refused with its place."""

from __future__ import annotations

import csv
import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from captum_robust.datasets._columns import Column

Row = tuple[int, list[str]]


def find(root: str | os.PathLike[str], folder: str, name: str) -> Path:
    """The file ``name`` or ``name.gz``, in ``root`` or in its subfolder ``folder``."""
    places = [base / f for base in (Path(root), Path(root) / folder) for f in (name, f"{name}.gz")]
    for place in places:
        if place.is_file():
            return place
    raise FileNotFoundError(
        f"root: got {os.fspath(root)!r}, accepted: a folder that holds "
        + ", ".join(place.relative_to(root).as_posix() for place in places[:-1])
        + f" or {places[-1].relative_to(root).as_posix()}"
    )


def read_rows(path: Path, delimiter: str) -> Iterator[Row]:
    """The fields of each row with its line number, counted from 1; blank lines are passed over."""
    with _open(path) as file:
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
        except (EOFError, OSError, UnicodeDecodeError, csv.Error, zlib.error) as error:
            raise ValueError(
                f"{path}: got a file that breaks off after row {reader.line_num} ({error}), "
                "accepted: the whole file, as text or gzip"
            ) from error


def encode(
    path: Path, header: Sequence[str], rows: Iterator[Row], columns: Sequence[Column]
) -> NDArray[np.uint8]:
    """The bits of ``columns``, side by side, for every row: shape (N, number of features)."""
    places = [(header.index(column.name), column) for column in columns]
    table: list[tuple[int, ...]] = []
    for number, fields in rows:
        if len(fields) != len(header):
            raise ValueError(
                f"{path}, row {number}: got {len(fields)} columns, accepted: {len(header)} "
                f"({', '.join(header)})"
            )
        bits: tuple[int, ...] = ()
        for place, column in places:
            code = column.encode(fields[place])
            if code is None:
                raise ValueError(
                    f"{path}, row {number}, column {column.name}: got {fields[place]!r}, "
                    f"accepted: {column.accepted}"
                )
            bits += code
        table.append(bits)
    if not table:
        raise ValueError(f"{path}: got no rows, accepted: at least one")
    return np.array(table, dtype=np.uint8)


def _open(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
