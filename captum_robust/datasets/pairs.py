"""Pairs of inputs for a Siamese network; the target is whether the classes are equal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.datasets.graphs import BrainGraphs

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of inputs; the label is 1 if both have the same class.

    Attributes:
        first: The first members, shape (N, ...).
        second: The second members, same shape.
        targets: 1 where the classes are the same, else 0, int64, shape (N,).
        classes_first: Classes of the first members, int64, shape (N,).
        classes_second: Classes of the second members, int64, shape (N,).
        name: Short name, such as ``"mnist-pairs-train"``.
        source: Origin and licence of the members.

    Raises:
        ValueError: If the shapes do not agree, or a target contradicts the classes.

    Example:
        >>> classes = torch.tensor([0, 0]), torch.tensor([0, 1])
        >>> pairs = Pairs(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([1, 0]), *classes)
        >>> len(pairs), len(pairs.subset(torch.tensor([1])))
        (2, 1)
    """

    first: Tensor
    second: Tensor
    targets: Tensor
    classes_first: Tensor
    classes_second: Tensor
    name: str = "pairs"
    source: str = ""

    def __post_init__(self) -> None:
        if self.first.shape != self.second.shape or self.first.ndim < 1:
            raise ValueError(
                f"second: got shape {tuple(self.second.shape)}, accepted: that of first, "
                f"{tuple(self.first.shape)}"
            )
        for name in ("targets", "classes_first", "classes_second"):
            labels = getattr(self, name)
            if labels.shape != (len(self),):
                raise ValueError(
                    f"{name}: got shape {tuple(labels.shape)}, accepted: ({len(self)},)"
                )
        same = (self.classes_first == self.classes_second).to(self.targets.dtype)
        wrong = (self.targets != same).nonzero()
        if len(wrong):
            raise ValueError(
                f"targets: got {self.targets[wrong[0, 0]]} for pair {wrong[0, 0]}, accepted: 1 "
                "where the classes are the same, else 0"
            )

    @classmethod
    def of(
        cls, name: str, inputs: Tensor, classes: Tensor, first: Rows, second: Rows, source: str
    ) -> Pairs:
        """Return pairs of rows of ``inputs``."""
        one, other = torch.from_numpy(first), torch.from_numpy(second)
        same = (classes[one] == classes[other]).long()
        return cls(inputs[one], inputs[other], same, classes[one], classes[other], name, source)

    def __len__(self) -> int:
        return len(self.first)

    @property
    def inputs(self) -> tuple[Tensor, Tensor]:
        """Both members, as several inputs in Captum."""
        return self.first, self.second

    def subset(self, rows: Tensor) -> Pairs:
        """Return the pairs with the given indices, or where a mask is true."""
        parts = ("first", "second", "targets", "classes_first", "classes_second")
        return replace(self, **{part: getattr(self, part)[rows] for part in parts})


class PairSplit(NamedTuple):
    """Pairs for training, validation and testing.

    Attributes:
        train: Training pairs.
        validation: Validation pairs.
        test: Test pairs.
    """

    train: Pairs
    validation: Pairs
    test: Pairs


