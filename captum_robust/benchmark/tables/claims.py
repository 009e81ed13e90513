"""The tables behind the claims of the R2ET paper, over all data sets.

They are about radius 1 (the middle one), and about the methods that are trained by default from
random weights, unless they say otherwise.
"""

from collections.abc import Iterator

from captum_robust._utils.tables import Cell, Row, Table
from captum_robust.benchmark.plan.store import Result
from captum_robust.benchmark.tables.cells import exact, gain, mean_and_spread
from captum_robust.benchmark.tables.chapter import Chapter
from captum_robust.benchmark.tables.results import (
    VANILLA,
    WORST,
    StudyResults,
    of_method,
)
from captum_robust.benchmark.tables.statistics import (
    correlation,
    difference,
    mean_std,
    on_common_seeds,
    pareto_front,
)

__all__ = ["claims"]

_PAIRS = (("r2et", "r2et-no-h"), ("r2et-mm", "r2et-mm-no-h"))


def claims(results: StudyResults) -> Iterator[Chapter]:
    """Yield the chapters in the order of the claims; those without results are left out."""
    for title, make in (
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
        table = make(results)
        if table.rows:
            yield Chapter(title, [table])


def _mse_against_er(results: StudyResults) -> Table:
    kinds = {"leaky_relu": "LeakyReLU", "softplus": "softplus", "none": "linear"}
    rows: list[Row] = []
    for dataset in results.datasets:
        attacks = results.main_attacks(dataset)
        counts = {kind: [0, 0, 0] for kind in kinds}
        for model in results.default_models(dataset):
            for radius in results.protocol["radii"]:
                means = [
                    round(_mean(results.precision(dataset, model, attacks[a], radius)), 3)
                    for a in ("mse", "er")
                    if a in attacks
                ]
                if len(means) == 2:
                    place = 0 if means[0] > means[1] else 1 if means[0] == means[1] else 2
                    counts[results.method(dataset, model).activation][place] += 1
        rows += [
            [dataset, kinds[kind], *map(exact, found)]
            for kind, found in counts.items()
            if sum(found)
        ]
    return Table(["data", "activation", "MSE higher", "equal", "MSE lower"], rows)


def _vanilla(results: StudyResults) -> Table:
    names = list(results.main_attacks(results.datasets[0]))
    rows: list[Row] = []
    for dataset in results.datasets:
        attacks = results.main_attacks(dataset)
        precision = (
            results.precision(dataset, VANILLA, attacks[name], results.radius) for name in names
        )
        rows.append([dataset, *map(mean_and_spread, precision)])
    return Table(["data", *names], rows)


def _gains(results: StudyResults) -> Table:
    names = results.main_attacks(results.datasets[0])
    models = dict.fromkeys(m for d in results.datasets for m in results.models(d))
    rows: list[Row] = []
    for model in (m for m in models if m.start == "random" and m != VANILLA):
        cells = []
        for dataset in results.datasets:
            for attack in results.main_attacks(dataset).values():
                pair = [
                    results.precision(dataset, m, attack, results.radius) for m in (model, VANILLA)
                ]
                cells.append(gain(difference(*pair)))
        if any(cell.text for cell in cells):
            rows.append([str(model), *cells])
    return Table(["method", *(f"{d} {name}" for d in results.datasets for name in names)], rows)


def _without_hessian(results: StudyResults) -> Table:
    rows: list[Row] = []
    for full, without in _PAIRS:
        for dataset in results.datasets:
            models = of_method(without), of_method(full)
            cells = [
                gain(
                    difference(
                        *(results.precision(dataset, m, attack, results.radius) for m in models)
                    )
                )
                for attack in results.main_attacks(dataset).values()
            ]
            thickness, _ = difference(
                *(results.mean_property(dataset, m, "thickness") for m in models)
            )
            if any(cell.text for cell in cells):
                rows.append(
                    [f"{without} − {full}", dataset, *cells, Cell(f"{thickness:+.4f}", thickness)]
                )
    header = ["pair", "data", *results.main_attacks(results.datasets[0]), "thickness"]
    return Table(header, rows)


def _between_methods(results: StudyResults) -> Table:
    names = ("thickness", "adversarial thickness", "hessian norm")
    rows: list[Row] = []
    for dataset in results.datasets:
        models = results.default_models(dataset)
        for name, attack in results.main_attacks(dataset).items():
            precision = {m: results.precision(dataset, m, attack, results.radius) for m in models}
            with_precision = [m for m in models if precision[m]]
            cells = []
            for quantity in names:
                levels = {
                    **{(m, 0): precision[m] for m in with_precision},
                    **{(m, 1): results.mean_property(dataset, m, quantity) for m in with_precision},
                }
                means = {key: _mean(v) for key, v in on_common_seeds(levels).items()}
                sides = [[means[m, side] for m in with_precision] for side in (0, 1)]
                found = correlation(*sides)
                cells.append(Cell(f"{found:+.2f}", found))
            rows.append([dataset, name, *cells, exact(len(with_precision))])
    return Table(["data", "attack", *names, "methods"], rows)


def _explanations(results: StudyResults) -> Table:
    """Compare the explanations on the methods for which all of them were attacked."""
    header: list[str] = []
    rows: list[Row] = []
    for dataset in results.datasets:
        main = results.main_attack(dataset)
        attacks = {
            p.explanation: p
            for p in results.attacks(dataset)
            if (p.name, p.k) == (main.name, main.k)
        }
        if len(attacks) < 2:
            continue
        header = header or ["data", "method", *attacks, "seeds"]
        for model in results.default_models(dataset):
            found = on_common_seeds(
                {
                    explanation: results.precision(dataset, model, attack, results.radius)
                    for explanation, attack in attacks.items()
                }
            )
            if all(found.values()):
                n_seeds = len(next(iter(found.values())))
                cells = map(mean_and_spread, found.values())
                rows.append([dataset, model.method, *cells, exact(n_seeds)])
    return Table(header, rows)


def _fronts(results: StudyResults) -> Table:
    rows: list[Row] = []
    for dataset in results.datasets:
        attack = results.main_attack(dataset)
        levels = {}
        for model in results.default_models(dataset):
            levels[model, "P@k"] = results.main_precision(dataset, model)
            levels[model, "cAUC"] = results.area_under_curve(dataset, model)
            levels[model, "aAUC"] = results.values(
                dataset, model, attack, lambda r: float(r["attacked_auc"][results.at_radius])
            )
        common = on_common_seeds({key: v for key, v in levels.items() if v})
        means = {key: _mean(v) for key, v in common.items()}
        cells = []
        for with_reference in (False, True):
            models = [
                m for m, name in means
                if name == "P@k"
                and (with_reference or results.method(dataset, m).role != "reference")
            ]  # fmt: skip
            for auc in ("cAUC", "aAUC"):
                front = pareto_front({m: (means[m, "P@k"], means[m, auc]) for m in models})
                cells.append(", ".join(m.method for m in models if m in front))
        rows.append([dataset, *cells])
    return Table(
        ["data", "with cAUC", "with aAUC", "cAUC, linear admitted", "aAUC, linear admitted"], rows
    )


def _fall(results: StudyResults) -> Table:
    names = [name for name in results.main_attacks(results.datasets[0]) if name != WORST]

    def fall(result: Result) -> float:
        return float(result["clean_auc"]) - float(result["attacked_auc"][results.at_radius])

    rows: list[Row] = []
    for dataset in results.datasets:
        cells = []
        attacks = results.main_attacks(dataset)
        for name in names:
            falls = {
                m: _mean(values)
                for m in results.default_models(dataset)
                if (values := results.values(dataset, m, attacks[name], fall))
            }
            most = max(falls, key=falls.__getitem__)
            cells.append(Cell(f"{falls[most]:.3f} ({most})", falls[most]))
        rows.append([dataset, *cells])
    return Table(["data", *names], rows)


def _starts(results: StudyResults) -> Table:
    rows: list[Row] = []
    for dataset in results.datasets:
        for model in results.models(dataset):
            if model.start == "vanilla":
                pair = on_common_seeds(
                    {
                        m: results.main_precision(dataset, m)
                        for m in (model, of_method(model.method))
                    }
                ).values()
                if all(pair):
                    cells = [*map(mean_and_spread, pair), gain(difference(*pair))]
                    n_seeds = len(next(iter(pair)))
                    rows.append([dataset, model.method, *cells, exact(n_seeds)])
    header = ["data", "method", "from vanilla", "from random weights", "difference", "seeds"]
    return Table(header, rows)


def _mean(values: dict[int, float]) -> float:
    return mean_std(values)[0]
