"""The limits of the ensemble: what a smaller budget evaluates begins what a larger one does."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from captum.attr import DeepLift, InputXGradient, Saliency
from torch import nn

from captum_robust.metrics import precision_at_k_min
from captum_robust.noise import UniformNoise
from captum_robust.robust import AutoERAttack
from captum_robust.robust._ensemble import budget as limits
from captum_robust.robust._search import limit
from tests.robust.targets import convnet, drawn, mlp, normal, relu_mlp

N, K = 6, 2
TARGET = torch.arange(N) % 3
BUDGETS = (1, 4, 5, 9, 14, 34, 45, 60, 150, 400)
KINDS = {
    "relu": lambda: Saliency(relu_mlp()),
    "smooth": lambda: Saliency(mlp()),
    "smooth, product": lambda: InputXGradient(mlp()),
    "without a gradient": lambda: DeepLift(relu_mlp()),
}


def attacked(attribution, budget=None, n=N, radius=0.4, **arguments):
    given = {"target": TARGET[:n], "norm": "L2", "seed": 3, **arguments}
    return AutoERAttack(attribution, K).perturb(
        normal(N, 6)[:n], radius, budget=budget, return_info=True, **given
    )


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # Captum's own
@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_larger_budget_never_finds_less(make):
    before = torch.ones(N).double()
    for budget in BUDGETS:
        _, info = attacked(make(), budget)
        assert (info.n_queries <= budget).all()
        assert (info.precision <= before).all()
        before = info.precision
    assert before.mean() < 0.8


@pytest.mark.parametrize("network", [relu_mlp, mlp], ids=["relu", "smooth"])
def test_the_points_of_a_smaller_budget_come_first(network):
    def points(budget):
        seen = []
        model = network()
        model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
        attacked(Saliency(model), budget, n=1, radius=0.3)
        return torch.cat(seen)

    fewer = points(7)
    for budget in (12, 30, 45, 70, 120):
        more = points(budget)
        assert len(more) > len(fewer)
        # The unperturbed example is evaluated again for the predictions.
        assert torch.equal(more[: len(fewer)], fewer)
        fewer = more


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
@pytest.mark.parametrize("budget", [4, 7, 10, 30, 45, 60])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_never_weaker_than_random_draws(budget, norm):
    """The whole budget in draws, once a gradient is followed; three draws before."""
    model = drawn(nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2)))
    x, saliency, radius = normal(40, 20), Saliency(model), 0.1 if norm == "Linf" else 0.5
    given = {"target": 1, "seed": 0}
    attack = AutoERAttack(saliency, 5, preserve_prediction="none")
    _, info = attack.perturb(x, radius, norm=norm, budget=budget, return_info=True, **given)
    noise = precision_at_k_min(
        saliency.attribute, x, 5, UniformNoise(norm), radius, budget if budget > 4 else 3, **given
    )
    assert info.precision.mean() <= noise.mean()


@pytest.mark.parametrize("make", [relu_mlp, lambda: drawn(nn.Sequential(nn.Linear(6, 3)))])
def test_a_budget_without_a_gradient_attack_is_flagged(make):
    for budget in (1, 4, 7, 10):
        _, info = attacked(Saliency(make()), budget)
        could_fall = info.precision > 0
        assert info.flags["not_attacked"] == could_fall.sum()
    _, info = attacked(Saliency(make()), 30)
    assert "not_attacked" not in info.flags


def test_budgets_work_with_images_and_a_start():
    x, attack = normal(4, 1, 4, 4), AutoERAttack(Saliency(convnet()), 3)
    given = {"target": 1, "seed": 0, "return_info": True}
    start, before = attack.perturb(x, 0.3, budget=60, **given)
    for budget in (2, 5, 40):
        _, after = attack.perturb(x, 0.4, start=start, budget=budget, **given)
        assert (after.precision <= before.precision).all() and (after.n_queries <= budget).all()


class TestSeconds:
    def clock(self, monkeypatch):
        """Every reading of the time is one second later."""
        seconds = itertools.count()
        time = SimpleNamespace(monotonic=lambda: next(seconds))
        monkeypatch.setattr(limit, "time", time)
        monkeypatch.setattr(limits, "time", time)

    def test_no_step_begins_after_the_deadline(self, monkeypatch):
        before = torch.ones(N).double()
        queries = torch.zeros(N)
        for seconds in (1, 10, 40, 200):
            self.clock(monkeypatch)
            _, info = attacked(Saliency(relu_mlp()), seconds=seconds)
            assert (info.precision <= before).all() and (info.n_queries >= queries).all()
            # A step takes two attributions, and the network is examined by four.
            assert (info.n_queries <= 2 * seconds + 6).all()
            could_fall = (info.precision > 0).sum()
            assert info.flags["time_over"] == could_fall
            before, queries = info.precision, info.n_queries
        assert before.mean() < 1

    def test_too_little_time_is_no_attack(self, monkeypatch):
        self.clock(monkeypatch)
        _, info = attacked(Saliency(relu_mlp()), seconds=3)
        assert info.flags["not_attacked"] == (info.precision > 0).sum()

    def test_enough_time_is_no_limit_but_the_order(self):
        _, timed = attacked(Saliency(mlp()), 60, seconds=1e6)
        _, budgeted = attacked(Saliency(mlp()), 60)
        assert torch.equal(timed.precision, budgeted.precision)
        assert "time_over" not in timed.flags and "not_attacked" not in timed.flags

    def test_time_must_be_positive(self):
        for seconds in (0, -1.0, float("nan")):
            with pytest.raises(ValueError, match="seconds must be positive, got"):
                attacked(Saliency(mlp()), seconds=seconds)
