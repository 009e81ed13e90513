"""The training methods that are compared, each with the grid of its settings."""

from functools import partial
from typing import Any

from captum_robust.benchmark.study import recipes
from captum_robust.benchmark.study.recipes import Method, Setting, grid
from captum_robust.ranking import Pairs

__all__ = [
    "BASELINES", "DEFAULT", "IDEAS", "K_PRIMES", "LAZY", "METHODS", "RIVALS", "Method", "Setting",
]  # fmt: skip

#: From the sharpest network to one that is almost linear.
_BETAS = (0.1, 0.2, 0.5, 1.0, 2.0)
_FLAT = (0.1, 0.2)

METHODS: dict[str, Method] = {
    "vanilla": Method(recipes.plain, {"": {}}),
    "wd": Method(recipes.plain, grid(weight_decay=(1e-3, 1e-2, 3e-2))),
    "sp": Method(recipes.plain, grid(beta=_BETAS), "softplus"),
    "est-h": Method(recipes.curvature, grid(weight=(0.01, 0.1, 0.3))),
    "exact-h": Method(recipes.curvature, grid(weight=(0.01, 0.1), hessian=("exact",))),
    "ssr": Method(recipes.surface, grid(weight=(1e-3, 1e-2))),
    "at": Method(recipes.adversarial, grid(radius=(0.25, 0.5), step_num=(1, 3))),
}
#: The methods of the paper that R2ET is compared to.
BASELINES = tuple(METHODS)

_GAPS: dict[str, Any] = {"gap": ("linear", "exp")}
_VARIANTS: tuple[tuple[str, Pairs, bool], ...] = (
    ("r2et", "anchor", True),
    ("r2et-mm", "mm", True),
    ("r2et-no-h", "anchor", False),
    ("r2et-mm-no-h", "mm", False),
)
for _name, _pairs, _curved in _VARIANTS:
    _loss = partial(recipes.ranking, pairs=_pairs, curvature=_curved)
    METHODS[_name] = Method(_loss, grid(weight=(0.01, 0.03, 0.1), **_GAPS))
    # On a softplus network, as the authors' code runs it (β = 0.5).
    METHODS[f"{_name}-sp"] = Method(
        _loss, grid(weight=(0.003, 0.01, 0.03), **_GAPS, beta=(0.5,)), "softplus"
    )

#: Logistic regression, whose gradients rank alike everywhere. What it reaches needs no regulariser.
METHODS["linear"] = Method(recipes.plain, {"": {}}, "none")

#: What a command trains unless told otherwise.
DEFAULT = tuple(METHODS)

#: SP whose grid ends where R2ET-sp begins. Selected from it in 8 of 9 runs was its end, β = 0.5.
METHODS["sp-steep"] = Method(recipes.plain, grid(beta=(0.5, 1.0, 2.0)), "softplus")

#: CL explains a smooth network: that of a logit of the ReLU family has no slopes.
METHODS["cl"] = Method(
    recipes.cross_lipschitz, grid(weight=(1e-4, 3e-4), k_prime=(4,), beta=(0.5,)), "softplus"
)

#: What the best R2ET is compared to, by name.
RIVALS = {
    "baselines": (*BASELINES, "cl"),
    "baselines, SP of β ≥ 0.5": (*(m for m in BASELINES if m != "sp"), "sp-steep", "cl"),
    "reference": ("linear",),
}


def _softplus(betas: tuple[float, ...] = (0.5,), **grids: tuple[Any, ...]) -> dict[str, Setting]:
    return grid(**grids, beta=betas)


_no_hessian = partial(recipes.ranking, curvature=False)

#: What was tried to keep the ranking where a flat softplus loses it: R2ET-sp with one thing
#: changed, and what is left of it without the ranking.
IDEAS: dict[str, Method] = {
    "r2et-flat": Method(recipes.ranking, _softplus(_FLAT, weight=(0.003, 0.01)), "softplus"),
    "r2et-all": Method(
        partial(recipes.ranking, pairs="all"), _softplus(weight=(1e-3, 3e-3)), "softplus"
    ),
    "r2et-boundary": Method(
        partial(recipes.ranking, k_prime=1), _softplus(weight=(0.01, 0.03)), "softplus"
    ),
    "r2et-normalize": Method(
        partial(recipes.ranking, normalize=True), _softplus(weight=(0.003, 0.01)), "softplus"
    ),
    "r2et-adaptive": Method(
        partial(recipes.ranking, adaptive=True), _softplus(weight=(0.003, 0.01)), "softplus"
    ),
    "r2et-logit": Method(
        partial(recipes.ranking, explain="logit"), _softplus(weight=(0.001, 0.003)), "softplus"
    ),
    "r2et-heavy": Method(recipes.ranking, _softplus(weight=(0.06, 0.1)), "softplus"),
    "r2et-long": Method(recipes.ranking, _softplus(weight=(0.003, 0.01), times=(4,)), "softplus"),
    "sp-long": Method(recipes.plain, _softplus(_FLAT, times=(4,)), "softplus"),
    "est-h-sp": Method(recipes.curvature, _softplus(weight=(0.01, 0.1)), "softplus"),
    "wd-sp": Method(recipes.plain, _softplus(weight_decay=(1e-3, 1e-2)), "softplus"),
}
METHODS.update(IDEAS)

#: R2ET that regularises every m-th step, or a part of each batch; the name of what it is cheaper
#: than, before the last dash.
LAZY: dict[str, Method] = {}
for _full in ("r2et", "r2et-sp"):
    for _name, _options in (
        ("every4", {"every": 4}),
        ("every8", {"every": 8}),
        ("fraction", {"fraction": 0.25, "seed": 0}),
    ):
        _loss = partial(recipes.ranking, **_options)
        LAZY[f"{_full}-{_name}"] = Method(_loss, METHODS[_full].grid, METHODS[_full].activation)
METHODS.update(LAZY)

#: The study of k', linear gaps of R2ET\H; R2ET-mm\H is the same function.
K_PRIMES = range(1, 9)
for _k_prime in K_PRIMES:
    _loss = partial(_no_hessian, k_prime=_k_prime)
    METHODS[f"r2et-no-h-k{_k_prime}"] = Method(_loss, grid(weight=(0.03,)))
