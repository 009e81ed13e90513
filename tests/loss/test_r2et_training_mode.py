"""A training step with R2ETLoss: its side effects, and the state of its two forward passes."""

import copy
import pickle

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn
from torch.nn import functional as F

from captum_robust.datasets import load_breast_cancer
from captum_robust.loss import R2ETLoss
from captum_robust.metrics import ranking_gap, ranking_thickness
from captum_robust.models import TabularMLP
from tests.loss.r2et_by_definition import (
    TwoInputs,
    drawn,
    labels,
    mlp,
    normal,
    parameter_gradients,
    r2et_by_definition,
)

HESSIANS = ["finite_difference", "hvp", "exact"]
NORMS = [
    nn.BatchNorm1d(5),
    nn.BatchNorm1d(5, momentum=None),
    nn.Sequential(
        nn.Unflatten(1, (1, 5)), nn.InstanceNorm1d(1, track_running_stats=True), nn.Flatten()
    ),
]


def with_layers(*layers):
    """An affine layer, the given ones, softplus, an affine layer; in training mode."""
    return drawn(nn.Sequential(nn.Linear(6, 5), *layers, nn.Softplus(), nn.Linear(5, 3)))


def smooth_grad(model):
    return NoiseTunnel(Saliency(model))


def buffers_of(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


# --- parameters --------------------------------------------------------------------------------


class Task(nn.Module):
    """A model and its criterion side by side, as a LightningModule holds them."""

    def __init__(self):
        super().__init__()
        self.model = mlp()
        self.criterion = R2ETLoss(self.model, 2)


def test_the_criterion_registers_nothing():
    criterion = R2ETLoss(mlp(), 2, attribution=Saliency(mlp()))
    assert criterion.state_dict() == {}
    assert list(criterion.parameters()) == list(criterion.buffers()) == []
    assert list(criterion.children()) == []


def test_another_model_set_later_is_not_registered_either():
    criterion = R2ETLoss(mlp(), 2)
    other = nn.Linear(6, 3).double()
    criterion.forward_func = other
    assert criterion.state_dict() == {} and list(criterion.children()) == []
    expected = R2ETLoss(other, 2)(normal(4, 6), labels())
    assert torch.equal(criterion(normal(4, 6), labels()), expected)


def test_beside_its_model_every_parameter_is_registered_once():
    task = Task()
    names = [name for name, _ in task.named_parameters(remove_duplicate=False)]
    assert names == [f"model.{name}" for name, _ in task.model.named_parameters()]
    assert task.state_dict().keys() == {f"model.{name}" for name in task.model.state_dict()}


def test_a_base_loss_that_is_a_module_keeps_its_buffers():
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    criterion = R2ETLoss(mlp(), 2, nn.CrossEntropyLoss(weight=weights), lambda1=0.0, lambda2=0.0)
    assert criterion.state_dict().keys() == {"base_loss.weight"}
    criterion.double()
    x, y = normal(4, 6), labels()
    assert torch.equal(criterion(x, y), F.cross_entropy(mlp()(x), y, weight=weights))
    assert criterion.float().base_loss.weight.dtype == torch.float32


def test_an_optimiser_over_the_model_lowers_the_loss():
    model, x, y = mlp(), normal(16, 6), labels(n_examples=16)
    criterion = R2ETLoss(model, 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = criterion(x, y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_explains_the_copied_model(copied):
    x, y = normal(4, 6), labels()
    task = Task()
    expected = task.criterion(x, y)
    twin = copied(task)
    assert twin.criterion.forward_func is twin.model is not task.model
    twin.criterion(x, y).backward()
    assert all(p.grad is None for p in task.parameters())
    twin.model[0].weight.data.zero_()
    assert torch.equal(task.criterion(x, y), expected)


def test_a_copy_of_a_used_criterion_gives_the_same_loss():
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = R2ETLoss(model, 2, nn.CrossEntropyLoss(), attribution=Saliency(model))
    loss = criterion(x, y)
    twin = copy.deepcopy(criterion)
    assert twin.forward_func is twin.attribution.forward_func is not model
    assert torch.equal(twin(x, y), loss)


# --- the caller's tensors ----------------------------------------------------------------------


@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_inputs_are_left_as_found(hessian, requires_grad):
    inputs = tuple(t.requires_grad_(requires_grad) for t in (normal(4, 3), normal(4, 1, 2, seed=1)))
    values = tuple(t.detach().clone() for t in inputs)
    y = labels()
    model = TwoInputs()
    R2ETLoss(model, 2, hessian=hessian, attribution=Saliency(model))(inputs, y)
    for tensor, value in zip(inputs, values, strict=True):
        assert tensor.requires_grad is requires_grad and tensor.is_leaf
        assert tensor.grad is None and torch.equal(tensor, value)
    assert torch.equal(y, labels())
    assert all(p.grad is None for p in model.parameters())


def test_backward_leaves_nothing_on_inputs_without_grad_and_the_gradient_on_those_with():
    plain, leaf = normal(4, 6), normal(4, 6).requires_grad_()
    R2ETLoss(mlp(), 2)(plain, labels()).backward()
    R2ETLoss(mlp(), 2)(leaf, labels()).backward()
    assert plain.grad is None
    assert leaf.grad is not None and leaf.grad.abs().min() > 0


def test_views_and_channels_last_inputs():
    model = drawn(nn.Sequential(nn.Conv2d(2, 3, 2), nn.Softplus(), nn.Flatten(), nn.Linear(12, 3)))
    x, y = normal(4, 2, 3, 3), labels()
    for hessian in HESSIANS:
        criterion = R2ETLoss(model, 5, hessian=hessian)
        expected = criterion(x, y)
        channels_last = x.contiguous(memory_format=torch.channels_last)
        every_second = torch.stack([x, -x], dim=4)[..., 0]
        for strided in (channels_last, every_second):
            assert not strided.is_contiguous()
            torch.testing.assert_close(criterion(strided, y), expected, rtol=1e-12, atol=0)


# --- batch statistics --------------------------------------------------------------------------


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("attribution", [None, Saliency, smooth_grad])
@pytest.mark.parametrize("norm", NORMS, ids=["BatchNorm", "BatchNorm, cumulative", "InstanceNorm"])
def test_running_statistics_move_as_by_one_plain_forward(norm, attribution, hessian):
    model = with_layers(copy.deepcopy(norm))
    plain = copy.deepcopy(model)
    criterion = R2ETLoss(model, 2, hessian=hessian, attribution=attribution and attribution(model))
    held = dict(model.named_buffers())
    for step in range(2):
        before = buffers_of(model)
        x = normal(8, 6, seed=step)
        criterion(x, labels(n_examples=8)).backward()
        plain(x)
        for name, buffer in model.named_buffers():
            assert buffer is held[name] and torch.equal(buffer, plain.get_buffer(name))
            if "running" in name:
                assert not torch.equal(buffer, before[name])


def test_batch_statistics_couple_the_examples_as_documented():
    x, y = normal(8, 6), labels(n_examples=8)
    criterion = R2ETLoss(with_layers(nn.BatchNorm1d(5)), 2, reduction="none")
    together = criterion(x, y)
    criterion.forward_func.eval()
    apart = criterion(x, y)
    torch.testing.assert_close(
        torch.cat([criterion(x[i : i + 1], y[i : i + 1]) for i in range(8)]), apart
    )
    assert not torch.allclose(together, apart)


def test_running_statistics_survive_an_exception_in_the_second_forward():
    class Once(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = with_layers(nn.BatchNorm1d(5))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            out = self.model(x)
            if self.calls == 2:
                raise KeyError
            return out

    model = Once()
    plain = copy.deepcopy(model)
    with pytest.raises(KeyError):
        R2ETLoss(model, 2)(normal(4, 6), labels())
    plain(normal(4, 6))
    for buffer, expected in zip(model.buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, expected)


def test_both_forwards_see_the_same_spectral_norm():
    # Its power iteration moves at every forward in training mode.
    linear = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)).double()
    criterion = R2ETLoss(linear, 2, explain="logit")
    for _ in range(3):
        criterion(normal(4, 6), labels()).backward()
        assert criterion.last_terms["hessian"] == 0


def test_modules_that_do_not_train_are_not_touched():
    model = with_layers(nn.BatchNorm1d(5)).eval()
    before, held = buffers_of(model), dict(model.named_buffers())
    R2ETLoss(model, 2)(normal(4, 6), labels()).backward()
    assert not any(module.training for module in model.modules())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]) and buffer is held[name]


