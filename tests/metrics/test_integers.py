"""Inputs that noise cannot move are refused, wherever a metric perturbs them by noise."""

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.metrics import (
    certified_precision_at_k,
    pairwise_ranking_thickness,
    precision_at_k_min,
    ranking_thickness,
)
from tests.robust.targets import drawn

MODEL = drawn(nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 2)))
INPUTS = {
    "ids": torch.arange(12).reshape(2, 6) % 5,
    "bytes": torch.arange(12, dtype=torch.uint8).reshape(2, 6),
    "bits": torch.arange(12).reshape(2, 6) % 3 == 0,
}
METRICS = {
    "thickness": lambda x, r: ranking_thickness(explain, x, 2, perturb_radius=r, target=1),
    "pairwise": lambda x, r: pairwise_ranking_thickness(
        explain, x, torch.tensor([[0, 1]]), perturb_radius=r, target=1
    ),
    "minimum": lambda x, r: precision_at_k_min(explain, x, 2, perturb_radius=r, target=1),
    "certified": lambda x, r: certified_precision_at_k(
        explain, x, 2, radius=r, sigma=10 * r, n_samples=10, target=1
    ),
}


def explain(inputs, **arguments):
    return Saliency(MODEL).attribute(inputs.double().requires_grad_(), **arguments)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_what_noise_cannot_move_is_not_robust(metric, name):
    inputs = INPUTS[name]
    with pytest.raises(ValueError, match=f"inputs must be floating point.*{inputs.dtype}"):
        metric(inputs, 1e3)
    assert metric(inputs.double(), 1e3).isfinite().all()  # the same values as floats are scored


def test_integers_beside_floats_stay_as_they_are():
    seen = []

    def explain_both(both, target):
        floats, ids = both
        seen.append(ids)
        return explain(floats + ids, target=target)

    inputs = INPUTS["ids"].double(), INPUTS["ids"]
    found = ranking_thickness(explain_both, inputs, 2, perturb_radius=0.5, target=1, seed=0)
    assert found.isfinite().all() and all(not ids.is_floating_point() for ids in seen)


def test_a_perturbation_of_ones_own_may_substitute_integers():
    def other(ids, radius):
        return (ids + 1) % 5

    found = precision_at_k_min(
        explain, INPUTS["ids"], 2, other, perturb_radius=1.0, n_perturb_samples=2, target=1
    )
    maps = [explain(x, target=1) for x in (INPUTS["ids"], other(INPUTS["ids"], 1.0))]
    tops = [set(m.topk(2).indices.tolist()) for m in torch.stack(maps, dim=1).flatten(0, 1)]
    expected = [len(a & b) / 2 for a, b in zip(tops[::2], tops[1::2], strict=True)]
    assert found.tolist() == pytest.approx(expected)