def pair_graphs(
    graphs: BrainGraphs, fold: int, n_folds: int = 5, partners: int = 5, seed: int = 0
) -> PairSplit:
    """Return pairs of graphs for cross-validation as in the R2ET paper.

    The graphs are divided into ``n_folds`` parts with the same proportions of classes. For fold k,
    part k is the test part, part k + 1 (modulo ``n_folds``) the validation part, and the other
    parts are for training. Training pairs join each training graph with ``partners`` other training
    graphs of its class and the same number of other classes. Each test or validation graph is the
    first member of two pairs, with one training graph of its class and one of another class, as a
    new patient is compared with a database. Half of all pairs have the same class.

    Args:
        graphs: Graphs of two classes or more.
        fold: Number of the fold, 0 to ``n_folds`` - 1.
        n_folds: Number of parts, 3 or more; the paper uses 5.
        partners: Number of training pairs of a training graph with its own class, 1 or more; all
            graphs of the class if it has fewer.
        seed: Seed of the parts and of the pairs, 0 or more; the parts are the same for all folds.

    Returns:
        The named tuple ``train``, ``validation``, ``test``, with members of shape (N, m).

    Raises:
        ValueError: If a number is out of its range, or a class has fewer than ``n_folds`` graphs.

    Source:
        R2ET, arXiv 2212.14106, experiments on brain networks.

    Example:
        >>> from captum_robust.datasets import synthetic_connectomes
        >>> parts = pair_graphs(synthetic_connectomes(n_graphs=20, n_regions=10), fold=0)
        >>> [len(part) for part in parts]
        [120, 8, 8]
    """
    for name, value, least in (("n_folds", n_folds, 3), ("partners", partners, 1)):
        if value < least:
            raise ValueError(f"{name}: got {value}, accepted: {least} or more")
    if not 0 <= fold < n_folds:
        raise ValueError(f"fold: got {fold}, accepted: 0 to {n_folds - 1}")
    classes = graphs.targets.numpy()
    folds = _folds(classes, n_folds, seed)
    test, validation = folds == fold, folds == (fold + 1) % n_folds
    training = np.flatnonzero(~test & ~validation)
    parts = []
    for number, (name, rows, count) in enumerate(
        (
            ("train", training, partners),
            ("validation", np.flatnonzero(validation), 1),
            ("test", np.flatnonzero(test), 1),
        )
    ):
        generator = np.random.default_rng([seed, fold, number])
        partners_of = [_partners(row, classes, training, count, generator) for row in rows]
        first = np.repeat(rows, [len(drawn) for drawn in partners_of])
        second = np.concatenate(partners_of)
        parts.append(
            Pairs.of(
                f"{graphs.name}-{name}", graphs.edges, graphs.targets, first, second, graphs.source
            )
        )
    return PairSplit(*parts)


def draw_pairs(classes: Rows, n_pairs: int, generator: np.random.Generator) -> tuple[Rows, Rows]:
    """Draw distinct ordered pairs of rows of two classes, half with the same class, shuffled."""
    groups = [np.flatnonzero(classes == c) for c in range(2)]
    quarters = [(n_pairs + quarter) // 4 for quarter in range(4)]
    first, second = [], []
    for count, (one, other) in zip(quarters, ((0, 1), (0, 0), (1, 0), (1, 1)), strict=True):
        members, partners = groups[one], groups[other]
        choices = len(partners) - (one == other)  # no row is its own partner
        if n_pairs < 1 or count > len(members) * choices:
            raise ValueError(
                f"n_pairs: got {n_pairs}, accepted: 1 to about {4 * len(members) * choices}, the "
                "number of different pairs"
            )
        member, partner = np.divmod(
            generator.choice(len(members) * choices, count, replace=False), choices
        )
        partner = partner + ((one == other) & (partner >= member))
        first.append(members[member])
        second.append(partners[partner])
    order = generator.permutation(n_pairs)
    return np.concatenate(first)[order], np.concatenate(second)[order]


def _folds(classes: Rows, n_folds: int, seed: int) -> Rows:
    """Return the part of each row; the classes are dealt out one after the other."""
    generator = np.random.default_rng(seed)
    dealt = []
    for c in np.unique(classes):
        rows = np.flatnonzero(classes == c)
        if len(rows) < n_folds:
            raise ValueError(
                f"graphs: got {len(rows)} of class {c}, accepted: {n_folds} or more, one for each "
                "fold"
            )
        dealt.append(generator.permutation(rows))
    folds = np.empty(len(classes), dtype=np.int64)
    folds[np.concatenate(dealt)] = np.arange(len(classes)) % n_folds
    return folds


def _partners(
    row: np.int64, classes: Rows, training: Rows, count: int, generator: np.random.Generator
) -> Rows:
    """Draw other training rows of the class of ``row``, and as many of other classes."""
    others = training[training != row]
    same = classes[others] == classes[row]
    count = min(count, same.sum(), (~same).sum())
    drawn = [generator.choice(others[kind], count, replace=False) for kind in (same, ~same)]
    return np.concatenate(drawn)
