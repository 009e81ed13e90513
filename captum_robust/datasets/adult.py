"""UCI Adult with 28 binary features; the target is an income above 50,000 dollars a year."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from captum_robust.datasets import _bundle
from captum_robust.datasets._columns import levels, thresholds
from captum_robust.datasets._files import encode, read_rows
from captum_robust.datasets._originals import File, Original, locate, named_folder
from captum_robust.datasets.tabular import TabularDataset

ORIGINALS = tuple(
    Original(
        names=(name,),
        folder="adult",
        url=f"https://archive.ics.uci.edu/ml/machine-learning-databases/adult/{name}",
        sha256=sha256,
    )
    for name, sha256 in (
        ("adult.data", "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d"),
        ("adult.test", "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05"),
    )
)

# The files have no header; these are the columns of UCI's adult.names.
HEADER = (
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
)

TABLE = _bundle.Table(
    name="adult",
    file="adult28.npz",
    columns=(
        thresholds("age", {"age>=30": 30, "age>=45": 45}),
        thresholds("hours-per-week", {"hours-per-week>40": 41}),
        levels(
            "workclass",
            {
                "workclass=Government": ("Federal-gov", "Local-gov", "State-gov"),
                "workclass=Other/Unknown": ("?", "Never-worked", "Without-pay"),
                "workclass=Private": ("Private",),
                "workclass=Self-Employed": ("Self-emp-inc", "Self-emp-not-inc"),
            },
        ),
        levels(
            "education",
            {
                "education=Assoc": ("Assoc-acdm", "Assoc-voc"),
                "education=Bachelors": ("Bachelors",),
                "education=Doctorate": ("Doctorate",),
                "education=HS-grad": ("HS-grad",),
                "education=Masters": ("Masters",),
                "education=Prof-school": ("Prof-school",),
                "education=School": (
                    "Preschool",
                    "1st-4th",
                    "5th-6th",
                    "7th-8th",
                    "9th",
                    "10th",
                    "11th",
                    "12th",
                ),
                "education=Some-college": ("Some-college",),
            },
        ),
        levels(
            "marital-status",
            {
                "marital=Divorced": ("Divorced",),
                "marital=Married": (
                    "Married-AF-spouse",
                    "Married-civ-spouse",
                    "Married-spouse-absent",
                ),
                "marital=Separated": ("Separated",),
                "marital=Single": ("Never-married",),
                "marital=Widowed": ("Widowed",),
            },
        ),
        levels(
            "occupation",
            {
                "occupation=Blue-Collar": (
                    "Craft-repair",
                    "Farming-fishing",
                    "Handlers-cleaners",
                    "Machine-op-inspct",
                    "Transport-moving",
                ),
                "occupation=Other/Unknown": ("?", "Armed-Forces"),
                "occupation=Professional": ("Prof-specialty",),
                "occupation=Sales": ("Sales",),
                "occupation=Service": (
                    "Other-service",
                    "Priv-house-serv",
                    "Protective-serv",
                    "Tech-support",
                ),
                "occupation=White-Collar": ("Adm-clerical", "Exec-managerial"),
            },
        ),
        levels(
            "race",
            {"race=White": ("White",)},
            others=("Amer-Indian-Eskimo", "Asian-Pac-Islander", "Black", "Other"),
        ),
        levels("sex", {"gender=Male": ("Male",)}, others=("Female",)),
        # The labels of adult.test end in a full stop.
        levels("income", {"income>50K": (">50K", ">50K.")}, others=("<=50K", "<=50K.")),
    ),
    source=(
        "Adult, UCI Machine Learning Repository, https://doi.org/10.24432/C5XW20, CC BY 4.0; "
        "binarised by captum_robust"
    ),
    inputs_sha256="2b477abce7d873ac827843045db2cded5bb9ebee05a7551d905f1bb67a7de994",
    targets_sha256="fbb4fd549817ddafd149218cfb86db9307542d84adbaad5db363293f5c437fc4",
)


def load_adult(
    root: str | os.PathLike[str] | None = None, original: bool = False
) -> TabularDataset:
    """Adult (census income) with 28 binary features; the target is an income above 50,000 dollars.

    The rows are those of ``adult.data`` followed by those of ``adult.test``: 48,842, without
    omissions; the unknown value ``?`` is a separate level. The features are fixed thresholds and
    groups of levels; nothing is fitted. Only 4,879 rows are distinct (see
    :func:`~captum_robust.datasets.distinct`).

    Args:
        root: Folder with the original files ``adult.data`` and ``adult.test`` (or ``.gz``),
            directly or in its subfolder ``adult``. None: the folder that the environment variable
            ``CAPTUM_ROBUST_DATA`` names, or the table of the package if the variable is not set or
            both files are missing. The number of rows of files in a folder is not checked.
        original: Always read the original files: instead of the table of the package, those in the
            user's cache, into which they are downloaded if necessary.

    Returns:
        The table: ``inputs`` (48842, 28) of 0 and 1, ``targets`` (48842,), 1 for above 50,000.

    Raises:
        FileNotFoundError: If ``root`` does not contain the files, or if they cannot be downloaded;
            the message names the required files.
        ImportError: If the files must be downloaded and pooch (extra
            ``captum-robust[benchmark]``) is not installed.
        ValueError: If a file is malformed; the message names the file, the row and the column.

    Source:
        Adult, UCI Machine Learning Repository, https://doi.org/10.24432/C5XW20 (CC BY 4.0). The
        grouping of levels is our mapping, with the number of features of the R2ET paper
        (arXiv 2212.14106), which does not publish its own.

    Example:
        >>> adult = load_adult()
        >>> tuple(adult.inputs.shape), int(adult.targets.sum())
        ((48842, 28), 11687)
        >>> adult.feature_names[:3]
        ('age>=30', 'age>=45', 'hours-per-week>40')
    """
    if root is None and not original and named_folder(ORIGINALS) is None:
        return _bundle.load(TABLE)
    return TABLE.dataset(read(root))


def read(root: str | os.PathLike[str] | None = None) -> NDArray[np.uint8]:
    """Return the bits of the original files, inputs and target side by side, (N, 29)."""
    return np.concatenate([_read_file(path) for path in locate(ORIGINALS, root)])


def _read_file(path: File) -> NDArray[np.uint8]:
    rows = (row for row in read_rows(path, delimiter=",") if not _is_comment(*row))
    return encode(path, HEADER, rows, TABLE.columns)


def _is_comment(number: int, fields: list[str]) -> bool:
    # adult.test begins with "|1x3 Cross validator".
    return number == 1 and len(fields) == 1 and fields[0].startswith("|")
