"""Step rules: steps of constant length, or steps that are halved where progress ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from captum_robust._utils.tensors import Points, choose
from captum_robust.robust._search.region import Region

__all__ = ["STEP_RULES", "ConstantSteps", "HalvingSteps", "StepRule", "StepRuleName"]

StepRuleName = Literal["constant", "halving"]


class StepRule(ABC):
    """The steps of one search along given gradients.

    Args:
        size: length of the first step in the norm of the ball, (N,).
        n_steps: number of steps.
    """

    def __init__(self, size: Tensor, n_steps: int) -> None:
        self.size = size
        self.n_steps = n_steps

    @staticmethod
    @abstractmethod
    def default_size(radius: Tensor, n_steps: int) -> Tensor:
        """Return the length of the first step by default; (N,)."""

    @abstractmethod
    def next(
        self, region: Region, points: Points, gradients: Points, loss: Tensor, allowed: Tensor
    ) -> Points:
        """Return the points after one step along ``gradients``."""

    @abstractmethod
    def of(self, rows: Tensor) -> StepRule:
        """Return the steps of the examples ``rows``, bool or indices."""


class ConstantSteps(StepRule):
    """Steps of constant length, by default 2.5 radii in total."""

    @staticmethod
    def default_size(radius: Tensor, n_steps: int) -> Tensor:
        """Return 2.5 radii, divided by the number of steps."""
        return 2.5 * radius / max(n_steps, 1)

    def next(
        self, region: Region, points: Points, gradients: Points, loss: Tensor, allowed: Tensor
    ) -> Points:
        """Return the points after one step along ``gradients``."""
        return region.after_step(points, gradients, self.size)

    def of(self, rows: Tensor) -> ConstantSteps:
        """Return the steps of the examples ``rows``."""
        return ConstantSteps(self.size[rows], self.n_steps)


class HalvingSteps(StepRule):
    r"""Steps with momentum, halved and restarted at the best point where progress ends (Auto-PGD).

    .. math::
        z_{t+1} = P(x_t - \eta_t g_t), \quad
        x_{t+1} = P(x_t + \tfrac34 (z_{t+1} - x_t) + \tfrac14 (x_t - x_{t-1}))

    At a few checkpoints, an example returns to its best point with half the step size in two cases:
    the loss fell in fewer than three quarters of the steps since the last checkpoint; or the step
    was not halved at the last checkpoint and the best loss has not fallen since. Source: Croce and
    Hein 2020, "Reliable evaluation of adversarial robustness", section 3. Only points whose
    prediction is allowed count as best points here.
    """

    def __init__(self, size: Tensor, n_steps: int) -> None:
        super().__init__(size, n_steps)
        self._checkpoints = _checkpoints(n_steps)
        self._step = self._checked_at = 0
        # One value per example; set at the first step.
        self._records: dict[str, Tensor] = {}
        self._last: Points = ()
        self._best: Points = ()
        self._best_gradients: Points = ()

    @staticmethod
    def default_size(radius: Tensor, n_steps: int) -> Tensor:
        """Return the diameter of the ball."""
        return 2 * radius

    def next(
        self, region: Region, points: Points, gradients: Points, loss: Tensor, allowed: Tensor
    ) -> Points:
        """Return the points after one step along ``gradients``."""
        seen = self._records
        if not seen:
            seen.update(
                best=loss, last=loss, best_then=loss,
                falls=torch.zeros_like(loss), halved=torch.ones_like(allowed),
            )  # fmt: skip
            self._last, self._best, self._best_gradients = points, points, gradients
        else:
            better = allowed & (loss < seen["best"])
            seen["best"] = torch.where(better, loss, seen["best"])
            self._best = choose(better, points, self._best)
            self._best_gradients = choose(better, gradients, self._best_gradients)
            seen["falls"] = seen["falls"] + (loss < seen["last"])
            seen["last"] = loss
        at_checkpoint = self._step in self._checkpoints
        if at_checkpoint:
            points, gradients = self._check(points, gradients)
        ahead = region.after_step(points, gradients, self.size)
        if at_checkpoint:
            ahead = choose(seen["halved"], ahead, region.nearest(self._mixed(points, ahead)))
        elif self._step > 0:
            ahead = region.nearest(self._mixed(points, ahead))
        self._last = points
        self._step += 1
        return ahead

    def of(self, rows: Tensor) -> HalvingSteps:
        """Return the steps of the examples ``rows``."""
        part = HalvingSteps(self.size[rows], self.n_steps)
        part._step, part._checked_at = self._step, self._checked_at
        part._records = {name: value[rows] for name, value in self._records.items()}
        part._last, part._best, part._best_gradients = (
            tuple(t[rows] for t in tensors)
            for tensors in (self._last, self._best, self._best_gradients)
        )
        return part

    def _mixed(self, points: Points, ahead: Points) -> Points:
        """Return the step mixed with a quarter of the previous step."""
        return tuple(
            torch.lerp(p, a, 0.75).add_(p - q, alpha=0.25)
            for p, a, q in zip(points, ahead, self._last, strict=True)
        )

    def _check(self, points: Points, gradients: Points) -> tuple[Points, Points]:
        """Halve steps without progress, and return to their best points and gradients."""
        seen = self._records
        rarely = seen["falls"] < 0.75 * (self._step - self._checked_at)
        stuck = ~seen["halved"] & (seen["best"] >= seen["best_then"])
        halve = rarely | stuck
        self.size = torch.where(halve, self.size / 2, self.size)
        seen["halved"], seen["best_then"] = halve, seen["best"]
        seen["falls"] = torch.zeros_like(seen["falls"])
        self._checked_at = self._step
        return choose(halve, self._best, points), choose(halve, self._best_gradients, gradients)


#: All step rules. A new one takes a class here, a line in this table and a name above.
STEP_RULES: dict[StepRuleName, type[StepRule]] = {
    "constant": ConstantSteps,
    "halving": HalvingSteps,
}


def _checkpoints(n_steps: int) -> set[int]:
    """Return the steps at which progress is checked, from 22 % down to 6 % of all steps apart."""
    fractions, width = [0.22], 0.22
    while fractions[-1] < 1:
        width = max(width - 0.03, 0.06)
        fractions.append(fractions[-1] + width)
    return {-int(-f * n_steps // 1) for f in fractions if f < 1}
