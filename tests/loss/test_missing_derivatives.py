"""Derivatives that are missing are errors, and no terms of zero."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from captum_robust.attr import NotDifferentiableError
from captum_robust.loss import (
    AdversarialRankingLoss,
    CrossLipschitzLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
)

LOSSES = {
    "R2ET": lambda model: R2ETLoss(model, 2),
    "R2ET, hvp": lambda model: R2ETLoss(model, 2, hessian="hvp"),
    "Est-H": HessianNormLoss,
    "Exact-H": lambda model: HessianNormLoss(model, hessian="exact"),
    "SSR": SSRLoss,
    "CL": lambda model: CrossLipschitzLoss(model, 2),
    "AT": lambda model: AdversarialRankingLoss(model, 2, 0.3),
}
every_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


def mlp(n_outputs=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, n_outputs)).double()


def batch(n=8):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x, torch.arange(n) % 2


class Through(nn.Module):
    """A network behind or before a function."""

    def __init__(self, before=None, after=None):
        super().__init__()
        self.net, self.before, self.after = mlp(), before, after

    def forward(self, x):
        outputs = self.net(x if self.before is None else self.before(x))
        return outputs if self.after is None else self.after(outputs)


class Frozen(Through):
    def forward(self, x):
        with torch.no_grad():
            hidden = self.net[:2](x)
        return self.net[2](hidden)


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].exp()


class Forgetful(torch.autograd.Function):
    """As Once, without its mark."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.exp()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].detach().exp()


def attend(x):
    rows = x[:, None, :, None].repeat(1, 1, 1, 4)
    return F.scaled_dot_product_attention(rows, rows, rows)[:, 0, :, 0]


@every_loss
def test_inference_mode_changes_nothing(make):
    model, (x, y) = mlp(), batch()
    expected = make(model)(x, y).detach()
    with torch.inference_mode():
        criterion = make(model)
        found = criterion(x.clone(), y.clone())  # tensors of inference mode
        assert not found.requires_grad
    torch.testing.assert_close(found.clone(), expected, rtol=1e-9, atol=0)
    make(model)(x, y).backward()  # the model can be trained after it


@every_loss
@pytest.mark.parametrize(
    "model",
    [
        Frozen(),
        Through(before=torch.Tensor.detach),
        Through(before=lambda x: x.long().to(x)),
        Through(before=torch.round),
        Through(before=lambda x: x.sign()),
    ],
    ids=["no_grad", "detach", "long", "round", "sign"],
)
def test_no_gradient_by_the_inputs(make, model):
    with pytest.raises(NotDifferentiableError, match=r"inputs.*(autograd|zero)"):
        make(model)(*batch())


@every_loss
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: torch.cdist(x, torch.eye(2, dtype=x.dtype)), "cdist"),
        (F.hardsigmoid, "hardsigmoid"),
        (lambda x: checkpoint(attend, x, use_reentrant=False), "checkpoint"),
        (Once.apply, "Once"),
        (Forgetful.apply, "Forgetful|detached"),
    ],
    ids=["cdist", "hardsigmoid", "checkpoint", "once", "forgetful"],
)
def test_no_second_derivative(make, function, name):
    model = Through(after=function)
    with pytest.raises(NotDifferentiableError, match=name):
        make(model)(*batch()).backward()


def test_a_custom_function_with_both_derivatives_trains():
    class Exp(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.exp()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * ctx.saved_tensors[0].exp()

    twins = Through(after=Exp.apply), Through(after=torch.exp)
    for make in LOSSES.values():
        for model in twins:
            model.zero_grad()
            make(model)(*batch()).backward()
        for p, q in zip(twins[0].parameters(), twins[1].parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12)


@every_loss
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Identity(), nn.Hardswish()], ids=repr)
def test_really_flat_is_not_missing(make, activation):
    model = nn.Sequential(nn.Linear(6, 64), activation, nn.Linear(64, 2))
    x, y = batch()
    make(model)(x.float(), y).backward()


def test_the_hessian_of_a_linear_model_is_zero():
    for hessian in ("hvp", "exact", "spectral"):
        criterion = HessianNormLoss(nn.Linear(6, 2), hessian=hessian, explain="logit")
        x, y = batch()
        criterion(x.float(), y)
        assert criterion.last_terms["hessian"] == 0


