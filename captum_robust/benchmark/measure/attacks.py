"""The attacks of the study, on all radii at once, and what is left of the top k under them."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust.benchmark.study.explanations import Explanation, Probability
from captum_robust.benchmark.study.settings import RADII, TABULAR, Terms
from captum_robust.metrics import precision_at_k
from captum_robust.robust import AutoERAttack, ERAttack, MSEAttack, ZeroGradientWarning

__all__ = ["ATTACKS", "RADII", "attacked", "constraints", "validation_precision"]

_Attack = Callable[..., Any]


def _er(model: nn.Module, explanation: Explanation, k: int, **options: Any) -> ERAttack:
    """ERAttack as published: along the gradient of the map of the probability.

    Judged on that of the logit, which saliency ranks alike: the probability's shrinks as a whole
    where the network is certain, which moves no ranking.
    """
    guide = explanation.attribution(Probability(model))
    return ERAttack(explanation.attribution(model), k, surrogate=guide, absolute=True, **options)


def _mse(model: nn.Module, explanation: Explanation, k: int, **options: Any) -> MSEAttack:
    """MSEAttack as published, on the map of the probability."""
    return MSEAttack(explanation.attribution(Probability(model)), k, absolute=True, **options)


def _auto(model: nn.Module, explanation: Explanation, k: int, **options: Any) -> AutoERAttack:
    return AutoERAttack(explanation.attribution(model), k, absolute=True, **options)


ATTACKS: dict[str, _Attack] = {"er": _er, "mse": _mse, "auto": _auto}


def attacked(
    model: nn.Module,
    inputs: Tensor,
    attack: str,
    explanation: str,
    k: int,
    seed: int,
    terms: Terms = TABULAR,
) -> tuple[Tensor, Tensor]:
    """Attack every row in the ball of every radius.

    What lies in a smaller ball lies in a larger one, so a smaller ball's finding counts where the
    larger one's is less.

    Returns:
        - **precision** (*Tensor*): P@k of each radius and row, (radii, N); NaN where a map cannot
          be ranked.
        - **moved** (*Tensor*): the perturbed rows, (radii, N, n).
    """
    how = terms.explanations[explanation]
    searching = ATTACKS[attack](model, how, k, **constraints(model, terms))
    return _over_radii(model, inputs, searching, how, k, seed, terms)


def validation_precision(
    model: nn.Module, inputs: Tensor, k: int, seed: int, terms: Terms = TABULAR
) -> Tensor:
    """P@k of the first explanation under the attack by which settings are selected, (radii, N).

    One search along a smoothed gradient: much cheaper than AutoERAttack, and nearly as strong.
    """
    how = next(iter(terms.explanations.values()))
    attack = ERAttack(
        how.attribution(model), k, smooth_relu=5.0, step_rule="halving", keep="precision",
        absolute=True, **constraints(model, terms),
    )  # fmt: skip
    return _over_radii(model, inputs, attack, how, k, seed, terms)[0]


def constraints(model: nn.Module, terms: Terms) -> dict[str, Any]:
    """What an attack may reach, and all results of a model that must stay as they are."""
    lower, upper = terms.bounds
    predictions = getattr(model, "predictions", None)
    return {"lower_bound": lower, "upper_bound": upper, "predictions": predictions}


def _over_radii(
    model: nn.Module,
    inputs: Tensor,
    attack: Any,
    explanation: Explanation,
    k: int,
    seed: int,
    terms: Terms,
) -> tuple[Tensor, Tensor]:
    shape = (len(terms.radii), *inputs.shape)
    rows = inputs.expand(shape).flatten(0, 1)
    radii = inputs.new_tensor(terms.radii).repeat_interleave(len(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroGradientWarning)  # P@k = 1 then, as the report says
        moved = attack.perturb(
            rows, radii, target=0, norm="L2", seed=seed, max_examples_per_batch=terms.chunk,
            **explanation.arguments,
        )  # fmt: skip
    maps, reference = (explanation.magnitudes(model, x) for x in (moved, rows))
    precision = precision_at_k(maps, reference, k).reshape(shape[:2])
    moved = moved.reshape(shape)
    for r in range(1, len(terms.radii)):
        worse = precision[r - 1] < precision[r]
        precision[r] = torch.where(worse, precision[r - 1], precision[r])
        moved[r] = torch.where(worse[:, None], moved[r - 1], moved[r])
    return precision, moved
