"""Size of one call of an explanation, by the memory that autograd needs for it."""

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from captum_robust._utils.checks import check_count

__all__ = ["SavedBytes", "bytes_per_call", "check_chunk"]

# Live memory of one call that keeps a CPU's caches useful: within 10 % of the best on networks
# from MLPs to ResNets (see the performance page).
_BYTES_ON_CPU = 30_000_000
# A GPU has no such caches and needs large batches: a few percent of its memory.
_BYTES_ELSEWHERE = 1_000_000_000


def check_chunk(max_examples_per_batch: int | None) -> None:
    """Raise ValueError unless a chunk holds at least one example."""
    if max_examples_per_batch is not None:
        check_count("max_examples_per_batch", max_examples_per_batch, 1)


def bytes_per_call(device: torch.device) -> int:
    """Return how many bytes autograd may save in one call on a device."""
    return _BYTES_ON_CPU if device.type == "cpu" else _BYTES_ELSEWHERE


class SavedBytes(saved_tensors_hooks):
    """Context that counts the bytes that autograd saves, without those of parameters."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            self.count += tensor.numel() * tensor.element_size()
        return tensor
