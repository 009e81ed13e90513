"""R2ETLoss around a DistributedDataParallel model, in two real processes."""

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from captum_robust.loss import R2ETLoss
from tests.loss.r2et_by_definition import drawn, labels, normal, parameter_gradients

CASES = [(norm, hessian) for norm in (False, True) for hessian in ("finite_difference", "hvp")]


def network(norm):
    layers = [nn.BatchNorm1d(5)] if norm else []
    return drawn(nn.Sequential(nn.Linear(6, 5), *layers, nn.Softplus(), nn.Linear(5, 3)))


def shard(rank):
    return normal(4, 6, seed=rank), labels()


def train_one_step(rank, folder):
    """The process of one rank: gradients of every case, and that a second step is possible."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    gradients = []
    for norm, hessian in CASES:
        model = network(norm)
        criterion = R2ETLoss(DistributedDataParallel(model), 2, hessian=hessian)
        criterion(*shard(rank)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        criterion(*shard(rank)).backward()
    torch.save(gradients, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_each_process_gets_the_mean_of_the_gradients_of_all(tmp_path):
    multiprocessing.spawn(train_one_step, args=(str(tmp_path),), nprocs=2)
    for case, (norm, hessian) in enumerate(CASES):
        alone = []
        for rank in range(2):
            model = network(norm)
            loss = R2ETLoss(model, 2, hessian=hessian)(*shard(rank))
            alone.append(parameter_gradients(loss, model))
        assert not torch.allclose(*alone)
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}.pt")[case]
            torch.testing.assert_close(found, sum(alone) / 2)
