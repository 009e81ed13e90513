"""A data set of the study: its loader, its network, its methods and its settings."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from captum_robust.benchmark.study.method import Method
from captum_robust.benchmark.study.methods import METHODS
from captum_robust.benchmark.study.settings import TABULAR, EvaluationSettings
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
    """A data set that was loaded.

    Attributes:
        n_features: number of features of a row.
        parts: returns the three parts for a seed.
    """

    n_features: int
    parts: Callable[[int], Parts]


def _nothing(model: nn.Module, data: Examples) -> None:
    """Leave a network as training made it."""


@dataclass(frozen=True)
class Task:
    """A data set, with the network for it, its training and its evaluation.

    Attributes:
        load: loads the data from a folder, or from the default places for None.
        n_epochs: passes over the training rows.
        batch_size: number of rows of a step.
        learning_rate: learning rate at the start of the training.
        network: makes the network, from the number of features and an activation.
        finish: trains the parts of the network that the loss does not reach.
        methods: the training methods for this data set, by name.
        settings: how its explanations are attacked and measured.
        k: sizes of the top set: first that for which models are trained, then others to attack.
        rows: number of test rows that are attacked, number of them for costly explanations, and
            number of validation rows.
    """

    load: Callable[[Root], Data]
    n_epochs: int
    batch_size: int
    learning_rate: float = 3e-3
    network: Callable[..., nn.Module] = TabularMLP
    finish: Callable[[Any, Any], None] = _nothing
    methods: Mapping[str, Method] = field(default_factory=lambda: METHODS)
    settings: EvaluationSettings = TABULAR
    k: tuple[int, ...] = (8, 5, 2)
    rows: tuple[int, int, int] = (150, 25, 100)
