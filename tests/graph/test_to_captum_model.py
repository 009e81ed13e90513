"""The models of ``torch_geometric.nn.to_captum_model`` as they are, without an adapter."""

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from captum.metrics import sensitivity_max
from torch_geometric.nn import to_captum_input, to_captum_model

from captum_robust.attr import attribution_gradcheck
from captum_robust.graph.pyg.explained import ExplainedGraph
from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.robust import (
    AutoERAttack,
    ERAttack,
    RandomSearchAttack,
    UniformNoise,
    as_perturb_func,
)
from tests.graph.explaining import BOTH, EDGE, NODE, explainer_of, gcn, ring_with_chords

X, EDGE_INDEX = ring_with_chords()
INDEX, K = 2, 3
MASKS = {"edge": EDGE, "node": NODE, "node_and_edge": BOTH}


def captum(kind, model):
    """The model, its inputs in double precision, and the arguments of ``attribute``."""
    masked = to_captum_model(model, kind, INDEX)
    inputs, further = to_captum_input(X, EDGE_INDEX, kind)
    inputs = tuple(t.detach().double().requires_grad_() for t in inputs)
    target = int(model(X, EDGE_INDEX)[INDEX].argmax())
    return masked, inputs, {"target": target, "additional_forward_args": further}


@pytest.mark.parametrize("kind", list(MASKS))
def test_metrics_and_attacks_run_without_a_word_about_chunks(kind):
    masked, inputs, arguments = captum(kind, gcn())
    saliency = Saliency(masked)
    noise, edge_index = UniformNoise(), EDGE_INDEX.clone()
    one_by_one = {"n_perturb_samples": 4, "perturb_radius": 0.5, "seed": 0, **arguments}
    thickness = ranking_thickness(saliency.attribute, inputs, K, noise, n_steps=2, **one_by_one)
    assert 0 < thickness < 1
    assert thickness == ranking_thickness(
        saliency.attribute, inputs, K, noise, n_steps=2, max_examples_per_batch=1, **one_by_one
    )
    assert precision_at_k_min(saliency.attribute, inputs, K, noise, **one_by_one) <= 1
    _, info = ERAttack(saliency, K).perturb(inputs, 0.3, step_num=5, return_info=True, **arguments)
    assert info.objective < info.trace[0, 0]
    for attack in (AutoERAttack(saliency, K), RandomSearchAttack(saliency, K)):
        steps = {"budget": 40} if isinstance(attack, AutoERAttack) else {"step_num": 10}
        attack.perturb(inputs, 0.3, seed=0, **steps, **arguments)
    assert (
        torch.equal(EDGE_INDEX, edge_index) and arguments["additional_forward_args"][-1] is not None
    )


@pytest.mark.parametrize("kind", list(MASKS))
def test_maps_are_those_of_the_adapter(kind):
    model = gcn()
    masked, inputs, arguments = captum(kind, model)
    graph = ExplainedGraph(
        explainer_of(model, "InputXGradient", MASKS[kind]), X, EDGE_INDEX, index=INDEX
    )
    maps = InputXGradient(masked).attribute(inputs, **arguments)
    own = graph.explain()
    names = {"edge": ["edge_mask"], "node": ["node_mask"]}.get(kind, ["node_mask", "edge_mask"])
    for name, found in zip(names, maps, strict=True):
        assert torch.allclose(own[name], found[0])


@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")  # Captum's
def test_captums_max_sensitivity_with_an_attack():
    masked, inputs, arguments = captum("edge", gcn())
    saliency = Saliency(masked)
    worst = as_perturb_func(ERAttack(saliency, K), step_num=4, **arguments)
    found = sensitivity_max(
        saliency.attribute, inputs, worst, 0.3, n_perturb_samples=2, max_examples_per_batch=1,
        **arguments,
    )  # fmt: skip
    assert found.shape == (1,) and found > 0


def test_integrated_gradients_one_at_a_time():
    masked, inputs, arguments = captum("edge", gcn())
    arguments |= {"n_steps": 5, "internal_batch_size": 1}
    integrated = IntegratedGradients(masked)
    assert attribution_gradcheck(integrated, tuple(0.9 * t for t in inputs), **arguments) < 1e-6
    moved = ERAttack(integrated, K).perturb(inputs, 0.3, step_num=3, **arguments)
    assert not torch.equal(moved[0], inputs[0])


WRONG = r"takes one version of its graph at a time: pass internal_batch_size=1 to Integrated"


def test_several_at_a_time_are_refused_in_words():
    masked, inputs, arguments = captum("edge", gcn())
    for attribution in (IntegratedGradients(masked), NoiseTunnel(Saliency(masked))):
        with pytest.raises(ValueError, match=WRONG):
            ranking_thickness(attribution.attribute, inputs, K, **arguments)
        with pytest.raises(ValueError, match=WRONG):
            ERAttack(attribution, K).perturb(inputs, 0.1, **arguments)
    with pytest.raises(ValueError, match=WRONG):
        ranking_thickness(
            Saliency(masked).attribute, inputs, K, max_examples_per_batch=4, **arguments
        )


def test_other_assertions_keep_their_words():
    masked, inputs, arguments = captum("edge", gcn())
    arguments["additional_forward_args"] = arguments["additional_forward_args"][:1]
    with pytest.raises(AssertionError, match="Expects at least x and edge_index"):
        ERAttack(Saliency(masked), K).perturb(inputs, 0.1, **arguments)