@every_loss
def test_an_input_that_is_not_used_is_named(make):
    class First(Through):
        def forward(self, x, other):
            return self.net(x)

    x, y = batch()
    with pytest.raises(ValueError, match=r"inputs\[1\]"):
        make(First())((x, torch.ones(8, 3).double()), y)


@every_loss
def test_token_ids_are_refused(make):
    with pytest.raises(ValueError, match=r"inputs\[0\].*embeddings"):
        make(Through())(torch.ones(8, 6, dtype=torch.long), torch.zeros(8, dtype=torch.long))


@every_loss
@pytest.mark.parametrize(
    "wrap",
    [lambda o: {"logits": o}, lambda o: (o,), lambda o: [o, o]],
    ids=["dict", "tuple", "list"],
)
def test_outputs_that_are_no_tensor(make, wrap):
    with pytest.raises(ValueError, match="forward_func must return one tensor"):
        make(Through(after=wrap))(*batch())


@every_loss
@pytest.mark.parametrize("labels", [[-1, 1], [1, 2], [0, float("nan")]], ids=str)
def test_binary_labels_are_0_and_1(make, labels):
    with pytest.raises(ValueError, match="target must hold 0 and 1"):
        make(mlp(1))(batch(2)[0], torch.tensor(labels, dtype=torch.float64))


@every_loss
@pytest.mark.parametrize("labels", [[-1, 1], [1, 2], [-100, 0]], ids=str)
def test_labels_are_classes(make, labels):
    with pytest.raises(ValueError, match="target must hold classes in 0 … 1"):
        make(mlp())(batch(2)[0], torch.tensor(labels))


def test_a_tensor_given_twice_counts_once_in_each_place():
    class Sum(Through):
        def forward(self, x, other):
            return self.net(x + other)

    for make in LOSSES.values():
        x, y = batch()
        expected = make(Sum())((x, x.clone()), y)
        for leaf in (x, x.clone().requires_grad_()):
            torch.testing.assert_close(make(Sum())((leaf, leaf), y), expected)
            torch.testing.assert_close(make(Sum())((leaf, 1.0 * leaf), y), expected)


@every_loss
def test_a_compiled_model_is_trained_as_written(make):
    model, (x, y) = mlp(), batch()
    expected = make(model)(x, y)
    whole = torch.compile(model, backend="aot_eager")
    for compiled in (whole, nn.Sequential(whole, nn.Identity())):
        found = make(compiled)(x, y)
        torch.testing.assert_close(found, expected)
        found.backward()


# --- half precision ------------------------------------------------------------------------------


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Softplus(), nn.Flatten(),
        nn.Linear(288, 32), nn.LayerNorm(32), nn.Softplus(), nn.Linear(32, 3),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [lambda m: R2ETLoss(m, 4), HessianNormLoss], ids=["R2ET", "Est-H"])
def test_the_finite_difference_is_taken_in_single_precision(make, training, dtype):
    half = convolutional().to(dtype).train(training)
    wide = copy.deepcopy(half).float()
    statistics = copy.deepcopy(wide[1].running_mean)
    x, y = torch.randn(6, 1, 6, 6, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    x = x.to(dtype).float()
    criterion = make(wide)
    criterion(x, y).backward()
    expected = criterion.last_terms["hessian"]
    criterion = make(half)
    criterion(x.to(dtype), y).backward()
    torch.testing.assert_close(criterion.last_terms["hessian"], expected, rtol=1e-3, atol=0)
    assert all(p.grad.dtype == dtype for p in half.parameters())
    found, right = (
        torch.cat([p.grad.float().flatten() for p in m.parameters()]) for m in (half, wide)
    )
    assert (found - right).norm() < 0.05 * right.norm()
    with torch.no_grad():
        wide[1].running_mean.copy_(statistics)
    with torch.autocast("cpu", dtype=dtype):
        criterion = make(wide)
        criterion(x, y)
    torch.testing.assert_close(criterion.last_terms["hessian"], expected, rtol=1e-3, atol=0)
