"""A fixed style, no figure left open, no setting left changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import pyplot


@pytest.fixture(autouse=True)
def clean_matplotlib() -> Iterator[None]:
    # The defaults name DejaVu, which matplotlib brings; a user's style must not reach the tests.
    with matplotlib.rc_context(), matplotlib.style.context("default"):
        settings, torch_state = _settings(), torch.get_rng_state()
        numpy_state = np.random.get_state()[1]  # noqa: NPY002 (is it left alone?)
        yield
        assert _settings() == settings
        assert pyplot.get_fignums() == []
        assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
        assert torch.equal(torch.get_rng_state(), torch_state)


def _settings() -> dict[str, Any]:
    """All but the backend, which pyplot looks for when it is first needed."""
    settings = dict(dict.items(matplotlib.rcParams))  # as they are: reading may warn or resolve
    del settings["backend"]
    return settings
