"""UCI Bank Marketing as 18 bits: does a client subscribe to a term deposit?"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from captum_robust.datasets import _bundle
from captum_robust.datasets._columns import levels, thresholds
from captum_robust.datasets._files import encode, find, read_rows
from captum_robust.datasets.tabular import TabularDataset

TABLE = _bundle.Table(
    name="bank",
    file="bank18.npz",
    columns=(
        levels(
            "marital",
            {
                "marital=divorced": ("divorced",),
                "marital=married": ("married",),
                "marital=single": ("single",),
            },
        ),
        levels(
            "education",
            {
                "education=primary": ("primary",),
                "education=secondary": ("secondary",),
                "education=tertiary": ("tertiary",),
                "education=unknown": ("unknown",),
            },
        ),
        levels(
            "contact",
            {
                "contact=cellular": ("cellular",),
                "contact=telephone": ("telephone",),
                "contact=unknown": ("unknown",),
            },
        ),
        levels(
            "poutcome",
            {
                "poutcome=failure": ("failure",),
                "poutcome=other": ("other",),
                "poutcome=success": ("success",),
                "poutcome=unknown": ("unknown",),
            },
        ),
        levels("default", {"default=yes": ("yes",)}, others=("no",)),
        levels("housing", {"housing=yes": ("yes",)}, others=("no",)),
        levels("loan", {"loan=yes": ("yes",)}, others=("no",)),
        thresholds("duration", {"duration>180": 181}),
        levels("y", {"y=yes": ("yes",)}, others=("no",)),
    ),
    source=(
        "Bank Marketing, UCI Machine Learning Repository, https://doi.org/10.24432/C5K306, "
        "CC BY 4.0; binarised by captum_robust"
    ),
    inputs_sha256="1b3bf62c1ea35a7ee0c9e6000485ad010a078d7e7c356647ee54dc15f230df4b",
    targets_sha256="4d7719680459fcf358ba63298a51a4df22302553e4ef111ef2880300ee6f6624",
)


def load_bank(root: str | os.PathLike[str] | None = None) -> TabularDataset:
    """Bank Marketing with 18 binary features; the target is a subscription to a term deposit.

    Rows are those of ``bank-full.csv``, 45,211. The last feature is a call longer than 180 seconds,
    the column's median; it is known only after the call, so the model explains an outcome rather
    than predicts one. Only 887 rows are distinct (see :func:`~captum_robust.datasets.distinct`).

    Args:
        root: None for the table that ships in the package, or a folder with the original file
            ``bank-full.csv`` (or ``.gz``), directly or in its subfolder ``bank``. A folder's file
            is taken as it is: its number of rows is not checked.

    Returns:
        The table: ``inputs`` (45211, 18) of 0 and 1, ``targets`` (45211,), 1 for a subscription.

    Raises:
        FileNotFoundError: If ``root`` does not hold the file.
        ValueError: If the file is malformed; the message names the file, the row and the column.

    Source:
        Bank Marketing, UCI Machine Learning Repository, https://doi.org/10.24432/C5K306
        (CC BY 4.0). The choice of columns is our mapping, with the number of features of the R2ET
        paper (arXiv 2212.14106), which does not publish its own.

    Example:
        >>> bank = load_bank()
        >>> tuple(bank.inputs.shape), int(bank.targets.sum())
        ((45211, 18), 5289)
        >>> bank.feature_names[-1]
        'duration>180'
    """
    return _bundle.load(TABLE) if root is None else TABLE.dataset(read(root))


def read(root: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """The bits of the original file in ``root``, inputs and target side by side, (N, 19)."""
    path = find(root, "bank", "bank-full.csv")
    rows = read_rows(path, delimiter=";")
    number, header = next(rows, (1, []))
    for column in TABLE.columns:
        if header.count(column.name) != 1:
            raise ValueError(
                f"{path}, row {number}, column {column.name}: got a header that names it "
                f"{header.count(column.name)} times, accepted: once"
            )
    return encode(path, header, rows, TABLE.columns)
