"""Three ways to the gradient of an objective of a map: autograd, two saliencies, or none."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust._utils.checks import wide_dtype
from captum_robust.noise import Norm
from captum_robust.robust._search.evaluator import Explanation
from captum_robust.robust._search.region import per_example

__all__ = [
    "Slope",
    "as_rows",
    "autograd_gradient",
    "combination",
    "finite_difference_gradient",
    "spsa_gradient",
]


class Slope(NamedTuple):
    """A gradient in two parts, each in the range of its dtype: ``direction`` times ``factor``.

    Attributes:
        direction: one tensor for each of the points, (N, …).
        factor: one number an example, (N,), never negative.
    """

    direction: tuple[Tensor, ...]
    factor: Tensor


def autograd_gradient(
    loss: Tensor, scores: list[Tensor], points: tuple[Tensor, ...], retain_graph: bool = False
) -> Slope:
    """Gradient of losses (N,) of ``scores``; zero where the graph does not reach.

    In two parts, each example scaled in between: the slope of a sum over many pairs is a number
    that half precision does not hold.
    """
    if not loss.requires_grad:
        return Slope(tuple(torch.zeros_like(p) for p in points), torch.ones_like(loss))
    keep: dict[str, Any] = {"allow_unused": True, "retain_graph": retain_graph or None}
    slopes = _or_zeros(torch.autograd.grad(loss.sum(), scores, **keep), scores)
    largest = torch.cat([s.abs().reshape(len(s), -1) for s in slopes], dim=1).amax(dim=1)
    unit = [s / per_example(largest.clamp_min(torch.finfo(s.dtype).tiny), s) for s in slopes]
    return Slope(_or_zeros(torch.autograd.grad(scores, points, unit, **keep), points), largest)


def _or_zeros(
    gradients: tuple[Tensor | None, ...], tensors: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros_like(t) if g is None else g for g, t in zip(gradients, tensors, strict=True)
    )


def finite_difference_gradient(
    explanation: Explanation,
    maps: tuple[Tensor, ...],
    loss: Callable[[Tensor], Tensor],
    points: tuple[Tensor, ...],
    radius: Tensor,
    norm: Norm,
    probe: float,
) -> Slope:
    r"""Gradient by the difference of two saliencies, of which ``maps``, signed, is the first.

    With u the derivative of the loss by the signed gradient :math:`g = \nabla f`, the gradient of
    the loss is :math:`H u`, here :math:`(g(x + \rho u / \|u\|) - g(x)) \|u\| / \rho`. The probe
    :math:`\rho` is ``probe`` times the radius (times :math:`\sqrt{n}` for the :math:`L_\infty`
    ball): not a small step that estimates H, but one that sees the kinks of ReLU and max-pooling on
    the way. On trained perceptrons and convolutions twice the radius closes up to three times as
    much of the gap as half the radius, and about as much on their softplus versions.
    """
    signed = tuple(m.detach().to(wide_dtype(m)).requires_grad_() for m in maps)
    scores = explanation.scores_of_signed(signed)
    directions, factor = autograd_gradient(loss(scores), [scores], signed)
    n_features = sum(p[0].numel() for p in points)
    distance = probe * radius * (n_features**0.5 if norm == "Linf" else 1.0)
    length = torch.cat([d.flatten(1) for d in directions], dim=1).norm(dim=1)
    scale = distance / length.clamp_min(1e-30)
    moved = tuple(
        (p.detach() + (d * per_example(scale, d)).to(p)).requires_grad_()
        for p, d in zip(points, directions, strict=True)
    )
    ahead = as_tuple(explanation.maps(moved, graph=False, abs=False))
    difference = tuple((a - m).detach() for a, m in zip(ahead, signed, strict=True))
    return Slope(difference, factor * length / distance.clamp_min(1e-30))


def spsa_gradient(
    losses: Callable[[tuple[Tensor, ...]], Tensor],
    points: tuple[Tensor, ...],
    radius: Tensor,
    norm: Norm,
    n_directions: int,
    generators: list[torch.Generator],
) -> list[Slope]:
    r"""Gradients by simultaneous perturbation (Spall 1992), for maps without derivatives.

    Of each column of ``losses`` (N, Q), from the same probes: the mean over random signs
    :math:`\Delta` of :math:`\frac{L(x + c\Delta) - L(x - c\Delta)}{2c} \Delta`, with
    :math:`c\Delta` as long as the radius: shorter probes miss the kinks of ReLU networks, on which
    a tenth of it closed at most half as much of the gap. One generator of signs an example; two
    attributions a direction.
    """
    n_features = sum(p[0].numel() for p in points)
    length = radius / (n_features**0.5 if norm == "L2" else 1.0)
    totals: list[list[Tensor]] = []
    for _ in range(n_directions):
        signs = tuple(_signs_like(p, generators) for p in points)
        ends = []
        for sign in (1, -1):
            moved = tuple(
                (p.detach() + sign * per_example(length.to(p), p) * s).requires_grad_()
                for p, s in zip(points, signs, strict=True)
            )
            ends.append(losses(moved).detach())
        slopes = (ends[0] - ends[1]).unbind(dim=1)
        totals = totals or [
            [torch.zeros_like(p, dtype=wide_dtype(p)) for p in points] for _ in slopes
        ]
        for slope, total in zip(slopes, totals, strict=True):
            for part, s in zip(total, signs, strict=True):
                part += per_example(slope.to(part), part) * s
    factor = 1 / (2 * n_directions * length.clamp_min(1e-30))
    return [Slope(tuple(total), factor) for total in totals]


def _signs_like(points: Tensor, generators: list[torch.Generator]) -> Tensor:
    signs = [torch.randint(0, 2, points.shape[1:], generator=g) for g in generators]
    return (2 * torch.stack(signs) - 1).to(points)


def as_rows(slopes: Sequence[Slope]) -> Tensor:
    """One row a gradient, in double precision; (N, Q, n)."""
    return torch.stack([s.factor.double()[:, None] * _flat(s.direction) for s in slopes], dim=1)


def combination(slopes: Sequence[Slope], weights: Tensor) -> tuple[Tensor, ...]:
    """The sum of gradients with ``weights`` (N, Q), divided by the length of its longest part.

    So that it neither overflows nor underflows where only its direction counts.
    """
    shares = weights * torch.stack([s.factor.double() for s in slopes], dim=1)
    lengths = torch.stack([_flat(s.direction).norm(dim=1) for s in slopes], dim=1)
    shares = shares / (shares * lengths).amax(dim=1, keepdim=True).clamp_min(1e-300)
    parts = zip(*(s.direction for s in slopes), strict=True)
    return tuple(
        torch.stack([per_example(w, g) * g for w, g in zip(shares.T, part, strict=True)])
        .sum(dim=0)
        .to(wide_dtype(part[0]))
        for part in parts
    )


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.flatten(1) for t in tensors], dim=1).double()
