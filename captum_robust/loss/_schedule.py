"""Which steps, and which examples of a batch, are regularised."""

import hashlib
import math

import torch
from torch import Tensor, nn

from captum_robust._utils.random import resolve_seed

__all__ = ["Schedule", "spread"]


class Schedule(nn.Module):
    """Every m-th step, and of each batch a random part.

    Holds no tensor that a device or a dtype could move; the number of the step and the seed go
    through ``state_dict``, so that a training that is resumed goes on with the same choices. Which
    steps come next does not depend on the seed: all processes of a distributed training agree.
    """

    def __init__(self, every: int, fraction: float, seed: int | None) -> None:
        super().__init__()
        self.every = every
        self.fraction = fraction
        self.seed = resolve_seed(seed)
        self.step = 0

    def rows(self, n_examples: int) -> Tensor | None:
        """The examples that this step regularises, in ascending order, if any; counts the step."""
        step, self.step = self.step, self.step + 1
        if step % self.every:
            return None
        n_chosen = math.ceil(self.fraction * n_examples)
        digest = hashlib.blake2b(f"{self.seed},{step}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        return torch.randperm(n_examples, generator=generator)[:n_chosen].sort().values

    def get_extra_state(self) -> Tensor:
        """The number of the next step and the seed."""
        return torch.tensor([self.step, self.seed])

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from a state of :meth:`get_extra_state`."""
        self.step, self.seed = (int(number) for number in state)


def spread(values: Tensor, rows: Tensor, n_examples: int) -> Tensor:
    """The values of some rows as values of all: the others zero, the mean that of the rows."""
    scale = n_examples / len(rows)
    return values.new_zeros(n_examples).index_put((rows.to(values.device),), scale * values)
