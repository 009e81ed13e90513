"""The cost of attacks: counts of calls of the model, and the memory that is left in use."""

import gc
import os
from pathlib import Path

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_robust.robust import ERAttack, MSEAttack
from tests.robust.targets import drawn, mlp, normal


class Counted(nn.Module):
    """A model that counts its forward passes, and the rows of each."""

    def __init__(self):
        super().__init__()
        self.inner, self.rows = mlp(), []

    def forward(self, x):
        self.rows.append(len(x))
        return self.inner(x)


STEPS = 7
COSTS = {
    "ERAttack": (lambda m: ERAttack(Saliency(m), k=2), STEPS + 1),
    "InputXGradient": (lambda m: ERAttack(InputXGradient(m), k=2), STEPS + 1),
    "early stop": (
        lambda m: ERAttack(Saliency(m), k=2, preserve_prediction="early_stop"),
        STEPS + 1,
    ),
    "unconstrained": (lambda m: ERAttack(Saliency(m), k=2, preserve_prediction="none"), STEPS + 1),
    # The example, before its random start.
    "MSEAttack": (lambda m: MSEAttack(Saliency(m)), STEPS + 2),
    # One more a step, on the smoothed network.
    "smooth_relu": (lambda m: ERAttack(Saliency(m), k=2, smooth_relu=5.0), 2 * STEPS + 1),
    "differences": (
        lambda m: ERAttack(Saliency(m), k=2, gradient="finite_difference"),
        2 * STEPS + 1,
    ),
    # One more an iterate, for its prediction.
    "IntegratedGradients": (lambda m: ERAttack(IntegratedGradients(m), k=2), 2 * STEPS + 2),
}


# Before the search, two forwards show whether the output depends on chance or on the batch.
CHECK = 2


@pytest.mark.parametrize("return_info", [False, True])
@pytest.mark.parametrize("make, forwards", COSTS.values(), ids=COSTS)
def test_forwards_of_an_attack_with_its_evaluation(make, forwards, return_info):
    model = Counted()
    make(model).perturb(
        normal(5, 6), 0.3, step_num=STEPS, target=1, seed=0, return_info=return_info
    )
    assert len(model.rows) == CHECK + forwards
    if forwards != 2 * STEPS + 2:
        assert model.rows == [5] * (CHECK + forwards), "the whole batch at once"


def test_restarts_and_chunks_cost_no_more_than_their_share():
    model = Counted()
    attack = ERAttack(Saliency(model), k=2)
    attack.perturb(normal(5, 6), 0.3, step_num=STEPS, target=1, n_restarts=3)
    assert len(model.rows) == CHECK + 3 * (STEPS + 1)
    model.rows.clear()
    attack.perturb(normal(5, 6), 0.3, step_num=STEPS, target=1, max_examples_per_batch=2)
    assert sorted(model.rows) == [1] * (STEPS + 1) + [2] * (CHECK + 2 * (STEPS + 1))


def live_tensors():
    gc.collect()
    return sum(issubclass(type(item), torch.Tensor) for item in gc.get_objects())


def resident_megabytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_an_attack_leaves_no_tensors_behind():
    attack, x = ERAttack(Saliency(mlp()), k=2, smooth_relu=5.0), normal(5, 6)
    attack.perturb(x, 0.3, step_num=3, target=1)
    before = live_tensors()
    attack.perturb(x, 0.3, step_num=30, target=1, n_restarts=2)
    assert live_tensors() == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_is_flat_over_a_thousand_steps():
    wide = drawn(nn.Sequential(nn.Linear(25_000, 2), nn.Softplus(), nn.Linear(2, 2)))
    attack, x = ERAttack(Saliency(wide), k=8), normal(1, 25_000)
    found, n_calls = [], 0

    def note(points):
        nonlocal n_calls
        n_calls += 1
        if n_calls in (100, 1000):
            found.append((live_tensors(), resident_megabytes()))
        return points

    attack.perturb(x, 0.3, step_num=1000, target=1, project=note)
    (tensors, megabytes), (tensors_later, megabytes_later) = found
    assert tensors_later == tensors
    # An iterate has 0.2 MB: one of them, or one map, kept a step would be 180 MB in 900 steps. The
    # allocator's own movements stay below 10 MB.
    assert megabytes_later - megabytes < 20
