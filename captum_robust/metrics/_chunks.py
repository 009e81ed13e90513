"""Size of one call of an explanation, by the memory that it needs."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_robust._utils.checks import check_count

__all__ = ["LiveBytes", "SavedBytes", "bytes_per_call", "check_chunk"]

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


class LiveBytes(TorchDispatchMode):
    """Context that finds the largest memory, in bytes, of all tensors created in it at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self._now = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call an operation, and count the memory of its results."""
        given = {_storage_key(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        results = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            if isinstance(tensor, Tensor) and _storage_key(tensor) not in given:
                self._count(tensor.untyped_storage())
        self.most = max(self.most, self._now)
        return results

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known[key] = size
            self._now += size
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._known.pop(key)


def _storage_key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
