"""The attacks of the study at all radii at once, and the P@k that they leave."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust.benchmark.study.explanations import Explanation
from captum_robust.benchmark.study.settings import TABULAR, EvaluationSettings
from captum_robust.metrics import precision_at_k
from captum_robust.ranking import flatten_attributions, tied_rows
from captum_robust.robust import AutoERAttack, ERAttack, MSEAttack, ZeroGradientWarning

__all__ = ["ATTACKS", "Probability", "attack_rows", "constraints", "validation_precision"]

_Attack = Callable[..., Any]


class Probability(nn.Module):
    r"""The probability of class 1 less ½, whose sign is the prediction, as that of the logit.

    On a network of the ReLU family the saliency of the logit has no gradient; that of the
    probability has one.

    Args:
        model: network with a single logit.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the shifted probability, (N, 1)."""
        logits: Tensor = self.model(inputs)
        return (logits / 2).tanh() / 2


def _er(model: nn.Module, explanation: Explanation, k: int, **options: Any) -> ERAttack:
    """Make the published ERAttack, along the gradient of the attribution of the probability.

    It is scored on the attribution of the logit, which saliency ranks alike: that of the
    probability shrinks as a whole where the network is certain, which changes no ranking.
    """
    guide = explanation.attribution(Probability(model))
    return ERAttack(explanation.attribution(model), k, surrogate=guide, absolute=True, **options)


def _mse(model: nn.Module, explanation: Explanation, k: int, **options: Any) -> MSEAttack:
    """Make the published MSEAttack, on the attribution of the probability."""
    return MSEAttack(explanation.attribution(Probability(model)), k, absolute=True, **options)


def _auto(model: nn.Module, explanation: Explanation, k: int, **options: Any) -> AutoERAttack:
    return AutoERAttack(explanation.attribution(model), k, absolute=True, **options)


#: The attacks by name, the strongest last.
ATTACKS: dict[str, _Attack] = {"er": _er, "mse": _mse, "auto": _auto}


def attack_rows(
    model: nn.Module,
    inputs: Tensor,
    attack: str,
    explanation: str,
    k: int,
    seed: int,
    settings: EvaluationSettings = TABULAR,
) -> tuple[Tensor, Tensor]:
    """Attack every row in the ball of every radius.

    A smaller ball lies inside a larger one, so the result of the smaller ball counts where that of
    the larger one is weaker.

    Returns:
        - **precision** (*Tensor*): P@k of each radius and row, (radii, N); NaN where a map cannot
          be ranked, and where the k-th feature of the unperturbed row ties with the next.
        - **moved** (*Tensor*): the perturbed rows, (radii, N, n).
    """
    explained = settings.explanations[explanation]
    made = ATTACKS[attack](model, explained, k, **constraints(model, settings))
    return _over_radii(model, inputs, made, explained, k, seed, settings)


def validation_precision(
    model: nn.Module,
    inputs: Tensor,
    k: int,
    seed: int,
    settings: EvaluationSettings = TABULAR,
) -> Tensor:
    """Return P@k of the first explanation under the attack that selects settings, (radii, N).

    It is one search along a smoothed gradient: much cheaper than AutoERAttack, and nearly as
    strong.
    """
    explained = next(iter(settings.explanations.values()))
    attack = ERAttack(
        explained.attribution(model), k, smooth_relu=5.0, step_rule="halving", keep="precision",
        absolute=True, **constraints(model, settings),
    )  # fmt: skip
    return _over_radii(model, inputs, attack, explained, k, seed, settings)[0]


def constraints(model: nn.Module, settings: EvaluationSettings) -> dict[str, Any]:
    """Return the bounds of an attack, and the predictions that it must keep."""
    lower, upper = settings.bounds
    predictions = getattr(model, "predictions", None)
    return {"lower_bound": lower, "upper_bound": upper, "predictions": predictions}


def _over_radii(
    model: nn.Module,
    inputs: Tensor,
    attack: Any,
    explanation: Explanation,
    k: int,
    seed: int,
    settings: EvaluationSettings,
) -> tuple[Tensor, Tensor]:
    shape = (len(settings.radii), *inputs.shape)
    rows = inputs.expand(shape).flatten(0, 1)
    radii = inputs.new_tensor(settings.radii).repeat_interleave(len(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ZeroGradientWarning
        )  # P@k is 1 then, which the report explains
        moved = attack.perturb(
            rows, radii, target=0, norm="L2", seed=seed, max_examples_per_batch=settings.chunk,
            **explanation.arguments,
        )  # fmt: skip
    maps, reference = (explanation.magnitudes(model, x, seed) for x in (moved, rows))
    precision = precision_at_k(maps, reference, k)
    # As in an audit: any change may swap features that tie, which is no loss of stability.
    precision = precision.masked_fill(tied_rows(flatten_attributions(reference), k), float("nan"))
    precision = precision.reshape(shape[:2])
    moved = moved.reshape(shape)
    for r in range(1, len(settings.radii)):
        worse = precision[r - 1] < precision[r]
        precision[r] = torch.where(worse, precision[r - 1], precision[r])
        moved[r] = torch.where(worse[:, None], moved[r - 1], moved[r])
    return precision, moved
