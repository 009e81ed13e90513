"""Numbers of public functions: NaN, infinity and fractions of counts are errors with names."""

from functools import partial

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust import loss, metrics, robust
from captum_robust.attr import smooth_relu
from captum_robust.noise import UniformNoise

NAN, INF = float("nan"), float("inf")
SEED, CHUNK, DRAWS = {"seed": 0}, {"max_examples_per_batch": 2}, {"n_perturb_samples": 2}
COUNTS = {
    "budget", "every", "k", "k_prime", "max_examples_per_batch", "n_bisections", "n_directions",
    "n_perturb_samples", "n_probes", "n_radii", "n_restarts", "n_samples", "n_steps",
    "path_points", "seed", "step_num",
}  # fmt: skip


def network(activation=nn.Softplus):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 3)).double()


def rows(seed=0):
    return torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MAPS, LABELS, PAIR = (rows(1), rows(2)), torch.tensor([0, 1, 2, 0]), torch.tensor([[0, 1]])


def explained(metric):
    return lambda *before, **given: metric(
        Saliency(network()).attribute, rows(), *before, target=0, **given
    )


def attacked(make, *own):
    """An attack with the arguments named ``own`` at its construction, all others at its call."""

    def call(**given):
        first = {n: v for n, v in given.items() if n in own}
        rest = {n: v for n, v in given.items() if n not in own}
        return make(Saliency(network()), **first).perturb(rows(), target=0, **rest)

    return call


def trained(make):
    return lambda **given: make(network(), **given)(rows(), LABELS)


