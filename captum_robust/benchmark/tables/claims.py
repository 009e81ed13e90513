"""The tables behind the claims of the R2ET paper, on all data sets at once; radius 1 unless named.

Of the methods of the paper, from random weights unless it says otherwise.
"""

from collections.abc import Iterator

from captum_robust._utils.tables import markdown_table
from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.study.methods import DEFAULT, METHODS
from captum_robust.benchmark.tables.cells import cell, interval
from captum_robust.benchmark.tables.results import WORST, Findings, Model, mean
from captum_robust.benchmark.tables.statistics import (
    correlation,
    difference,
    mean_std,
    on_common_seeds,
    pareto_front,
)

__all__ = ["claims"]

_VANILLA = Model("vanilla", "random")
_PAIRS = (("r2et", "r2et-no-h"), ("r2et-mm", "r2et-mm-no-h"))


def claims(findings: Findings) -> Iterator[str]:
    """By the numbers of the claims; those for which a store has results."""
    for title, table in (
        ("Claim 1: P@k under the attacks, models × radii counted", _mse_against_er),
        ("Claim 1: P@k of vanilla", _vanilla),
        ("Claim 2: P@k less vanilla's", _gains),
        (
            "Claim 3: P@k and thickness without the Hessian term less those with it",
            _without_hessian,
        ),
        ("Claim 4: rank correlation with P@k over the methods", _between_methods),
        ("Claim 7: P@k by explanation, under the strongest attack", _explanations),
        ("Claim 8: on the Pareto front of P@k and AUC", _fronts),
        ("AUC of the explained rows: its largest fall", _fall),
        ("Training from the vanilla model: P@k less that from random weights", _starts),
    ):
        rows = table(findings)
        if len(rows) > 1:
            yield f"## {title}"
            yield markdown_table(rows[0], rows[1:])


def _mse_against_er(findings: Findings) -> list[list[str]]:
    kinds = {"leaky_relu": "LeakyReLU", "softplus": "softplus", "none": "linear"}
    rows = [["data", "activation", "MSE higher", "equal", "MSE lower"]]
    for dataset in findings.datasets:
        attacks = _attacks(findings, dataset)
        counts = {kind: [0, 0, 0] for kind in kinds.values()}
        for model in _models(findings, dataset):
            for radius in findings.protocol["radii"]:
                means = [
                    round(_mean(findings.precision(dataset, model, attacks[a], radius)), 3)
                    for a in ("mse", "er")
                    if a in attacks
                ]
                if len(means) == 2:
                    place = 0 if means[0] > means[1] else 1 if means[0] == means[1] else 2
                    counts[kinds[METHODS[model.method].activation]][place] += 1
        rows += [[dataset, k, *map(str, c)] for k, c in counts.items() if sum(c)]
    return rows


def _vanilla(findings: Findings) -> list[list[str]]:
    rows = [["data", *_attacks(findings)]]
    for dataset in findings.datasets:
        parts = _attacks(findings, dataset)
        cells = [cell(_precision(findings, dataset, _VANILLA, parts[a])) for a in rows[0][1:]]
        rows.append([dataset, *cells])
    return rows


def _gains(findings: Findings) -> list[list[str]]:
    attacks = _attacks(findings)
    rows = [["method", *(f"{d} {a}" for d in findings.datasets for a in attacks)]]
    models = dict.fromkeys(m for d in findings.datasets for m in findings.models(d))
    for model in (m for m in models if m.start == "random" and m != _VANILLA):
        cells = []
        for dataset in findings.datasets:
            for part in _attacks(findings, dataset).values():
                pair = [_precision(findings, dataset, m, part) for m in (model, _VANILLA)]
                cells.append(interval(difference(*pair)))
        if any(cells):
            rows.append([str(model), *cells])
    return rows


def _without_hessian(findings: Findings) -> list[list[str]]:
    rows = [["pair", "data", *_attacks(findings), "thickness"]]
    for full, without in _PAIRS:
        for dataset in findings.datasets:
            models = _of(without), _of(full)
            cells = [
                interval(difference(*(_precision(findings, dataset, m, part) for m in models)))
                for part in _attacks(findings, dataset).values()
            ]
            thickness = difference(*(_property(findings, dataset, m, "thickness") for m in models))
            if any(cells):
                rows.append([f"{without} − {full}", dataset, *cells, f"{thickness[0]:+.4f}"])
    return rows


def _between_methods(findings: Findings) -> list[list[str]]:
    names = ("thickness", "adversarial thickness", "hessian norm")
    rows = [["data", "attack", *names, "methods"]]
    for dataset in findings.datasets:
        models = _models(findings, dataset)
        for attack, part in _attacks(findings, dataset).items():
            precision = {m: _precision(findings, dataset, m, part) for m in models}
            with_precision = [m for m in models if precision[m]]
            cells = []
            for name in names:
                levels = {
                    **{(m, 0): precision[m] for m in with_precision},
                    **{(m, 1): _property(findings, dataset, m, name) for m in with_precision},
                }
                means = {key: _mean(v) for key, v in on_common_seeds(levels).items()}
                sides = [[means[m, side] for m in with_precision] for side in (0, 1)]
                cells.append(f"{correlation(*sides):+.2f}")
            rows.append([dataset, attack, *cells, str(len(with_precision))])
    return rows


