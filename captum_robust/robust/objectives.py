"""What an attack minimises: a number an example, from the scores of now and of the start."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, like
from captum_robust.metrics.location import center_of_mass
from captum_robust.ranking import (
    Gap,
    Pairs,
    check_k,
    flatten_attributions,
    gap_sum,
    log_exp_gap_sum,
    pair_features,
    top_k_indices,
)
from captum_robust.robust._search.evaluator import Explanation

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
    """Any function of the scores (N, n) and of the unperturbed scores (N, n) that returns (N,).

    The attack minimises it. Scores are the attributions, flattened, joined and grouped. An
    objective with an attribute ``k`` lets the attack report when a top-k feature is lost; one with
    a method ``against(reference)`` that returns a function of the scores is prepared once; and one
    that needs to know whose maps the scores are has a method ``of(explanation)`` that returns the
    objective for these examples and the shapes of their maps.
    """

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class RankingObjective:
    r"""The gaps between the top-k features of the start and the others (arXiv 2212.14106, Eq. 22).

    ``gap="linear"``: :math:`\sum (I_i - I_j)`. ``gap="exp"``: :math:`-\log \sum e^{-(I_i - I_j)}`,
    which looks at the smallest gaps first and cannot overflow.
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
        if self.k_prime is not None and not 1 <= self.k_prime <= self.k:
            raise ValueError(f"k_prime must lie in 1 … k = {self.k}, got {self.k_prime}")

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """The gaps of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose ranking is found once."""
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
        """Minus the mean squared change of each row of scores, (N,)."""
        return -(scores - reference).square().mean(dim=1)


@dataclass(frozen=True)
class TopKObjective:
    r"""The share :math:`\sum_{i \in top_k} I_i / \sum_j |I_j|` of the start's top k features.

    Source: Ghorbani, Abid, Zou 2019 (arXiv 1710.10547), Algorithm 1, on maps normalised as there.
    """

    k: int

    def __post_init__(self) -> None:
        _check_positive(self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """The share of each row of scores, (N,), between -1 and 1."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose top k are found once."""
        check_k(self.k, reference.shape[1])
        top = top_k_indices(reference, self.k)
        return lambda scores: shares(scores).gather(1, top).sum(dim=1)


@dataclass(frozen=True)
class CenterOfMassObjective:
    """Minus the distance in positions between the centres of mass of the map of now and the start.

    That of :func:`captum_robust.metrics.center_of_mass_shift`. ``shapes``, without the dimension
    of the examples, is how the scores lie on the maps; an attack finds it out. Source: Ghorbani,
    Abid, Zou 2019 (arXiv 1710.10547), Algorithm 1.
    """

    shapes: tuple[tuple[int, ...], ...] | None = None
    k: int | None = None

    def of(self, explanation: Explanation) -> "CenterOfMassObjective":
        """The objective for maps of these shapes, unless others were given."""
        if self.shapes is not None:
            return self
        return CenterOfMassObjective(explanation.map_shapes, self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Minus the distance for each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose centre is found once."""
        shapes = self.shapes or ((reference.shape[1],),)
        start = _centres(reference, shapes)
        return lambda scores: -(_centres(scores, shapes) - start).norm(dim=1)


def _centres(scores: Tensor, shapes: tuple[tuple[int, ...], ...]) -> Tensor:
    """The centres of mass of the maps that the scores are, side by side."""
    parts = scores.split([math.prod(shape) for shape in shapes], dim=1)
    maps = (p.view(-1, *shape) for p, shape in zip(parts, shapes, strict=True))
    return torch.cat([center_of_mass(m) for m in maps], dim=1)


@dataclass(frozen=True, eq=False)
class TargetMapObjective:
    r"""Squared distance of the map from a target, both as shares, over that of the start's map.

    1 at the start, 0 where the map is the target up to a factor. ``target_map`` has the form of
    the maps, with one row for all examples or one for each. Source: Dombrowski et al. 2019 (arXiv
    1906.07983), equation (4), divided by its first value so that it reads alike on all maps.
    """

    target_map: Inputs
    k: int | None = None

    def of(self, explanation: Explanation) -> "TargetMapObjective":
        """The objective for these examples: their target, flattened and grouped as their maps."""
        targets = as_tuple(self.target_map, "target_map")
        n_examples = len(as_tuple(explanation.given)[0])
        found = tuple(tuple(t.shape[1:]) for t in targets)
        if found != explanation.map_shapes or len(targets[0]) not in (1, n_examples):
            raise ValueError(
                f"target_map must have the shapes {explanation.map_shapes} of the attributions "
                f"behind a dimension of 1 or {n_examples}, got {[tuple(t.shape) for t in targets]}"
            )
        rows = torch.arange(n_examples) if explanation.rows is None else explanation.rows
        own = (t.detach().expand(n_examples, *t.shape[1:])[rows.to(t.device)] for t in targets)
        flat = explanation.flattened(like(self.target_map, tuple(own)))
        return TargetMapObjective(flat, self.k)

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """The relative distance of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose distance is found once."""
        target = shares(flatten_attributions(self.target_map).to(reference))
        start = (shares(reference) - target).square().sum(dim=1)
        start = start.clamp_min(torch.finfo(start.dtype).tiny)
        return lambda scores: (shares(scores) - target).square().sum(dim=1) / start


def shares(scores: Tensor) -> Tensor:
    """Every row divided by the sum of its magnitudes; rows of zeros stay zero.

    Scaled first by the largest, which neither overflows nor changes the derivative.
    """
    magnitudes = scores.detach().abs().amax(dim=1, keepdim=True)
    scaled = scores / magnitudes.clamp_min(torch.finfo(scores.dtype).tiny)
    return scaled / scaled.abs().sum(dim=1, keepdim=True).clamp_min(0.5)


def _check_positive(k: int) -> None:
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be an integer of at least 1, got {k}")
