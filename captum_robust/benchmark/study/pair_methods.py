"""The training methods for pairs, each with its role and the grid of its settings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from captum_robust.benchmark.study import recipes
from captum_robust.benchmark.study.method import Criterion, Method, grid
from captum_robust.loss import AdversarialRankingLoss, R2ETLoss
from captum_robust.ranking import Pairs

__all__ = ["DelayedRegularisation", "PairGrids", "pair_methods"]

#: Length of the finite difference, longer than for tables: rounding of so many features drowns a
#: step of 0.01.
_KAPPA = 0.1


@dataclass(frozen=True)
class PairGrids:
    """The grids of the methods for a kind of pairs.

    Attributes:
        weights: weights of the gaps.
        curvatures: weights of the norm of the Hessian.
        betas: sharpness of the softplus.
        radius: radius of the balls of adversarial training.
        hessian_fraction: weight of R2ET's Hessian term, as a fraction of the weight of the gaps.
        delayed_weights: weights of the gaps where regularisation is delayed.
        n_plain_steps: number of steps before that regularisation.
        far_curvature: weight of the norm of the Hessian over the length of the ball.
    """

    weights: tuple[float, ...]
    curvatures: tuple[float, ...]
    betas: tuple[float, ...]
    radius: float
    hessian_fraction: float
    delayed_weights: tuple[float, ...]
    n_plain_steps: int
    far_curvature: float


class DelayedRegularisation:
    """The classification loss alone for the first steps, then the complete loss.

    An untrained network could widen the gaps of normalised maps without learning to classify, and
    would never learn it afterwards.

    Args:
        complete: loss after the first steps.
        first: loss of the first steps.
        n_steps: number of first steps.
    """

    def __init__(self, complete: Criterion, first: Criterion, n_steps: int) -> None:
        self.complete = complete
        self.first = first
        self.n_steps = n_steps

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of a step."""
        self.n_steps -= 1
        return (self.first if self.n_steps >= 0 else self.complete)(inputs, targets)


def pair_methods(
    grids: PairGrids, attribution: Callable[[nn.Module], Any] | None = None
) -> Mapping[str, Method]:
    """Return the methods that apply to pairs, by name.

    Maps are divided by their sum, as the paper does for images. The losses explain by the gradient,
    or by ``attribution``, and rank magnitudes, as the attacks do.
    """

    def ranking(
        model: nn.Module,
        k: int,
        weight: float,
        pairs: Pairs = "anchor",
        curvature: float = 0.0,
        kappa: float = _KAPPA,
        explain: Literal["probability", "logit"] = "probability",
    ) -> R2ETLoss:
        explained = attribution(model) if attribution else None
        # R2ET-mm takes half the pairs: with as many it would be R2ET.
        return R2ETLoss(
            model, k, lambda1=weight, lambda2=weight * curvature, pairs=pairs,
            k_prime=max(1, k // 2) if pairs == "mm" else None, normalize=True,
            attribution=explained, kappa=kappa, explain=explain, absolute=True,
        )  # fmt: skip

    def adversarial(model: nn.Module, k: int, radius: float) -> AdversarialRankingLoss:
        explained = attribution(model) if attribution else None
        return recipes.adversarial(
            model, k, radius=radius, normalize=True, attribution=explained, absolute=True
        )

    def delayed(model: nn.Module, k: int, weight: float) -> DelayedRegularisation:
        complete = ranking(model, k, weight, curvature=grids.curvatures[-1] / weight)
        return DelayedRegularisation(complete, recipes.plain(model, k), grids.n_plain_steps)

    weights, curvatures, betas = grids.weights, grids.curvatures, grids.betas
    estimate = partial(recipes.curvature, kappa=_KAPPA)
    methods = {
        "vanilla": Method(recipes.plain, {"": {}}),
        "wd": Method(recipes.plain, grid(weight_decay=(1e-3,))),
        "sp": Method(recipes.plain, grid(beta=betas), "softplus"),
        "est-h": Method(estimate, grid(weight=curvatures)),
        "at": Method(adversarial, grid(radius=(grids.radius,))),
    }
    r2et = partial(Method, role="variant", is_r2et=True)
    variants: tuple[tuple[str, Pairs, float], ...] = (
        ("r2et", "anchor", grids.hessian_fraction),
        ("r2et-mm", "mm", grids.hessian_fraction),
        ("r2et-no-h", "anchor", 0.0),
        ("r2et-mm-no-h", "mm", 0.0),
    )
    for name, pairs, curvature in variants:
        loss = partial(ranking, pairs=pairs, curvature=curvature)
        methods[name] = r2et(loss, grid(weight=weights))
        methods[f"{name}-sp"] = r2et(loss, grid(weight=weights, beta=betas[:1]), "softplus")

    idea = partial(Method, role="idea", by_default=False)
    r2et_idea = partial(idea, is_r2et=True)
    # Five times as much weight on the norm of the Hessian as on the gaps.
    methods["r2et-flat"] = r2et_idea(
        partial(ranking, curvature=5.0), grid(weight=(curvatures[-1] / 5,), beta=betas[:1]),
        "softplus",
    )  # fmt: skip
    # The logit, whose curvature does not vanish where the network is certain.
    methods["r2et-logit"] = r2et_idea(
        partial(ranking, curvature=0.01, explain="logit"), grid(weight=grids.delayed_weights)
    )
    # As much weight on the norm of the Hessian as on the gaps.
    methods["r2et-heavy"] = r2et_idea(
        partial(ranking, curvature=1.0), grid(weight=curvatures[-1:], beta=betas), "softplus"
    )
    # The norm of the Hessian alone.
    methods["est-h-sp"] = idea(estimate, grid(weight=curvatures[-1:], beta=betas), "softplus")
    methods["r2et-late"] = r2et_idea(delayed, grid(weight=grids.delayed_weights))
    methods["r2et-late-sp"] = r2et_idea(
        delayed, grid(weight=grids.delayed_weights, beta=betas[:1]), "softplus"
    )
    # The curvature over the length of the ball, which an attack meets.
    methods["est-h-far"] = idea(
        partial(recipes.curvature, kappa=grids.radius), grid(weight=(grids.far_curvature,))
    )
    methods["r2et-far"] = r2et_idea(
        partial(ranking, curvature=grids.far_curvature / weights[-1], kappa=grids.radius),
        grid(weight=weights[-1:]),
    )
    return methods
