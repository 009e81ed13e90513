"""Goal 11: P@k against full sorts and sets, and against two topk."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.testing import assert_close

from captum_robust.metrics import precision_at_k
from tests.benchmark.device import device
from tests.benchmark.memory import peak_bytes
from tests.benchmark.peers.ranking import precision_by_sets, two_topk
from tests.benchmark.row import Effort, Measure, Spread, at_least, at_most, size
from tests.benchmark.timing import ratio

__all__ = ["MEASURES"]


class _Setting(NamedTuple):
    """Two similar maps of each example of a batch."""

    batch: int
    n: int
    k: int

    def maps(self) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        left = torch.randn(self.batch, self.n, generator=generator).abs()
        right = (left + 0.2 * torch.randn(self.batch, self.n, generator=generator)).abs()
        return left.to(device()), right.to(device())

    def for_time(self, effort: Effort) -> tuple[Tensor, Tensor]:
        """A tenth of the batch where time is short: rows are independent."""
        few = self._replace(batch=self.batch // 10)
        return (few if effort.quick else self).maps()


def _gain(setting: _Setting, effort: Effort) -> Spread:
    left, right = setting.for_time(effort)
    peer = partial(precision_by_sets, left, right, setting.k)
    ours = partial(precision_at_k, left, right, setting.k)
    return ratio(peer, ours, effort, same=assert_close)


def _cost(setting: _Setting, effort: Effort) -> Spread:
    left, right = setting.for_time(effort)
    limit: Callable[[], object] = partial(two_topk, left, right, setting.k)
    return ratio(partial(precision_at_k, left, right, setting.k), limit, effort)


def _memory(setting: _Setting, effort: Effort) -> Spread | None:
    left, right = setting.maps()
    peak = peak_bytes(partial(precision_at_k, left, right, setting.k))
    return None if peak is None else Spread.of([peak / 1e6 * 1e8 / left.numel()])


def _measures(goal: float, setting: _Setting) -> list[Measure]:
    what = f"B = {size(setting.batch)}, n = {size(setting.n)}, k = {size(setting.k)}"
    return [
        Measure(
            11, "precision", what, "sets / ours", at_least(goal), partial(_gain, setting),
            cpu_only="sets of Python",
        ),
        Measure(11, "precision", what, "ours / two topk", at_most(1.2), partial(_cost, setting)),
    ]  # fmt: skip


MEASURES = [
    *_measures(4.5, _Setting(1000, 784, 50)),
    *_measures(40, _Setting(100, 150_528, 50)),
    *_measures(13, _Setting(100, 150_528, 1000)),
    Measure(
        11, "precision", "B = 400, n = 150 528, k = 50", "MB per 1e8 elements", at_most(10),
        partial(_memory, _Setting(400, 150_528, 50)),
    ),
]  # fmt: skip
