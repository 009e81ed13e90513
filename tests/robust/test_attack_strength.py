"""The strength of attacks per example: more effort never finds less."""

import pytest
import torch

from tests.robust.targets import TARGETS, as_tuple, normal

every_target = pytest.mark.parametrize("target", TARGETS, ids=str)

# The reported objective and the one written out add the same numbers in another order.
ROUNDING = 1e-12
# Steps so long that they overshoot: the last iterate is often not the best.
LONG = {"step_size": 0.35}


@every_target
def test_the_objective_is_that_of_stock_captum_at_the_returned_inputs(target):
    moved, info = target.perturb(return_info=True)
    value = target.value(moved)
    assert torch.allclose(info.objective, value, rtol=0, atol=ROUNDING)
    assert (value < target.value(target.network.inputs) - 1e-3).any()


@every_target
def test_more_steps_of_the_same_size_are_never_weaker(target):
    few, more, many = (target.value(target.perturb(step_num=n, **LONG)) for n in (1, 3, 8))
    assert (few <= target.value(target.network.inputs) + ROUNDING).all()
    assert (more <= few + ROUNDING).all() and (many <= more + ROUNDING).all()
    assert (many < few - 1e-3).any()


@every_target
@pytest.mark.parametrize("step_num", [0, 2])
def test_more_restarts_are_never_weaker(target, step_num):
    arguments = {"random_start": True, "step_num": step_num, **LONG}
    one, two, five = (target.value(target.perturb(n_restarts=n, **arguments)) for n in (1, 2, 5))
    assert (two <= one + ROUNDING).all() and (five <= two + ROUNDING).all()
    assert (five < one - 1e-3).any()


@every_target
def test_a_larger_radius_from_the_result_of_a_smaller_one_is_never_weaker(target):
    radius = target.network.radius
    small = target.perturb(radius=radius)
    same = target.perturb(radius=radius, start=small, step_num=1, **LONG)
    large = target.perturb(radius=1.5 * radius, start=small, **LONG)
    assert (target.value(same) <= target.value(small) + ROUNDING).all()
    assert (target.value(large) <= target.value(small) + ROUNDING).all()
    assert (target.value(large) < target.value(small) - 1e-3).any()


@every_target
def test_a_bad_start_is_never_worse_than_no_attack(target):
    inputs = as_tuple(target.network.inputs)
    for seed in range(3):
        far = tuple(x + 10 * normal(*x.shape, seed=50 + seed) for x in inputs)
        start = far if isinstance(target.network.inputs, tuple) else far[0]
        moved = target.perturb(start=start, step_num=0)
        assert (target.value(moved) <= target.value(target.network.inputs) + ROUNDING).all()


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if t.name.startswith(("er-mlp", "mse", "er-smooth"))], ids=str
)
def test_the_best_iterate_of_all_restarts_is_chosen_for_each_example(target):
    moved, info = target.perturb(n_restarts=4, return_info=True, preserve_prediction="none", **LONG)
    assert info.trace.shape == (4, 6, 5)
    start = target.value(target.network.inputs)
    best = torch.minimum(info.trace.flatten(0, 1).amin(dim=0), start)
    assert torch.allclose(target.value(moved), best, rtol=0, atol=ROUNDING)
    assert len(info.trace.amin(dim=1).argmin(dim=0).unique()) > 1, "one restart suits all: no test"


def test_restarts_differ_from_each_other_and_examples_from_their_neighbours():
    target = TARGETS[0]
    _, info = target.perturb(n_restarts=4, step_num=0, random_start=True, return_info=True)
    assert len(info.trace[:, 0].flatten().unique()) == 4 * 5
