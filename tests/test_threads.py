"""Calls in several threads give the results of calls in turn, and leave all global states alone."""

import contextlib
import copy
import random
import threading
import warnings

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from captum_robust._utils import random as seeds
from captum_robust._utils import state as modes
from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.noise import UniformNoise
from captum_robust.robust import ERAttack, RandomSearchAttack


def model():
    torch.manual_seed(0)
    layers = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)
    return nn.Sequential(*layers).double().train()


def rows():
    return torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


SHARED = model()
CALLS = {
    "attack on SmoothGrad": lambda seed: ERAttack(NoiseTunnel(Saliency(SHARED)), k=2).perturb(
        rows(), 0.3, target=0, seed=seed, step_num=3, nt_samples=3
    ),
    "random search": lambda seed: RandomSearchAttack(Saliency(SHARED), k=2).perturb(
        rows(), 0.3, target=0, seed=seed, step_num=10
    ),
    "thickness of SmoothGrad": lambda seed: ranking_thickness(
        NoiseTunnel(Saliency(SHARED)).attribute, rows(), 2, UniformNoise(), 0.3, 2,
        n_steps=2, target=0, seed=seed, nt_samples=3,
    ),
    "smallest precision": lambda seed: precision_at_k_min(
        Saliency(SHARED).attribute, rows(), 2, UniformNoise(), 0.3, 2, target=0, seed=seed
    ),
}  # fmt: skip


def states():
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    buffers = {name: b.tolist() for name, b in SHARED.named_buffers()}
    modes = [m.training for m in SHARED.modules()]
    return (
        torch.get_rng_state().tolist(), str(numpy_state), random.getstate(), buffers, modes,
        list(warnings.filters),
    )  # fmt: skip


def in_threads(calls):
    """Results of the calls, started at the same time in one thread each."""
    results = [None] * len(calls)
    barrier = threading.Barrier(len(calls))

    def work(number, call):
        barrier.wait()
        results[number] = call()

    threads = [threading.Thread(target=work, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def disagreements():
    """Results in threads that are not those in turn, and whether a state has changed."""
    named = [(name, seed) for name in CALLS for seed in (1, 2)]
    expected = [CALLS[name](seed) for name, seed in named]
    before = states()
    found = in_threads([lambda n=name, s=seed: CALLS[n](s) for name, seed in named])
    wrong = [
        pair
        for pair, one, other in zip(named, expected, found, strict=True)
        if other is None or not torch.equal(one, other)
    ]
    return wrong, states() != before


def test_calls_in_threads_do_not_touch_each_other():
    assert disagreements() == ([], False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_the_lock_they_do(monkeypatch):
    """The test above can fail."""
    for module in (seeds, modes):
        monkeypatch.setattr(module, "EXCLUSIVE", contextlib.nullcontext())
    before, parts = states(), copy.deepcopy(SHARED.state_dict())
    try:
        assert any(disagreements() != ([], False) for _ in range(20))
    finally:
        torch.set_rng_state(torch.tensor(before[0], dtype=torch.uint8))
        random.setstate(before[2])
        SHARED.load_state_dict(parts)
        SHARED.train()
