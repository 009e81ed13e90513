"""The report of a run: all its tables, as chapters and in Markdown."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from captum_robust._utils.tables import Cell, Row, Table
from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.plan.units import PROPERTIES, Part
from captum_robust.benchmark.study.methods import RIVALS
from captum_robust.benchmark.tables.cells import exact, gain, mean_and_spread
from captum_robust.benchmark.tables.chapter import Chapter, markdown_of
from captum_robust.benchmark.tables.claims import claims
from captum_robust.benchmark.tables.goals import goals
from captum_robust.benchmark.tables.results import VANILLA, WORST, Model, StudyResults, mean
from captum_robust.benchmark.tables.statistics import (
    difference,
    mean_std,
    on_common_seeds,
    paired_p_value,
)
from captum_robust.benchmark.tables.studies import studies

__all__ = ["chapters", "legend", "report"]

_SIGNIFICANT = 0.05


def report(folder: Path) -> str:
    """Return all tables of the results in a folder as Markdown.

    Raises:
        StoreError: for a folder without results, or a damaged store.
    """
    results = StudyResults(folder)
    return markdown_of(legend(results), chapters(results))


def legend(results: StudyResults) -> str:
    """Explain the numbers and signs in the tables."""
    protocol = results.protocol
    return (
        f"P@k: share of the top k features that an L2 perturbation of the radius leaves, mean ± "
        f"standard deviation over the seeds; {protocol['rows']} distinct test rows "
        f"({protocol['costly_rows']} for SmoothGrad and integrated gradients). † differs from "
        f"vanilla from random weights (paired t-test over the seeds, p < {_SIGNIFICANT}; not "
        "corrected for the number of tests). * no setting came within 0.01 of vanilla's AUC."
    )


def chapters(results: StudyResults) -> Iterator[Chapter]:
    """Yield the chapters: goals, claims, then one for each data set."""
    yield from goals(results)
    yield from claims(results)
    for dataset in results.datasets:
        yield Chapter(dataset, list(_of_dataset(results, dataset)))


def _of_dataset(results: StudyResults, dataset: str) -> Iterator[Table]:
    models = results.models(dataset)
    yield _settings(results, dataset, models)
    for attack in results.attacks(dataset):
        if attack.k == results.protocol["k"]:
            yield _precision(results, dataset, models, attack)
            margin = _margin(results, dataset, models, attack)
            if margin.rows:
                yield margin
    yield _properties(results, dataset, models)
    yield from studies(results, dataset)


def _settings(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    rows: list[Row] = []
    for model in models:
        counted = Counter(results.settings(dataset, model).values())
        text = "; ".join(f"{setting}: {n}" for setting, n in counted.most_common())
        rows.append([str(model), text])
    return Table(["method", "setting: number of seeds"], rows, "Selected settings")


def _precision(results: StudyResults, dataset: str, models: list[Model], attack: Part) -> Table:
    radii = results.protocol["radii"]
    rows: list[Row] = []
    for model in models:
        by_radius = [results.precision(dataset, model, attack, r) for r in radii]
        if any(by_radius):
            vanilla = [results.precision(dataset, VANILLA, attack, r) for r in radii]
            cells = map(_with_dagger, by_radius, vanilla)
            rows.append([str(model), *cells])
    name = "the worst of the attacks on each row" if attack.name == WORST else attack.name
    return Table(
        ["method", *(f"{radius:g}" for radius in radii)], rows,
        f"P@{attack.k}, {attack.explanation} under {name}, by radius",
    )  # fmt: skip


def _margin(results: StudyResults, dataset: str, models: list[Model], attack: Part) -> Table:
    """Compare the best R2ET with the best of each group of rivals, at each radius."""
    ours = [
        m for m in models
        if results.method(dataset, m).is_r2et and results.method(dataset, m).by_default
    ]  # fmt: skip
    rows: list[Row] = []
    for radius in results.protocol["radii"]:
        found = {m: results.precision(dataset, m, attack, radius) for m in models}
        for group, methods in RIVALS.items():
            others = [m for m in models if m.method in methods]
            values = on_common_seeds({m: found[m] for m in (*ours, *others) if found[m]})
            sides = [[m for m in side if values.get(m)] for side in (ours, others)]
            if not all(sides):
                continue
            best, rival = (max(side, key=lambda m: mean_std(values[m])[0]) for side in sides)
            rows.append(
                [exact(radius), str(best), mean_and_spread(values[best]), group, str(rival),
                 mean_and_spread(values[rival]), gain(difference(values[best], values[rival])),
                 exact(len(values[best]))]
            )  # fmt: skip
    return Table(
        ["radius", "R2ET", "P@k", "among", "other", "P@k", "difference", "seeds"],
        rows,
        lead="Best R2ET against the best other method, over the seeds that all of them have "
        "(difference and its 95 % interval):",
    )


def _properties(results: StudyResults, dataset: str, models: list[Model]) -> Table:
    attack, at = results.main_attack(dataset), results.at_radius
    columns: dict[str, tuple[Part, Callable[[Result], float]]] = {
        "cAUC": (PROPERTIES, lambda r: float(r["auc"])),
        "thickness": (PROPERTIES, lambda r: mean(r["thickness"])),
        "Hessian norm": (PROPERTIES, lambda r: mean(r["hessian norm"])),
        "DFFOT": (PROPERTIES, lambda r: mean(r["dffot"])),
        "COMP": (PROPERTIES, lambda r: mean(r["comp"])),
        "SUFF": (PROPERTIES, lambda r: mean(r["suff"])),
        "AUC of the rows": (attack, lambda r: float(r["clean_auc"])),
        "aAUC": (attack, lambda r: float(r["attacked_auc"][at])),
        "prediction change": (attack, lambda r: float(r["changed"][at])),
    }
    rows: list[Row] = []
    for model in models:
        values = [results.values(dataset, model, *column) for column in columns.values()]
        cost = mean_and_spread(results.cost(dataset, model), 2)
        rows.append([str(model), *(mean_and_spread(v, 4) for v in values), cost])
    note = (
        f"aAUC and prediction change: under {attack.name} at radius {results.radius:g}, on "
        "the explained rows, each weighted by the number of examples that it stands for. Cost: "
        "processor time relative to vanilla."
    )
    header = ["method", *columns, "cost of an epoch"]
    return Table(header, rows, "Properties", note=note)


def _with_dagger(values: Mapping[int, float], vanilla: Mapping[int, float]) -> Cell:
    """Make a cell with a dagger where the values differ from vanilla's significantly."""
    cell = mean_and_spread(values)
    is_significant = paired_p_value(values, vanilla) < _SIGNIFICANT
    return cell._replace(text=f"{cell.text} †") if is_significant else cell
