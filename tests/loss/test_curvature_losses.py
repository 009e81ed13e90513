"""HessianNormLoss and SSRLoss beside Hessians of the function, by torch.autograd.functional."""

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian as hessian_of
from torch.nn import functional as F

from captum_robust.loss import HessianNormLoss, R2ETLoss, SSRLoss
from tests.loss.central_differences import gradient_error
from tests.loss.losses import Counting
from tests.loss.r2et_by_definition import (
    CLASSES,
    COLUMN,
    FORMS,
    class_loss,
    drawn,
    labels,
    mlp,
    normal,
    parameter_gradients,
    score,
)


def relu_network(form=CLASSES, activation=nn.ReLU, n_classes=3):
    out = nn.Linear(7, n_classes if form == CLASSES else 1)
    tail = [nn.Flatten(0)] if form == "(N,)" else []
    return drawn(
        nn.Sequential(nn.Linear(6, 9), activation(), nn.Linear(9, 7), activation(), out, *tail)
    )


def hessians(function, x, y):
    """The Hessian of ``function(outputs, label)`` by each row of x."""
    return [
        hessian_of(lambda row, label=label: function(row[None], int(label)), row)
        for row, label in zip(x, y, strict=True)
    ]


# --- HessianNormLoss ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("explain", ["probability", "logit"])
@pytest.mark.parametrize("norm", ["exact", "spectral"])
def test_the_exact_norms(norm, explain, form):
    model, x, y = mlp(form), normal(4, 6), labels(form)
    criterion = HessianNormLoss(model, weight=0.7, hessian=norm, explain=explain, reduction="none")
    expected = []
    for i, h in enumerate(hessians(lambda row, label: score(model(row), label, explain), x, y)):
        size = h.norm() if norm == "exact" else torch.linalg.eigvalsh(h).abs().max()
        expected.append(class_loss(model(x[i : i + 1]), int(y[i])) + 0.7 * size)
    torch.testing.assert_close(criterion(x, y), torch.stack(expected))


def test_the_spectral_norm_may_come_from_a_negative_eigenvalue():
    class Saddle(nn.Module):
        def forward(self, x):
            return x[:, 0] ** 2 - 3 * x[:, 1] ** 2 + 0 * x.sum(dim=1)

    x, y = normal(3, 4), torch.tensor([1, 0, 1])  # of the logit, and of minus the logit
    criterion = HessianNormLoss(Saddle(), hessian="spectral", explain="logit")
    criterion(x, y)
    torch.testing.assert_close(criterion.last_terms["hessian"], torch.tensor(6.0).double())


def test_the_largest_eigenvalue_that_is_met_twice_has_a_finite_gradient():
    class Round(nn.Module):
        def __init__(self):
            super().__init__()
            self.size = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

        def forward(self, x):
            return self.size * x.square().sum(dim=1)

    model = Round()
    criterion = HessianNormLoss(model, weight=1.0, hessian="spectral", explain="logit")
    x, y = normal(3, 4), torch.ones(3)
    assert gradient_error(lambda: criterion(x, y), model.parameters()) < 1e-7
    criterion(x, y)
    torch.testing.assert_close(criterion.last_terms["hessian"], torch.tensor(3.0).double())


def test_a_hessian_with_one_entry_that_is_not_finite_has_no_norm():
    def kinked(x):  # has no second derivative by x₁ at 0
        return x[:, 0] ** 2 + x[:, 1].clamp(min=0) ** 1.5

    x = torch.tensor([[1.0, 0.0], [1.0, 4.0]], dtype=torch.float64)
    for norm in ("exact", "spectral"):
        criterion = HessianNormLoss(kinked, hessian=norm, explain="logit", reduction="none")
        assert torch.isnan(criterion(x, torch.ones(2))).tolist() == [True, False]


