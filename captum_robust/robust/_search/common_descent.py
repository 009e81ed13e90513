"""The steepest direction along which several objectives fall at once, within a region."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_robust._utils.tensors import wide_dtype
from captum_robust.robust._search.min_norm import min_norm_weights
from captum_robust.robust._search.region import Region

__all__ = ["ActiveConstraints", "common_descent", "lengths_in"]

# A point touches a constraint if it is nearer than this, in radii of the ball.
_TOUCH = 1e-5


class ActiveConstraints(NamedTuple):
    """Constraints that keep points of a region from moving, each (N, n) over the joined features.

    Attributes:
        fixed: features that the mask excludes.
        below: features that may not fall further.
        above: features that may not rise further.
        normals: outward unit normals of the spheres that are touched, (N, T, n), zero for others.
    """

    fixed: Tensor
    below: Tensor
    above: Tensor
    normals: Tensor

    @classmethod
    def at(cls, region: Region, points: tuple[Tensor, ...]) -> ActiveConstraints:
        """Return the constraints that ``points`` touch, with one sphere per input tensor."""
        fixed, below, above, normals = [], [], [], []
        n_tensors = len(points)
        for number, (point, centre) in enumerate(zip(points, region.centre, strict=True)):
            x, c = point.flatten(1).double(), centre.flatten(1).double()
            radius = region.radius.double()[:, None]
            lower = region.lower[number].flatten(1).double()
            upper = region.upper[number].flatten(1).double()
            if region.norm == "Linf":
                lower, upper = torch.maximum(lower, c - radius), torch.minimum(upper, c + radius)
            near = _TOUCH * radius + 4 * torch.finfo(wide_dtype(point)).eps * c.abs()
            below.append(x <= lower + near)
            above.append(x >= upper - near)
            still = (radius == 0).expand_as(x)
            if region.mask is not None:
                still = still | ~region.mask[number].flatten(1)
            fixed.append(still)
            length = (x - c).norm(dim=1, keepdim=True)
            outside = (length >= radius * (1 - _TOUCH)) & (radius > 0) & (region.norm == "L2")
            normal = x.new_zeros(len(x), n_tensors, x.shape[1])
            normal[:, number] = torch.where(outside, (x - c) / length.clamp_min(1e-300), 0)
            normals.append(normal)
        return cls(
            torch.cat(fixed, dim=1), torch.cat(below, dim=1), torch.cat(above, dim=1),
            torch.cat(normals, dim=2),
        )  # fmt: skip


def common_descent(
    gradients: Tensor, active: ActiveConstraints, left_out: Tensor | None = None
) -> Tensor:
    r"""The direction d of Fliege and Svaiter for gradients (N, m, n), in double precision; (N, n).

    .. math::
        \min_{d \in T, \tau} \tau + \tfrac12 \|d\|^2 \quad
        \text{s.t.} \quad g_q^\top d \le \tau, \; q = 1 \ldots m

    T are the directions that do not leave the region, to first order: features at a bound move
    inwards only, and at a sphere not outwards. Without active constraints
    :math:`d = -\sum_q \lambda_q g_q` with the minimum-norm weights. With active constraints the
    same holds for the free features and for directions along the sphere. The free features are
    found by iteration: a feature that would leave the region is fixed, and a fixed feature that
    would move inwards is released. Every objective falls by at least :math:`\|d\|^2` along d,
    which is zero where no objective can fall within the region without another rising.

    Source: arXiv 2212.14106, equation (7); Fliege and Svaiter 2000.
    """
    held, pressed = active.fixed, torch.zeros_like(active.normals[..., 0], dtype=torch.bool)
    for turn in range(12):
        normals = active.normals.masked_fill(~pressed[..., None] | held[:, None], 0)
        shares = normals.square().sum(dim=2)[:, None].clamp_min(1e-300)
        outwards = gradients.masked_fill(held[:, None], 0) @ normals.mT / shares
        along = gradients - outwards @ (active.normals * pressed[..., None])
        free = along.masked_fill(held[:, None], 0)
        weights = min_norm_weights(free @ free.mT, left_out)[:, None]
        descent, full = -(weights @ free)[:, 0], -(weights @ along)[:, 0]
        leaves = active.fixed | (active.below & (full < 0)) | (active.above & (full > 0))
        raw = -(weights @ gradients).masked_fill(held[:, None], 0)
        presses = (raw @ active.normals.mT)[:, 0] > 0
        if turn > 6:  # against cycles, nothing more is released
            leaves, presses = leaves | held, presses | pressed
        if torch.equal(leaves, held) and torch.equal(presses, pressed):
            break
        held, pressed = leaves, presses
    return descent


def lengths_in(region: Region, steps: tuple[Tensor, ...]) -> Tensor:
    """Return the length of steps in the norm of the ball: that of the longest tensor; (N,)."""
    order = float("inf") if region.norm == "Linf" else 2
    each = [torch.linalg.vector_norm(s.flatten(1), ord=order, dim=1) for s in steps]
    return torch.stack(each).amax(dim=0)
