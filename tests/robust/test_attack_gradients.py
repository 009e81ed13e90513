"""Gradients of attacks: by autograd, two saliencies, random probes, or a surrogate."""

import pytest
import torch
from captum.attr import (
    LRP,
    DeepLift,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerGradCam,
    Lime,
    NoiseTunnel,
    Saliency,
)
from torch import nn
from torch.nn.functional import cosine_similarity

from captum_robust.attr import NotDifferentiableError, smooth_relu
from captum_robust.robust import ERAttack, ExplanationAttack
from tests.robust.targets import convnet, drawn, linear, mlp, normal, relu_mlp, stock_scores


def direction(attribution, x, radius, arguments=None, **options):
    """The first L2 step, whether or not it lowers the objective; one row per example."""
    steps = []

    def remember(moved):
        steps.append((moved - x).flatten(1))
        return moved

    ERAttack(attribution, k=2, preserve_prediction="none", **options).perturb(
        x, radius, radius / 2, step_num=1, target=0, norm="L2", seed=0, project=remember,
        **(arguments or {}),
    )  # fmt: skip
    return steps[-1]


def descent(attribution, x, k=2, **arguments):
    """The direction of steepest descent by central differences of stock maps."""
    reference = stock_scores(attribution, x, 0, **arguments)
    slopes = torch.zeros_like(x).flatten(1)
    for feature in range(slopes.shape[1]):
        move = torch.zeros_like(slopes)
        move[:, feature] = 1e-5
        ahead, behind = (
            linear(k)(stock_scores(attribution, x + s * move.view_as(x), 0, **arguments), reference)
            for s in (1, -1)
        )
        slopes[:, feature] = behind - ahead
    return slopes


NETWORKS = [(mlp, (5, 6)), (convnet, (5, 1, 4, 4))]


@pytest.mark.parametrize("network, shape", NETWORKS)
def test_autograd_steps_along_steepest_descent(network, shape):
    saliency, x = Saliency(network()), normal(*shape)
    found = direction(saliency, x, 1e-3)
    assert cosine_similarity(found, descent(saliency, x)).min() > 1 - 1e-6
    assert torch.allclose(found.norm(dim=1), torch.full((5,), 0.5e-3).double(), rtol=1e-9)


# Differentiated as Captum ships them, these give a wrong gradient without a warning (captum 0.9.0).
@pytest.mark.parametrize(
    "make, arguments",
    [
        (InputXGradient, {}),
        (IntegratedGradients, {"n_steps": 4}),
        (IntegratedGradients, {"n_steps": 4, "internal_batch_size": 8}),
        (lambda m: LayerGradCam(m, m[0]), {}),
    ],
)
def test_other_attributions_step_along_steepest_descent(make, arguments):
    attribution, x = make(convnet()), normal(5, 1, 4, 4)
    found = direction(attribution, x, 1e-3, arguments)
    assert cosine_similarity(found, descent(attribution, x, **arguments)).min() > 1 - 1e-6


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_tiny_gradients_lead_as_far_as_large_ones(norm):
    # Captum's FGSM leaves examples alone whose gradient is below an absolute 1e-6 (captum 0.9.0).
    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.inner, self.scale = mlp().float(), scale

        def forward(self, x):
            return self.scale * self.inner(x)

    x = normal(5, 6).float()
    plain, tiny = (
        ERAttack(Saliency(Scaled(2.0**-e)), k=2).perturb(x, 0.4, target=1, norm=norm)
        for e in (0, 100)
    )
    assert torch.allclose(plain, tiny, atol=1e-5) and not torch.allclose(plain, x, atol=1e-2)


@pytest.mark.parametrize("network, shape", NETWORKS)
def test_two_saliencies_step_along_steepest_descent_for_a_small_radius(network, shape):
    saliency, x = Saliency(network()), normal(*shape)
    found = direction(saliency, x, 1e-4, gradient="finite_difference")
    assert cosine_similarity(found, descent(saliency, x)).min() > 0.9999
    wide = direction(saliency, x, 1.0, gradient="finite_difference")
    assert cosine_similarity(wide, descent(saliency, x)).max() < 0.9999, "the probe must be wide"


def test_two_saliencies_of_a_smoothed_network_follow_the_smoothed_gradient():
    saliency, x = Saliency(relu_mlp()), normal(5, 6)
    found = direction(saliency, x, 1e-4, gradient="finite_difference", smooth_relu=5.0)
    exact = direction(saliency, x, 1e-4, smooth_relu=5.0)
    assert cosine_similarity(found, exact).min() > 0.999


@pytest.mark.parametrize("network, shape", NETWORKS)
def test_random_probes_step_roughly_along_steepest_descent(network, shape):
    # m probes in n dimensions have an expected cosine of about √(m / (m + n)): 0.96 for the larger.
    saliency, x = Saliency(network()), normal(*shape)
    found = direction(saliency, x, 1e-3, gradient="spsa", n_directions=200)
    cosines = cosine_similarity(found, descent(saliency, x))
    assert cosines.min() > 0.85 and cosines.mean() > 0.93
    few = cosine_similarity(
        direction(saliency, x, 1e-3, gradient="spsa", n_directions=1), descent(saliency, x)
    )
    assert few.mean() < cosines.mean()


