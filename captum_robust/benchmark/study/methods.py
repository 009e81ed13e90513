"""The training methods for tabular data, each with its role and the grid of its settings."""

from functools import partial
from typing import Any

from captum_robust.benchmark.study import recipes
from captum_robust.benchmark.study.method import Method, Setting, grid
from captum_robust.ranking import Pairs

__all__ = ["K_PRIMES", "METHODS", "RIVALS"]

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

# R2ET; and on a softplus network, as the authors' code runs it (β = 0.5).
_r2et = partial(Method, role="variant", is_r2et=True)
_GAPS: dict[str, Any] = {"gap": ("linear", "exp")}
_VARIANTS: tuple[tuple[str, Pairs, bool], ...] = (
    ("r2et", "anchor", True),
    ("r2et-mm", "mm", True),
    ("r2et-no-h", "anchor", False),
    ("r2et-mm-no-h", "mm", False),
)
for _name, _pairs, _curved in _VARIANTS:
    _loss = partial(recipes.ranking, pairs=_pairs, curvature=_curved)
    METHODS[_name] = _r2et(_loss, grid(weight=(0.01, 0.03, 0.1), **_GAPS))
    METHODS[f"{_name}-sp"] = _r2et(
        _loss, grid(weight=(0.003, 0.01, 0.03), **_GAPS, beta=(0.5,)), "softplus"
    )

# Logistic regression, whose gradients rank alike everywhere. It needs no regulariser.
METHODS["linear"] = Method(recipes.plain, {"": {}}, "none", role="reference")

# SP whose grid ends where R2ET-sp begins. Selected from it in 8 of 9 runs was its end, β = 0.5.
METHODS["sp-steep"] = Method(
    recipes.plain, grid(beta=(0.5, 1.0, 2.0)), "softplus", by_default=False
)
# CL explains a smooth network: the gradient of a logit of the ReLU family has no slopes.
METHODS["cl"] = Method(
    recipes.cross_lipschitz, grid(weight=(1e-4, 3e-4), k_prime=(4,), beta=(0.5,)), "softplus",
    by_default=False,
)  # fmt: skip


def _softplus(betas: tuple[float, ...] = (0.5,), **grids: tuple[Any, ...]) -> dict[str, Setting]:
    return grid(**grids, beta=betas)


# Ideas to keep the ranking where a flat softplus loses it: R2ET-sp with one change, and the same
# without the ranking term.
_idea = partial(Method, activation="softplus", role="idea", by_default=False)
_r2et_idea = partial(_idea, is_r2et=True)
METHODS |= {
    "r2et-flat": _r2et_idea(recipes.ranking, _softplus(_FLAT, weight=(0.003, 0.01))),
    "r2et-all": _r2et_idea(partial(recipes.ranking, pairs="all"), _softplus(weight=(1e-3, 3e-3))),
    "r2et-boundary": _r2et_idea(
        partial(recipes.ranking, k_prime=1), _softplus(weight=(0.01, 0.03))
    ),
    "r2et-normalize": _r2et_idea(
        partial(recipes.ranking, normalize=True), _softplus(weight=(0.003, 0.01))
    ),
    "r2et-adaptive": _r2et_idea(
        partial(recipes.ranking, adaptive=True), _softplus(weight=(0.003, 0.01))
    ),
    "r2et-logit": _r2et_idea(
        partial(recipes.ranking, explain="logit"), _softplus(weight=(0.001, 0.003))
    ),
    "r2et-heavy": _r2et_idea(recipes.ranking, _softplus(weight=(0.06, 0.1))),
    "r2et-long": _r2et_idea(recipes.ranking, _softplus(weight=(0.003, 0.01), times=(4,))),
    "sp-long": _idea(recipes.plain, _softplus(_FLAT, times=(4,))),
    "est-h-sp": _idea(recipes.curvature, _softplus(weight=(0.01, 0.1))),
    "wd-sp": _idea(recipes.plain, _softplus(weight_decay=(1e-3, 1e-2))),
}

# R2ET that regularises every m-th step, or a part of each batch.
for _full in ("r2et", "r2et-sp"):
    for _name, _options in (
        ("every4", {"every": 4}),
        ("every8", {"every": 8}),
        ("fraction", {"fraction": 0.25, "seed": 0}),
    ):
        METHODS[f"{_full}-{_name}"] = _r2et(
            partial(recipes.ranking, **_options), METHODS[_full].grid, METHODS[_full].activation,
            by_default=False, approximates=_full,
        )  # fmt: skip

#: The study of k' on linear gaps of R2ET\H, which are those of R2ET-mm\H: methods by k'.
K_PRIMES = {k_prime: f"r2et-no-h-k{k_prime}" for k_prime in range(1, 9)}
for _k_prime, _name in K_PRIMES.items():
    _loss = partial(recipes.ranking, curvature=False, k_prime=_k_prime)
    METHODS[_name] = _r2et(_loss, grid(weight=(0.03,)), by_default=False)

_BASELINES = [name for name, method in METHODS.items() if method.role == "baseline"]
#: The groups of methods that the best R2ET is compared with, by the name of the group.
RIVALS = {
    "baselines": tuple(name for name in _BASELINES if name != "sp-steep"),
    "baselines, SP of β ≥ 0.5": tuple(name for name in _BASELINES if name != "sp"),
    "reference": tuple(name for name, method in METHODS.items() if method.role == "reference"),
}
