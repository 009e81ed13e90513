"""ProPublica's COMPAS table with 16 binary features; the target is the score or recidivism."""

from __future__ import annotations

import os
from typing import Literal, get_args

import numpy as np
import torch

from captum_robust.datasets._columns import Bits, Column, ceilings, levels, thresholds, whole_number
from captum_robust.datasets._files import encode, read_header, read_rows
from captum_robust.datasets._originals import Original, locate
from captum_robust.datasets.tabular import TabularDataset

Label = Literal["score", "two_year_recid"]

ORIGINALS = (
    Original(
        # The second is a copy without the columns that identify people.
        names=("compas-scores-two-years.csv", "compas-scores-two-years.anon.csv"),
        folder="compas",
        url=(
            "https://raw.githubusercontent.com/propublica/compas-analysis/"
            "bafff5da3f2e45eca6c2d5055faad269defd135a/compas-scores-two-years.csv"
        ),
        sha256="c451db85908b2f7fef1d83203bedf6b71ecda0d5af468d82ae62178f91d0cc7d",
    ),
)


def _within_30_days(text: str) -> Bits | None:
    if not text:  # no arrest on record
        return (0,)
    days = whole_number(text.removeprefix("-"))
    return None if days is None else (int(days <= 30),)


# ProPublica's filter: a row is kept where all four bits are set.
FILTER = (
    Column(
        "days_b_screening_arrest",
        ("within 30 days",),
        "a whole number in at most 9 digits, or nothing",
        _within_30_days,
    ),
    levels("is_recid", {"recidivism known": ("0", "1")}, others=("-1",)),
    levels("c_charge_degree", {"not a traffic offence": ("F", "M")}, others=("O",)),
    levels("score_text", {"scored": ("Low", "Medium", "High")}, others=("N/A", "")),
)
PERSON = (
    levels("sex", {"sex=Male": ("Male",)}, others=("Female",)),
    levels("c_charge_degree", {"charge=Felony": ("F",)}, others=("M", "O")),
)
# The three become one feature: at least one of them is set.
JUVENILE = (
    thresholds("juv_fel_count", {"felonies>0": 1}),
    thresholds("juv_misd_count", {"misdemeanours>0": 1}),
    thresholds("juv_other_count", {"others>0": 1}),
)
HISTORY = (
    ceilings("age", {f"age<{age}": age for age in (25, 30, 35, 45, 55)}),
    thresholds("priors_count", {f"priors>={count}": count for count in (1, 2, 4, 7, 11)}),
    levels(
        "race",
        {
            "race=African-American": ("African-American",),
            "race=Caucasian": ("Caucasian",),
            "race=Hispanic": ("Hispanic",),
        },
        others=("Asian", "Native American", "Other"),
    ),
)
LABELS = (
    levels("score_text", {"score": ("Medium", "High")}, others=("Low", "N/A", "")),
    levels("two_year_recid", {"two_year_recid": ("1",)}, others=("0",)),
)
GROUPS = (FILTER, PERSON, JUVENILE, HISTORY, LABELS)

FEATURE_NAMES = (
    *(feature for column in PERSON for feature in column.features),
    "juvenile offences>0",
    *(feature for column in HISTORY for feature in column.features),
)


def load_compas(
    root: str | os.PathLike[str] | None = None, label: Label = "score"
) -> TabularDataset:
    r"""COMPAS (risk of recidivism) with 16 binary features; target: the score or recidivism.

    The rows are those of ProPublica's two-year file that pass its filter: an arrest within 30 days
    of the screening, known recidivism, more than a traffic offence, and a score; 6,172 of 7,214.
    The features are fixed thresholds and levels; nothing is fitted. Only 599 rows are distinct (see
    :func:`~captum_robust.datasets.distinct`). The table is about real people and has no licence, so
    it is not part of the package.

    Args:
        root: Folder with ``compas-scores-two-years.csv``, or with
            ``compas-scores-two-years.anon.csv``, a copy without the columns that identify people
            (or ``.gz``), directly or in its subfolder ``compas``. None: the folder that the
            environment variable ``CAPTUM_ROBUST_DATA`` names, or the user's cache if the variable
            is not set or the file is missing; the file is downloaded into the cache if necessary.
            The number of rows of a file in a folder is not checked.
        label: ``"score"``: a COMPAS score of Medium or High; ``"two_year_recid"``: recidivism
            within two years, which these features predict less well (AUC 0.73 and 0.83).

    Returns:
        The table: ``inputs`` (6172, 16) of 0 and 1, ``targets`` (6172,), of which 2,751 (score) or
        2,809 (recidivism) are 1. Its name is ``"compas"`` or ``"compas-two-year-recid"``.

    Raises:
        FileNotFoundError: If ``root`` does not contain the file, or if it cannot be downloaded;
            the message names the required file.
        ImportError: If the file must be downloaded and pooch (extra
            ``captum-robust[benchmark]``) is not installed.
        ValueError: If ``label`` is unknown, or the file is malformed; the message names the file,
            the row and the column.

    Source:
        Larson, Mattu, Kirchner and Angwin (2016), How We Analyzed the COMPAS Recidivism Algorithm,
        ProPublica, https://github.com/propublica/compas-analysis. The choice of features is our
        mapping, with the number of features of the R2ET paper (arXiv 2212.14106), which does not
        publish its own.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> person = {"sex": "Male", "age": "34", "race": "Other", "priors_count": "4"}
        >>> record = {"juv_fel_count": "0", "juv_misd_count": "0", "juv_other_count": "0"}
        >>> case = {"days_b_screening_arrest": "-1", "is_recid": "1", "c_charge_degree": "F"}
        >>> answers = {"score_text": "Low", "two_year_recid": "1"}
        >>> row = person | record | case | answers
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "compas-scores-two-years.csv")
        ...     _ = file.write_text(",".join(row) + "\n" + ",".join(row.values()))
        ...     compas = load_compas(folder)
        >>> compas.feature_names[:3], compas.inputs[0, :3], compas.targets
        (('sex=Male', 'charge=Felony', 'juvenile offences>0'), tensor([1., 1., 0.]), tensor([0]))
    """
    if label not in get_args(Label):
        raise ValueError(f"label: got {label!r}, accepted: {' or '.join(get_args(Label))}")
    (path,) = locate(ORIGINALS, root)
    rows = read_rows(path, delimiter=",")
    columns = [column for group in GROUPS for column in group]
    # The original has the column priors_count twice, with the same numbers.
    header = read_header(path, rows, columns, repeated=("priors_count",))
    bits = encode(path, header, rows, columns)
    ends = np.cumsum([sum(len(column.features) for column in group) for group in GROUPS])
    kept, person, juvenile, history, labels = np.split(bits, ends[:-1], axis=1)
    table = np.hstack([person, juvenile.max(axis=1, keepdims=True), history, labels])
    table = table[kept.all(axis=1)]
    if not len(table):
        raise ValueError(f"{path}: got no rows that pass ProPublica's filter, accepted: some")
    return TabularDataset(
        name="compas" if label == "score" else "compas-two-year-recid",
        inputs=torch.from_numpy(table[:, :-2].astype(np.float32)),
        targets=torch.from_numpy(table[:, -2 if label == "score" else -1].astype(np.int64)),
        feature_names=FEATURE_NAMES,
        source=(
            "COMPAS, ProPublica, https://github.com/propublica/compas-analysis; public records, "
            "no licence stated; binarised by captum_robust"
        ),
    )