STEPS = {"radius": 0.1, "step_size": 0.05, "step_num": 2, "n_restarts": 1, **SEED, **CHUNK}
OF_ATTACKS = {
    "path_points": 1, "n_directions": 2, "probe": 2.0, "constraint_rate": 1.0, "smooth_relu": 2.0,
    "tolerance": 5.0,
}  # fmt: skip
NOISE = {**DRAWS, "perturb_radius": 0.1, **CHUNK, **SEED}
CALLS = {
    "precision_at_k": (partial(metrics.precision_at_k, *MAPS), {"k": 2}),
    "ranking_gap": (partial(metrics.ranking_gap, MAPS[0]), {"k": 2}),
    "precision_at_k_min": (explained(metrics.precision_at_k_min), {"k": 2, **NOISE}),
    "ranking_thickness": (
        explained(metrics.ranking_thickness), {"k": 2, "n_steps": 2, **NOISE},
    ),
    "pairwise_ranking_thickness": (
        partial(explained(metrics.pairwise_ranking_thickness), PAIR), {"n_steps": 2, **NOISE},
    ),
    "thickness_bounds": (
        partial(metrics.thickness_bounds, network(), rows(), target=0),
        {"k": 2, "radius": 0.1, "n_samples": 2, **CHUNK, **SEED},
    ),
    "pairwise_thickness_bounds": (
        partial(metrics.pairwise_thickness_bounds, network(), rows(), PAIR, target=0),
        {"radius": 0.1, "n_samples": 2, **CHUNK, **SEED},
    ),
    "hessian_norm": (
        partial(metrics.hessian_norm, network(), rows(), 0, method="hutchinson"),
        {"n_probes": 2, "kappa": 0.1, **CHUNK, **SEED},
    ),
    "certified_precision_at_k": (
        explained(metrics.certified_precision_at_k),
        {"k": 2, "radius": 0.1, "sigma": 0.5, "n_samples": 4, "confidence": 0.9, **CHUNK, **SEED},
    ),
    "certified_top_k_radius": (
        partial(metrics.certified_top_k_radius, network(nn.ReLU), rows(), target=0),
        {"k": 2, "max_radius": 0.1},
    ),
    "comprehensiveness": (partial(metrics.comprehensiveness, network(), rows(), rows()), CHUNK),
    "sufficiency": (partial(metrics.sufficiency, network(), rows(), rows()), CHUNK),
    "decision_flip_fraction": (
        partial(metrics.decision_flip_fraction, network(), rows(), rows()),
        {"tolerance": 0.1, **CHUNK},
    ),
    "prediction_change_rate": (
        partial(metrics.prediction_change_rate, *MAPS), {"tolerance": 0.1},
    ),
    "UniformNoise": (partial(UniformNoise().perturb, rows()), {"radius": 0.1, **SEED}),
    "smooth_relu": (smooth_relu, {"beta": 1.0}),
    "replace_relu": (lambda **g: loss.replace_relu(nn.Sequential(nn.ReLU()), **g), {"beta": 1.0}),
    "MinRadius": (
        lambda **given: robust.MinRadius(robust.ERAttack(Saliency(network()), k=2), **given)
        .evaluate(rows(), 0),
        {"lower": 0.1, "upper": 1.0, "n_radii": 2, "n_bisections": 1},
    ),
    "ExplanationComparator": (
        lambda **given: robust.ExplanationComparator({"s": Saliency(network())}, {}, {})
        .evaluate(rows(), target=0, **given),
        {"radius": 0.1, **CHUNK, **SEED},
    ),
    "AutoERAttack": (
        attacked(robust.AutoERAttack, "k", "tolerance"),
        {"k": 2, "tolerance": 1.0, "radius": 0.1, "budget": 6, **CHUNK, **SEED},
    ),
    "ERAttack": (
        attacked(robust.ERAttack, "k", "k_prime", *OF_ATTACKS),
        {"k": 2, "k_prime": 1, **OF_ATTACKS, **STEPS},
    ),
    "ParetoERAttack": (
        attacked(robust.ParetoERAttack, "k", "k_prime", "armijo", "tolerance", "output_tolerance"),
        {"k": 2, "k_prime": 1, "armijo": 0.1, "tolerance": 0.1, "output_tolerance": 0.1, **STEPS},
    ),
    "RandomSearchAttack": (
        attacked(robust.RandomSearchAttack, "k", "tolerance"),
        {"k": 2, "tolerance": 1.0, **STEPS},
    ),
    "TargetMapAttack": (
        attacked(partial(robust.TargetMapAttack, target_map=rows()[:1]), "prediction_weight"),
        {"prediction_weight": 0.1, **STEPS},
    ),
    "R2ETLoss": (
        trained(loss.R2ETLoss),
        {"k": 2, "k_prime": 2, "lambda1": 0.1, "lambda2": 0.1, "kappa": 0.1, "every": 1,
         "fraction": 0.5},
    ),
    "HessianNormLoss": (trained(loss.HessianNormLoss), {"weight": 0.1, "kappa": 0.1}),
    "SSRLoss": (trained(loss.SSRLoss), {"weight": 0.1}),
    "AdversarialRankingLoss": (
        trained(loss.AdversarialRankingLoss),
        {"k": 2, "radius": 0.1, "step_num": 2, "step_size": 0.1, "k_prime": 1, "smooth_relu": 2.0},
    ),
    "CrossLipschitzLoss": (
        trained(loss.CrossLipschitzLoss), {"k": 2, "k_prime": 1, "weight": 0.1},
    ),
}  # fmt: skip
ARGUMENTS = [(name, argument) for name, (_, given) in CALLS.items() for argument in given]


@pytest.mark.parametrize("name, argument", ARGUMENTS, ids=map(".".join, ARGUMENTS))
def test_a_number_that_is_none_is_an_error_that_names_the_argument(name, argument):
    call, given = CALLS[name]
    wrong = (2.5, 2.0, NAN, True) if argument in COUNTS else (NAN, INF, -1.0)
    for value in wrong:
        with pytest.raises(ValueError, match=rf"\b{argument}\b"):
            call(**{**given, argument: value})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_around_it_are_accepted(name):
    call, given = CALLS[name]
    call(**given)
