"""Record of the examples that a perturbation has moved."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.movement import check_moved
from captum_robust._utils.tensors import Points

__all__ = ["Movement"]


class Movement:
    """Record of the examples that a perturbation has moved.

    The result of an attack on explanations may be the example itself, where the attack has found
    nothing worse; it counts as moved. Any other perturbation that returns the example at a radius
    above 0 has tested nothing.

    Args:
        perturb_func: the perturbation.
        radius: one radius, or one per example, (N,).
        n_examples: number of examples.
    """

    def __init__(
        self, perturb_func: Callable[..., Any], radius: float | Tensor, n_examples: int
    ) -> None:
        searches = hasattr(perturb_func, "attribution")
        asked = torch.as_tensor(radius).cpu() > 0
        self.stays = asked.expand(n_examples).clone() & (not searches)

    def note(self, rows: Tensor, inputs: Points, ends: Points) -> None:
        """Record the neighbours (G, D, ...) of the examples ``rows``, with inputs (G, ...)."""
        if not bool(self.stays[rows].any()):
            return
        for x, e in zip(inputs, ends, strict=True):
            moved = (e != x[:, None]).flatten(1).any(dim=1)
            self.stays[rows] &= ~moved.cpu()

    def warn(self) -> None:
        """Warn of examples that stayed, and raise ValueError if all of them did."""
        check_moved(self.stays)
