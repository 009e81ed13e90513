"""Goal 11: the rank correlation of whole maps, against SciPy's ranks."""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.testing import assert_close

from captum_robust.metrics import spearman_correlation
from tests.benchmark.peers.ranking import spearman_by_scipy
from tests.benchmark.row import Effort, Measure, Spread, at_least, size
from tests.benchmark.timing import ratio

__all__ = ["MEASURES"]


class _Setting(NamedTuple):
    """Two similar maps of each example, some of their features exactly zero."""

    batch: int
    n: int
    zeros: float

    def maps(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        left = torch.rand(self.batch, self.n, generator=generator)
        right = (left + 0.2 * torch.randn(self.batch, self.n, generator=generator)).abs()
        low, high = (m.quantile(self.zeros) if self.zeros else 0 for m in (left[0], right[0]))
        return left * (left > low), right * (right > high)


def _gain(setting: _Setting, effort: Effort) -> Spread:
    few = setting._replace(batch=-(-setting.batch // 10))
    left, right = (few if effort.quick else setting).maps()
    peer, ours = (partial(f, left, right) for f in (spearman_by_scipy, spearman_correlation))
    return ratio(peer, ours, effort, same=assert_close)


def _measure(setting: _Setting, name: str) -> Measure:
    what = f"Spearman, B = {size(setting.batch)}, n = {size(setting.n)}, {name}"
    return Measure(
        11, "correlation", what, "scipy ranks / ours", at_least(1), partial(_gain, setting),
        cpu_only="SciPy computes in NumPy",
    )  # fmt: skip


MEASURES = [
    _measure(_Setting(1000, 28, 0.0), "no ties"),
    _measure(_Setting(1000, 784, 0.0), "no ties"),
    _measure(_Setting(1000, 784, 0.7), "many zeros"),
    _measure(_Setting(20, 150_528, 0.0), "no ties"),
]
