"""A warning that torch gives once would fail one test and hide from the others."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def every_warning() -> Iterator[None]:
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)
