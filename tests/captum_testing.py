"""Captum's own test configuration, and what the releases of Captum differ in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum

_BEFORE_0_9 = captum.__version__.startswith("0.8.")
AVAILABLE = not _BEFORE_0_9  # the wheel of 0.8 leaves captum.testing out
MEMORY_EFFICIENT = not _BEFORE_0_9  # the argument of LayerGradientXActivation

config: list[dict[str, Any]] = []
get_target_layer: Callable[..., Any] | None = None

if AVAILABLE:
    from captum.testing.attr.helpers.gen_test_utils import get_target_layer
    from captum.testing.attr.helpers.test_config import config

__all__ = ["AVAILABLE", "MEMORY_EFFICIENT", "config", "get_target_layer"]
