"""The tables of a run, as Markdown."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from captum_robust._utils.tables import markdown_table
from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.study.methods import DEFAULT, RIVALS
from captum_robust.benchmark.tables.cells import cell, interval
from captum_robust.benchmark.tables.claims import claims
from captum_robust.benchmark.tables.goals import targets
from captum_robust.benchmark.tables.results import WORST, Findings, Model, mean
from captum_robust.benchmark.tables.statistics import (
    difference,
    mean_std,
    on_common_seeds,
    paired_p_value,
)
from captum_robust.benchmark.tables.studies import studies

__all__ = ["report"]

_VANILLA = Model("vanilla", "random")
_SIGNIFICANT = 0.05


def report(folder: Path) -> str:
    """All tables and studies of the results in a folder.

    Raises:
        StoreError: if there are none, or the store is damaged.
    """
    findings = Findings(folder)
    return "\n\n".join(
        [_legend(findings), *targets(findings), *claims(findings), *_sections(findings)]
    )


def _legend(findings: Findings) -> str:
    protocol = findings.protocol
    return (
        f"P@k: share of the top k features that an L2 perturbation of the radius leaves, mean ± "
        f"standard deviation over the seeds; {protocol['rows']} distinct test rows "
        f"({protocol['costly_rows']} for SmoothGrad and integrated gradients). † differs from "
        f"vanilla from random weights (paired t-test over the seeds, p < {_SIGNIFICANT}; not "
        "corrected for the number of tests). * no setting came within 0.01 of vanilla's AUC."
    )


def _sections(findings: Findings) -> Iterator[str]:
    for dataset in findings.datasets:
        models = findings.models(dataset)
        yield f"## {dataset}"
        yield "### Selected settings\n\n" + _settings(findings, dataset, models)
        for part in findings.parts(dataset):
            attack, explanation, k = part.split()
            if int(k) == findings.protocol["k"]:
                by = "the worst of the attacks on each row" if attack == WORST else attack
                title = f"### P@{k}, {explanation} under {by}, by radius"
                yield f"{title}\n\n" + _precision(findings, dataset, models, part)
                yield from _margin(findings, dataset, models, part)
        yield "### Properties\n\n" + _properties(findings, dataset, models)
        yield from studies(findings, dataset)


def _settings(findings: Findings, dataset: str, models: list[Model]) -> str:
    rows = []
    for model in models:
        counted = Counter(findings.settings(dataset, model).values())
        text = "; ".join(f"{setting or 'none'}: {n}" for setting, n in counted.most_common())
        rows.append([str(model), text])
    return markdown_table(["method", "setting: number of seeds"], rows)


def _precision(findings: Findings, dataset: str, models: list[Model], part: str) -> str:
    radii = findings.protocol["radii"]
    rows = []
    for model in models:
        by_radius = [findings.precision(dataset, model, part, r) for r in radii]
        if any(by_radius):
            against = [findings.precision(dataset, _VANILLA, part, r) for r in radii]
            cells = [
                cell(values) + _dagger(values, others)
                for values, others in zip(by_radius, against, strict=True)
            ]
            rows.append([str(model), *cells])
    return markdown_table(["method", *(f"{radius:g}" for radius in radii)], rows)


def _margin(findings: Findings, dataset: str, models: list[Model], part: str) -> Iterator[str]:
    """The best R2ET against the best of each group of rivals, at each radius."""
    ours = [m for m in models if m.method in DEFAULT and m.method.startswith("r2et")]
    rows = []
    for radius in findings.protocol["radii"]:
        found = {m: findings.precision(dataset, m, part, radius) for m in models}
        for group, methods in RIVALS.items():
            others = [m for m in models if m.method in methods]
            values = on_common_seeds({m: found[m] for m in (*ours, *others) if found[m]})
            sides = [[m for m in side if values.get(m)] for side in (ours, others)]
            if not all(sides):
                continue
            best, rival = (max(side, key=lambda m: mean_std(values[m])[0]) for side in sides)
            rows.append(
                [f"{radius:g}", str(best), cell(values[best]), group, str(rival),
                 cell(values[rival]), interval(difference(values[best], values[rival])),
                 str(len(values[best]))]
            )  # fmt: skip
    if rows:
        yield (
            "Best R2ET against the best other method, over the seeds that all of them have "
            "(difference and its 95 % interval):"
        )
        header = ["radius", "R2ET", "P@k", "among", "other", "P@k", "difference", "seeds"]
        yield markdown_table(header, rows)


def _properties(findings: Findings, dataset: str, models: list[Model]) -> str:
    columns: dict[str, Callable[[Result], float]] = {
        "cAUC": lambda r: float(r["auc"]),
        "thickness": lambda r: mean(r["thickness"]),
        "Hessian norm": lambda r: mean(r["hessian norm"]),
        "DFFOT": lambda r: mean(r["dffot"]),
        "COMP": lambda r: mean(r["comp"]),
        "SUFF": lambda r: mean(r["suff"]),
    }
    attack = findings.main_part(dataset)
    at = findings.protocol["radii"].index(findings.radius)
    attacked: dict[str, Callable[[Result], float]] = {
        "AUC of the rows": lambda r: float(r["clean_auc"]),
        "aAUC": lambda r: float(r["attacked_auc"][at]),
        "prediction change": lambda r: float(r["changed"][at]),
    }
    rows = []
    for model in models:
        of = {
            **{name: ("properties", f) for name, f in columns.items()},
            **{name: (attack, f) for name, f in attacked.items()},
        }
        cells = [cell(findings.values(dataset, model, *pair), 4) for pair in of.values()]
        rows.append([str(model), *cells, cell(findings.cost(dataset, model), 2)])
    header = ["method", *columns, *attacked, "cost of an epoch"]
    note = (
        f"aAUC and prediction change: under {attack.split()[0]} at radius {findings.radius:g}, on "
        "the explained rows, each weighted by the people it stands for. Cost: processor time "
        "relative to vanilla."
    )
    return f"{markdown_table(header, rows)}\n\n{note}"


def _dagger(values: Mapping[int, float], others: Mapping[int, float]) -> str:
    return " †" if paired_p_value(values, others) < _SIGNIFICANT else ""
