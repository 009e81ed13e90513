"""Networks that torch cannot differentiate twice: what goes on, and what says so."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_robust import audit
from captum_robust.attr import NotDifferentiableError
from captum_robust.metrics import (
    certified_top_k_radius,
    hessian_norm,
    ranking_thickness,
    thickness_bounds,
)
from captum_robust.robust import AutoERAttack, ERAttack, RandomSearchAttack


class Prototypes(nn.Module):
    """Distances from points, which torch differentiates once."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.points, self.out = nn.Parameter(torch.randn(5, 6)), nn.Linear(5, 2)

    def forward(self, x):
        return self.out(torch.cdist(x, self.points))


class Frozen(nn.Module):
    """Features under no_grad."""

    def __init__(self):
        super().__init__()
        self.body, self.out = nn.Sequential(nn.Linear(6, 8), nn.Softplus()), nn.Linear(8, 2)

    def forward(self, x):
        with torch.no_grad():
            features = self.body(x)
        return self.out(features)


def examples(n=6):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(1))


def test_the_error_names_the_operation_and_the_alternatives():
    for call in (
        lambda: ERAttack(Saliency(Prototypes()), 2).perturb(examples(), 0.3, target=1),
        lambda: hessian_norm(Prototypes(), examples(), 1),
        lambda: thickness_bounds(Prototypes(), examples(), 2, 0.1, 1),
    ):
        with pytest.raises(NotDifferentiableError, match=r"_cdist_backward.*spsa"):
            call()


@pytest.mark.parametrize("kind", [Saliency, InputXGradient])
def test_the_ensemble_goes_on_and_is_no_weaker_than_random_search(kind):
    attribution, x = kind(Prototypes().eval()), examples()
    _, info = AutoERAttack(attribution, 2).perturb(x, 0.3, target=1, seed=0, return_info=True)
    assert info.flags["no_second_derivative"] == len(x)
    assert info.member_precision[1:].isfinite().any(dim=0).all()
    _, alone = RandomSearchAttack(attribution, 2).perturb(
        x, 0.3, target=1, seed=0, step_num=50, return_info=True
    )
    assert info.precision.mean() <= alone.precision.mean()


def test_the_audit_goes_on():
    x = examples()
    found = audit(Prototypes().eval(), x, torch.arange(6) % 2, k=2, radius=0.3, show_progress=False)
    explanation = found.explanations[0]
    assert "of this network has no gradient" in explanation.not_attacked
    assert {trial.attack for trial in explanation.trials} >= {"ensemble"}


def test_a_smoothed_hardsigmoid_is_attacked_along_its_gradient():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Hardsigmoid(), nn.Linear(16, 2)).eval()
    _, info = AutoERAttack(Saliency(model), 2).perturb(
        examples(), 0.5, target=1, seed=0, return_info=True
    )
    assert "no_second_derivative" in info.flags
    assert any("smoothing 2→50" in name for name in info.members)


@pytest.mark.parametrize("method", ["frobenius", "spectral", "hutchinson", "finite_difference"])
@pytest.mark.parametrize(
    "model",
    [
        Frozen(),
        lambda x: (10 * x).round().cos(),
        lambda x: x.detach().cos() * torch.ones(6, requires_grad=True),
    ],
    ids=["no_grad", "round", "detach"],
)
def test_the_hessian_without_a_gradient(model, method):
    with pytest.raises(NotDifferentiableError, match="inputs"):
        hessian_norm(model, examples(), 1, method=method)


@pytest.mark.parametrize("method", ["frobenius", "spectral", "hutchinson"])
def test_the_hessian_of_a_part_that_is_detached(method):
    for model in (
        lambda x: x * x.detach().tanh(),  # the gradient has no path to the inputs
        lambda x: (x * x.detach().tanh()) + 0.1 * x.sin(),  # it has one, but misses the other
    ):
        with pytest.raises(NotDifferentiableError, match="detached"):
            hessian_norm(model, examples(), 1, method=method)


def test_a_metric_of_a_network_without_a_gradient_is_no_number():
    for call in (
        lambda: ranking_thickness(Saliency(Frozen()).attribute, examples(), 2, target=1),
        lambda: RandomSearchAttack(Saliency(Frozen()), 2).perturb(examples(), 0.1, target=1),
        lambda: AutoERAttack(Saliency(Frozen()), 2).perturb(examples(), 0.1, target=1),
    ):
        with pytest.raises(NotDifferentiableError, match="does not depend on inputs by autograd"):
            call()


def test_hard_activations_are_smoothed():
    from captum_robust.attr import smooth_relu

    x = torch.linspace(-8, 8, 100, dtype=torch.float64)
    for hard in (F.hardsigmoid, F.hardswish):
        for forward in ("smooth", "exact"):
            with smooth_relu(200.0, forward):
                found = hard(x)
            torch.testing.assert_close(found, hard(x), rtol=0, atol=1e-2)
        point = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        with smooth_relu(2.0):
            (slope,) = torch.autograd.grad(hard(point + 2.9).sum(), point, create_graph=True)
        (bend,) = torch.autograd.grad(slope, point)
        assert bend.abs() > 1e-3


@pytest.mark.filterwarnings("ignore:Setting forward")  # Captum's own, of every call
@pytest.mark.parametrize(
    "kind", [Saliency, IntegratedGradients, DeepLift], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("wrap", [lambda o: {"logits": o}, lambda o: (o, o)], ids=["dict", "tuple"])
def test_outputs_that_are_no_tensor(kind, wrap):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))

        def forward(self, x):
            return wrap(self.net(x))

    attribution, x = kind(Wrapped()), examples()
    for call in (
        lambda: ranking_thickness(attribution.attribute, x, 2, target=1),
        lambda: RandomSearchAttack(attribution, 2).perturb(x, 0.1, target=1),
        lambda: AutoERAttack(attribution, 2).perturb(x, 0.1, target=1),
    ):
        with pytest.raises(ValueError, match="forward_func must return one tensor"):
            call()


def test_under_inference_mode_there_is_the_right_value_or_an_error():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 2))
    measures = {
        "hessian": lambda x: hessian_norm(model, x, 1),
        "bounds": lambda x: thickness_bounds(model, x, 2, 0.1, 1, seed=0)[0],
        "certified": lambda x: certified_top_k_radius(model, x, 2, target=1),
    }
    expected = {name: measure(examples()) for name, measure in measures.items()}
    with torch.inference_mode():
        for name, measure in measures.items():
            torch.testing.assert_close(measure(examples()), expected[name])
        with pytest.raises(NotDifferentiableError, match="inference_mode"):
            ranking_thickness(Saliency(model).attribute, examples(), 2, target=1)
        with pytest.raises(NotDifferentiableError, match="inference_mode"):
            ERAttack(Saliency(model), 2).perturb(examples(), 0.1, target=1)