@pytest.mark.parametrize("norm", ["finite_difference", "hvp", "exact", "spectral"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_it_is_r2et_without_gaps(adaptive, norm):
    x, y = normal(4, 6), labels()
    options = {"hessian": norm, "kappa": 0.3, "explain": "logit", "adaptive": adaptive}
    losses = []
    for criterion in (
        HessianNormLoss(mlp(), weight=0.7, **options),
        R2ETLoss(mlp(), 2, lambda1=0.0, lambda2=0.7, **options),
    ):
        loss = criterion(x, y)
        losses.append((loss, parameter_gradients(loss, criterion.forward_func)))
    for found, expected in zip(*losses, strict=True):
        assert torch.equal(found, expected)


def test_the_spectral_norm_is_at_most_the_frobenius_norm_and_at_least_that_of_a_product():
    norms = {}
    for norm in ("hvp", "spectral", "exact"):
        criterion = HessianNormLoss(mlp(), hessian=norm)
        criterion(normal(4, 6), labels())
        norms[norm] = criterion.last_terms["hessian"]
    assert norms["hvp"] < norms["spectral"] < norms["exact"]


@pytest.mark.parametrize("norm", ["hvp", "exact", "spectral"])
def test_logits_of_a_relu_network_have_no_curvature_as_documented(norm):
    criterion = HessianNormLoss(relu_network(), hessian=norm, explain="logit")
    criterion(normal(4, 6), labels())
    assert criterion.last_terms["hessian"] == 0
    wide = HessianNormLoss(relu_network(), kappa=1.0, explain="logit")
    wide(normal(4, 6), labels())
    assert wide.last_terms["hessian"] > 0.1


@pytest.mark.parametrize(
    ("norm", "forwards"), [("finite_difference", 2), ("hvp", 1), ("exact", 1), ("spectral", 1)]
)
def test_forwards_of_a_step(norm, forwards):
    model = Counting(mlp())
    HessianNormLoss(model, hessian=norm)(normal(4, 6), labels()).backward()
    assert model.calls == forwards


def test_an_unknown_norm():
    accepted = r"\('finite_difference', 'hvp', 'exact', 'spectral'\)"
    with pytest.raises(ValueError, match=rf"^hessian must be one of {accepted}, got 'nuclear'$"):
        HessianNormLoss(mlp(), hessian="nuclear")


# --- SSRLoss -----------------------------------------------------------------------------------


def eigenvalues_of(criterion, x, y):
    criterion.base_loss = lambda outputs, target: 0 * outputs.reshape(len(outputs), -1).sum(dim=1)
    return criterion(x, y)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU, nn.Hardtanh])
@pytest.mark.parametrize(
    ("form", "n_classes"), [(CLASSES, 2), (CLASSES, 3), (CLASSES, 9), ("(N,)", 2), (COLUMN, 2)]
)
def test_of_a_piecewise_linear_network_it_is_the_largest_eigenvalue_of_the_loss(
    form, n_classes, activation
):
    model, x = relu_network(form, activation, n_classes), normal(8, 6)
    y = torch.arange(8) % n_classes
    found = eigenvalues_of(SSRLoss(model, weight=1.0, reduction="none"), x, y)
    exact = torch.stack(
        [
            torch.linalg.eigvalsh(h)[-1]
            for h in hessians(lambda row, label: class_loss(model(row), label), x, y)
        ]
    )
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-12)
    assert exact.min() > 1e-6  # also of the most certain example


def test_of_a_smooth_network_it_is_that_of_the_gauss_newton_matrix():
    model, x, y = mlp(), normal(4, 6), labels()
    expected = []
    for row in x:
        jacobian = torch.autograd.functional.jacobian(lambda r: model(r[None])[0], row)
        p = model(row[None])[0].softmax(dim=0)
        middle = p.diag() - p[:, None] * p[None, :]
        expected.append(torch.linalg.eigvalsh(jacobian.T @ middle @ jacobian)[-1])
    found = eigenvalues_of(SSRLoss(model, weight=1.0, reduction="none"), x, y)
    torch.testing.assert_close(found, torch.stack(expected))
    exact = [
        torch.linalg.eigvalsh(h)[-1]
        for h in hessians(lambda row, label: class_loss(model(row), label), x, y)
    ]
    assert not torch.allclose(found, torch.stack(exact), rtol=1e-3)


def test_the_label_does_not_matter_to_the_eigenvalue():
    model, x = relu_network(), normal(4, 6)
    criterion = SSRLoss(model, weight=1.0, reduction="none")
    assert torch.equal(
        eigenvalues_of(criterion, x, labels()), eigenvalues_of(criterion, x, labels().flip(0))
    )


def test_a_single_logit_is_two_classes():
    one, x, y = relu_network(COLUMN), normal(4, 6), labels(COLUMN)

    def two(x):
        return torch.cat([torch.zeros_like(one(x)), one(x)], dim=1)

    torch.testing.assert_close(SSRLoss(one)(x, y), SSRLoss(two)(x, y))
    shifted = SSRLoss(lambda x: two(x) + 5 * x[:, :1])(x, y)  # only differences of logits count
    torch.testing.assert_close(shifted, SSRLoss(two)(x, y))


@pytest.mark.parametrize("form", [CLASSES, COLUMN])
def test_certain_predictions_have_no_eigenvalue_and_finite_gradients(form):
    model = relu_network(form)
    with torch.no_grad():
        model[-1].weight.mul_(1e6)
    loss = SSRLoss(model, weight=1.0)(normal(4, 6), labels(form))
    assert torch.isfinite(loss) and torch.isfinite(parameter_gradients(loss, model)).all()


def test_gradients_on_a_relu_network_between_its_kinks():
    model = drawn(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))
    x, y = normal(3, 4), labels(n_examples=3)
    criterion = SSRLoss(model, weight=1.0)
    assert gradient_error(lambda: criterion(x, y), model.parameters(), step=1e-6) < 1e-6


def test_one_forward_a_step_and_the_cross_entropy_beside_it():
    model, x, y = Counting(relu_network()), normal(4, 6), labels()
    criterion = SSRLoss(model, weight=0.3)
    loss = criterion(x, y)
    assert model.calls == 1
    torch.testing.assert_close(
        loss, F.cross_entropy(model(x), y) + 0.3 * criterion.last_terms["eigenvalue"]
    )
