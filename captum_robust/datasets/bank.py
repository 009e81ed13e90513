"""UCI Bank Marketing with 18 binary features; the target is a subscription to a term deposit."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from captum_robust.datasets import _bundle
from captum_robust.datasets._columns import levels, thresholds
from captum_robust.datasets._files import encode, read_header, read_rows
from captum_robust.datasets._originals import Original, locate, named_folder
from captum_robust.datasets.tabular import TabularDataset

ORIGINALS = (
    Original(
        names=("bank-full.csv",),
        folder="bank",
        url="https://archive.ics.uci.edu/ml/machine-learning-databases/00222/bank.zip",
        sha256="99d7e8eb12401ed278b793984423915411ea8df099e1795f9fefe254f513fe5e",
    ),
)

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


def load_bank(root: str | os.PathLike[str] | None = None, original: bool = False) -> TabularDataset:
    """Bank Marketing with 18 binary features; the target is a subscription to a term deposit.

    The rows are those of ``bank-full.csv``, 45,211. The last feature is a call longer than 180
    seconds, the median of the column. It is known only after the call, so the model describes an
    outcome rather than predicts it. Only 887 rows are distinct (see
    :func:`~captum_robust.datasets.distinct`).

    Args:
        root: Folder with the original file ``bank-full.csv`` (or ``.gz``), directly or in its
            subfolder ``bank``. None: the folder that the environment variable
            ``CAPTUM_ROBUST_DATA`` names, or the table of the package if the variable is not set or
            the file is missing. The number of rows of a file in a folder is not checked.
        original: Always read the original file: instead of the table of the package, the file in
            the user's cache, into which it is downloaded if necessary.

    Returns:
        The table: ``inputs`` (45211, 18) of 0 and 1, ``targets`` (45211,), 1 for a subscription.

    Raises:
        FileNotFoundError: If ``root`` does not contain the file, or if it cannot be downloaded;
            the message names the required file.
        ImportError: If the file must be downloaded and pooch (extra
            ``captum-robust[benchmark]``) is not installed.
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
    if root is None and not original and named_folder(ORIGINALS) is None:
        return _bundle.load(TABLE)
    return TABLE.dataset(read(root))


def read(root: str | os.PathLike[str] | None = None) -> NDArray[np.uint8]:
    """Return the bits of the original file, inputs and target side by side, (N, 19)."""
    (path,) = locate(ORIGINALS, root)
    rows = read_rows(path, delimiter=";")
    header = read_header(path, rows, TABLE.columns)
    return encode(path, header, rows, TABLE.columns)
