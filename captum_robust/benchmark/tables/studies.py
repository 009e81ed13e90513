"""The smaller studies of the paper, each a table."""

from collections.abc import Iterator
from functools import partial

from captum_robust._utils.tables import markdown_table
from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.study.methods import DEFAULT, K_PRIMES
from captum_robust.benchmark.tables.cells import number
from captum_robust.benchmark.tables.results import Findings, Model, mean
from captum_robust.benchmark.tables.statistics import (
    correlation,
    mean_std,
    on_common_seeds,
    pareto_front,
)

__all__ = ["studies"]

_PREDICTORS = (
    "adversarial thickness",
    "gaussian thickness",
    "gaussian minimum thickness",
    "hessian norm",
)


def studies(findings: Findings, dataset: str) -> Iterator[str]:
    """Those for which a data set has results, under the last attack on the first explanation."""
    models = [model for model in findings.models(dataset) if model.start == "random"]
    for study in (_by_k, _by_k_prime, _manipulation, _magnitudes):
        yield from study(findings, dataset, models)
    usual = [model for model in models if model.method in DEFAULT]  # others may have fewer seeds
    for study in (_between_models, _pareto):
        yield from study(findings, dataset, usual)


def _by_k(findings: Findings, dataset: str, models: list[Model]) -> Iterator[str]:
    attack, explanation, k = findings.main_part(dataset).split()
    parts = [p for p in findings.parts(dataset) if p.startswith(f"{attack} {explanation} ")]
    radius = findings.radius
    levels = {(m, p): findings.precision(dataset, m, p, radius) for m in models for p in parts}
    whole = [m for m in models if all(levels[m, p] for p in parts)]
    means, n_seeds = _means_on_common_seeds({(m, p): levels[m, p] for m in whole for p in parts})
    if len(parts) > 1 and n_seeds:
        yield f"### P@k by k: {explanation} under {attack} at radius {radius:g}"
        yield f"All models were trained for k = {k}. Means over the {n_seeds} seeds that all have."
        yield markdown_table(
            ["method", *(f"k = {part.split()[2]}" for part in parts)],
            [[str(m), *(number(means[m, p]) for p in parts)] for m in whole],
        )


def _by_k_prime(findings: Findings, dataset: str, models: list[Model]) -> Iterator[str]:
    found = {m.method: m for m in models}
    part = findings.main_part(dataset)
    rows = [
        [str(k_prime), _precision(findings, dataset, found[f"r2et-no-h-k{k_prime}"], part)]
        for k_prime in K_PRIMES
        if f"r2et-no-h-k{k_prime}" in found
    ]
    if rows:
        yield "### Number of pairs k' of R2ET\\H"
        yield "Linear gaps, so that R2ET-mm\\H is the same function."
        yield markdown_table(["k'", f"P@{findings.protocol['k']}"], rows)


def _manipulation(findings: Findings, dataset: str, models: list[Model]) -> Iterator[str]:
    rows = []
    for model in models:
        cells = []
        for name in _PREDICTORS:
            pairs = findings.rows(dataset, model, name, "manipulation step")
            cells.append(number(mean([correlation(*pair) for pair in pairs])))
        rows.append([str(model), *cells])
    yield "### What goes with a late manipulation: rank correlation over the rows"
    yield markdown_table(["method", *_PREDICTORS], rows)


def _between_models(findings: Findings, dataset: str, models: list[Model]) -> Iterator[str]:
    part = findings.main_part(dataset)
    of = {name: partial(_mean_of_rows, name) for name in ("thickness", *_PREDICTORS)}
    levels = {
        **{(m, "P@k"): findings.precision(dataset, m, part, findings.radius) for m in models},
        **{
            (m, name): findings.values(dataset, m, "properties", of[name])
            for m in models
            for name in of
        },
    }
    means, n_seeds = _means_on_common_seeds(levels)
    found = [m for m in models if (m, "P@k") in means and (m, "thickness") in means]
    rows = [
        [
            name,
            number(correlation([means[m, name] for m in found], [means[m, "P@k"] for m in found])),
        ]
        for name in of
    ]
    yield "### What ranks the methods as P@k does: rank correlation over the methods"
    yield f"{len(found)} methods, means over the {n_seeds} seeds that all of them have."
    yield markdown_table(["mean over the rows", f"with P@k at radius {findings.radius:g}"], rows)


def _pareto(findings: Findings, dataset: str, models: list[Model]) -> Iterator[str]:
    part = findings.main_part(dataset)
    at = findings.protocol["radii"].index(findings.radius)
    levels: dict[tuple[Model, str], dict[int, float]] = {}
    for m in models:
        levels[m, "P@k"] = findings.precision(dataset, m, part, findings.radius)
        levels[m, "cAUC"] = findings.values(dataset, m, "properties", lambda r: float(r["auc"]))
        levels[m, "aAUC"] = findings.values(
            dataset, m, part, lambda r: float(r["attacked_auc"][at])
        )
    means, n_seeds = _means_on_common_seeds(levels)
    names = ("P@k", "cAUC", "aAUC")
    points = {
        m: [means[m, n] for n in names] for m in models if all((m, n) in means for n in names)
    }
    clean = pareto_front({m: (p, c) for m, (p, c, _) in points.items()})
    attacked = pareto_front({m: (p, a) for m, (p, _, a) in points.items()})
    rows = [
        [str(m), *map(number, point), _tick(m in clean), _tick(m in attacked)]
        for m, point in points.items()
    ]
    yield f"### Accuracy against robustness (radius {findings.radius:g})"
    yield f"Means over the {n_seeds} seeds that all of these methods have."
    yield markdown_table(
        ["method", f"P@{findings.protocol['k']}", "cAUC", "aAUC", "front with cAUC", "with aAUC"],
        rows,
    )


def _means_on_common_seeds(
    levels: dict[tuple[Model, str], dict[int, float]],
) -> tuple[dict[tuple[Model, str], float], int]:
    """Means of what has values, and over how many seeds."""
    common = on_common_seeds({key: values for key, values in levels.items() if values})
    n_seeds = len(next(iter(common.values()), {}))
    return {key: _mean(values) for key, values in common.items()}, n_seeds


def _magnitudes(findings: Findings, dataset: str, models: list[Model]) -> Iterator[str]:
    k = findings.protocol["k"]
    rows, ranks = [], []
    for model in models:
        by_seed = findings.magnitudes(dataset, model)
        n = len(by_seed[0])
        ranks = sorted({1, 2, max(1, k // 2), k, k + 1, min(2 * k, n), n})
        means = [mean([magnitudes[rank - 1] for magnitudes in by_seed]) for rank in ranks]
        rows.append([str(model), *(f"{value:.4f}" for value in means)])
    yield "### Gradient magnitudes of the probability, by rank"
    yield markdown_table(["method", *map(str, ranks)], rows)


def _precision(findings: Findings, dataset: str, model: Model, part: str) -> str:
    return number(_mean(findings.precision(dataset, model, part, findings.radius)))


def _mean(values: dict[int, float]) -> float:
    return mean_std(values)[0]


def _mean_of_rows(name: str, result: Result) -> float:
    return mean(result[name])


def _tick(yes: bool) -> str:
    return "yes" if yes else ""
