"""Random attributions of a batch, compared with stock Captum's of every example alone."""

import random

import numpy as np
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    LayerActivation,
    LayerGradientShap,
    LayerGradientXActivation,
    Lime,
    NeuronGradientShap,
    NoiseTunnel,
    Saliency,
    ShapleyValueSampling,
)
from torch import nn

from captum_robust._utils.prediction import Decision, predicted_labels
from captum_robust._utils.random import seeded
from captum_robust.robust._search.evaluator import Draws, Evaluator

N, SEED = 5, 11


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(3, 8)
        self.last = nn.Sequential(nn.Softplus(), nn.Linear(8, 3))

    def forward(self, a, b, scale=None):
        hidden = self.first(a) + self.second(b)
        return self.last(hidden if scale is None else hidden * scale[:, None])


class Noisy(nn.Module):
    """A model with random numbers of its own: of torch, of NumPy and of Python."""

    def __init__(self, draw):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3))
        self.draw = draw

    def forward(self, x):
        return self.layers(x * self.draw(x))


OWN_DRAWS = {
    "torch": lambda x: 1 + torch.rand_like(x),
    "dropout": lambda x: nn.functional.dropout(torch.ones_like(x), 0.3, training=True),
    "numpy": lambda x: torch.as_tensor(np.random.uniform(1, 2, x.shape)).to(x),  # noqa: NPY002
    "python": lambda x: torch.tensor([[1 + random.random()] for _ in x]).to(x),
}


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 3)).double()


def two_inputs():
    torch.manual_seed(0)
    return TwoInputs().double()


def inputs(n_features=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, n_features, generator=generator, dtype=torch.float64)


TARGETS = torch.tensor([0, 2, 1, 1, 0])


def stock(attribution, points, arguments_of):
    """Captum's attributions of every example alone, after the generators were seeded."""
    rows = []
    for row in range(N):
        own = tuple(p[row : row + 1].clone().requires_grad_() for p in points)
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002
        torch.manual_seed(SEED)
        maps = attribution.attribute(own if len(own) > 1 else own[0], **arguments_of(row))
        rows.append(maps if isinstance(maps, tuple) else (maps,))
    return [torch.cat(tensors).detach() for tensors in zip(*rows, strict=True)]


def ours(attribution, points, arguments, graph=False):
    """The attributions of the whole batch, twice; the second evaluation knows what is drawn."""
    given = points if len(points) > 1 else points[0]
    with seeded(SEED):
        evaluator = Evaluator(attribution, given, arguments, False, None, Draws(SEED))
        leaves = tuple(p.clone().requires_grad_() for p in points)
        found = [evaluator.maps(leaves, graph) for _ in range(2)]
    assert evaluator.is_random
    return [maps if isinstance(maps, tuple) else (maps,) for maps in found], leaves


def assert_stock(attribution, points, arguments, arguments_of, graph=False):
    expected = stock(attribution, points, arguments_of)
    for maps in ours(attribution, points, arguments, graph)[0]:
        assert len(maps) == len(expected)
        for tensor, reference in zip(maps, expected, strict=True):
            # Captum draws in single precision
            torch.testing.assert_close(tensor.detach(), reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("nt_samples_batch_size", [None, 1, 3])
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("inner", [Saliency, IntegratedGradients, InputXGradient])
def test_noise_tunnel(inner, nt_type, nt_samples_batch_size, graph):
    more = {
        "nt_type": nt_type, "nt_samples": 7, "nt_samples_batch_size": nt_samples_batch_size,
        "stdevs": 0.4,
    }  # fmt: skip
    assert_stock(
        NoiseTunnel(inner(mlp())), (inputs(),), {**more, "target": TARGETS},
        lambda row: {**more, "target": int(TARGETS[row])}, graph,
    )  # fmt: skip


@pytest.mark.parametrize("graph", [False, True])
def test_noise_tunnel_of_a_tuple(graph):
    points, scale = (inputs(), inputs(3, seed=2)), torch.linspace(0.5, 2, N).double()
    more = {"nt_samples": 6, "stdevs": (0.2, 0.7)}
    assert_stock(
        NoiseTunnel(IntegratedGradients(two_inputs())), points,
        {**more, "target": TARGETS, "additional_forward_args": scale, "n_steps": 7},
        lambda row: {
            **more, "target": int(TARGETS[row]), "additional_forward_args": scale[row : row + 1],
            "n_steps": 7,
        },
        graph,
    )  # fmt: skip


@pytest.mark.parametrize("wrap", [NoiseTunnel, lambda inner: NoiseTunnel(NoiseTunnel(inner))])
@pytest.mark.parametrize(
    "make",
    [
        lambda model: LayerGradientXActivation(model, model[1]),
        lambda model: FeatureAblation(model),
    ],
)
def test_noise_tunnel_of_other_attributions(make, wrap):
    model = mlp()
    attribution = wrap(make(model))
    assert_stock(
        attribution, (inputs(),), {"nt_samples": 4, "target": TARGETS},
        lambda row: {"nt_samples": 4, "target": int(TARGETS[row])},
    )  # fmt: skip


def test_noise_tunnel_without_a_target():
    model = mlp()
    attribution = NoiseTunnel(LayerActivation(model, model[0]))
    assert_stock(attribution, (inputs(),), {"nt_samples": 4}, lambda row: {"nt_samples": 4})


@pytest.mark.parametrize("n_baselines", [1, 3, N, 2 * N])
@pytest.mark.parametrize(
    "make",
    [
        GradientShap,
        lambda model: LayerGradientShap(model, model[1]),
        lambda model: NeuronGradientShap(model, model[1]),
    ],
)
def test_gradient_shap(make, n_baselines):
    attribution = make(mlp())
    baselines = torch.randn(n_baselines, 4, dtype=torch.float64)
    more = {"baselines": baselines, "n_samples": 4, "stdevs": 0.3}
    if isinstance(attribution, NeuronGradientShap):
        more["neuron_selector"] = 2
        assert_stock(attribution, (inputs(),), more, lambda row: more)
    else:
        assert_stock(
            attribution, (inputs(),), {**more, "target": TARGETS},
            lambda row: {**more, "target": int(TARGETS[row])},
        )  # fmt: skip


def test_gradient_shap_of_a_tuple():
    baselines = torch.randn(3, 4).double(), torch.randn(3, 3).double()
    more = {"baselines": baselines, "n_samples": 4, "stdevs": (0.3, 0.1), "target": 1}
    points = inputs(), inputs(3, seed=2)
    assert_stock(GradientShap(two_inputs()), points, more, lambda row: more, graph=True)


@pytest.mark.filterwarnings("ignore:You are providing multiple inputs")
@pytest.mark.parametrize("method", [KernelShap, Lime, ShapleyValueSampling])
def test_perturbation_methods(method):
    more = {"n_samples": 20}
    assert_stock(
        method(mlp()), (inputs(),), {**more, "target": TARGETS},
        lambda row: {**more, "target": int(TARGETS[row])},
    )  # fmt: skip


def test_shapley_sampling_with_masks_of_different_numbers_of_groups():
    masks = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3], [0, 1, 1, 1], [0, 1, 2, 2], [0, 0, 0, 1]])
    more = {"n_samples": 3, "target": 1}
    assert_stock(
        ShapleyValueSampling(mlp()), (inputs(),), {**more, "feature_mask": masks},
        lambda row: {**more, "feature_mask": masks[row : row + 1]},
    )  # fmt: skip