def _explanations(findings: Findings) -> list[list[str]]:
    """Of the methods that were attacked by all explanations."""
    rows: list[list[str]] = []
    for dataset in findings.datasets:
        attack = findings.main_part(dataset).split()[0]
        k = findings.protocol["k"]
        parts = {
            p.split()[1]: p
            for p in findings.parts(dataset)
            if (p.split()[0], p.split()[2]) == (attack, str(k))
        }
        if len(parts) < 2:
            continue
        rows = rows or [["data", "method", *parts, "seeds"]]
        for model in _models(findings, dataset):
            found = on_common_seeds(
                {e: _precision(findings, dataset, model, part) for e, part in parts.items()}
            )
            if all(found.values()):
                n_seeds = len(next(iter(found.values())))
                rows.append([dataset, model.method, *map(cell, found.values()), str(n_seeds)])
    return rows


def _fronts(findings: Findings) -> list[list[str]]:
    rows = [["data", "with cAUC", "with aAUC", "cAUC, linear admitted", "aAUC, linear admitted"]]
    at = findings.protocol["radii"].index(findings.radius)
    for dataset in findings.datasets:
        part = findings.main_part(dataset)
        levels = {}
        for model in _models(findings, dataset):
            levels[model, "P@k"] = _precision(findings, dataset, model, part)
            levels[model, "cAUC"] = findings.area_under_curve(dataset, model)
            levels[model, "aAUC"] = findings.values(
                dataset, model, part, lambda r: float(r["attacked_auc"][at])
            )
        common = on_common_seeds({key: v for key, v in levels.items() if v})
        means = {key: _mean(v) for key, v in common.items()}
        cells = []
        for admitted in (False, True):
            models = [m for m, n in means if n == "P@k" and (admitted or m.method != "linear")]
            for auc in ("cAUC", "aAUC"):
                front = pareto_front({m: (means[m, "P@k"], means[m, auc]) for m in models})
                cells.append(", ".join(m.method for m in models if m in front))
        rows.append([dataset, *cells])
    return rows


def _fall(findings: Findings) -> list[list[str]]:
    rows = [["data", *(a for a in _attacks(findings) if a != WORST)]]
    at = findings.protocol["radii"].index(findings.radius)

    def fall(result: Result) -> float:
        return float(result["clean_auc"]) - float(result["attacked_auc"][at])

    for dataset in findings.datasets:
        cells = []
        parts = _attacks(findings, dataset)
        for part in (parts[attack] for attack in rows[0][1:]):
            falls = {
                m: _mean(values)
                for m in _models(findings, dataset)
                if (values := findings.values(dataset, m, part, fall))
            }
            most = max(falls, key=falls.__getitem__)
            cells.append(f"{falls[most]:.3f} ({most})")
        rows.append([dataset, *cells])
    return rows


def _starts(findings: Findings) -> list[list[str]]:
    rows = [["data", "method", "from vanilla", "from random weights", "difference", "seeds"]]
    for dataset in findings.datasets:
        part = findings.main_part(dataset)
        for model in findings.models(dataset):
            if model.start == "vanilla":
                pair = on_common_seeds(
                    {m: _precision(findings, dataset, m, part) for m in (model, _of(model.method))}
                ).values()
                if all(pair):
                    rows.append(
                        [dataset, model.method, *map(cell, pair), interval(difference(*pair)),
                         str(len(next(iter(pair))))]
                    )  # fmt: skip
    return rows


def _of(method: str) -> Model:
    return Model(method, "random")


def _models(findings: Findings, dataset: str) -> list[Model]:
    return [m for m in findings.models(dataset) if m.start == "random" and m.method in DEFAULT]


def _attacks(findings: Findings, dataset: str | None = None) -> dict[str, str]:
    """The part of each attack on the first explanation at the main k."""
    dataset = dataset or findings.datasets[0]
    explanation, k = findings.main_part(dataset).split()[1:]
    parts = [p for p in findings.parts(dataset) if p.split()[1:] == [explanation, k]]
    return {part.split()[0]: part for part in parts}


def _precision(findings: Findings, dataset: str, model: Model, part: str) -> dict[int, float]:
    return findings.precision(dataset, model, part, findings.radius)


def _property(findings: Findings, dataset: str, model: Model, name: str) -> dict[int, float]:
    return findings.values(dataset, model, "properties", lambda result: mean(result[name]))


def _mean(values: dict[int, float]) -> float:
    return mean_std(values)[0]
