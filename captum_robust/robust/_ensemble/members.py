"""The members of the ensemble: every way to a gradient, with the objectives that suit it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from captum.attr import Attribution, InputXGradient, Saliency
from captum.attr._utils.attribution import InternalAttribution

from captum_robust._utils.prediction import predicted_labels
from captum_robust.attr.check import is_differentiable
from captum_robust.robust._search.problem import Problem
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import Objective, RankingObjective
from captum_robust.robust.random_search import RandomSearchAttack
from captum_robust.robust.swaps import NextSwapObjective, SwapCountObjective

__all__ = ["Member", "Nature", "members_of", "reference_member", "unbounded"]

Way = dict[str, Any]
Start = Literal["example", "random", "best"]

# In the order in which they run: what is minimised, the way to its gradient, the start, and how
# many starts. The strongest come first, as found on perceptrons and a convolutional network, with
# kinks and without; the objectives of the papers come late, as a safeguard.
_PLAN: tuple[tuple[str, str, Start, int], ...] = (
    ("next swap", "lead", "example", 1),
    ("swap count", "unsmoothed", "example", 1),
    ("next swap", "unsmoothed", "random", 2),
    ("next swap", "smoothed little", "example", 1),
    ("wide swap count", "far differences", "example", 1),
    ("swap count", "near differences", "example", 1),
    ("next two swaps", "lead", "example", 1),
    ("swap count", "probes", "example", 1),
    ("next swap", "lead", "random", 4),
    ("next swap", "lead", "best", 1),
    ("swap count", "unsmoothed", "best", 1),
    ("wide swap count", "far differences", "best", 1),
    ("swap count", "lead", "best", 1),
    ("swap count", "random search", "example", 1),
    ("wide swap count", "far differences", "random", 2),
    ("swap count", "lead", "example", 1),
    ("next swap", "smoothed at 20", "best", 1),
    ("swap count", "near differences", "best", 1),
    ("swap count", "probes", "best", 1),
    ("weakest gaps", "lead", "example", 1),
    ("all gaps", "own gradient", "example", 1),
    ("all gaps", "smoothed at 5", "example", 1),
    ("swap count", "random search", "best", 1),
)
_SLIDING = {"preserve_prediction": "qp", "constraint": "boundary"}
_HOW = {"example": "", "random": ", restarted", "best": ", refined"}
_N_STEPS = {"example": 30, "random": 30, "best": 20}
_N_STEPS_OF_PROBES = 10  # each takes 32 attributions
_N_STEPS_AT_RANDOM = {"example": 100, "best": 200}


@dataclass(frozen=True)
class Member:
    """One attack of the ensemble, as it is run."""

    name: str
    attack: ExplanationAttack
    n_steps: int
    start: Start = "example"
    n_starts: int = 1

    @property
    def black_box(self) -> bool:
        """Whether it follows no gradient, nor starts from where one led."""
        return isinstance(self.attack, RandomSearchAttack) and self.start == "example"

    @property
    def own(self) -> bool:
        """Whether it follows the gradient of the attribution itself."""
        attack = self.attack
        led = attack.smooth_relu is not None or attack.surrogate is not None
        return attack.gradient == "autograd" and not led

    @property
    def cost(self) -> int:
        """The most attributions that it computes for an example."""
        attack = self.attack
        a_step = 1
        if not isinstance(attack, RandomSearchAttack):
            a_step += attack.smooth_relu is not None or attack.surrogate is not None
            a_step += attack.gradient == "finite_difference"
            a_step += 2 * attack.n_directions if attack.gradient == "spsa" else 0
        return (self.start != "example") + self.n_starts * (1 + self.n_steps * a_step)


class Nature(NamedTuple):
    """What the ensemble must know of a network and its explanation.

    Attributes:
        kinked: whether the network has kinks, so that a smoothed one differs from it.
        bent: whether, with kinks, its map has a gradient between them: that of the saliency of a
            ReLU network has none, one of a cosine of embeddings has.
        randomised: whether the map depends on the seed.
        differentiable: whether the output of the network is, so that its label can be followed.
    """

    kinked: bool = False
    bent: bool = False
    randomised: bool = False
    differentiable: bool = False


def members_of(attribution: Attribution, k: int, nature: Nature, options: Way) -> list[Member]:
    """All members that can add something, in the order in which they run.

    Where the prediction must be kept, those that follow a gradient slide along the decision
    boundary: an attack that runs into it, and is not counted beyond, finds little at large radii.

    Args:
        attribution (Attribution): the attribution under attack.
        k (int): size of the top set.
        nature (Nature): what is known of the network.
        options (dict): what all members share: bounds, prediction, ranking.
    """
    objectives: dict[str, Objective] = {
        "next swap": NextSwapObjective(k),
        "next two swaps": NextSwapObjective(k, ahead=2),
        "swap count": SwapCountObjective(k),
        "wide swap count": SwapCountObjective(k, temperature=0.3),
        "weakest gaps": RankingObjective(k, "mm", "exp"),
        "all gaps": RankingObjective(k),
    }
    ways = _ways_of(attribution, nature)
    slides = (
        nature.differentiable
        and options["preserve_prediction"] == "reject"
        and options["decision_func"] is predicted_labels  # of another, the boundary is not known
    )
    sliding = {**options, **_SLIDING} if slides else options
    members = []
    for objective, way, start, n_starts in _PLAN:
        name = f"{objective}, {way}{_HOW[start]}"
        if way == "random search":
            attack: ExplanationAttack = RandomSearchAttack(attribution, k, **options)
            members.append(Member(name, attack, _N_STEPS_AT_RANDOM[start], start))
        elif way in ways:
            attack = ExplanationAttack(
                attribution, objectives[objective], keep="precision", step_rule="halving",
                **ways[way], **(options if way == "own gradient" else sliding),
            )  # fmt: skip
            n_steps = _N_STEPS_OF_PROBES if way == "probes" else _N_STEPS[start]
            members.append(Member(name, attack, n_steps, start, n_starts))
    return members


def _ways_of(attribution: Attribution, nature: Nature) -> dict[str, Way]:
    """The ways to a gradient of this attribution on this network, by name."""
    sharpening = {"smooth_relu": (2.0, 50.0)}
    if not is_differentiable(attribution):
        ways: dict[str, Way] = {"probes": {"gradient": "spsa"}}
        if not isinstance(attribution, InternalAttribution):  # their maps have other shapes
            model = getattr(attribution, "attribution_method", attribution).forward_func
            smoothing = sharpening if nature.kinked else {}
            ways["lead"] = {"surrogate": InputXGradient(model), **smoothing}
        return ways
    ways = {"own gradient": {}, "lead": {}}
    if nature.kinked:
        ways["lead"] = sharpening
        ways |= {f"smoothed at {beta}": {"smooth_relu": float(beta)} for beta in (5, 20)}
    if nature.bent:
        # Where inputs of the activations are small, the usual smoothing is of another network.
        ways |= {"unsmoothed": {}, "smoothed little": {"smooth_relu": (50.0, 1000.0)}}
    if type(attribution) is Saliency:
        ways |= {
            f"{name} differences": {"gradient": "finite_difference", "probe": probe}
            for name, probe in (("near", 0.5), ("far", 2.0))
        }
    return ways


def reference_member(attribution: Attribution, k: int, options: Way) -> Member:
    """Looks at the example and at a start that the caller gave, and takes no step."""
    attack = ExplanationAttack(
        attribution, NextSwapObjective(k), gradient="spsa", keep="precision", **options
    )
    return Member("given start", attack, 0)


def unbounded(
    problem: Problem, attack: ExplanationAttack, scale: float
) -> tuple[Problem, ExplanationAttack]:
    """The problem in a ball ``scale`` times as large, without regard to bounds and prediction."""
    region = problem.region
    lower, upper = (
        tuple(torch.full_like(c, edge) for c in region.centre) for edge in (-math.inf, math.inf)
    )
    far = replace(region, radius=scale * region.radius, lower=lower, upper=upper)
    attack = copy.copy(attack)
    attack.preserve_prediction = "none"
    return replace(problem, region=far, start=None), attack
