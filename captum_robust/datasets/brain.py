"""Brain networks of the ADHD-200 study, labelled by diagnosis or by scanner site."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from captum_robust.datasets._originals import Original, locate
from captum_robust.datasets.graphs import BrainGraphs

N_REGIONS = 190

ORIGINALS = (
    Original(
        names=("adhd200_cc200_fc10.npz",),
        folder="brain",
        url=None,
        sha256="c6b5b4659d92ff55fc332d84f4b5cabc3a885cbc994520023a7e87fe4c7c5075",
    ),
)

SOURCE = (
    "ADHD-200 Consortium, preprocessed, CC200 regions, strongest tenth of the correlations, "
    "https://github.com/joint-em/FTCS; non-commercial research use"
)


class _Subjects(NamedTuple):
    edges: NDArray[np.uint8]
    diagnoses: NDArray[np.uint8]
    sites: NDArray[np.str_]


def load_adhd200(
    root: str | os.PathLike[str] | None = None, site: str | None = None
) -> BrainGraphs:
    """Functional brain networks of ADHD-200; the target is the diagnosis of ADHD.

    520 subjects of six sites on the same 190 regions of the CC200 atlas. The edges are the
    strongest tenth of the correlations of a subject, 1,796. **A network can hardly learn the
    diagnosis**: the area under the curve is 0.45 to 0.61 for all models that were tried, so an
    explanation of such a network explains noise. Pooled sites are also confounded, because the
    proportion of patients differs between sites and the site can be recognised. These are not the
    graphs of the R2ET paper, which are not public; see ``docs/data.md``, and
    :func:`load_adhd200_site` for a task that can be learnt.

    Args:
        root: Folder with ``adhd200_cc200_fc10.npz``, directly or in its subfolder ``brain``. None:
            the folder that the environment variable ``CAPTUM_ROBUST_DATA`` names. The file is not
            downloaded because it is not published in this form; ``docs/data.md`` describes how to
            create it.
        site: Only subjects of one site: ``"KKI"``, ``"NYU"``, ``"NeuroIMAGE"``, ``"Peking_1"``,
            ``"Peking_2"`` or ``"Pittsburgh"``. None: all sites.

    Returns:
        Graphs of 0 and 1, ``edges`` (520, 17955), ``targets`` 1 for ADHD (190) and 0 for typically
        developing (330). Its name is ``"adhd200"``, or ``"adhd200-NYU"`` for a site.

    Raises:
        FileNotFoundError: If the file is missing; the message names the required file.
        ValueError: If the file is malformed, or has no subject of ``site``.

    Source:
        ADHD-200 Consortium (2012), Frontiers in Systems Neuroscience 6:62; atlas: Craddock and
        others (2012), Human Brain Mapping 33.
    """
    subjects = _subjects(root)
    there = np.full(len(subjects.sites), True) if site is None else _at(subjects, site)
    name = "adhd200" if site is None else f"adhd200-{site}"
    return _graphs(name, subjects.edges[there], subjects.diagnoses[there])


def load_adhd200_site(
    root: str | os.PathLike[str] | None = None, sites: tuple[str, str] = ("NYU", "Peking_1")
) -> BrainGraphs:
    """Functional brain networks of typically developing subjects; the target is the scanner site.

    The subjects of ADHD-200 without a diagnosis at two sites: New York (96) and Beijing (61).
    Scanner and protocol influence the correlations, so a network can learn the site and an
    explanation is meaningful. It is a technical task, not the ADHD result of the R2ET paper.

    Args:
        root: As in :func:`load_adhd200`.
        sites: Two sites: class 0 and class 1.

    Returns:
        Graphs of 0 and 1, ``edges`` (157, 17955). Its name is ``"adhd200-site"``.

    Raises:
        FileNotFoundError: As :func:`load_adhd200`.
        ValueError: As :func:`load_adhd200`; or if the two sites are the same.
    """
    if len(set(sites)) != 2:
        raise ValueError(f"sites: got {sites}, accepted: two different ones")
    subjects = _subjects(root)
    one, other = (_at(subjects, site) for site in sites)
    there = (one | other) & (subjects.diagnoses == 0)
    return _graphs("adhd200-site", subjects.edges[there], other[there])


def _graphs(name: str, edges: NDArray[np.uint8], classes: NDArray[np.generic]) -> BrainGraphs:
    return BrainGraphs(
        torch.from_numpy(edges.astype(np.float32)),
        torch.from_numpy(classes.astype(np.int64)),
        N_REGIONS,
        name,
        SOURCE,
    )


def _at(subjects: _Subjects, site: str) -> NDArray[np.bool_]:
    there: NDArray[np.bool_] = subjects.sites == site
    if not there.any():
        raise ValueError(
            f"site: got {site!r}, accepted: one of {', '.join(np.unique(subjects.sites))}"
        )
    return there


def _subjects(root: str | os.PathLike[str] | None) -> _Subjects:
    """Return the arrays of the file, checked."""
    (path,) = locate(ORIGINALS, root)
    assert isinstance(path, Path)  # the file is no member of a downloaded archive
    n_edges = N_REGIONS * (N_REGIONS - 1) // 2
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            subjects = _Subjects(archive["triu"], archive["y"], archive["site"])
            n_nodes = int(archive["n_nodes"])
    except (
        EOFError,
        KeyError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as e:
        raise ValueError(
            f"{path}: got a damaged file ({e}), accepted: one with triu, y, site and n_nodes"
        ) from e
    shapes = [part.shape for part in subjects]
    count = len(subjects.sites) if subjects.sites.ndim else 0
    if n_nodes != N_REGIONS or count < 1 or shapes != [(count, n_edges), (count,), (count,)]:
        raise ValueError(
            f"{path}: got triu, y and site of {shapes} for {n_nodes} nodes, accepted: "
            f"(N, {n_edges}), (N,) and (N,) for {N_REGIONS}"
        )
    for name, bits in (("triu", subjects.edges), ("y", subjects.diagnoses)):
        wrong = np.argwhere((bits != 0) & (bits != 1))
        if len(wrong):
            place = tuple(int(index) for index in wrong[0])
            raise ValueError(f"{path}, {name}{list(place)}: got {bits[place]}, accepted: 0 or 1")
    return subjects
