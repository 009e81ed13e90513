"""Convolutions as exact as their type, and in one order of summation."""

import pytest
import torch

# Imported by the tests alone: a module that pytest imports stays known, though it was skipped.
collect_ignore = ["device.py"]


@pytest.fixture(autouse=True)
def exact_convolutions():
    """By default cuDNN rounds float32 to TF32, and may add in another order at the next call."""
    with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
        yield
