"""Repeatability: results depend on the seed and the example, not on order, chunks or history."""

import random

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, NoiseTunnel, Saliency

from captum_robust.robust import ERAttack, ExplanationAttack, MSEAttack
from tests.robust.targets import TARGETS, as_tuple, mlp, normal

every_target = pytest.mark.parametrize("target", TARGETS, ids=str)

# Matrix products of other batch sizes add in another order.
ROUNDING = {"rtol": 0, "atol": 1e-9}


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(as_tuple(a), as_tuple(b), strict=True))


def close(a, b):
    return all(
        torch.allclose(p, q, **ROUNDING) for p, q in zip(as_tuple(a), as_tuple(b), strict=True)
    )


def rows(inputs, index):
    picked = tuple(t[index] for t in as_tuple(inputs))
    return picked if isinstance(inputs, tuple) else picked[0]


def set_global_seeds(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


RANDOM = {"random_start": True, "n_restarts": 2, "step_num": 3}


@every_target
def test_a_seed_repeats_the_result_to_the_last_bit(target):
    first, info = target.perturb(seed=7, return_info=True, **RANDOM)
    second, again = target.perturb(seed=7, return_info=True, **RANDOM)
    assert same(first, second) and torch.equal(info.trace, again.trace)
    other, _ = target.perturb(seed=8, return_info=True, **RANDOM)
    assert not close(first, other)


def test_no_seed_is_a_new_seed_every_time():
    attack, x = MSEAttack(Saliency(mlp())), normal(4, 6)
    set_global_seeds(0)
    first = attack.perturb(x, 0.5, target=1, step_num=1)
    set_global_seeds(0)
    assert not torch.equal(first, attack.perturb(x, 0.5, target=1, step_num=1))


@every_target
def test_order_of_the_batch_does_not_matter(target):
    order = torch.tensor([3, 0, 4, 2, 1])
    inputs, y = target.network.inputs, target.network.target
    straight, info = target.perturb(return_info=True, **RANDOM)
    turned, other = target.perturb(
        inputs=rows(inputs, order), target=y[order], return_info=True, **RANDOM
    )
    assert close(rows(straight, order), turned)
    assert torch.allclose(info.trace[:, :, order], other.trace, **ROUNDING)
    assert torch.equal(info.prediction_kept[order], other.prediction_kept)
    if info.first_change_step is not None:
        assert torch.equal(info.first_change_step[order], other.first_change_step)


@every_target
@pytest.mark.parametrize("size", [1, 3])
def test_chunks_do_not_matter(target, size):
    whole, info = target.perturb(return_info=True, **RANDOM)
    parts, other = target.perturb(return_info=True, max_examples_per_batch=size, **RANDOM)
    assert close(whole, parts)
    assert torch.allclose(info.trace, other.trace, **ROUNDING)
    assert torch.allclose(info.objective, other.objective, **ROUNDING)
    assert torch.equal(info.n_queries, other.n_queries)


def test_chunks_that_stop_early_at_different_steps_are_joined():
    target = next(t for t in TARGETS if t.name == "er-two-Linf")
    arguments = {"preserve_prediction": "early_stop", "radius": 3.0, "step_size": 0.4}
    whole, info = target.perturb(return_info=True, step_num=10, **arguments)
    parts, other = target.perturb(
        return_info=True, step_num=10, max_examples_per_batch=1, **arguments
    )
    assert close(whole, parts)
    assert torch.allclose(info.objective, other.objective, **ROUNDING)
    ended = other.trace.isnan()
    assert ended.any() and not ended.all(dim=1).any()
    assert torch.allclose(info.trace[~ended], other.trace[~ended], **ROUNDING)


def test_arguments_of_each_example_follow_the_chunks():
    attack, x = ERAttack(Saliency(mlp()), k=2), normal(5, 6)
    radius, size = torch.linspace(0.1, 0.5, 5), torch.linspace(0.05, 0.1, 5)
    mask = normal(5, 6, seed=9) > -1
    start = x + 0.05 * normal(5, 6, seed=3)
    y = torch.tensor([0, 1, 2, 0, 1])
    whole, parts = (
        attack.perturb(
            x, radius, size, 4, target=y, mask=mask, start=start, max_examples_per_batch=n
        )
        for n in (None, 2)
    )
    assert torch.allclose(whole, parts, **ROUNDING)
    assert torch.equal(whole[~mask], x[~mask])
    assert ((whole - x).abs().amax(dim=1) <= radius.double() + 1e-12).all()


@pytest.mark.parametrize(
    "make, arguments",
    [
        (lambda m: NoiseTunnel(Saliency(m)), {"nt_samples": 3, "stdevs": 0.3}),
        (GradientShap, {"baselines": torch.zeros(3, 6).double(), "n_samples": 3}),
    ],
)
def test_a_stochastic_attribution_is_one_function_at_a_fixed_seed(make, arguments):
    attack, x = ERAttack(make(mlp()), k=2), normal(4, 6)
    run = {"radius": 0.5, "step_num": 4, "target": 1, "return_info": True, **arguments}
    first, info = attack.perturb(x, seed=3, **run)
    set_global_seeds(99)
    second, again = attack.perturb(x, seed=3, **run)
    assert torch.equal(first, second) and torch.equal(info.trace, again.trace)
    _, different = attack.perturb(x, seed=4, **run)
    assert not torch.allclose(info.trace[0, 0], different.trace[0, 0])
    assert (info.objective < info.trace[0, 0]).all()
    # A ball without room: every evaluation of the example sees the same random numbers.
    seen = []

    def watch(scores, reference):
        seen.append(scores.detach().clone())
        return scores[:, 0]

    still = ExplanationAttack(make(mlp()), watch, preserve_prediction="none")
    still.perturb(x, 0.0, step_num=3, target=1, seed=3, **arguments)
    assert len(seen) == 4 and all(torch.equal(scores, seen[0]) for scores in seen)