# --- dropout and randomness --------------------------------------------------------------------


def test_both_forwards_drop_the_same_features():
    # A linear model has no curvature, but two masks differ by whole weights.
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 3)).double()
    criterion = R2ETLoss(model, 2, explain="logit", reduction="none")
    for seed in range(5):
        torch.manual_seed(seed)
        criterion(normal(32, 6), labels(n_examples=32))
        assert criterion.last_terms["hessian"] == 0


def test_the_terms_are_those_of_the_dropped_network():
    model, x, y = with_layers(nn.Dropout(0.5)), normal(1, 6), labels(n_examples=1)
    torch.manual_seed(0)
    loss = R2ETLoss(model, 2)(x, y)

    class Seeded(nn.Module):
        def forward(self, x):
            torch.manual_seed(0)
            return model(x)

    expected = r2et_by_definition(Seeded(), x, y, 2)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        parameter_gradients(loss, model), parameter_gradients(expected, model)
    )


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize(
    ("train", "attribution"), [(True, None), (False, None), (False, Saliency)]
)  # in training mode an attribution draws a mask of its own
def test_the_random_state_is_that_after_a_plain_forward(train, attribution, hessian):
    model = with_layers(nn.Dropout(0.5)).train(train)
    torch.manual_seed(0)
    model(normal(4, 6))
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    criterion = R2ETLoss(model, 2, hessian=hessian, attribution=attribution and attribution(model))
    criterion(normal(4, 6), labels()).backward()
    assert torch.equal(torch.get_rng_state(), expected)


