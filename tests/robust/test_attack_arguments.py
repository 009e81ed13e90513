"""Bad arguments: each raises a ValueError with the argument, its value and what is accepted."""

import math
import re

import pytest
import torch
from captum.attr import IntegratedGradients, Saliency

from captum_robust.robust import ERAttack, ExplanationAttack
from tests.robust.targets import mlp, normal

CONSTRUCTION = {
    "gradient": ({"gradient": "exact"}, "gradient must be one of ('autograd', "),
    "preserve": (
        {"preserve_prediction": "keep"},
        "preserve_prediction must be one of ('reject', 'early_stop', 'none', 'fixed', 'gda', "
        "'hedge', 'qp'), got 'keep'",
    ),
    "smooth 0": (
        {"smooth_relu": 0.0},
        "smooth_relu must be a positive, finite beta, a pair of them for the first and the last "
        "step, or None, got 0",
    ),
    "smooth inf": ({"smooth_relu": math.inf}, "smooth_relu must be a positive, finite beta"),
    "smooth nan": ({"smooth_relu": math.nan}, "smooth_relu must be a positive, finite beta"),
    "path_points": ({"path_points": 0}, "path_points must be an integer of at least 1, got 0"),
    "n_directions": ({"n_directions": 0}, "n_directions must be an integer of at least 1, got 0"),
    "path of differences": (
        {"path_points": 2, "gradient": "finite_difference"},
        "path_points > 1 needs gradient='autograd' or 'spsa'",
    ),
    "pairs": ({"pairs": "some"}, "pairs must be one of ('anchor', 'mm', 'all'), got 'some'"),
    "gap": ({"gap": "square"}, "gap must be one of ('linear', 'exp'), got 'square'"),
    "k 0": ({"k": 0}, "k must be an integer of at least 1, got 0"),
    "k 1.5": ({"k": 1.5}, "k must be an integer of at least 1, got 1.5"),
    "k_prime 0": ({"k_prime": 0}, "k_prime must be an int in 1 … k = 2, got 0"),
    "k_prime 3": ({"k_prime": 3}, "k_prime must be an int in 1 … k = 2, got 3"),
}


@pytest.mark.parametrize("options, message", CONSTRUCTION.values(), ids=CONSTRUCTION)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ERAttack(Saliency(mlp()), **{"k": 2, **options})


def test_differences_need_saliency():
    with pytest.raises(ValueError, match=r"needs Saliency.*got IntegratedGradients; use gradient="):
        ERAttack(IntegratedGradients(mlp()), k=2, gradient="finite_difference")
    with pytest.raises(ValueError, match="got IntegratedGradients"):
        ERAttack(
            Saliency(mlp()), k=2, gradient="finite_difference", surrogate=IntegratedGradients(mlp())
        )


