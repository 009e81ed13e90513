"""Every loss under DistributedDataParallel, in two real processes: the gradient of one process."""

import copy

import pytest
import torch
from captum.attr import Saliency
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from tests.loss.losses import LOSSES, criterion_of
from tests.loss.r2et_by_definition import drawn, labels, normal, parameter_gradients

WRAPPINGS = [{}, {"static_graph": True}, {"find_unused_parameters": True}]
CASES = [
    *((name, wrapping, False, {}) for name in LOSSES for wrapping in WRAPPINGS),
    *(("R2ET", {}, True, {"hessian": hessian}) for hessian in ("finite_difference", "hvp")),
    ("R2ET", {}, False, {"every": 2}),
    ("R2ET", {}, True, {"fraction": 0.5, "seed": 0}),
    ("R2ET", {}, False, {"attribution": Saliency}),
]
N_STEPS = 2


class Partly(nn.Module):
    """A network of which a part is not used."""

    def __init__(self, norm):
        super().__init__()
        layers = [nn.BatchNorm1d(5)] if norm else []
        self.used = nn.Sequential(nn.Linear(6, 5), *layers, nn.Softplus(), nn.Linear(5, 3))
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def network(wrapping, norm):
    model = drawn(Partly(norm))
    # Without the flag, DistributedDataParallel waits for every parameter.
    return model if "find_unused_parameters" in wrapping else model.used


def criterion_around(name, model, attribution=None, **options):
    explained = {} if attribution is None else {"attribution": attribution(model)}
    return criterion_of(name, model, **explained, **options)


class Step(nn.Module):
    """The usual way with losses of gradients: what is wrapped computes the loss."""

    def __init__(self, name, model, options):
        super().__init__()
        self.model = model
        self.criterion = criterion_around(name, model, **options)

    def forward(self, x, y):
        return self.criterion(x, y)


def shard(rank):
    return normal(4, 6, seed=rank), labels()


def gradients_of(loss_of, model):
    """Those of some steps; the model itself does not move."""
    steps = []
    for _ in range(N_STEPS):
        model.zero_grad()
        loss_of().backward()
        steps.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    return torch.stack(steps)


def train(rank, folder):
    """The process of one rank."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = []
    x, y = shard(rank)
    for name, wrapping, norm, options in CASES:
        model = network(wrapping, norm)
        wrapper = DistributedDataParallel(model, **wrapping)
        criterion = criterion_around(name, wrapper, **options)
        direct = gradients_of(lambda: criterion(x, y), model)  # noqa: B023
        assert wrapper.module is model
        inner = network(wrapping, norm)
        step = DistributedDataParallel(Step(name, inner, options), **wrapping)
        found.append((direct, gradients_of(lambda: step(x, y), inner)))  # noqa: B023
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


def expected_gradients(name, options, model):
    alone = []
    for rank in range(2):
        own = copy.deepcopy(model)
        criterion = criterion_around(name, own, **options)
        x, y = shard(rank)
        alone.append(
            torch.stack([parameter_gradients(criterion(x, y), own) for _ in range(N_STEPS)])
        )
    assert not torch.allclose(*alone)
    return sum(alone) / 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:find_unused_parameters")
def test_each_process_gets_the_mean_of_the_gradients_of_all(tmp_path):
    multiprocessing.spawn(train, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case, (name, _, norm, options) in enumerate(CASES):
        expected = expected_gradients(name, options, network({}, norm))
        for found in ranks:
            for way in found[case]:
                torch.testing.assert_close(way, expected, msg=lambda m: f"{CASES[case]}: {m}")  # noqa: B023
