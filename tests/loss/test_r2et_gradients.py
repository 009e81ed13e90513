"""Parameter gradients of R2ETLoss beside central differences, entry by entry, in float64."""

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import nn

from captum_robust.loss import R2ETLoss
from tests.loss.central_differences import gradient_error
from tests.loss.r2et_by_definition import CLASSES, COLUMN, FORMS, TwoInputs, labels, mlp, normal

PAIRS = ["anchor", "mm", "all"]
GAPS = ["linear", "exp"]
HESSIANS = ["finite_difference", "hvp", "exact"]
EXPLAINS = ["probability", "logit"]


def small(form=CLASSES):
    return mlp(form, n_features=4, hidden=3)


def error_of(model, form=CLASSES, **options):
    # The regularisers alone: the gradient of the plain loss would hide an error in theirs.
    criterion = R2ETLoss(
        model, **{"k": 2, "lambda1": 1.0, "lambda2": 0.5, "base_loss": little, **options}
    )
    x, y = normal(3, 4, seed=3), labels(form, 3)
    return gradient_error(lambda: criterion(x, y), model.parameters())


def little(outputs, target):
    """A base loss so small that it adds nothing but a gradient by the last bias."""
    return 1e-2 * outputs.square().sum()


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_every_term_is_differentiated(pairs, gap, hessian):
    assert error_of(small(), pairs=pairs, gap=gap, hessian=hessian) < 1e-7


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("explain", EXPLAINS)
def test_for_every_form_of_the_outputs(explain, form, hessian):
    assert error_of(small(form), form, explain=explain, hessian=hessian) < 1e-7


@pytest.mark.parametrize("options", [{"lambda1": 0.0}, {"lambda2": 0.0}])
def test_each_term_on_its_own(options):
    assert error_of(small(), **options) < 1e-7


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_of_normalised_maps(pairs, gap):
    assert error_of(small(), pairs=pairs, gap=gap, normalize=True) < 1e-7


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_of_the_default_base_loss_with_groups_and_reductions(reduction):
    mask = torch.tensor([[0, 1, 2, 0]])
    options = {"base_loss": None, "feature_mask": mask, "k": 1, "reduction": reduction}
    assert error_of(small(), **options) < 1e-7


def test_of_maps_ranked_by_a_reference():
    model, x, y = small(), normal(3, 4, seed=3), labels(n_examples=3)
    reference = normal(3, 4, seed=5)
    criterion = R2ETLoss(model, 2)
    error = gradient_error(
        lambda: criterion(x, y, reference_attributions=reference), model.parameters()
    )
    assert error < 1e-7


@pytest.mark.parametrize("hessian", HESSIANS)
def test_of_tuples_of_inputs(hessian):
    model, y = TwoInputs(), labels(n_examples=3)
    inputs, shift = (normal(3, 3), normal(3, 1, 2, seed=1)), normal(3, 4, seed=2)
    criterion = R2ETLoss(model, 2, hessian=hessian, lambda1=1.0)
    assert gradient_error(lambda: criterion(inputs, y, (shift, 0.5)), model.parameters()) < 1e-7


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("form", [CLASSES, COLUMN])
@pytest.mark.parametrize(
    "explainer",
    [
        Saliency,
        InputXGradient,
        IntegratedGradients,
        lambda model: NoiseTunnel(Saliency(model)),
        lambda model: NoiseTunnel(InputXGradient(model)),
    ],
    ids=["Saliency", "InputXGradient", "IntegratedGradients", "SmoothGrad", "smooth IxG"],
)
def test_of_other_attributions(explainer, form, pairs):
    model = small(form)
    assert error_of(model, form, attribution=explainer(model), pairs=pairs) < 1e-7


class Embedded(nn.Module):
    """A network whose first layer lies upstream of the explained inputs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Linear(3, 4).double()
        self.head = small()
        for seed, parameter in enumerate(self.embedding.parameters()):
            parameter.data = normal(*parameter.shape, seed=20 + seed)

    def forward(self, x):
        return torch.tanh(self.embedding(x))


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("gap", GAPS)
def test_of_a_learned_embedding_upstream_of_the_inputs(gap, hessian):
    model, x, y = Embedded(), normal(3, 3), labels(n_examples=3)
    criterion = R2ETLoss(model.head, 2, lambda1=1.0, lambda2=0.5, gap=gap, hessian=hessian)
    assert gradient_error(lambda: criterion(model(x), y), model.parameters()) < 1e-7


@pytest.mark.parametrize("explainer", [Saliency, IntegratedGradients])
def test_of_an_embedding_upstream_of_an_attribution(explainer):
    model, x, y = Embedded(), normal(3, 3), labels(n_examples=3)
    criterion = R2ETLoss(model.head, 2, attribution=explainer(model.head))
    assert gradient_error(lambda: criterion(model(x), y), model.parameters()) < 1e-7


@pytest.mark.parametrize("hessian", HESSIANS)
def test_of_inputs_that_require_grad(hessian):
    model, y = small(), labels(n_examples=3)
    x = normal(3, 4, seed=3).requires_grad_()
    criterion = R2ETLoss(model, 2, hessian=hessian, lambda1=1.0)
    assert gradient_error(lambda: criterion(x, y), [x]) < 1e-7


def test_on_a_relu_network_between_its_kinks():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    for seed, parameter in enumerate(model.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    x, y = normal(3, 4, seed=3), labels(n_examples=3)
    criterion = R2ETLoss(model, 2, lambda1=1.0, lambda2=0.5, kappa=1.0)
    assert gradient_error(lambda: criterion(x, y), model.parameters(), step=1e-6) < 1e-6


def test_of_fused_attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries, self.out = nn.Linear(2, 6, bias=False), nn.Linear(2, 3, bias=False)
            for seed, parameter in enumerate(self.parameters()):
                parameter.data = normal(*parameter.shape, seed=seed)

        def forward(self, x):
            q, k, v = self.queries(x).chunk(3, dim=-1)
            attended = nn.functional.scaled_dot_product_attention(
                q[:, None], k[:, None], v[:, None]
            )
            return self.out(attended[:, 0].mean(dim=1))

    model, x, y = Attention(), normal(3, 4, 2), labels(n_examples=3)
    criterion = R2ETLoss(model, 2, lambda1=1.0)
    assert gradient_error(lambda: criterion(x, y), model.parameters()) < 1e-7
