"""Losses that rank the magnitudes of signed maps, as attacks do."""

import pytest
import torch
from captum.attr import InputXGradient

from captum_robust.loss import AdversarialRankingLoss, CrossLipschitzLoss, R2ETLoss
from captum_robust.ranking import flatten_attributions, gap_sum
from tests.loss.r2et_by_definition import labels, mlp, normal, parameter_gradients

LOSSES = {
    "R2ET": (R2ETLoss, {}),
    "R2ET, exp": (R2ETLoss, {"gap": "exp", "pairs": "mm"}),
    "R2ET, groups": (R2ETLoss, {"feature_mask": torch.tensor([0, 0, 1, 2, 2, 3])}),
    "R2ET, given ranking": (R2ETLoss, {}),
    "CL": (CrossLipschitzLoss, {}),
    "CL, normalised": (CrossLipschitzLoss, {"normalize": True}),
    "AT": (AdversarialRankingLoss, {"radius": 0.5}),
}


class Magnitudes(InputXGradient):
    """The magnitude of the input times the gradient."""

    def attribute(self, *args, **kwargs):
        return super().attribute(*args, **kwargs).abs()


@pytest.mark.parametrize("name", LOSSES)
def test_absolute_ranks_the_magnitudes_of_the_maps(name):
    make, options = LOSSES[name]
    model, x, y = mlp(), normal(4, 6), labels()
    more = {"reference_attributions": normal(4, 6, seed=9)} if "given" in name else {}
    found, wanted = (
        make(model, k=2, attribution=kind(model), absolute=absolute, **options)
        for kind, absolute in ((InputXGradient, True), (Magnitudes, False))
    )
    if more:  # the magnitudes of a given ranking count too
        given = {"reference_attributions": more["reference_attributions"].abs()}
        loss, expected = found(x, y, **more), wanted(x, y, **given)
    else:
        loss, expected = found(x, y), wanted(x, y)
    assert torch.allclose(loss, expected, rtol=1e-10)
    gradients = [parameter_gradients(value, model) for value in (loss, expected)]
    assert torch.allclose(*gradients, rtol=1e-8, atol=1e-12)
    signed = make(model, k=2, attribution=InputXGradient(model), **options)
    assert not torch.allclose(signed(x, y, **more), expected, rtol=1e-6)


def test_the_gaps_are_those_of_the_magnitudes():
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = R2ETLoss(
        model, 2, lambda2=0.0, explain="logit", attribution=InputXGradient(model), absolute=True
    )
    criterion(x, y)
    maps = InputXGradient(model).attribute(x.clone().requires_grad_(), target=y).detach()
    scores = flatten_attributions(maps, absolute=True)
    expected = gap_sum(scores, scores, 2, "anchor").mean()
    assert torch.allclose(criterion.last_terms["gap"], expected)


def test_gradients_are_ranked_by_magnitude_in_any_case():
    model, x, y = mlp(), normal(4, 6), labels()
    for make, options in LOSSES.values():
        values = [make(model, k=2, absolute=on, **options)(x, y) for on in (False, True)]
        assert torch.equal(*values)
