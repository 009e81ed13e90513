"""The members of the ensemble: combinations of an objective, a gradient and a start."""

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

__all__ = [
    "Member", "NetworkTraits", "first_members", "members_of", "one_start_each", "reference_member",
    "unbounded",
]  # fmt: skip

Start = Literal["example", "random", "best"]


class Way(NamedTuple):
    """A way to a gradient: its name, and the options of an attack that select it."""

    label: str
    options: dict[str, Any]


# Objective, way to its gradient, start and number of starts, in the order in which the members
# run. The strongest come first, as measured on perceptrons and a convolutional network, with ReLU
# and with smooth activations; the objectives of the papers come late, as a safeguard.
_PLAN: tuple[tuple[str, str, Start, int], ...] = (
    ("next-swap", "guide", "example", 1),
    ("swap-count", "unsmoothed", "example", 1),
    ("next-swap", "unsmoothed", "random", 2),
    ("next-swap", "barely smoothed", "example", 1),
    ("wide swap-count", "far differences", "example", 1),
    ("swap-count", "near differences", "example", 1),
    ("next-two-swaps", "guide", "example", 1),
    ("swap-count", "probes", "example", 1),
    ("next-swap", "guide", "random", 4),
    ("next-swap", "guide", "best", 1),
    ("swap-count", "unsmoothed", "best", 1),
    ("wide swap-count", "far differences", "best", 1),
    ("swap-count", "guide", "best", 1),
    ("swap-count", "random search", "example", 1),
    ("wide swap-count", "far differences", "random", 2),
    ("swap-count", "guide", "example", 1),
    ("next-swap", "smoothed at 20", "best", 1),
    ("swap-count", "near differences", "best", 1),
    ("swap-count", "probes", "best", 1),
    ("weakest-gaps", "guide", "example", 1),
    ("all-gaps", "own gradient", "example", 1),
    ("all-gaps", "smoothed at 5", "example", 1),
    ("swap-count", "random search", "best", 1),
)
_SLIDING = {"preserve_prediction": "qp", "constraint": "boundary"}
_START = {"example": "example", "random": "random start", "best": "best point so far"}
_N_STEPS = {"example": 30, "random": 30, "best": 20}
_N_STEPS_OF_PROBES = 10  # each takes 32 attributions
_N_STEPS_AT_RANDOM = {"example": 100, "best": 200}
# Of all members these find the most by a few attributions, measured on the same networks.
_N_DRAWS = 3
_N_FIRST_STEPS = 15
_FIRST_BETA = 10.0


@dataclass(frozen=True)
class Member:
    """One attack of the ensemble, as it is run."""

    name: str
    attack: ExplanationAttack
    n_steps: int
    start: Start = "example"
    n_starts: int = 1
    number: int = 0  # of the first random start

    @property
    def black_box(self) -> bool:
        """Return whether the member uses no gradient, neither for its steps nor for its start."""
        return isinstance(self.attack, RandomSearchAttack) and self.start == "example"

    @property
    def own(self) -> bool:
        """Return whether the member follows the gradient of the attribution itself."""
        return self.attack.follows_own_gradient

    @property
    def cost(self) -> int:
        """Largest number of attributions that the member computes for one example."""
        return self.n_starts * (self.cost_of_start + self.n_steps * self.cost_of_step)

    @property
    def cost_of_start(self) -> int:
        """Number of attributions before the first step from one start."""
        return (self.start != "example") + 1

    @property
    def cost_of_step(self) -> int:
        """Number of attributions per step."""
        return 1 if isinstance(self.attack, RandomSearchAttack) else self.attack.step_cost


class NetworkTraits(NamedTuple):
    """Properties of a network and its attribution by which members are chosen.

    Attributes:
        piecewise_linear: whether the network has kinks, so that a smoothed network differs from it.
        attribution_has_gradient: whether the map of a network with kinks has a gradient between
            them: the saliency of a ReLU network has none, that of a cosine of embeddings has one.
        randomised: whether the map depends on the seed.
        differentiable: whether the output of the network is differentiable, so that a search can
            follow the decision boundary.
        no_gradient: whether an operation of the network has no second derivative, so that the map
            of a gradient method has no gradient.
        no_smoothed_gradient: whether this is so for the smoothed network too.
    """

    piecewise_linear: bool = False
    attribution_has_gradient: bool = False
    randomised: bool = False
    differentiable: bool = False
    no_gradient: bool = False
    no_smoothed_gradient: bool = False


