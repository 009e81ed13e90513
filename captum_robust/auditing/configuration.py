"""The configuration of an audit, and its values where the caller gave none."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, TargetType, as_tuple
from captum_robust._utils.prediction import Decision
from captum_robust.noise import Norm
from captum_robust.ranking import check_k

__all__ = ["AuditConfig", "default_k", "default_names", "radii_of", "spreads_of"]

#: The default radius, as a fraction of the typical standard deviation of a feature.
_FRACTION_OF_SPREAD = 0.1
#: The radii that are tried, as fractions of the one that is given.
_FRACTIONS_OF_RADIUS = (0.25, 0.5, 1.0)


@dataclass(frozen=True)
class AuditConfig:
    """The configuration of an audit, which all its explanations share."""

    model: nn.Module
    inputs: Inputs
    target: TargetType
    additional_forward_args: Any
    k: int
    radii: tuple[float, ...]
    norm: Norm
    absolute: bool
    feature_mask: Inputs | None
    lower_bound: float | Tensor
    upper_bound: float | Tensor
    decision: Decision
    seed: int
    max_examples_per_batch: int | None

    @property
    def ranking(self) -> dict[str, Any]:
        """What is ranked, as arguments of attacks and metrics."""
        return {"k": self.k, "absolute": self.absolute, "feature_mask": self.feature_mask}

    @property
    def bounds(self) -> dict[str, Any]:
        """Smallest and largest values of a perturbed input, as arguments of attacks."""
        return {"lower_bound": self.lower_bound, "upper_bound": self.upper_bound}

    @property
    def prediction(self) -> dict[str, Any]:
        """The rule that keeps the prediction, as arguments of attacks and the comparator."""
        rule = self.decision
        return {"decision_func": rule.decision_func, "tolerance": rule.tolerance}

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Target and additional arguments, where there are any."""
        given = {
            "target": self.target, "additional_forward_args": self.additional_forward_args,
        }  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}

    @property
    def n_rows(self) -> int:
        """Number of examples."""
        return len(as_tuple(self.inputs)[0])

    @property
    def n_steps(self) -> int:
        """Number of steps of the progress bar for each explanation."""
        return len(self.radii) + 1


def default_k(k: int | None, n_features: int) -> int:
    """Return ``k`` itself, or 8, at most a third of the features."""
    if n_features < 2:
        raise ValueError(f"inputs must have at least two features to rank, got {n_features}")
    chosen = max(1, min(8, n_features // 3)) if k is None else k
    check_k(chosen, n_features)
    return chosen


def radii_of(radius: float | Sequence[float] | None, inputs: Inputs) -> tuple[float, ...]:
    """Return the radii in ascending order.

    They are those given, or a quarter, half and all of the one given. Default: a tenth of the
    typical standard deviation of a feature.
    """
    if radius is None:
        radius = float(f"{_FRACTION_OF_SPREAD * _typical_spread(inputs):.2g}")
    if isinstance(radius, int | float):
        given = [fraction * radius for fraction in _FRACTIONS_OF_RADIUS]
    else:
        given = list(radius)
    valid = all(isinstance(r, int | float) and 0 < r < math.inf for r in given)
    if not given or not valid:
        raise ValueError(f"radius must be positive and finite, one or several, got {radius}")
    return tuple(sorted({float(r) for r in given}))


def _typical_spread(inputs: Inputs) -> float:
    """Return the median over the features of their standard deviations; 1 if none varies."""
    spreads = spreads_of(inputs)
    return float(spreads.median()) if len(spreads) else 1.0


def spreads_of(inputs: Inputs) -> Tensor:
    """Return the standard deviations over the finite rows, of the features that vary."""
    tensors = as_tuple(inputs)
    rows = torch.cat([t.detach().double().cpu().flatten(1) for t in tensors], dim=1)
    rows = rows[rows.isfinite().all(dim=1)]
    if len(rows) < 2:
        return rows.new_empty(0)
    spreads = rows.std(dim=0)
    return spreads[spreads > 0]


def default_names(
    given: Sequence[str] | None,
    n_features: int,
    inputs: tuple[Tensor, ...],
    feature_mask: Inputs | None,
) -> tuple[str, ...]:
    """Return the names given, or the numbers of columns and groups, or the indices of entries."""
    if given is not None:
        if len(given) != n_features:
            raise ValueError(
                f"feature_names must hold {n_features} names, one per feature, got {len(given)}"
            )
        return tuple(map(str, given))
    shapes = [t.shape[1:] for t in inputs]
    if feature_mask is not None:
        return tuple(f"group {i}" for i in range(n_features))
    if len(shapes) > 1 or len(shapes[0]) < 2 or shapes[0].numel() != n_features:
        return tuple(f"feature {i}" for i in range(n_features))
    places = np.ndindex(*shapes[0])
    return tuple(f"[{', '.join(map(str, place))}]" for place in places)
