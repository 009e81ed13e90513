"""Gradients of every loss on networks with normalisation layers, beside central differences."""

from __future__ import annotations

import copy

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn
from torch.autograd.functional import hessian as hessian_of

from captum_robust.loss import CrossLipschitzLoss, HessianNormLoss, R2ETLoss
from tests.loss.central_differences import gradient_error
from tests.loss.losses import REGULARISERS, criterion_of
from tests.loss.r2et_by_definition import drawn, labels, normal, score

every_regulariser = pytest.mark.parametrize("name", REGULARISERS)


def flat(layer):
    """The bias of a layer before batch normalisation has no gradient, so it has none."""
    layers = nn.Linear(4, 4, bias=False), layer, nn.Softplus(), nn.Linear(4, 3)
    return drawn(nn.Sequential(*layers)).train()


def convolutional(layer):
    layers = nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 2, (2, 1), padding=(1, 0), bias=False)
    head = nn.Softplus(), nn.Flatten(), nn.Linear(12, 3)
    return drawn(nn.Sequential(*layers, layer, *head)).train()


NETWORKS = {
    "BatchNorm1d": lambda: flat(nn.BatchNorm1d(4)),
    "BatchNorm1d, no statistics": lambda: flat(nn.BatchNorm1d(4, track_running_stats=False)).eval(),
    "BatchNorm2d": lambda: convolutional(nn.BatchNorm2d(2, affine=False)),
    "InstanceNorm2d": lambda: convolutional(nn.InstanceNorm2d(2, affine=True)),
    "InstanceNorm2d, evaluation": lambda: convolutional(nn.InstanceNorm2d(2)).eval(),
    "LayerNorm": lambda: flat(nn.LayerNorm(4)),
    "GroupNorm": lambda: convolutional(nn.GroupNorm(1, 2)),
}


def little(outputs, target):
    """A base loss so small that it adds nothing but a gradient by the last bias."""
    return 1e-2 * outputs.square().sum()


@every_regulariser
@pytest.mark.parametrize("network", NETWORKS)
def test_parameter_gradients(network, name):
    model, x, y = NETWORKS[network](), normal(3, 4, seed=3), labels(n_examples=3)
    criterion = criterion_of(name, model, base_loss=little)
    assert gradient_error(lambda: criterion(x, y), model.parameters()) < 1e-6


@every_regulariser
@pytest.mark.parametrize("network", ["BatchNorm1d", "LayerNorm"])
def test_an_embedding_upstream(network, name):
    embedding, model, y = drawn(nn.Linear(3, 4)), NETWORKS[network](), labels(n_examples=3)
    criterion = criterion_of(name, model)
    error = gradient_error(
        lambda: criterion(torch.tanh(embedding(normal(3, 3))), y), embedding.parameters()
    )
    assert error < 1e-6


@pytest.mark.parametrize("attribution", [Saliency, InputXGradient])
@pytest.mark.parametrize("network", ["BatchNorm1d", "LayerNorm"])
def test_maps_of_an_attribution(network, attribution):
    model, x, y = NETWORKS[network](), normal(3, 4, seed=3), labels(n_examples=3)
    criterion = CrossLipschitzLoss(model, 2, little, attribution=attribution(model))
    assert gradient_error(lambda: criterion(x, y), model.parameters()) < 1e-6


@pytest.mark.parametrize("hessian", ["hvp", "exact"])
def test_a_part_of_the_batch(hessian):
    model, x, y = NETWORKS["BatchNorm1d"](), normal(6, 4, seed=3), labels(n_examples=6)
    options = {"hessian": hessian, "fraction": 0.5, "seed": 0}

    def loss():
        return R2ETLoss(model, 2, little, **options)(x, y)

    assert gradient_error(loss, model.parameters()) < 1e-6


