"""The smaller studies of the paper, each a table, under the main attack of a data set."""

from collections.abc import Iterator
from typing import TypeVar

from captum_robust._utils.tables import Row, Table, number
from captum_robust.benchmark.plan.units import PROPERTIES
from captum_robust.benchmark.study.methods import K_PRIMES
from captum_robust.benchmark.tables.cells import exact
from captum_robust.benchmark.tables.results import Model, StudyResults, mean, of_method
from captum_robust.benchmark.tables.statistics import (
    correlation,
    mean_std,
    on_common_seeds,
    pareto_front,
)

__all__ = ["studies"]

_Name = TypeVar("_Name")

_PREDICTORS = (
    "adversarial thickness",
    "gaussian thickness",
    "gaussian minimum thickness",
    "hessian norm",
)


def studies(results: StudyResults, dataset: str) -> Iterator[Table]:
    """Yield the studies for which a data set has results."""
    models = [model for model in results.models(dataset) if model.start == "random"]
    for table in (_by_k(results, dataset, models), _by_k_prime(results, dataset, models)):
        if table.rows:
            yield table
    yield _manipulation(results, dataset, models)
    yield _magnitudes(results, dataset, models)
    defaults = results.default_models(dataset)  # the others may have fewer seeds
    yield _between_models(results, dataset, defaults)
    yield _pareto(results, dataset, defaults)


def _by_k(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    main = results.main_attack(dataset)
    attacks = [part for part in results.attacks(dataset) if part._replace(k=main.k) == main]
    levels = {
        (m, attack): results.precision(dataset, m, attack, results.radius)
        for m in models
        for attack in attacks
    }
    complete = [m for m in models if all(levels[m, attack] for attack in attacks)]
    means, n_seeds = _means_on_common_seeds(
        {(m, attack): levels[m, attack] for m in complete for attack in attacks}
    )
    rows: list[Row] = [
        [str(m), *(number(means[m, a]) for a in attacks)] for m in complete if n_seeds
    ]
    return Table(
        ["method", *(f"k = {attack.k}" for attack in attacks)],
        rows if len(attacks) > 1 else [],
        f"P@k by k: {main.explanation} under {main.name} at radius {results.radius:g}",
        f"All models were trained for k = {main.k}. Means over the {n_seeds} seeds that all have.",
    )


def _by_k_prime(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    rows: list[Row] = [
        [exact(k_prime), number(_mean(results.main_precision(dataset, of_method(method))))]
        for k_prime, method in K_PRIMES.items()
        if of_method(method) in models
    ]
    return Table(
        ["k'", f"P@{results.protocol['k']}"], rows, "Number of pairs k' of R2ET\\H",
        "Linear gaps, so that R2ET-mm\\H is the same function.",
    )  # fmt: skip


def _manipulation(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    rows: list[Row] = []
    for model in models:
        records = results.records(dataset, model, PROPERTIES).values()
        cells = [
            number(mean([correlation(r[name], r["manipulation step"]) for r in records]))
            for name in _PREDICTORS
        ]
        rows.append([str(model), *cells])
    return Table(
        ["method", *_PREDICTORS], rows,
        "What goes with a late manipulation: rank correlation over the rows",
    )  # fmt: skip


def _between_models(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    names = ("thickness", *_PREDICTORS)
    levels = {(m, "P@k"): results.main_precision(dataset, m) for m in models}
    for m in models:
        levels |= {(m, name): results.mean_property(dataset, m, name) for name in names}
    means, n_seeds = _means_on_common_seeds(levels)
    found = [m for m in models if (m, "P@k") in means and (m, "thickness") in means]
    rows: list[Row] = [
        [
            name,
            number(correlation([means[m, name] for m in found], [means[m, "P@k"] for m in found])),
        ]
        for name in names
    ]
    return Table(
        ["mean over the rows", f"with P@k at radius {results.radius:g}"], rows,
        "What ranks the methods as P@k does: rank correlation over the methods",
        f"{len(found)} methods, means over the {n_seeds} seeds that all of them have.",
    )  # fmt: skip


def _pareto(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    attack = results.main_attack(dataset)
    levels: dict[tuple[Model, str], dict[int, float]] = {}
    for m in models:
        levels[m, "P@k"] = results.main_precision(dataset, m)
        levels[m, "cAUC"] = results.area_under_curve(dataset, m)
        levels[m, "aAUC"] = results.values(
            dataset, m, attack, lambda r: float(r["attacked_auc"][results.at_radius])
        )
    means, n_seeds = _means_on_common_seeds(levels)
    names = ("P@k", "cAUC", "aAUC")
    points = {
        m: [means[m, n] for n in names] for m in models if all((m, n) in means for n in names)
    }
    clean = pareto_front({m: (p, c) for m, (p, c, _) in points.items()})
    attacked = pareto_front({m: (p, a) for m, (p, _, a) in points.items()})
    rows: list[Row] = [
        [str(m), *map(number, point), *("yes" if m in front else "" for front in (clean, attacked))]
        for m, point in points.items()
    ]
    return Table(
        ["method", f"P@{results.protocol['k']}", "cAUC", "aAUC", "front with cAUC", "with aAUC"],
        rows,
        f"Accuracy against robustness (radius {results.radius:g})",
        f"Means over the {n_seeds} seeds that all of these methods have.",
    )


def _magnitudes(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    k = results.protocol["k"]
    rows: list[Row] = []
    ranks: list[int] = []
    for model in models:
        records = results.records(dataset, model, PROPERTIES).values()
        by_seed = [r["magnitudes"] for r in records]
        n = len(by_seed[0])
        ranks = sorted({1, 2, max(1, k // 2), k, k + 1, min(2 * k, n), n})
        means = [mean([magnitudes[rank - 1] for magnitudes in by_seed]) for rank in ranks]
        rows.append([str(model), *(number(value, 4) for value in means)])
    return Table(
        ["method", *map(str, ranks)], rows, "Gradient magnitudes of the probability, by rank"
    )


def _means_on_common_seeds(
    levels: dict[tuple[Model, _Name], dict[int, float]],
) -> tuple[dict[tuple[Model, _Name], float], int]:
    """Return the means over the seeds that all have, and the number of these seeds."""
    common = on_common_seeds({key: values for key, values in levels.items() if values})
    n_seeds = len(next(iter(common.values()), {}))
    return {key: _mean(values) for key, values in common.items()}, n_seeds


def _mean(values: dict[int, float]) -> float:
    return mean_std(values)[0]
