"""Goals 4 to 6: thickness against the bare gradients it needs, and against loops; its growth."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.testing import assert_close

from captum_robust.metrics import ranking_thickness
from tests.benchmark.cases import Case, cnn_case, gcn_case, mlp_case, resnet_case
from tests.benchmark.memory import peak_ratio
from tests.benchmark.peers.gradient import bare_saliency
from tests.benchmark.peers.thickness import thickness_by_batches, thickness_by_loops
from tests.benchmark.row import Bound, Effort, Measure, Spread, When, at_least, at_most
from tests.benchmark.timing import IDLE, ratio, slope

__all__ = ["MEASURES"]

_Loops = Callable[..., Tensor]


class _Setting(NamedTuple):
    """The thickness of some examples of a network, with S draws and T times each."""

    make: Callable[[int], Case]
    batch: int
    n_draws: int
    n_times: int
    sampling: Literal["grid", "stratified"] = "grid"

    def thickness(self, explain: Callable[..., Tensor] | None = None) -> Callable[[], Tensor]:
        case = self.make(self.batch)
        return partial(
            ranking_thickness, explain or case.attribute, case.inputs, case.k, perturb_radius=0.05,
            n_perturb_samples=self.n_draws, n_steps=self.n_times, sampling=self.sampling,
            target=case.target, seed=0,
        )  # fmt: skip

    def calls(self) -> list[tuple[Tensor, Tensor]]:
        """Points and targets of all calls of the explanation: the examples, then their points."""
        case = self.make(self.batch)
        seen: list[tuple[Tensor, Tensor]] = []

        def explain(points: Tensor, target: Tensor) -> Tensor:
            seen.append((points.detach().requires_grad_(), target))
            return case.attribute(points, target=target)

        self.thickness(explain)()
        return seen


def _overhead(setting: _Setting, effort: Effort) -> Spread:
    """Time of the whole over that of the bare gradients at the same points, in the same chunks."""
    model, calls = setting.make(setting.batch).model, setting.calls()
    n_rows = sum(len(points) for points, _ in calls)
    assert n_rows == setting.batch * (1 + setting.n_draws * setting.n_times)

    def bare() -> Tensor:
        return torch.cat([bare_saliency(model, *call) for call in calls])

    return ratio(setting.thickness(), bare, effort)


def _gain(setting: _Setting, loops: _Loops, n_alone: int, effort: Effort) -> Spread:
    """Time of the loops, over the first ``n_alone`` examples, scaled up, over that of ours."""
    case, some = setting.make(setting.batch), setting.make(setting.batch).some(n_alone)
    points = torch.cat([points for points, _ in setting.calls()])[setting.batch :].detach()
    grid = points.view(setting.batch, setting.n_draws, setting.n_times, *case.inputs.shape[1:])
    naive = partial(loops, case.attribute, some.inputs, grid[:n_alone], some.target, case.k)

    def same(theirs: Tensor, ours: Tensor) -> None:
        assert_close(ours[:n_alone], theirs, rtol=0, atol=1e-5)  # other batches round otherwise

    return ratio(naive, setting.thickness(), effort, same, share=n_alone / setting.batch)


def _slope(small: _Setting, name: str, effort: Effort) -> Spread:
    sizes = [getattr(small, name) * factor for factor in (1, 2, 4, 8)]
    settings = [small._replace(**{name: size}) for size in sizes]
    return slope([setting.thickness() for setting in settings], sizes, effort)


def _growth(small: _Setting, name: str, effort: Effort) -> Spread | None:
    large = small._replace(**{name: 4 * getattr(small, name)})
    return peak_ratio(large.thickness(), small.thickness())


def _whole(what: str, goal: Bound, setting: _Setting, when: When = "always") -> Measure:
    find = partial(_overhead, setting)
    return Measure(4, "thickness", what, "ours / bare gradients", goal, find, when)


def _against(what: str, goal: Bound, setting: _Setting, when: When = "always") -> Measure:
    find = partial(_gain, setting, thickness_by_batches, setting.batch)
    return Measure(5, "thickness", what, "loop over S, T / ours", goal, find, when)


_MLP = _Setting(mlp_case, 64, 10, 10)
_WIDE = _Setting(mlp_case, 256, 20, 20)
_CNN = _Setting(cnn_case, 16, 10, 5)
_GCN = _Setting(gcn_case, 8, 5, 5)
_RESNET = _Setting(resnet_case, 2, 4, 2)

MEASURES = [
    _whole("MLP, 64 × 10 × 10", at_most(3.2), _MLP),
    _whole("MLP, 256 × 20 × 20", at_most(3.2), _WIDE),
    _whole("MLP, 256 × 400 stratified", at_most(3.2), _WIDE._replace(sampling="stratified")),
    _whole("CNN, 16 × 10 × 5", at_most(1.15), _CNN),
    _whole("GCN, 8 × 5 × 5", at_most(1.5), _GCN),
    _whole("ResNet9, 2 × 4 × 2", at_most(1.25), _RESNET, when="full"),
    _whole("CNN, 256 × 10 × 5", at_most(1.15), _CNN._replace(batch=256), when="gpu"),
    _whole("GCN, 256 × 5 × 5", at_most(1.5), _GCN._replace(batch=256), when="gpu"),
    _against("MLP, 64 × 10 × 10", at_least(10), _MLP),
    _against("CNN, 16 × 10 × 5", at_least(1.4), _CNN),
    _against("GCN, 8 × 5 × 5", at_least(8), _GCN),
    _against("ResNet9, 2 × 4 × 2", at_least(1.15), _RESNET, when="full"),
    Measure(
        5, "thickness", "MLP, 64 × 10 × 10", "naive loops / ours", at_least(400),
        partial(_gain, _MLP, thickness_by_loops, 4), cpu_only="loops over numbers of Python",
    ),
    Measure(
        6, "thickness", "MLP, slope in B", "log time", Bound(0.9, 1.1),
        partial(_slope, _Setting(mlp_case, 64, 20, 20), "batch"), cpu_only=IDLE,
    ),
    Measure(
        6, "thickness", "MLP, slope in S", "log time", Bound(0.9, 1.1),
        partial(_slope, _Setting(mlp_case, 256, 5, 20), "n_draws"), cpu_only=IDLE,
    ),
    Measure(
        6, "thickness", "MLP, B = 256 → 1 024", "growth of memory", at_most(1.3),
        partial(_growth, _WIDE, "batch"),
    ),
    Measure(
        6, "thickness", "MLP, S = 20 → 80", "growth of memory", at_most(1.3),
        partial(_growth, _WIDE, "n_draws"),
    ),
]  # fmt: skip
