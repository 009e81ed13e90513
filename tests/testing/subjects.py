"""Everything that this library exports to be checked, and what each claims to do.

A new attack, metric or loss is one more line; a test fails for one that is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from captum_robust import loss, metrics, robust
from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.testing import SmallModel, small_models
from captum_robust.testing.attack_case import steps_of_one_size

Checks = list[tuple[str, Callable[[Any], None]]]


@dataclass(frozen=True)
class Subject:
    """A subject of the checks, the exported name that it checks, and its traits."""

    subject: Callable[..., Any]
    exported: str
    traits: dict[str, Any] = field(default_factory=dict)
    models: tuple[SmallModel, ...] | None = None


def one_of_each(checks: Iterable[tuple[str, Callable[[Any], None]]], turn: int) -> Checks:
    """Every rule on one of the models, which take turns over rules and subjects."""
    by_rule: dict[str, Checks] = {}
    for name, check in checks:
        by_rule.setdefault(name.split("[")[0], []).append((name, check))
    return [own[(turn + i) % len(own)] for i, own in enumerate(by_rule.values())]


def first_of_each(
    checks: Iterable[tuple[str, Callable[[Any], None]]],
) -> dict[str, Callable[[Any], None]]:
    """Every rule on the first of the models that it applies to, by the name of the rule."""
    found: dict[str, Callable[[Any], None]] = {}
    for name, check in checks:
        found.setdefault(name.split("[")[0], check)
    return found


def failing(checks: dict[str, Callable[[Any], None]], subject: Any) -> set[str]:
    """Names of the rules that a subject breaks, by whatever error."""
    found = set()
    for rule, check in checks.items():
        try:
            check(subject)
        except Exception:
            found.add(rule)
    return found


# --- attacks -------------------------------------------------------------------------------------


def with_restarts(n_steps: int, radius: float) -> dict[str, Any]:
    """For objectives that are stationary at the example and have several optima."""
    return {**steps_of_one_size(n_steps, radius), "n_restarts": 1 + n_steps // 4}


def proposals(n_steps: int, radius: float) -> dict[str, Any]:
    """A step of random search is one forward and one saliency, a third of one along a gradient."""
    return {"step_num": 3 * n_steps}


def queries(n_steps: int, radius: float) -> dict[str, Any]:
    """An ensemble spends its budget on its members one after the other."""
    return {"budget": 10 * n_steps}


def top_features_left(maps: Any, reference: Any) -> torch.Tensor:
    return metrics.precision_at_k(maps, reference, 2)


class ToARamp:
    """TargetMapAttack whose target rises along the features, whatever their number."""

    def __init__(self, attribution: Any, k: int, **options: Any) -> None:
        self.make = partial(robust.TargetMapAttack, attribution, k=k, **options)

    def perturb(self, inputs: Any, radius: Any, **arguments: Any) -> Any:
        attack = self.make(target_map=format_like(inputs, tuple(map(ramp, as_tuple(inputs)))))
        return attack.perturb(inputs, radius, **arguments)


def ramp(x: torch.Tensor) -> torch.Tensor:
    return torch.arange(1.0, 1 + x[0].numel(), device=x.device).view_as(x[:1])


def distance_from_ramp(maps: Any, reference: Any) -> torch.Tensor:
    """Squared distance of the shares of the map from those of the ramp, over that at the start."""
    target = torch.cat([ramp(m).flatten() for m in as_tuple(maps)])
    now, start = (
        torch.cat([m.flatten(1) for m in as_tuple(tensors)], dim=1) for tensors in (maps, reference)
    )
    distances = (
        (rows / rows.abs().sum(dim=1, keepdim=True) - target / target.sum()).square().sum(dim=1)
        for rows in (now, start)
    )
    return torch.div(*distances)


def moved_centre(maps: Any, reference: Any) -> torch.Tensor:
    return -metrics.center_of_mass_shift(maps, reference)


ATTACKS = {
    "er": Subject(robust.ERAttack, "ERAttack"),
    "er-exp": Subject(partial(robust.ERAttack, pairs="mm", gap="exp"), "ERAttack"),
    "er-smooth": Subject(partial(robust.ERAttack, smooth_relu=5.0), "ERAttack"),
    # Its probes see the kinks of a region twice as large as the ball.
    "er-difference": Subject(
        partial(robust.ERAttack, gradient="finite_difference"), "ERAttack", {"beats_noise": False}
    ),
    "er-spsa": Subject(partial(robust.ERAttack, gradient="spsa", n_directions=2), "ERAttack"),
    # A search that has crossed to another prediction may not come back.
    "mse": Subject(
        robust.MSEAttack,
        "MSEAttack",
        {"effort": with_restarts, "aims_at_top_k": False, "beats_noise": False},
    ),
    "mse-unconstrained": Subject(
        partial(robust.MSEAttack, preserve_prediction="none"),
        "MSEAttack",
        {"effort": with_restarts, "aims_at_top_k": False, "keeps_prediction": False},
    ),
    "custom": Subject(
        lambda attribution, k, **options: robust.ExplanationAttack(
            attribution, lambda scores, reference: scores[:, 0], **options
        ),
        "ExplanationAttack",
        {"aims_at_top_k": False, "beats_noise": False},  # as mse
    ),
    "top-k": Subject(robust.TopKAttack, "TopKAttack"),
    # It ends where no gap can be closed without another opening.
    # Its tolerance is one of Pareto-critical points.
    "pareto": Subject(
        robust.ParetoERAttack, "ParetoERAttack", {"beats_noise": False, "tolerance": False}
    ),
    "random search": Subject(
        robust.RandomSearchAttack,
        "RandomSearchAttack",
        {"effort": proposals, "objective": top_features_left, "info": "precision"},
    ),
    "random search-gaps": Subject(
        partial(robust.RandomSearchAttack, keep="objective"),
        "RandomSearchAttack",
        {"effort": proposals},
    ),
    "auto": Subject(
        robust.AutoERAttack,
        "AutoERAttack",
        {
            "effort": queries,
            "objective": top_features_left,
            "info": "precision",
            "restarts": False,
            "budget": True,
        },
    ),
    "target map": Subject(
        partial(ToARamp, prediction_weight=0.0),
        "TargetMapAttack",
        {"aims_at_top_k": False, "objective": distance_from_ramp},
    ),
    # What it minimises has a part of the outputs.
    "target map-outputs": Subject(
        ToARamp,
        "TargetMapAttack",
        {"aims_at_top_k": False, "objective_of_maps": False, "objective": distance_from_ramp},
    ),
    "centre of mass": Subject(
        robust.CenterOfMassAttack,
        "CenterOfMassAttack",
        {"effort": with_restarts, "aims_at_top_k": False, "objective": moved_centre},
    ),
}

# --- metrics -------------------------------------------------------------------------------------

SHARE = {"lowest": 0, "highest": 1}
NO_MOVES = {**SHARE, "seed": False, "moves_inputs": False}
FEW = {"n_perturb_samples": 2, "n_steps": 3, "perturb_radius": 0.3}
SMOOTH_MLPS = tuple(m for m in small_models() if m.name in ("mlp_softplus", "mlp_tanh", "linear"))
PAIR = torch.tensor([[0, 1]])


def of_maps(exported: str, metric: Callable[..., Any] | None = None, **traits: Any) -> Subject:
    return Subject(metric or getattr(metrics, exported), exported, {"call": "maps", **traits})


def of_explanations(exported: str, fixed: dict[str, Any], **traits: Any) -> Subject:
    metric = partial(getattr(metrics, exported), **fixed)
    return Subject(metric, exported, {"call": "explanation", **traits})


def of_models(exported: str, metric: Callable[..., Any] | None = None, **traits: Any) -> Subject:
    return Subject(metric or getattr(metrics, exported), exported, {"call": "model", **traits})


def item(metric: Callable[..., Any], index: Any) -> Callable[..., Any]:
    """One of the results of a metric that returns several."""
    return lambda *args, **kwargs: metric(*args, **kwargs)[index]


def with_maps(metric: Callable[..., Any]) -> Callable[..., Any]:
    """A metric of faithfulness, with maps that depend on the example alone."""
    takes_target = "target" in inspect.signature(metric).parameters

    def call(model: Any, inputs: Any, target: Any = None, **kwargs: Any) -> Any:
        if not isinstance(inputs, torch.Tensor | tuple):
            return metric(model, inputs, inputs, **kwargs)
        tensors = inputs if isinstance(inputs, tuple) else (inputs,)
        maps = tuple((t.detach() + 1).abs() for t in tensors)
        more = {"target": target} if takes_target else {}
        given = maps if isinstance(inputs, tuple) else maps[0]
        return metric(model, inputs, given, **more, **kwargs)

    return call


FIRST = (slice(None), 0)
METRICS = {
    "precision": of_maps(
        "precision_at_k",
        partial(metrics.precision_at_k, k=2),
        **SHARE,
        perfect=1,
        symmetric=True,
        k="k",
    ),
    "mse": of_maps("attribution_mse", lowest=0, perfect=0, symmetric=True),
    "pearson": of_maps("pearson_correlation", lowest=-1, highest=1, perfect=1, symmetric=True),
    "spearman": of_maps("spearman_correlation", lowest=-1, highest=1, perfect=1, symmetric=True),
    "centre of mass": of_maps("center_of_mass_shift", lowest=0, perfect=0, symmetric=True),
    "gap": of_maps(
        "ranking_gap",
        lambda maps, reference, k=2: metrics.ranking_gap(
            maps, k, reference_attributions=reference
        ),
        k="k",
    ),
    "prediction": of_maps(
        "prediction_change_rate", **SHARE, perfect=0, symmetric=True, ranks=False
    ),
    "thickness": of_explanations(
        "ranking_thickness", {"k": 2, **FEW}, **SHARE, perfect=1, k="k", radius="perturb_radius"
    ),
    "pairs": Subject(
        item(partial(metrics.pairwise_ranking_thickness, pairs=PAIR, **FEW), FIRST),
        "pairwise_ranking_thickness",
        {"call": "explanation", **SHARE, "radius": "perturb_radius"},
    ),
    "worst precision": of_explanations(
        "precision_at_k_min",
        {"k": 2, "n_perturb_samples": 3, "perturb_radius": 0.3},
        **SHARE,
        perfect=1,
        k="k",
        radius="perturb_radius",
    ),
    "certified precision": of_explanations(
        "certified_precision_at_k",
        {"k": 2, "radius": 0.02, "sigma": 0.1, "n_samples": 20},
        **SHARE,
        k="k",
        radius="radius",
    ),
    "hessian": of_models("hessian_norm", lowest=0, perfect=0, moves_inputs=False),
    "hessian-hutchinson": of_models(
        "hessian_norm",
        partial(metrics.hessian_norm, method="hutchinson", n_probes=3),
        lowest=0,
        perfect=0,
        moves_inputs=False,
    ),
    "lower bound": of_models(
        "thickness_bounds",
        item(partial(metrics.thickness_bounds, k=2, radius=0.1, n_samples=2), 0),
        k="k",
        radius="radius",
        moves_inputs=False,
    ),
    "upper bound of pairs": of_models(
        "pairwise_thickness_bounds",
        lambda *args, **kwargs: metrics.pairwise_thickness_bounds(
            *args, **{"pairs": PAIR, "radius": 0.1, "n_samples": 2, **kwargs}
        )[1][:, 0],
        radius="radius",
        moves_inputs=False,
    ),
    "flips": of_models(
        "decision_flip_fraction",
        with_maps(metrics.decision_flip_fraction),
        **NO_MOVES,
    ),
    "comprehensiveness": of_models(
        "comprehensiveness", with_maps(metrics.comprehensiveness), **NO_MOVES
    ),
    "sufficiency": of_models("sufficiency", with_maps(metrics.sufficiency), **NO_MOVES),
    "certified radius": Subject(
        partial(metrics.certified_top_k_radius, k=2, max_radius=1.0),
        "certified_top_k_radius",
        {
            "call": "model", **SHARE, "perfect": 1, "k": "k",
            "seed": False, "chunks": False, "tuples": False, "calls_model": False,
        },
        SMOOTH_MLPS,
    ),
}  # fmt: skip

# --- losses --------------------------------------------------------------------------------------


def of(kind: Callable[..., nn.Module], **options: Any) -> Callable[[nn.Module], nn.Module]:
    return lambda model: kind(model, **options)


LOSSES = {
    "r2et": Subject(of(loss.R2ETLoss, k=2), "R2ETLoss"),
    "r2et-mm": Subject(
        of(loss.R2ETLoss, k=2, pairs="mm", gap="exp", hessian="hvp", explain="logit"), "R2ETLoss"
    ),
    "hessian": Subject(of(loss.HessianNormLoss, hessian="exact"), "HessianNormLoss"),
    "estimated hessian": Subject(of(loss.HessianNormLoss), "HessianNormLoss"),
    "ssr": Subject(of(loss.SSRLoss), "SSRLoss"),
    "adversarial": Subject(
        of(loss.AdversarialRankingLoss, k=2, radius=0.3),
        "AdversarialRankingLoss",
        {"perturbs_inputs": True},
    ),
    "cross-lipschitz": Subject(of(loss.CrossLipschitzLoss, k=2), "CrossLipschitzLoss"),
}


def exported(module: Any, is_checked: Callable[[Any], bool]) -> set[str]:
    """The exported names of a module that are to be checked."""
    return {name for name in module.__all__ if is_checked(getattr(module, name))}
