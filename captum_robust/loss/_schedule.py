"""The choice of steps, and of examples of a batch, that are regularised."""

import hashlib
import math

import torch
from torch import Tensor, nn

from captum_robust._utils.random import resolve_seed

__all__ = ["Schedule", "spread"]


class Schedule(nn.Module):
    """Every m-th step, and a random part of each batch.

    It has no tensors that a change of device or dtype could convert. The number of the step and the
    seed are in ``state_dict``, so that a resumed training continues with the same choices. The
    choice of steps does not depend on the seed, so all processes of a distributed training agree.
    """

    def __init__(self, every: int, fraction: float, seed: int | None) -> None:
        super().__init__()
        self.every = every
        self.fraction = fraction
        self.seed = resolve_seed(seed)
        self.step = 0

    def rows(self, n_examples: int) -> Tensor | None:
        """Count a step, and return its regularised examples in ascending order, or None."""
        step, self.step = self.step, self.step + 1
        if step % self.every:
            return None
        n_chosen = math.ceil(self.fraction * n_examples)
        digest = hashlib.blake2b(f"{self.seed},{step}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randperm(n_examples, generator=generator)[:n_chosen].sort().values

    def get_extra_state(self) -> Tensor:
        """Return the number of the next step and the seed."""
        return torch.tensor([self.step, self.seed])

    def set_extra_state(self, state: Tensor) -> None:
        """Continue from a state of :meth:`get_extra_state`."""
        self.step, self.seed = (int(number) for number in state)


def spread(values: Tensor, rows: Tensor, n_examples: int) -> Tensor:
    """Return values of some rows as values of all: zero elsewhere, with the same mean."""
    scale = n_examples / len(rows)
    return values.new_zeros(n_examples).index_put((rows.to(values.device),), scale * values)
