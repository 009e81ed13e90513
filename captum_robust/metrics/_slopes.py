"""Gradient scores of some examples, and how fast they change in balls around them."""

from typing import NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust._utils.derivatives import differentiate
from captum_robust._utils.random import example_generators
from captum_robust.curvature import flatten, hessian_operator, unflatten
from captum_robust.metrics._score_gradient import ScoreGradient
from captum_robust.noise import UniformNoise
from captum_robust.ranking import flatten_attributions, invalid_rows

__all__ = ["ScoreSlopes", "slopes_around"]


class ScoreSlopes(NamedTuple):
    """The scores of E examples and their slopes."""

    rows: Tensor  #: indices of the examples in the batch, (E,)
    radius: Tensor  #: radii of the balls, (E,)
    scores: Tensor  #: (E, n)
    slopes: Tensor  #: gradient of each score by all m input features, (E, n, m)
    kinks: Tensor  #: rise of each score that no gradient shows, see ``_kinks``; (E, n)
    lipschitz: Tensor  #: largest slope of each score at the points of the ball, (E, n)
    broken: Tensor  #: examples without a ranking, (E,) bool


def slopes_around(
    gradient: ScoreGradient,
    centre: tuple[Tensor, ...],
    rows: Tensor,
    radius: Tensor,
    n_samples: int,
    absolute: bool,
    feature_mask: Inputs | None,
) -> ScoreSlopes:
    """Evaluate the examples ``rows`` and points drawn uniformly from balls of the radii (E,)."""
    scores, slopes, kinks = _scores_at(gradient, centre, rows, absolute, feature_mask)
    lipschitz = slopes.norm(dim=2) + kinks
    flat = flatten(centre)
    broken = invalid_rows(scores) | ~flat.isfinite().all(dim=1)
    generators = example_generators(centre, gradient.seed)
    directions = torch.stack(
        [
            UniformNoise("L2").directions(n_samples, row, generator)
            for row, generator in zip(flat, generators, strict=True)
        ]
    )
    for direction in directions.to(flat).unbind(dim=1):
        points = unflatten(flat + radius[:, None].to(flat) * direction, centre)
        there, slope, kink = _scores_at(gradient, points, rows, absolute, feature_mask)
        lipschitz = torch.maximum(lipschitz, slope.norm(dim=2) + kink)
        broken = broken | ~there.isfinite().all(dim=1)
    broken = broken | ~lipschitz.isfinite().all(dim=1)
    return ScoreSlopes(rows, radius, scores, slopes, kinks, lipschitz, broken)


def _scores_at(
    gradient: ScoreGradient,
    points: tuple[Tensor, ...],
    rows: Tensor,
    absolute: bool,
    feature_mask: Inputs | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scores, slopes and kinks at some points."""
    leaves, gradients = gradient.at(points, rows)
    with torch.enable_grad():
        scores = flatten_attributions(gradients, feature_mask, absolute)
        totals = scores.sum(dim=0).unbind()
    slopes = torch.stack([_slope(total, leaves) for total in totals], dim=1)
    wide = scores.detach().to(slopes)
    kinks = _kinks(leaves, gradients, feature_mask) if absolute else torch.zeros_like(wide)
    return wide, slopes, kinks.to(wide)


def _slope(total: Tensor, leaves: tuple[Tensor, ...]) -> Tensor:
    """Return the gradient (E, m) of one score of each example, given the sum over examples."""
    if not total.requires_grad:
        return torch.zeros_like(flatten(leaves))
    found = differentiate([total], leaves, retain_graph=True)
    parts = zip(leaves, found, strict=True)
    return flatten(tuple(torch.zeros_like(x) if g is None else g for x, g in parts))


def _kinks(
    leaves: tuple[Tensor, ...], gradients: tuple[Tensor, ...], feature_mask: Inputs | None
) -> Tensor:
    """Return how fast the magnitude of a derivative that is zero can rise; (E, n).

    It rises whichever way the input moves, while its gradient by autograd is zero.
    """
    flat = flatten(gradients)
    zero = flat == 0
    rates = torch.zeros_like(flat)
    product = hessian_operator(leaves, gradients)
    for feature in zero.any(dim=0).nonzero().flatten().tolist():
        unit = torch.zeros_like(flat)
        unit[:, feature] = 1
        rates[:, feature] = product(unit).norm(dim=1)
    return flatten_attributions(unflatten(rates.where(zero, 0), gradients), feature_mask)
