"""How long a step is, and where it starts: constant, or halved wherever progress ends."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from captum_robust.robust._search.region import Region, per_example, steepest_step

__all__ = ["ConstantSteps", "HalvingSteps", "StepRule"]

StepRule = Literal["constant", "halving"]

Points = tuple[Tensor, ...]


class ConstantSteps:
    """Every step has the length ``size``, one an example (N,)."""

    def __init__(self, size: Tensor) -> None:
        self.size = size

    def next(
        self, region: Region, points: Points, gradients: Points, loss: Tensor, allowed: Tensor
    ) -> Points:
        """The points after one step along ``gradients``."""
        return _stepped(region, points, gradients, self.size)

    def of(self, rows: Tensor) -> ConstantSteps:
        """The steps of the examples ``rows``."""
        return ConstantSteps(self.size[rows])


class HalvingSteps:
    r"""Steps with momentum that halve, back at the best point, wherever progress ends (Auto-PGD).

    .. math::
        z_{t+1} = P(x_t - \eta_t g_t), \quad
        x_{t+1} = P(x_t + \tfrac34 (z_{t+1} - x_t) + \tfrac14 (x_t - x_{t-1}))

    At a few checkpoints, an example whose loss fell in less than three quarters of the steps since
    the last one, or whose best loss has stood still since the last one although the step did too,
    goes back to its best point with half the step. Source: Croce and Hein 2020, "Reliable
    evaluation of adversarial robustness", section 3; the best point is here the best whose
    prediction is allowed.
    """

    def __init__(self, size: Tensor, step_num: int) -> None:
        self.size = size
        self._checkpoints = _checkpoints(step_num)
        self._step = self._checked_at = 0
        # What belongs to an example; found at the first step.
        self._per_example: dict[str, Tensor] = {}
        self._last: Points = ()
        self._best: Points = ()
        self._best_gradients: Points = ()

    def next(
        self, region: Region, points: Points, gradients: Points, loss: Tensor, allowed: Tensor
    ) -> Points:
        """The points after one step along ``gradients``."""
        seen = self._per_example
        if not seen:
            seen.update(
                best=loss, last=loss, best_then=loss,
                falls=torch.zeros_like(loss), halved=torch.ones_like(allowed),
                moved=torch.zeros_like(allowed),
            )  # fmt: skip
            self._last, self._best, self._best_gradients = points, points, gradients
        better = allowed & (loss < seen["best"])
        seen["best"] = torch.where(better, loss, seen["best"])
        self._best = _where(better, points, self._best)
        self._best_gradients = _where(better, gradients, self._best_gradients)
        seen["falls"] += loss < seen["last"]
        seen["last"] = loss
        if self._step in self._checkpoints:
            points, gradients = self._check(points, gradients)
        target = _stepped(region, points, gradients, self.size)
        # The first step, and the one after a return, have no momentum to add.
        share = torch.where(seen["moved"], 0.75, 1.0)
        mixed = tuple(
            p + per_example(share.to(p), p) * (t - p) + per_example(1 - share.to(p), p) * (p - q)
            for p, t, q in zip(points, target, self._last, strict=True)
        )
        seen["moved"] = torch.ones_like(allowed)
        self._last = points
        self._step += 1
        return region.nearest(mixed)

    def of(self, rows: Tensor) -> HalvingSteps:
        """The steps of the examples ``rows``."""
        part = HalvingSteps(self.size[rows], 0)
        part._checkpoints, part._step = self._checkpoints, self._step
        part._checked_at = self._checked_at
        part._per_example = {name: value[rows] for name, value in self._per_example.items()}
        part._last, part._best, part._best_gradients = (
            tuple(t[rows] for t in tensors)
            for tensors in (self._last, self._best, self._best_gradients)
        )
        return part

    def _check(self, points: Points, gradients: Points) -> tuple[Points, Points]:
        seen = self._per_example
        rarely = seen["falls"] < 0.75 * (self._step - self._checked_at)
        stuck = ~seen["halved"] & (seen["best"] >= seen["best_then"])
        halve = rarely | stuck
        self.size = torch.where(halve, self.size / 2, self.size)
        seen["halved"], seen["best_then"] = halve, seen["best"]
        seen["falls"] = torch.zeros_like(seen["falls"])
        seen["moved"] = seen["moved"] & ~halve
        self._checked_at = self._step
        return _where(halve, self._best, points), _where(halve, self._best_gradients, gradients)


def _checkpoints(step_num: int) -> set[int]:
    """The steps at which progress is judged: ever denser, from 22 % to 6 % of all steps apart."""
    fractions, width = [0.22], 0.22
    while fractions[-1] < 1:
        width = max(width - 0.03, 0.06)
        fractions.append(fractions[-1] + width)
    return {-int(-f * step_num // 1) for f in fractions if f < 1}


def _stepped(region: Region, points: Points, gradients: Points, size: Tensor) -> Points:
    return region.nearest(
        tuple(
            p + steepest_step(g, per_example(size, p), region.norm)
            for p, g in zip(points, gradients, strict=True)
        )
    )


def _where(chosen: Tensor, points: Points, others: Points) -> Points:
    return tuple(
        torch.where(per_example(chosen, p), p, q) for p, q in zip(points, others, strict=True)
    )