@pytest.mark.parametrize("gradient", ["autograd", "finite_difference", "spsa"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_many_pairs_do_not_overflow_half_precision(dtype, gradient):
    # Each top feature counts n − k times in the sum: more than the 65504 that float16 can hold.
    n = 70_000
    model = drawn(nn.Sequential(nn.Linear(n, 4), nn.Softplus(), nn.Linear(4, 2))).to(dtype)
    attack = ERAttack(Saliency(model), k=100, gradient=gradient, n_directions=4)
    _, info = attack.perturb(
        normal(2, n).to(dtype), 0.05, step_num=3, target=1, seed=0, return_info=True
    )
    assert info.gradient_found.all()
    assert (info.objective < info.trace[0, 0]).all()


# --- attributions without a gradient -------------------------------------------------------------


def small_relu():
    return drawn(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))).float()


BLACK_BOXES = {
    "DeepLift": (DeepLift, {}),
    "LRP": (LRP, {}),
    "KernelShap": (KernelShap, {"n_samples": 30}),
    "Lime": (Lime, {"n_samples": 30}),
    "NoiseTunnel of DeepLift": (lambda m: NoiseTunnel(DeepLift(m)), {"nt_samples": 2}),
}
# Captum's own advice.
DEEPLIFT_HOOKS = "ignore:Setting forward, backward hooks:UserWarning"
ONE_BY_ONE = "ignore:You are providing multiple inputs for Lime:UserWarning"


@pytest.mark.filterwarnings(DEEPLIFT_HOOKS, ONE_BY_ONE)
@pytest.mark.parametrize("make, arguments", BLACK_BOXES.values(), ids=BLACK_BOXES)
def test_random_probes_attack_what_cannot_be_differentiated(make, arguments):
    attribution, x = make(small_relu()), normal(2, 5).float()
    with pytest.raises(NotDifferentiableError, match=r"gradient='spsa'.*surrogate="):
        ERAttack(attribution, k=2)
    attack = ERAttack(attribution, k=2, gradient="spsa", n_directions=3)
    _, info = attack.perturb(
        x, 0.5, 0.15, step_num=4, target=1, seed=0, return_info=True, **arguments
    )
    assert (info.objective < info.trace[0, 0] - 1e-3).all()
    # A random attribution is explained with four other seeds, before the attack and after it.
    other_seeds = 0 if info.noise_floor is None else 2 * 4
    assert (info.n_queries == 5 + 4 * 3 * 2 + other_seeds).all()


@pytest.mark.filterwarnings(DEEPLIFT_HOOKS)
def test_a_stand_in_leads_where_the_attribution_cannot():
    model, x = small_relu(), normal(4, 5).float()
    attack = ERAttack(DeepLift(model), k=2, surrogate=IntegratedGradients(model))
    moved, info = attack.perturb(x, 0.5, target=1, return_info=True)
    start, end = (stock_scores(DeepLift(model), p, 1) for p in (x, moved))
    assert torch.allclose(info.objective, linear(2)(end, start), atol=1e-5)
    assert (info.objective < linear(2)(start, start) - 1e-2).all()


def test_a_stand_in_must_be_differentiable_itself():
    model = small_relu()
    with pytest.raises(NotDifferentiableError, match="LRP"):
        ERAttack(Saliency(model), k=2, surrogate=LRP(model))


def test_a_stand_in_gives_the_direction_for_the_ranking_of_the_attribution():
    model, other, x = mlp(), drawn(mlp(), gain=0.7), normal(5, 6)
    found = direction(Saliency(model), x, 1e-3, surrogate=Saliency(other))
    reference = stock_scores(Saliency(model), x, 0)
    leaf = x.clone().requires_grad_()
    maps = torch.autograd.grad(other(leaf)[:, 0].sum(), leaf, create_graph=True)[0].abs()
    slope = torch.autograd.grad(linear(2)(maps, reference).sum(), leaf)[0]
    assert cosine_similarity(found, -slope).min() > 1 - 1e-9


def test_smoothing_leads_and_the_real_network_scores():
    model, x = relu_mlp(), normal(5, 6)
    seen = []

    def watch(scores, reference):
        seen.append((scores.detach().clone(), scores.requires_grad))
        return linear(2)(scores, reference)

    attack = ExplanationAttack(Saliency(model), watch, smooth_relu=3.0)
    attack.perturb(x, 0.5, step_num=1, target=0)
    with smooth_relu(3.0):
        smooth = stock_scores(Saliency(model), x, 0)
    assert torch.allclose(seen[0][0], stock_scores(Saliency(model), x, 0), atol=1e-12)
    leading = [scores for scores, graph in seen if graph]
    assert len(leading) == 1 and torch.allclose(leading[0], smooth, atol=1e-12)