def test_attention_and_layer_norm_together():
    block = nn.TransformerEncoderLayer(4, 2, 5, 0.0, activation="gelu", batch_first=True)
    model = drawn(nn.Sequential(nn.Unflatten(1, (2, 4)), block, nn.Flatten(), nn.Linear(8, 2)))
    x, y = normal(2, 8), labels(n_examples=2) % 2
    criterion = HessianNormLoss(model.train(), little, hessian="hvp")
    assert gradient_error(lambda: criterion(x, y), model.parameters()) < 1e-6


# --- values ------------------------------------------------------------------------------------


def batch_hessians(model, x, y):
    """Second derivatives of the sum of the scores by all inputs, (N, n, N, n)."""

    def total(x):
        outputs = model(x)
        return sum(score(o[None], int(c), "probability") for o, c in zip(outputs, y, strict=True))

    return hessian_of(total, x)


@pytest.mark.parametrize("wrapped", [False, True])
def test_exact_norms_are_of_the_own_block_of_each_example(wrapped):
    model, x, y = NETWORKS["BatchNorm1d"](), normal(5, 4), labels(n_examples=5)
    blocks = torch.einsum("iaib->iab", batch_hessians(model, x, y))
    expected = {"exact": blocks.flatten(1).norm(dim=1), "spectral": torch.linalg.eigvalsh(blocks)}
    expected["spectral"] = expected["spectral"].abs().amax(dim=1)
    forward_func = (lambda x: model(x)) if wrapped else model
    for hessian, norms in expected.items():
        criterion = HessianNormLoss(
            forward_func, lambda *_: torch.zeros(5), 1.0, hessian, reduction="none"
        )
        torch.testing.assert_close(criterion(x, y), norms, rtol=1e-10, atol=0)
        assert norms.min() > 1e-3


def test_the_product_moves_all_examples_at_once():
    model, x, y = NETWORKS["BatchNorm1d"](), normal(5, 4), labels(n_examples=5)
    hessian = batch_hessians(model, x, y)
    leaf = x.clone().requires_grad_()
    chosen = model(leaf).softmax(dim=1).gather(1, y[:, None])
    directions = torch.autograd.grad(chosen.sum(), leaf)[0].sign() / 2  # of length 1
    expected = torch.einsum("iajb,jb->ia", hessian, directions).norm(dim=1)
    criterion = HessianNormLoss(
        model, lambda *_: torch.zeros(5), 1.0, hessian="hvp", reduction="none"
    )
    torch.testing.assert_close(criterion(x, y), expected)


@pytest.mark.parametrize("name", REGULARISERS)
def test_the_order_of_the_batch_does_not_matter(name):
    model, x, y = NETWORKS["BatchNorm1d"](), normal(5, 4), labels(n_examples=5)
    criterion = criterion_of(name, model, reduction="none")
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(criterion(x[order], y[order]), criterion(x, y)[order])


# --- left as torch leaves it -------------------------------------------------------------------


@every_regulariser
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"momentum": 0.3, "affine": False}])
def test_running_statistics_are_torch_s(options, name):
    model = flat(nn.BatchNorm1d(4, **options))
    plain, held = copy.deepcopy(model), dict(model.named_buffers())
    for seed in range(2):
        criterion_of(name, model)(normal(5, 4, seed=seed), labels(n_examples=5)).backward()
        plain(normal(5, 4, seed=seed))
    for key, buffer in model.named_buffers():
        assert buffer is held[key] and torch.equal(buffer, plain.get_buffer(key))
    assert int(model[1].num_batches_tracked) == 2


@pytest.mark.parametrize("name", ["R2ET-mm, exp", "CL"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("network", ["BatchNorm1d", "InstanceNorm2d", "LayerNorm"])
def test_half_precision(network, dtype, name):
    x, y = normal(6, 4), labels(n_examples=6)
    double = criterion_of(name, NETWORKS[network]())(x, y)
    model = NETWORKS[network]().to(dtype)
    loss = criterion_of(name, model)(x.to(dtype), y)
    loss.backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == dtype for p in model.parameters())
    assert abs(loss.item() - double.item()) < 0.2
