"""Objectives of attacks: one value per example, from perturbed and unperturbed scores."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust.metrics.location import center_of_mass
from captum_robust.ranking import (
    Gap,
    Pairs,
    check_k,
    check_k_prime,
    flatten_attributions,
    gap_sum,
    log_exp_gap_sum,
    pair_features,
    top_k_indices,
)
from captum_robust.robust._search.evaluator import Evaluator

__all__ = [
    "CenterOfMassObjective",
    "MSEObjective",
    "Objective",
    "RankingObjective",
    "TargetMapObjective",
    "TopKObjective",
    "shares",
]


class Objective(Protocol):
    """A function of the scores (N, n) and of the unperturbed scores (N, n) that returns (N,).

    The attack minimises the objective. Scores are the flattened, joined and grouped attributions.
    An objective may have three further members. With an attribute ``k``, the attack reports when a
    top-k feature is lost. A method ``against(reference)`` returns the objective as a function of
    the scores, so that terms of the reference are computed once. A method ``of(evaluator)`` returns
    the objective for the evaluator's examples and the shapes of their maps.
    """

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class RankingObjective:
    r"""Gaps between the reference's top-k features and the others (arXiv 2212.14106, Eq. 22).

    ``gap="linear"``: :math:`\sum (I_i - I_j)`. ``gap="exp"``: :math:`-\log \sum e^{-(I_i - I_j)}`,
    in which the smallest gaps have the largest weight, and which cannot overflow.
    """

    k: int
    pairs: Pairs = "all"
    gap: Gap = "linear"
    k_prime: int | None = None

    def __post_init__(self) -> None:
        if self.pairs not in get_args(Pairs):
            raise ValueError(f"pairs must be one of {get_args(Pairs)}, got {self.pairs!r}")
        if self.gap not in get_args(Gap):
            raise ValueError(f"gap must be one of {get_args(Gap)}, got {self.gap!r}")
        _check_positive(self.k)
        if self.k_prime is not None:
            check_k_prime(self.k_prime, self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return the gaps of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the objective for one reference, whose ranking is computed once."""
        check_k(self.k, reference.shape[1])
        features = pair_features(reference, self.k, self.pairs, self.k_prime)
        chosen = (reference, self.k, self.pairs, self.k_prime, features)
        if self.gap == "linear":
            return lambda scores: gap_sum(scores, *chosen)
        return lambda scores: -log_exp_gap_sum(scores, *chosen)


@dataclass(frozen=True)
class MSEObjective:
    r"""Minus the mean squared change of the map, :math:`-\frac{1}{n} \sum (I_i - I_i(x))^2`."""

    k: int | None = None

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return minus the mean squared change of each row of scores, (N,)."""
        return -(scores - reference).square().mean(dim=1)


@dataclass(frozen=True)
class TopKObjective:
    r"""The fraction :math:`\sum_{i \in top_k} I_i / \sum_j |I_j|` of the reference's top k.

    Source: Ghorbani, Abid, Zou 2019 (arXiv 1710.10547), Algorithm 1, on maps normalised as there.
    """

    k: int

    def __post_init__(self) -> None:
        _check_positive(self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return the fraction of each row of scores, (N,), between -1 and 1."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the objective for one reference, whose top k are computed once."""
        check_k(self.k, reference.shape[1])
        top = top_k_indices(reference, self.k)
        return lambda scores: shares(scores).gather(1, top).sum(dim=1)


@dataclass(frozen=True)
class CenterOfMassObjective:
    """Minus the distance between the centres of mass of the perturbed and the unperturbed map.

    The distance is that of :func:`captum_robust.metrics.center_of_mass_shift`. ``shapes`` are the
    shapes of the maps of one example; an attack sets them. Source: Ghorbani, Abid, Zou 2019 (arXiv
    1710.10547), Algorithm 1.
    """

    shapes: tuple[tuple[int, ...], ...] | None = None
    k: int | None = None

    def of(self, evaluator: Evaluator) -> "CenterOfMassObjective":
        """Return the objective for the shapes of the evaluator's maps, unless shapes were given."""
        if self.shapes is not None:
            return self
        return CenterOfMassObjective(evaluator.map_shapes, self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return minus the distance for each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the objective for one reference, whose centre is computed once."""
        shapes = self.shapes or ((reference.shape[1],),)
        start = _centres(reference, shapes)
        return lambda scores: -(_centres(scores, shapes) - start).norm(dim=1)


def _centres(scores: Tensor, shapes: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return the centres of mass of the maps that the scores were flattened from; (N, D)."""
    parts = scores.split([math.prod(shape) for shape in shapes], dim=1)
    maps = (p.view(-1, *shape) for p, shape in zip(parts, shapes, strict=True))
    return torch.cat([center_of_mass(m) for m in maps], dim=1)


@dataclass(frozen=True, eq=False)
class TargetMapObjective:
    r"""Squared distance of the map from a target map, relative to that of the unperturbed map.

    Both maps are divided by the sum of their magnitudes. The value is 1 for the unperturbed map,
    and 0 where the map is the target up to a factor. ``target_map`` has the form of the maps, with
    one row for all examples or one row per example. Source: Dombrowski et al. 2019 (arXiv
    1906.07983), equation (4), divided by its value for the unperturbed map so that values of
    different maps can be compared.
    """

    target_map: Inputs
    k: int | None = None

    def of(self, evaluator: Evaluator) -> "TargetMapObjective":
        """Return the objective for the evaluator's examples, with their target maps flattened."""
        targets = as_tuple(self.target_map, "target_map")
        n_examples = len(as_tuple(evaluator.given)[0])
        found = tuple(tuple(t.shape[1:]) for t in targets)
        if found != evaluator.map_shapes or len(targets[0]) not in (1, n_examples):
            raise ValueError(
                f"target_map must have the shapes {evaluator.map_shapes} of the attributions "
                f"behind a dimension of 1 or {n_examples}, got {[tuple(t.shape) for t in targets]}"
            )
        rows = torch.arange(n_examples) if evaluator.rows is None else evaluator.rows
        own = (t.detach().expand(n_examples, *t.shape[1:])[rows.to(t.device)] for t in targets)
        flat = evaluator.flattened(format_like(self.target_map, tuple(own)))
        return TargetMapObjective(flat, self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Return the relative distance of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the objective for one reference, whose distance is computed once."""
        target = shares(flatten_attributions(self.target_map).to(reference))
        start = (shares(reference) - target).square().sum(dim=1)
        start = start.clamp_min(torch.finfo(start.dtype).tiny)
        return lambda scores: (shares(scores) - target).square().sum(dim=1) / start


def shares(scores: Tensor) -> Tensor:
    """Divide every row by the sum of its magnitudes; rows of zeros stay zero.

    Rows are scaled by their largest magnitude first, against overflow; the derivative is the same.
    """
    magnitudes = scores.detach().abs().amax(dim=1, keepdim=True)
    scaled = scores / magnitudes.clamp_min(torch.finfo(scores.dtype).tiny)
    return scaled / scaled.abs().sum(dim=1, keepdim=True).clamp_min(0.5)


def _check_positive(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k}")