def test_masks_are_drawn_anew_at_every_step():
    criterion = R2ETLoss(with_layers(nn.Dropout(0.5)), 2)
    assert criterion(normal(4, 6), labels()) != criterion(normal(4, 6), labels())


def test_the_mode_of_the_model_is_not_changed():
    model = with_layers(nn.BatchNorm1d(5), nn.Dropout(0.5))
    model[1].eval()
    modes = [module.training for module in model.modules()]
    R2ETLoss(model, 2)(normal(4, 6), labels()).backward()
    assert [module.training for module in model.modules()] == modes


def test_a_function_around_the_model_works_too():
    model, x, y = mlp(), normal(4, 6), labels()
    expected = R2ETLoss(model, 2)(x, y)
    assert torch.equal(R2ETLoss(lambda x: model(x), 2)(x, y), expected)
    assert torch.equal(R2ETLoss(model.forward, 2)(x, y), expected)


# --- without gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("attribution", [None, Saliency])
def test_under_no_grad_it_returns_the_value(attribution, hessian):
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = R2ETLoss(model, 2, hessian=hessian, attribution=attribution and attribution(model))
    expected = criterion(x, y)
    with torch.no_grad():
        loss = criterion(x, y)
    assert not loss.requires_grad
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("lambdas", [(0.1, 0.1), (0.0, 0.0)])
def test_a_frozen_model_has_a_loss_too(lambdas):
    model = mlp()
    expected = R2ETLoss(model, 2, None, *lambdas)(normal(4, 6), labels())
    model.requires_grad_(False)
    assert torch.equal(R2ETLoss(model, 2, None, *lambdas)(normal(4, 6), labels()), expected)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_a_transformer_trains(hessian):
    torch.manual_seed(0)

    class Classifier(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.TransformerEncoderLayer(
                4, 2, 8, dropout=0.0, activation="gelu", batch_first=True
            )
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            return self.out(self.encoder(x).mean(dim=1))

    model = Classifier().double()
    R2ETLoss(model, 2, hessian=hessian)(normal(4, 3, 4), labels()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


# --- the purpose -------------------------------------------------------------------------------


def trained(table, rows, seed, **weights):
    torch.manual_seed(seed)
    model = TabularMLP(30, activation=nn.Softplus)
    # Of maps that sum to 1: raw gaps can also grow with the scale of the gradient alone.
    criterion = R2ETLoss(model, 8, normalize=True, **weights)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        criterion(table.inputs[rows], table.targets[rows]).backward()
        optimiser.step()
    return model


def held_out_results(model, inputs, targets):
    """Accuracy, gap of the 8th and 9th share of the map, thickness at radius 1."""
    accuracy = ((model(inputs).flatten() > 0) == (targets == 1)).double().mean().item()
    attribute = Saliency(model).attribute
    maps = attribute(inputs.clone().requires_grad_(), target=0)
    gap = ranking_gap(maps / maps.sum(dim=1, keepdim=True), 8).mean().item()
    thickness = ranking_thickness(
        attribute, inputs[:60], 8,
        perturb_radius=1.0, n_perturb_samples=2, n_steps=8, seed=0, target=0,
    ).mean().item()  # fmt: skip
    return accuracy, gap, thickness


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_r2et_widens_gaps_and_thickness_on_breast_cancer_at_comparable_accuracy(seed):
    table = load_breast_cancer()
    held_out = torch.arange(len(table.targets)) % 3 == 0
    plain, robust = (
        held_out_results(
            trained(table, ~held_out, seed, **weights),
            table.inputs[held_out],
            table.targets[held_out],
        )
        for weights in ({"lambda1": 0.0, "lambda2": 0.0}, {})
    )
    assert robust[0] > 0.96 and robust[0] > plain[0] - 0.015  # of 190 rows: at most 2 more wrong
    assert robust[1] > 2 * plain[1]
    assert 1 - robust[2] < (1 - plain[2]) / 2