def members_of(
    attribution: Attribution, k: int, traits: NetworkTraits, options: dict[str, Any]
) -> list[Member]:
    """Return all members that can find something, in the order in which they run.

    Where the prediction must be kept, members that follow a gradient slide along the decision
    boundary. An attack that crosses it, where points do not count, finds little at large radii.

    Args:
        attribution (Attribution): the attribution under attack.
        k (int): size of the top set.
        traits (NetworkTraits): properties of the network and of the attribution.
        options (dict): options that all members share, such as the bounds.
    """
    objectives: dict[str, Objective] = {
        "next-swap": NextSwapObjective(k),
        "next-two-swaps": NextSwapObjective(k, ahead=2),
        "swap-count": SwapCountObjective(k),
        "wide swap-count": SwapCountObjective(k, temperature=0.3),
        "weakest-gaps": RankingObjective(k, "mm", "exp"),
        "all-gaps": RankingObjective(k),
    }
    ways = _ways_of(attribution, traits)
    slides = (
        traits.differentiable
        and options["preserve_prediction"] == "reject"
        and options["decision_func"] is predicted_labels  # else the boundary is not known
    )
    sliding = {**options, **_SLIDING} if slides else options
    members = []
    for objective, way, start, n_starts in _PLAN:
        label = way if way == "random search" else ways[way].label if way in ways else ""
        name = f"{objective} objective · {label} · {_START[start]}"
        if way == "random search":
            attack: ExplanationAttack = RandomSearchAttack(attribution, k, **options)
            members.append(Member(name, attack, _N_STEPS_AT_RANDOM[start], start))
        elif way in ways:
            attack = ExplanationAttack(
                attribution, objectives[objective], keep="precision", step_rule="halving",
                **ways[way].options, **(options if way == "own gradient" else sliding),
            )  # fmt: skip
            n_steps = _N_STEPS_OF_PROBES if way == "probes" else _N_STEPS[start]
            members.append(Member(name, attack, n_steps, start, n_starts))
    return members


def _ways_of(attribution: Attribution, traits: NetworkTraits) -> dict[str, Way]:
    """Return the ways to a gradient for this attribution and network, by their name in the plan."""
    sharpening = Way("smoothing 2→50", {"smooth_relu": (2.0, 50.0)})
    if not is_differentiable(attribution):
        ways = {"probes": Way("random probes", {"gradient": "spsa"})}
        if not isinstance(attribution, InternalAttribution):  # whose maps have other shapes
            model = getattr(attribution, "attribution_method", attribution).forward_func
            surrogate = Way("InputXGradient", {"surrogate": InputXGradient(model)})
            ways["guide"] = _both(surrogate, sharpening) if traits.piecewise_linear else surrogate
        return ways
    own = Way("own gradient", {})
    ways = {"own gradient": own, "guide": own}
    if traits.no_gradient:
        ways = {"probes": Way("random probes", {"gradient": "spsa"})}
    if traits.piecewise_linear and not traits.no_smoothed_gradient:
        ways["guide"] = sharpening
        ways |= {
            f"smoothed at {beta}": Way(f"smoothing {beta}", {"smooth_relu": float(beta)})
            for beta in (5, 20)
        }
    if traits.attribution_has_gradient:
        # Where inputs of the activations are small, the usual smoothing changes the network much.
        ways["unsmoothed"] = own
        ways["barely smoothed"] = Way("smoothing 50→1000", {"smooth_relu": (50.0, 1000.0)})
    if type(attribution) is Saliency:
        ways |= {
            f"{name} differences": Way(
                f"differences over {probe:g} radii",
                {"gradient": "finite_difference", "probe": probe},
            )
            for name, probe in (("near", 0.5), ("far", 2.0))
        }
    return ways


def _both(first: Way, second: Way) -> Way:
    return Way(f"{first.label}, {second.label}", {**first.options, **second.options})


def first_members(
    attribution: Attribution, k: int, has_start: bool, options: dict[str, Any]
) -> list[Member]:
    """Return the members that run first where attributions or time are limited.

    Random corners of the ball, from the start of the caller if there is one, and a short search
    that finds much in its first steps. The network has not been examined then, so it is smoothed in
    any case; this changes a smooth network little or not at all.
    """
    start: Start = "best" if has_start else "example"
    draws = RandomSearchAttack(attribution, k, **options)
    members = [Member("given start · random draws", draws, _N_DRAWS, start)]
    ways = _ways_of(attribution, NetworkTraits())
    if "guide" in ways:
        smoothing = Way(f"smoothing {_FIRST_BETA:g}", {"smooth_relu": _FIRST_BETA})
        way = smoothing if is_differentiable(attribution) else _both(ways["guide"], smoothing)
        attack = ExplanationAttack(
            attribution, SwapCountObjective(k, temperature=0.3), keep="precision",
            step_rule="halving", **way.options, **options,
        )  # fmt: skip
        name = f"wide swap-count objective · {way.label} · example"
        members.append(Member(name, attack, _N_FIRST_STEPS))
    return members


def one_start_each(members: list[Member]) -> list[Member]:
    """Return the same searches as members with one start each, which can be left out one by one."""
    return [
        replace(member, n_starts=1, number=number)
        for member in members
        for number in range(member.n_starts)
    ]


def reference_member(attribution: Attribution, k: int, options: dict[str, Any]) -> Member:
    """Return the member that evaluates the example and the caller's start, and takes no step."""
    attack = ExplanationAttack(
        attribution, NextSwapObjective(k), gradient="spsa", keep="precision", **options
    )
    return Member("given start", attack, 0)


def unbounded(
    problem: Problem, attack: ExplanationAttack, scale: float
) -> tuple[Problem, ExplanationAttack]:
    """Return the problem in a ball ``scale`` times as large, without bounds, for any prediction."""
    region = problem.region
    lower, upper = (
        tuple(torch.full_like(c, edge) for c in region.centre) for edge in (-math.inf, math.inf)
    )
    far = replace(region, radius=scale * region.radius, lower=lower, upper=upper)
    attack = copy.copy(attack)
    attack.preserve_prediction = "none"
    return replace(problem, region=far, start=None), attack
