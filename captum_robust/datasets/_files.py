"""Readers of the original files, which refuse unexpected content and name its place."""

from __future__ import annotations

import csv
import gzip
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from typing import TextIO, cast

import numpy as np
from numpy.typing import NDArray

from captum_robust.datasets._columns import Column
from captum_robust.datasets._originals import File

Row = tuple[int, list[str]]


def read_rows(path: File, delimiter: str) -> Iterator[Row]:
    """Yield the fields of each row with its line number, from 1; blank lines are skipped."""
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


def read_header(
    path: File, rows: Iterator[Row], columns: Sequence[Column], repeated: Collection[str] = ()
) -> list[str]:
    """Return the first row, which names each of ``columns`` once; ``repeated`` once or more."""
    number, header = next(rows, (1, []))
    for column in columns:
        times = header.count(column.name)
        if times == 0 or (times > 1 and column.name not in repeated):
            raise ValueError(
                f"{path}, row {number}, column {column.name}: got a header that names it "
                f"{times} times, accepted: once"
            )
    return header


def encode(
    path: File, header: Sequence[str], rows: Iterator[Row], columns: Sequence[Column]
) -> NDArray[np.uint8]:
    """Return the bits of ``columns``, side by side, per row: (N, number of features)."""
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


def _open(path: File) -> TextIO:
    if isinstance(path, zipfile.Path):
        return cast(TextIO, path.open("r", encoding="utf-8", newline=""))
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")
