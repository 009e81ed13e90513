"""A second forward pass that differs from the first one in its inputs only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust._utils.random import cuda_devices
from captum_robust._utils.state import models_of

__all__ = ["Repeat"]


class Repeat:
    """Repeat a forward pass from the state in which an earlier one began.

    Create it before the first pass. The second pass, in the block of :meth:`again`, draws the same
    random numbers (dropout masks) and, in training mode, begins with the same buffers (the vectors
    of ``spectral_norm``). It leaves the random state and the buffers as the first pass left them.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        copies: dict[Tensor, Tensor] = {}  # one for a buffer that is shared
        self.buffers = [
            (module, name, copies.setdefault(buffer, buffer.clone()))
            for model in models_of(forward_func)
            if any(module.training for module in model.modules())
            for module in model.modules()
            for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False)
        ]
        self.devices = cuda_devices()
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    def has_moved(self) -> bool:
        """Return whether random numbers were drawn or a buffer was written since the start."""
        now = [torch.cuda.get_rng_state(device) for device in self.devices]
        return (
            any(not torch.equal(getattr(m, name), buffer) for m, name, buffer in self.buffers)
            or not torch.equal(torch.get_rng_state(), self.cpu)
            or any(not torch.equal(a, b) for a, b in zip(now, self.cuda, strict=True))
        )

    @contextmanager
    def again(self) -> Iterator[None]:
        """Enter the block of the second forward pass."""
        found = [(module, name, getattr(module, name)) for module, name, _ in self.buffers]
        cpu = torch.get_rng_state()
        cuda = [torch.cuda.get_rng_state(device) for device in self.devices]
        try:
            copies: dict[Tensor, Tensor] = {}  # a pass may write to them
            buffers = [(m, n, copies.setdefault(b, b.clone())) for m, n, b in self.buffers]
            self._set(buffers, self.cpu, self.cuda)
            yield
        finally:
            self._set(found, cpu, cuda)

    def _set(
        self, buffers: list[tuple[nn.Module, str, Tensor]], cpu: Tensor, cuda: list[Tensor]
    ) -> None:
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
        torch.set_rng_state(cpu)
        for device, state in zip(self.devices, cuda, strict=True):
            torch.cuda.set_rng_state(state, device)