CALL = {
    "radius -1": ({"radius": -1.0}, "radius must be finite and not negative, got -1.0"),
    "radius nan": ({"radius": math.nan}, "radius must be finite and not negative, got nan"),
    "radius inf": ({"radius": math.inf}, "radius must be finite and not negative, got inf"),
    "radius tensor": (
        {"radius": torch.tensor([0.1, -0.1, 0.1, 0.1])},
        "radius must be finite and not negative, got tensor",
    ),
    "radius shape": (
        {"radius": torch.ones(3)},
        "radius must be a number or a tensor of shape (4,), got shape (3,)",
    ),
    "radius column": (
        {"radius": torch.ones(4, 1)},
        "radius must be a number or a tensor of shape (4,), got shape (4, 1)",
    ),
    "step_size": ({"step_size": -0.1}, "step_size must be finite and not negative, got -0.1"),
    "step_size shape": ({"step_size": torch.ones(5)}, "step_size must be a number or a tensor of"),
    "step_num -1": ({"step_num": -1}, "step_num must be an integer of at least 0, got -1"),
    "step_num 2.5": ({"step_num": 2.5}, "step_num must be an integer of at least 0, got 2.5"),
    "n_restarts": ({"n_restarts": 0}, "n_restarts must be an integer of at least 1, got 0"),
    "chunk": (
        {"max_examples_per_batch": 0},
        "max_examples_per_batch must be an integer of at least 1, got 0",
    ),
    "norm": ({"norm": "L1"}, "norm must be 'Linf' or 'L2', got 'L1'"),
    "mask shape": (
        {"mask": torch.ones(4, 5)},
        "mask must have shapes that broadcast to those of the inputs, [(4, 6)], got [(4, 5)]",
    ),
    "larger mask": (
        {"mask": torch.ones(2, 4, 6)},
        "mask must have shapes that broadcast to those of the inputs, [(4, 6)], got [(2, 4, 6)]",
    ),
    "masks": ({"mask": (torch.ones(6), torch.ones(6))}, "got [(6,), (6,)]"),
    "start": (
        {"start": torch.ones(1, 6)},
        "start must have the shapes of the inputs, [(4, 6)], got [(1, 6)]",
    ),
    "integers": (
        {"inputs": torch.ones(4, 6, dtype=torch.int64)},
        "inputs must be floating point tensors, got torch.int64",
    ),
    "rows": ({"inputs": (torch.ones(4, 6), torch.ones(3, 6))}, "inputs must have the same number"),
    "list": ({"inputs": [torch.ones(4, 6)]}, "inputs must be a Tensor or a tuple of Tensors"),
}


@pytest.mark.parametrize("arguments, message", CALL.values(), ids=CALL)
def test_bad_arguments(arguments, message):
    given = {"inputs": normal(4, 6), "radius": 0.1, "target": 0, **arguments}
    with pytest.raises(ValueError, match=re.escape(message)):
        ERAttack(Saliency(mlp()), k=2).perturb(**given)


@pytest.mark.parametrize("k", [6, 7])
def test_k_must_leave_a_feature_out(k):
    with pytest.raises(ValueError, match=rf"k must be an int with 1 <= k < 6, .* got {k}"):
        ERAttack(Saliency(mlp()), k=k).perturb(normal(4, 6), 0.1, target=0)


def test_inputs_must_lie_within_the_bounds():
    x = torch.linspace(-1, 2, 24).view(4, 6).double()
    message = "inputs must lie between lower_bound and upper_bound, got values in [-1.0, 2.0]"
    for bounds in ({"lower_bound": 0.0}, {"upper_bound": torch.ones(6)}):
        with pytest.raises(ValueError, match=re.escape(message)):
            ERAttack(Saliency(mlp()), k=2, **bounds).perturb(x, 0.1, target=0)


def test_bounds_must_fit_the_inputs():
    attack = ExplanationAttack(Saliency(mlp()), lambda s, r: s[:, 0], upper_bound=torch.ones(5))
    with pytest.raises(ValueError, match="upper_bound must have shapes that broadcast"):
        attack.perturb(normal(4, 6).clamp(max=1), 0.1, target=0)


def test_a_feature_mask_must_fit_the_maps():
    attack = ERAttack(Saliency(mlp()), k=2, feature_mask=(torch.arange(6), torch.arange(6)))
    for chunk in (None, 2):
        with pytest.raises(ValueError, match="feature_mask must hold one mask per tensor"):
            attack.perturb(normal(4, 6), 0.1, target=0, max_examples_per_batch=chunk)


@pytest.mark.parametrize("n_rows", [2, 3, 5])
@pytest.mark.parametrize("chunk", [None, 1, 2, 3])
def test_a_feature_mask_must_have_one_row_or_one_per_example(n_rows, chunk):
    attack = ERAttack(Saliency(mlp()), k=2, feature_mask=torch.arange(6).expand(n_rows, 6))
    with pytest.raises(ValueError, match=r"feature_mask\[0\] must"):
        attack.perturb(normal(4, 6), 0.1, target=0, max_examples_per_batch=chunk)
