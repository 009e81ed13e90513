"""Goals 2 and 3: win counts by sorting and gap sums in closed form, against all k(n−k) pairs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.testing import assert_close

from captum_robust.ranking import gap_sum, top_k_indices, win_counts
from tests.benchmark.device import device
from tests.benchmark.memory import peak_ratio
from tests.benchmark.peers.ranking import pair_gap_sum, pair_wins
from tests.benchmark.row import Effort, Measure, Spread, at_least, at_most, size
from tests.benchmark.timing import IDLE, ratio, slope

__all__ = ["MEASURES"]


class _Setting(NamedTuple):
    """Maps of n features at a number of points around one example."""

    n: int
    k: int
    n_points: int
    noise: float  # "calm": 0.998 of the pairs hold; "rough": 0.92

    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, the map of the example as often, and its top features."""
        generator = torch.Generator().manual_seed(0)
        reference = torch.randn(1, self.n, generator=generator).abs().to(device())
        reference = reference.expand(self.n_points, -1)
        moves = torch.randn(self.n_points, self.n, generator=generator).to(device())
        scores = (reference + self.noise * moves).abs()
        return scores, reference.contiguous(), top_k_indices(reference, self.k)


def _wins(setting: _Setting, effort: Effort) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """All pairs, and ours; at fewer points where time is short."""
    n_points = -(-setting.n_points // 4) if effort.quick else setting.n_points
    scores, _, top = setting._replace(n_points=n_points).maps()
    return partial(pair_wins, scores, top), partial(win_counts, scores, top)


def _gain(setting: _Setting, effort: Effort) -> Spread:
    return ratio(*_wins(setting, effort), effort, same=_equal)


def _memory(setting: _Setting, effort: Effort) -> Spread | None:
    pairs, ours = _wins(setting, effort)
    return peak_ratio(ours, pairs)


def _equal(left: Tensor, right: Tensor) -> None:
    assert torch.equal(left, right)


def _slope_in_n(noise: float, effort: Effort) -> Spread:
    """At k = 50."""
    sizes = [1024, 4096, 16_384, 65_536]
    settings = [_Setting(n, 50, 64, noise) for n in sizes]
    return slope([_wins(setting, effort)[1] for setting in settings], sizes, effort)


def _slope_in_k(noise: float, effort: Effort) -> Spread:
    """At n = 16 384."""
    sizes = [10, 40, 160, 640]
    settings = [_Setting(16_384, k, 64, noise) for k in sizes]
    return slope([_wins(setting, effort)[1] for setting in settings], sizes, effort)


def _gap_gain(effort: Effort) -> Spread:
    """Both sides are given the top features."""
    setting = _Setting(784, 50, 1000, 0.13)
    scores, reference, top = setting.maps()
    literal = partial(pair_gap_sum, scores, top)
    closed = partial(gap_sum, scores, reference, setting.k, features=top)
    return ratio(literal, closed, effort, same=partial(assert_close, rtol=1e-4, atol=1e-2))


def _count(name: str, goal: float, setting: _Setting) -> list[Measure]:
    what = f"n = {size(setting.n)}, k = {size(setting.k)}, {name}"
    return [
        Measure(2, "count", what, "pairs / ours", at_least(goal), partial(_gain, setting)),
        Measure(2, "count", what, "memory ours / pairs", at_most(0.05), partial(_memory, setting)),
    ]


def _slope(what: str, goal: float, find: Callable[[Effort], Spread]) -> Measure:
    return Measure(3, "slope", what, "log time", at_most(goal), find, cpu_only=IDLE)


MEASURES = [
    *_count("calm", 20, _Setting(784, 50, 1000, 0.13)),
    *_count("rough", 20, _Setting(784, 50, 1000, 0.7)),
    *_count("calm", 30, _Setting(784, 100, 500, 0.08)),
    *_count("rough", 30, _Setting(784, 100, 500, 0.55)),
    *_count("calm", 50, _Setting(3072, 100, 128, 0.13)),
    *_count("rough", 28, _Setting(3072, 100, 128, 0.75)),
    *_count("calm", 1000, _Setting(150_528, 1000, 1, 0.24)),
    *_count("rough", 120, _Setting(150_528, 1000, 1, 0.97)),
    _slope("in n, calm", 1.3, partial(_slope_in_n, 0.13)),
    _slope("in n, rough", 1.3, partial(_slope_in_n, 0.7)),
    _slope("in k, calm", 0.5, partial(_slope_in_k, 0.13)),
    _slope("in k, rough", 0.5, partial(_slope_in_k, 0.7)),
    Measure(3, "gap", "sum, n = 784, k = 50", "pairs / ours", at_least(1000), _gap_gain),
]
