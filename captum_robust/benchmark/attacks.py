"""The attacks of the study, on all radii at once, and what is left of the top k under them."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust.benchmark.explanations import EXPLANATIONS, Explanation, Probability
from captum_robust.metrics import precision_at_k
from captum_robust.robust import AutoERAttack, ERAttack, MSEAttack, ZeroGradientWarning

__all__ = ["ATTACKS", "RADII", "attacked", "validation_precision"]

#: Radii of the balls, L2.
RADII = (0.25, 0.5, 1.0, 2.0, 4.0)

_Attack = Callable[[nn.Module, Explanation, int], Any]


def _er(model: nn.Module, explanation: Explanation, k: int) -> ERAttack:
    """ERAttack as published: along the gradient of the map of the probability.

    Judged on that of the logit, which saliency ranks alike: the probability's shrinks as a whole
    where the network is certain, which moves no ranking.
    """
    guide = explanation.attribution(Probability(model))
    return ERAttack(explanation.attribution(model), k, surrogate=guide, absolute=True)


def _mse(model: nn.Module, explanation: Explanation, k: int) -> MSEAttack:
    """MSEAttack as published, on the map of the probability."""
    return MSEAttack(explanation.attribution(Probability(model)), k, absolute=True)


def _auto(model: nn.Module, explanation: Explanation, k: int) -> AutoERAttack:
    return AutoERAttack(explanation.attribution(model), k, absolute=True)


ATTACKS: dict[str, _Attack] = {"er": _er, "mse": _mse, "auto": _auto}


def attacked(
    model: nn.Module, inputs: Tensor, attack: str, explanation: str, k: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Attack every row in the ball of every radius.

    What lies in a smaller ball lies in a larger one, so a smaller ball's finding counts where the
    larger one's is less.

    Returns:
        - **precision** (*Tensor*): P@k of each radius and row, (radii, N); NaN where a map cannot
          be ranked.
        - **moved** (*Tensor*): the perturbed rows, (radii, N, n).
    """
    how = EXPLANATIONS[explanation]
    return _over_radii(model, inputs, ATTACKS[attack](model, how, k), how, k, seed)


def validation_precision(model: nn.Module, inputs: Tensor, k: int, seed: int) -> Tensor:
    """P@k of the saliency under the attack by which settings are selected, (radii, N).

    One search along a smoothed gradient: much cheaper than AutoERAttack, and nearly as strong.
    """
    attack = ERAttack(Saliency(model), k, smooth_relu=5.0, step_rule="halving", keep="precision")
    return _over_radii(model, inputs, attack, EXPLANATIONS["saliency"], k, seed)[0]


def _over_radii(
    model: nn.Module, inputs: Tensor, attack: Any, explanation: Explanation, k: int, seed: int
) -> tuple[Tensor, Tensor]:
    shape = (len(RADII), *inputs.shape)
    rows = inputs.expand(shape).flatten(0, 1)
    radii = torch.tensor(RADII).repeat_interleave(len(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ZeroGradientWarning)  # P@k = 1 then, as the report says
        moved = attack.perturb(rows, radii, target=0, norm="L2", seed=seed, **explanation.arguments)
    maps, reference = (explanation.magnitudes(model, x) for x in (moved, rows))
    precision = precision_at_k(maps, reference, k).reshape(shape[:2])
    moved = moved.reshape(shape)
    for r in range(1, len(RADII)):
        worse = precision[r - 1] < precision[r]
        precision[r] = torch.where(worse, precision[r - 1], precision[r])
        moved[r] = torch.where(worse[:, None], moved[r - 1], moved[r])
    return precision, moved
