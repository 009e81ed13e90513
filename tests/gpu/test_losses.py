"""Every loss and its parameter gradients are those of the CPU; dropout draws on the device."""

import pytest
import torch
from torch import nn

from captum_robust.loss import HessianNormLoss, R2ETLoss
from captum_robust.testing.snapshot import changes, random_state
from tests.gpu.device import DEVICE, assert_same, moved
from tests.loss.losses import LOSSES, REGULARISERS, criterion_of
from tests.robust.targets import TwoInputs, convnet, drawn, mlp, normal

LABELS = torch.tensor([0, 2, 1, 1, 0])


def normalised(layer):
    layers = nn.Linear(6, 5), layer, nn.Softplus(), nn.Linear(5, 3)
    return drawn(nn.Sequential(*layers)).train()


def single_logit():
    return drawn(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)))


NETWORKS = {
    "mlp": (mlp, normal(5, 6), LABELS),
    "conv": (convnet, normal(5, 1, 4, 4), LABELS),
    "two": (TwoInputs, (normal(5, 3), normal(5, 1, 2, seed=1)), LABELS),
    "batch norm": (lambda: normalised(nn.BatchNorm1d(5)), normal(5, 6), LABELS),
    "layer norm": (lambda: normalised(nn.LayerNorm(5)), normal(5, 6), LABELS),
    "logit": (single_logit, normal(5, 6), (LABELS > 0).double()),
}
every_loss = pytest.mark.parametrize("name", LOSSES)


def with_dropout():
    layers = nn.Linear(6, 5), nn.Dropout(0.5), nn.Softplus(), nn.Linear(5, 3)
    return drawn(nn.Sequential(*layers)).train()


def step_on(device, name, network):
    """The loss, the gradients of the parameters, and the buffers after the step."""
    build, inputs, labels = NETWORKS[network]
    model = moved(build(), device)
    loss = criterion_of(name, model)(moved(inputs, device), moved(labels, device))
    loss.backward()
    return loss, [p.grad for p in model.parameters()], list(model.buffers())


@every_loss
@pytest.mark.parametrize("network", NETWORKS)
def test_value_and_gradients(network, name):
    # A finite difference divides rounding by its step.
    assert_same(step_on(DEVICE, name, network), step_on("cpu", name, network), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("pairs", ["anchor", "mm", "all"])
@pytest.mark.parametrize("gap", ["linear", "exp"])
def test_r2et(gap, pairs):
    found = []
    for device in (DEVICE, "cpu"):
        model = moved(mlp(), device)
        criterion = R2ETLoss(model, 2, pairs=pairs, gap=gap, reduction="none", normalize=True)
        maps = moved(normal(5, 6, seed=3), device)
        target = moved(LABELS, device)
        loss = criterion(moved(normal(5, 6), device), target, reference_attributions=maps)
        loss.sum().backward()
        found.append((loss, criterion.last_terms, [p.grad for p in model.parameters()]))
    assert_same(*found, rtol=1e-6, atol=1e-8)


@every_loss
def test_a_step_draws_from_no_generator(name):
    build, inputs, labels = NETWORKS["mlp"]
    model = moved(build())
    before = random_state()
    criterion_of(name, model)(moved(inputs), moved(labels)).backward()
    assert not changes(before, random_state())


@every_loss
def test_dropout_draws_as_in_one_forward(name):
    model, x, y = moved(with_dropout()), moved(normal(5, 6)), moved(LABELS)
    criterion, states = criterion_of(name, model), []
    for step in (lambda: model(x), lambda: criterion(x, y)):
        torch.manual_seed(0)
        before = random_state()
        step().sum().backward()
        assert changes(before, random_state())
        states.append(random_state())
    assert not changes(*states)


def test_both_forwards_drop_the_same_features():
    """A linear model has no curvature, but two masks differ by whole weights."""
    model = moved(nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).double())
    criterion = R2ETLoss(model, 2, explain="logit", reduction="none")
    values = []
    for seed in range(3):
        torch.manual_seed(seed)
        values.append(criterion(moved(normal(32, 6)), moved(LABELS.repeat(7)[:32])))
        assert criterion.last_terms["hessian"] == 0
    assert not torch.equal(values[0], values[1])


def test_the_estimate_under_dropout_is_near_the_product():
    """The finite difference sees the network of the first forward, so it is near the derivative."""
    model, found = moved(with_dropout()), []
    for hessian in ("finite_difference", "hvp"):
        torch.manual_seed(0)
        criterion = HessianNormLoss(model, hessian=hessian, kappa=1e-5)
        criterion(moved(normal(5, 6)), moved(LABELS))
        found.append(criterion.last_terms["hessian"])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)
    assert found[1] > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", REGULARISERS)
def test_types(name, dtype):
    values = []
    for kind in (torch.float64, dtype):
        model = moved(mlp()).to(kind)
        loss = criterion_of(name, model)(moved(normal(5, 6)).to(kind), moved(LABELS))
        loss.backward()
        assert loss.device == DEVICE
        assert all(p.grad.isfinite().all() for p in model.parameters())
        values.append(loss.item())
    if dtype == torch.float32:  # bfloat16 has two digits, and a second derivative none
        assert values[1] == pytest.approx(values[0], rel=1e-3)
    assert values[1] == values[1]


def test_a_few_steps_of_training_lower_the_loss():
    model = moved(mlp()).float()
    criterion, x, y = R2ETLoss(model, 2), moved(normal(5, 6).float()), moved(LABELS)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01, fused=DEVICE.type == "cuda")
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = criterion(x, y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
