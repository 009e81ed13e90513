"""The device that is tried, and everything moved there; whoever imports this is skipped without it.

``CAPTUM_ROBUST_TEST_DEVICE`` names another device than ``cuda``: with ``cpu`` the comparisons are
trivial, but the tests themselves run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_robust.testing import SmallModel, small_models

NAME = os.environ.get("CAPTUM_ROBUST_TEST_DEVICE", "cuda")
try:
    DEVICE = torch.empty(1, device=NAME).device
except (AssertionError, RuntimeError):  # torch without CUDA; torch without a GPU
    pytest.skip(f"torch finds no device {NAME!r}", allow_module_level=True)

#: Two correctly rounded orders of summation of small networks in float64.
CLOSE = {"rtol": 1e-9, "atol": 1e-11}


def moved(value: Any, to: Any = DEVICE) -> Any:
    """Tensors and modules on another device, also inside tuples, lists and dictionaries."""
    if isinstance(value, Tensor | nn.Module):
        return value.to(to)
    if isinstance(value, tuple | list):
        return type(value)(moved(item, to) for item in value)
    if isinstance(value, dict):
        return {name: moved(item, to) for name, item in value.items()}
    return value


def assert_same(found: Any, expected: Any, **tolerance: float) -> None:
    """Results of the device, on the device, and those of the CPU."""
    for on_device, on_cpu in zip(tensors(found), tensors(expected), strict=True):
        assert on_device.device == DEVICE
        assert on_cpu.device.type == "cpu"
        torch.testing.assert_close(
            on_device.cpu(), on_cpu, equal_nan=True, **{**CLOSE, **tolerance}
        )


def tensors(value: Any) -> list[Tensor]:
    """The tensors in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return [value.detach()]
    if isinstance(value, dict):
        value = list(value.values())
    return [t for item in value for t in tensors(item)] if isinstance(value, tuple | list) else []


@dataclass(frozen=True)
class OnDevice(SmallModel):
    """A small model of the conformance suite, on the device with all that it is called with."""

    @property
    def target(self) -> Tensor | None:
        return moved(super().target)

    @property
    def labels(self) -> Tensor:
        return moved(super().labels)

    @classmethod
    def of(cls, model: SmallModel) -> OnDevice:
        parts = dict(vars(model))
        for name in ("build", "draw", "draw_arguments"):
            parts[name] = _then_moved(parts[name])
        return cls(**parts)


def _then_moved(make: Any) -> Any:
    return lambda: moved(make())


MODELS = tuple(map(OnDevice.of, small_models()))
