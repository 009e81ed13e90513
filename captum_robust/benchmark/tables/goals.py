"""The best R2ET beside the best baseline, over all data sets."""

from collections.abc import Iterator, Sequence

from captum_robust._utils.tables import Row, Table, number
from captum_robust.benchmark.plan.selection import TOLERANCE
from captum_robust.benchmark.study.methods import METHODS, RIVALS
from captum_robust.benchmark.tables.cells import exact, gain, mean_and_spread
from captum_robust.benchmark.tables.chapter import Chapter
from captum_robust.benchmark.tables.results import VANILLA, Model, StudyResults, of_method
from captum_robust.benchmark.tables.statistics import difference, mean_std, on_common_seeds

__all__ = ["goals"]

#: The goal applies where the best baseline keeps less than this.
_BELOW = 0.98
#: The methods beside which ideas are shown.
_BESIDE_IDEAS = ("sp", "linear", "sp-steep", "r2et-sp", "r2et-no-h-sp")


def goals(results: StudyResults) -> Iterator[Chapter]:
    """Yield P@k at the middle radius, the two goals, the ideas, and lazy regularisation."""
    k, radius = results.protocol["k"], f"{results.radius:g}"
    yield Chapter(
        f"P@{k} at radius {radius} under the strongest attack, and AUC on all test rows",
        [_summary(results)],
    )
    yield Chapter(
        f"Best R2ET at radius {radius}", [_best(results)],
        "Of those whose mean AUC is within 0.01 of vanilla's.",
    )  # fmt: skip
    yield Chapter(
        "Best R2ET against every baseline",
        [
            _against(results, name, RIVALS[name])
            for name in ("baselines", "baselines, SP of β ≥ 0.5")
        ],
        f"The goal applies where the best baseline keeps less than {_BELOW}. Above all: by more "
        "than the 95 % interval of the paired difference; otherwise the baselines for which that "
        "fails.",
    )
    for title, table, lead in (
        (
            "Ideas", _ideas(results),
            "R2ET-sp with one change, beside SP. Differences: with 95 % intervals.",
        ),
        (
            "Lazy regularisation", _lazy(results),
            "Cost: processor time of an epoch relative to vanilla's.",
        ),
    ):  # fmt: skip
        if table.rows:
            yield Chapter(title, [table], lead)


def _summary(results: StudyResults) -> Table:
    rows: list[Row] = []
    for method in (name for name, method in METHODS.items() if method.by_default):
        model = of_method(method)
        cells = []
        for dataset in results.datasets:
            cells += [
                mean_and_spread(results.main_precision(dataset, model)),
                mean_and_spread(results.area_under_curve(dataset, model)),
            ]
        if any(cell.text for cell in cells):
            rows.append([method, *cells])
    header = [f"{dataset} {what}" for dataset in results.datasets for what in ("P@k", "cAUC")]
    return Table(["method", *header], rows)


def _best(results: StudyResults) -> Table:
    rows: list[Row] = []
    for dataset in results.datasets:
        values = _accurate_r2et(results, dataset, results.radius)
        if not values:
            continue
        best = max(values, key=lambda m: mean_std(values[m])[0])
        loss = _lost_area(results, dataset, best)
        rows.append([dataset, best.method, mean_and_spread(values[best], 4), gain(loss)])
    return Table(["data", "R2ET", "P@k", "cAUC less vanilla's"], rows)


def _against(results: StudyResults, caption: str, rivals: Sequence[str]) -> Table:
    rows: list[Row] = []
    for dataset in results.datasets:
        for radius in results.protocol["radii"]:
            ours = _accurate_r2et(results, dataset, radius)
            others = {
                m: found
                for m in map(of_method, rivals)
                if (found := results.main_precision(dataset, m, radius))
            }
            if not ours or not others:
                continue
            values = on_common_seeds({**ours, **others})
            means = {m: mean_std(v)[0] for m, v in values.items()}
            best, rival = (max(side, key=means.__getitem__) for side in (ours, others))
            gains = {m: difference(values[best], values[m]) for m in others}
            failing = [m.method for m, (mean, half) in gains.items() if not mean - half > 0]
            verdict = "yes" if not failing else f"no ({', '.join(failing)})"
            if means[rival] >= _BELOW:
                verdict = "does not apply"
            rows.append(
                [dataset, exact(radius), best.method, number(means[best]), rival.method,
                 number(means[rival]), gain(gains[rival]), verdict, exact(len(values[best]))]
            )  # fmt: skip
    header = [
        "data", "radius", "R2ET", "P@k", "baseline", "P@k", "difference", "above all", "seeds",
    ]  # fmt: skip
    return Table(header, rows, caption)


def _ideas(results: StudyResults) -> Table:
    """Show R2ET-sp and each idea beside SP, over the seeds that all of a data set have."""
    radii = [r for r in results.protocol["radii"] if r >= results.radius]
    rows: list[Row] = []
    for dataset in results.datasets:
        models = [m for m in results.models(dataset) if m.start == "random"]
        ideas = [m for m in models if results.method(dataset, m).role == "idea"]
        if not ideas:
            continue
        beside = [m for name in _BESIDE_IDEAS for m in models if m.method == name]
        levels = {
            (m, r): results.main_precision(dataset, m, r) for m in (*beside, *ideas) for r in radii
        }
        common = on_common_seeds({key: values for key, values in levels.items() if values})
        for model in (*beside, *ideas):
            found = [common[model, r] for r in radii if (model, r) in common]
            if len(found) < len(radii):
                continue
            others = [common.get((of_method("sp"), r), {}) for r in radii]
            gains = [difference(v, o) for v, o in zip(found, others, strict=True)]
            rows.append(
                [dataset, model.method, *map(mean_and_spread, found), *map(gain, gains),
                 gain(_lost_area(results, dataset, model)), exact(len(found[0]))]
            )  # fmt: skip
    header = [
        "data", "method", *(f"{r:g}" for r in radii), *(f"less SP at {r:g}" for r in radii),
        "cAUC less vanilla's", "seeds",
    ]  # fmt: skip
    return Table(header, rows)


def _lazy(results: StudyResults) -> Table:
    rows: list[Row] = []
    for dataset in results.datasets:
        for lazy in results.models(dataset):
            full = of_method(results.method(dataset, lazy).approximates)
            if not full.method or lazy.start != "random":
                continue
            values = [results.main_precision(dataset, m) for m in (lazy, full)]
            if not all(values):
                continue
            costs = [mean_and_spread(results.cost(dataset, m), 2) for m in (lazy, full)]
            rows.append(
                [dataset, lazy.method, mean_and_spread(values[0]), gain(difference(*values)),
                 *costs, exact(len(values[0]))]
            )  # fmt: skip
    header = [
        "data", "method", f"P@k at {results.radius:g}", "less the full one's", "cost",
        "full cost", "seeds",
    ]  # fmt: skip
    return Table(header, rows)


def _accurate_r2et(
    results: StudyResults, dataset: str, radius: float
) -> dict[Model, dict[int, float]]:
    """Return P@k by seed of the forms of R2ET that are about as accurate as vanilla."""
    return {
        m: values
        for m in results.default_models(dataset)
        if results.method(dataset, m).is_r2et
        and (values := results.main_precision(dataset, m, radius))
        and _lost_area(results, dataset, m)[0] >= -TOLERANCE
    }


def _lost_area(results: StudyResults, dataset: str, model: Model) -> tuple[float, float]:
    """Return the AUC less that of vanilla, and half its interval."""
    return difference(
        results.area_under_curve(dataset, model), results.area_under_curve(dataset, VANILLA)
    )