@pytest.mark.parametrize("name", list(OWN_DRAWS))
@pytest.mark.parametrize("make", [Saliency, lambda model: NoiseTunnel(Saliency(model))])
def test_models_that_draw(make, name):
    torch.manual_seed(0)
    attribution = make(Noisy(OWN_DRAWS[name]).double())
    assert_stock(
        attribution, (inputs(),), {"target": TARGETS}, lambda row: {"target": int(TARGETS[row])}
    )


def test_models_that_draw_only_later():
    torch.manual_seed(0)
    model = Noisy(lambda x: 1 + (torch.rand_like(x) if bool((x > 9).any()) else 0)).double()
    attribution, arguments = Saliency(model), {"target": 0}
    far = inputs() + 10
    expected = stock(attribution, (far,), lambda row: arguments)
    with seeded(SEED):
        evaluator = Evaluator(attribution, far, arguments, False, None, Draws(SEED))
        evaluator.maps((inputs(),), graph=False)
        assert not evaluator.is_random
        found = evaluator.maps((far,), graph=False)
        assert evaluator.is_random
    torch.testing.assert_close(found, expected[0])


@pytest.mark.parametrize("name", ["dropout", "torch"])
def test_outputs_of_models_that_draw(name):
    torch.manual_seed(0)
    model, x = Noisy(OWN_DRAWS[name]).double(), inputs()
    expected = []
    for row in x:
        torch.manual_seed(SEED)
        expected.append(model(row[None]))
    with seeded(SEED):
        evaluator = Evaluator(Saliency(model), x, {"target": 0}, False, None, Draws(SEED))
        torch.testing.assert_close(evaluator.outputs((x,)), torch.cat(expected).detach())
        (result,) = evaluator.results((x,), lambda x: (model(x),), Decision(predicted_labels))
        torch.testing.assert_close(result.detach(), torch.cat(expected).detach())


@pytest.mark.parametrize(
    "make",
    [
        lambda: NoiseTunnel(Saliency(mlp())),
        lambda: GradientShap(mlp()),
        lambda: Saliency(Noisy(OWN_DRAWS["torch"]).double()),
    ],
)
def test_the_graph_reaches_the_inputs(make):
    attribution = make()
    more = {"target": 1}
    if isinstance(attribution, NoiseTunnel):
        more["stdevs"] = 0.1
    if isinstance(attribution, GradientShap):
        more["baselines"] = torch.zeros(2, 4).double()

    def total(x, graph):
        with seeded(SEED):
            evaluator = Evaluator(attribution, x, more, False, None, Draws(SEED))
            return (evaluator.maps((x,), graph) ** 2).sum()

    x = inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(total(x, True), x)
    direction, step = torch.randn_like(gradient), 1e-5
    difference = total(x + step * direction, False) - total(x - step * direction, False)
    expected = (gradient * direction).sum()
    torch.testing.assert_close(difference / (2 * step), expected, rtol=1e-5, atol=1e-8)


def test_batch_normalisation_in_training_mode_keeps_the_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Linear(8, 3))
    x = inputs().float()
    with seeded(SEED):
        evaluator = Evaluator(NoiseTunnel(Saliency(model)), x, {"target": 1}, False, None, Draws(0))
        assert evaluator.depends_on_the_batch
        once, again = (evaluator.maps((x,), graph=False) for _ in range(2))
        assert torch.equal(once, again)
    assert not Evaluator(Saliency(model.eval()), x, {}, False, None, Draws(0)).depends_on_the_batch
