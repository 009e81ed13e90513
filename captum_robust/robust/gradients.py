"""Three ways to the gradient of an objective of a map: autograd, two saliencies, or none."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from captum_robust._captum import as_tuple
from captum_robust.noise import Norm
from captum_robust.robust.checks import wide_dtype
from captum_robust.robust.explain import Explanation
from captum_robust.robust.projections import per_example

__all__ = ["autograd_gradient", "finite_difference_gradient", "spsa_gradient"]


def autograd_gradient(
    loss: Tensor, scores: list[Tensor], points: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Direction of the gradient of losses (N,) of ``scores``; zero where the graph does not reach.

    In two parts, each example scaled in between: the slope of a sum over many pairs is a number
    that half precision does not hold.
    """
    if not loss.requires_grad:
        return tuple(torch.zeros_like(p) for p in points)
    slopes = _or_zeros(torch.autograd.grad(loss.sum(), scores, allow_unused=True), scores)
    largest = torch.cat([s.abs() for s in slopes], dim=1).amax(dim=1, keepdim=True)
    unit = [s / largest.clamp_min(torch.finfo(s.dtype).tiny) for s in slopes]
    return _or_zeros(torch.autograd.grad(scores, points, unit, allow_unused=True), points)


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
) -> tuple[Tensor, ...]:
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
    directions = autograd_gradient(loss(scores), [scores], signed)
    n_features = sum(p[0].numel() for p in points)
    distance = probe * radius * (n_features**0.5 if norm == "Linf" else 1.0)
    length = torch.cat([d.flatten(1) for d in directions], dim=1).norm(dim=1)
    scale = distance / length.clamp_min(1e-30)
    moved = tuple(
        (p.detach() + (d * per_example(scale, d)).to(p)).requires_grad_()
        for p, d in zip(points, directions, strict=True)
    )
    ahead = as_tuple(explanation.maps(moved, graph=False, abs=False))
    return tuple((a - m).detach() for a, m in zip(ahead, signed, strict=True))


def spsa_gradient(
    loss: Callable[[tuple[Tensor, ...]], Tensor],
    points: tuple[Tensor, ...],
    radius: Tensor,
    norm: Norm,
    n_directions: int,
    generators: list[torch.Generator],
) -> tuple[Tensor, ...]:
    r"""Gradient by simultaneous perturbation (Spall 1992), for maps without derivatives.

    The mean over random signs :math:`\Delta` of
    :math:`\frac{L(x + c\Delta) - L(x - c\Delta)}{2c} \Delta`, with :math:`c\Delta` as long
    as the radius: shorter probes miss the kinks of ReLU networks, on which a tenth of it closed at
    most half as much of the gap. One generator of signs an example; two attributions a direction.
    """
    n_features = sum(p[0].numel() for p in points)
    length = radius / (n_features**0.5 if norm == "L2" else 1.0)
    totals = [torch.zeros_like(p, dtype=wide_dtype(p)) for p in points]
    for _ in range(n_directions):
        signs = tuple(_signs_like(p, generators) for p in points)
        ends = []
        for sign in (1, -1):
            moved = tuple(
                (p.detach() + sign * per_example(length.to(p), p) * s).requires_grad_()
                for p, s in zip(points, signs, strict=True)
            )
            ends.append(loss(moved).detach())
        slope = ends[0] - ends[1]
        for total, s in zip(totals, signs, strict=True):
            total += per_example(slope.to(total), total) * s
    return tuple(totals)


def _signs_like(points: Tensor, generators: list[torch.Generator]) -> Tensor:
    signs = [torch.randint(0, 2, points.shape[1:], generator=g) for g in generators]
    return (2 * torch.stack(signs) - 1).to(points)
