"""What the study must know of a data set."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from captum_robust.benchmark.study.methods import METHODS, Method
from captum_robust.benchmark.study.settings import TABULAR, Terms
from captum_robust.models import TabularMLP

__all__ = ["Data", "Examples", "Parts", "Root", "Task"]

Root = str | os.PathLike[str] | None


class Examples(Protocol):
    """Rows of features and their classes, 0 or 1."""

    @property
    def inputs(self) -> Tensor:
        """Features, (N, n)."""

    @property
    def targets(self) -> Tensor:
        """Classes, (N,)."""

    def __len__(self) -> int: ...


class Parts(NamedTuple):
    """The three parts of a data set."""

    train: Examples
    validation: Examples
    test: Examples


class Data(NamedTuple):
    """A data set that was read.

    Attributes:
        n_features: width of a row.
        parts: its three parts, for a seed.
    """

    n_features: int
    parts: Callable[[int], Parts]


def _nothing(model: nn.Module, data: Examples) -> None:
    """A network that is whole once it is trained."""


@dataclass(frozen=True)
class Task:
    """A data set, the network for it, and its training and explanation.

    Attributes:
        load: reads the data, from a folder or wherever they lie.
        n_epochs: passes over the training rows.
        batch_size: rows of a step.
        learning_rate: with which the training begins.
        network: makes the network, of the width of a row and an activation.
        finish: trains what the loss does not, after everything else.
        methods: the training methods and the grids for this data set, by name.
        terms: how its explanations are attacked and measured.
        k: sizes of the top set: the one that is trained for, and others that are attacked.
        rows: how many test rows are attacked, how many of them where that is costly, and how many
            validation rows.
    """

    load: Callable[[Root], Data]
    n_epochs: int
    batch_size: int
    learning_rate: float = 3e-3
    network: Callable[..., nn.Module] = TabularMLP
    finish: Callable[[Any, Any], None] = _nothing
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    terms: Terms = TABULAR
    k: tuple[int, ...] = (8, 5, 2)
    rows: tuple[int, int, int] = (150, 25, 100)
