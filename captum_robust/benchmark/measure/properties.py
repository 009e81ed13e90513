"""Measurements of a model besides attacks: thickness, curvature, faithfulness, gradients."""

import warnings
from functools import partial

import torch
from torch import Tensor, nn

from captum_robust.benchmark.measure.attacks import constraints
from captum_robust.benchmark.study.settings import TABULAR, EvaluationSettings
from captum_robust.metrics import (
    comprehensiveness,
    decision_flip_fraction,
    hessian_norm,
    ranking_thickness,
    sufficiency,
)
from captum_robust.robust import ERAttack, GaussianNoise, UniformNoise, ZeroGradientWarning

__all__ = ["N_MAGNITUDES", "N_STEPS", "measure_properties"]

#: Number of steps of the attack whose first success is the manipulation step.
N_STEPS = 100
#: Largest number of magnitudes that are kept.
N_MAGNITUDES = 200


def measure_properties(
    model: nn.Module,
    inputs: Tensor,
    k: int,
    seed: int,
    settings: EvaluationSettings = TABULAR,
) -> dict[str, Tensor]:
    r"""Measure the first explanation of the logit at each row, (N,), by name.

    - ``thickness``: in the L2 ball of the middle radius, with uniform noise; ``gaussian thickness``
      and ``gaussian minimum thickness``: with Gaussian noise of about that expected length;
      ``adversarial thickness``: on the segment to the point that ERAttack finds.
    - ``manipulation step``: the first of 100 equal steps of ERAttack, along the gradient with
      softplus for ReLU, at which a top feature is lost; 101 where none is.
    - ``hessian norm``: Frobenius norm of the Hessian of the probability, or its estimate by a
      finite difference.
    - ``dffot``, ``comp``, ``suff``: faithfulness, where removed features are 0.
    - ``magnitudes``: the largest magnitudes of the gradient of the probability in descending order,
      (N, at most 200).
    """
    radius = settings.radius
    explanation = next(iter(settings.explanations.values()))
    saliency = explanation.attribution(model)
    maps = explanation.magnitudes(model, inputs)
    attack = ERAttack(saliency, k, smooth_relu=5.0, absolute=True, **constraints(model, settings))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroGradientWarning)  # a linear network: step 101
        moved, info = attack.perturb(
            inputs, radius, step_size=radius / N_STEPS, step_num=N_STEPS, target=0, norm="L2",
            seed=seed, return_info=True, max_examples_per_batch=settings.chunk,
        )  # fmt: skip
    thickness = partial(
        ranking_thickness, saliency.attribute, inputs, k, perturb_radius=radius, target=0,
        reference_attributions=maps, seed=seed, absolute=True,
        max_examples_per_batch=settings.chunk,
    )  # fmt: skip
    sigma = radius / inputs.shape[1] ** 0.5
    gaussian = partial(thickness, perturb_func=GaussianNoise(), perturb_radius=sigma)

    def probability(rows: Tensor) -> Tensor:
        logits: Tensor = model(rows)
        return logits.sigmoid()

    logits = model(inputs).detach()
    slopes = logits.sigmoid() * (-logits).sigmoid()
    steps = info.first_change_step
    assert steps is not None
    return {
        "thickness": thickness(perturb_func=UniformNoise("L2")),
        "gaussian thickness": gaussian(),
        "gaussian minimum thickness": gaussian(reduction="min"),
        "adversarial thickness": thickness(
            # Radius 0: the attack may return a row itself, which is a result.
            perturb_func=lambda *_: moved,
            perturb_radius=0.0,
            n_perturb_samples=1,
            sampling="grid",
        ),
        "manipulation step": torch.where(steps < 0, N_STEPS + 1, steps),
        "hessian norm": hessian_norm(
            probability,
            inputs,
            target=0,
            method="frobenius" if settings.exact_hessian else "finite_difference",
        ),
        "dffot": decision_flip_fraction(model, inputs, maps, ks=settings.fractions),
        "comp": comprehensiveness(model, inputs, maps, ks=settings.fractions),
        "suff": sufficiency(model, inputs, maps, ks=settings.fractions),
        "magnitudes": (slopes * maps).sort(dim=1, descending=True).values[:, :N_MAGNITUDES],
    }
