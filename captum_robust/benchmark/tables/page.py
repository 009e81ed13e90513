"""The page of a run: a verdict on every model, the charts, and all tables."""

import math
import shlex
from pathlib import Path

from captum_robust._html.blocks import Charts, Code, Facts, Finding, Page, Section
from captum_robust._html.charts import Chart, Line, LineStyle
from captum_robust._utils.tables import Row, Table
from captum_robust.auditing.provenance import versions
from captum_robust.benchmark.tables.cells import gain, mean_and_spread
from captum_robust.benchmark.tables.report import chapters, legend
from captum_robust.benchmark.tables.results import VANILLA, Model, StudyResults, of_method
from captum_robust.benchmark.tables.statistics import difference, mean_std

__all__ = ["run_page"]

_LINEAR = of_method("linear")


def run_page(folder: Path) -> Page:
    """Return the page of the results in a folder.

    Raises:
        StoreError: for a folder without results, or a damaged store.
    """
    results = StudyResults(folder)
    tables = [Section(c.title, c.tables, c.lead, folded=True) for c in chapters(results)]
    return Page(
        kind="Stability of explanations: results of a run",
        title=", ".join(results.datasets),
        lead=(
            f"Share of the top {results.protocol['k']} features that a perturbation within radius "
            f"{results.radius:g} leaves, under the strongest attack that was run; means over the "
            "seeds."
        ),
        findings=[_finding(results, dataset) for dataset in results.datasets],
        sections=[
            *(_verdicts(results, dataset) for dataset in results.datasets),
            Section("Overview", lead=legend(results), folded=True),
            *tables,
            _reproduction(results, folder),
        ],
    )


def _finding(results: StudyResults, dataset: str) -> Finding:
    attack = results.main_attack(dataset).name
    kept = {
        m: values
        for m in results.models(dataset)
        if not _is_inaccurate(results, dataset, m)
        and (values := results.main_precision(dataset, m))
    }
    if not kept:
        return Finding("quiet", dataset, "", f"No model was attacked by {attack} yet.")
    vanilla = results.main_precision(dataset, VANILLA)
    sides = {
        "of R2ET": [m for m in kept if results.method(dataset, m).is_r2et],
        "of the baselines": [m for m in kept if _is_baseline(results, dataset, m)],
    }
    best = {
        side: max(models, key=lambda m: mean_std(kept[m])[0])
        for side, models in sides.items()
        if models
    }
    parts = [f"vanilla keeps {_text(vanilla)} of its top features"] if vanilla else []
    parts += [f"the most stable {side}, {m}, {_text(kept[m])}" for side, m in best.items()]
    sentence = f"Under {attack} {'; '.join(parts)}"
    if len(best) == 2:
        ours, theirs = best.values()
        sentence += f" (difference {gain(difference(kept[ours], kept[theirs])).text})"
    details = ["Models whose AUC falls short of vanilla's by more than 0.01 are left out here."]
    linear = results.main_precision(dataset, _LINEAR)
    if linear:
        details.append(
            f"A linear model, whose attribution is the same everywhere, keeps {_text(linear)}."
        )
    return Finding("neutral", dataset, "", f"{sentence}.", details)


def _verdicts(results: StudyResults, dataset: str) -> Section:
    attack, explanation, k = results.main_attack(dataset)
    rows: list[Row] = []
    for model in results.models(dataset):
        kept = results.main_precision(dataset, model)
        if kept:
            area = results.area_under_curve(dataset, model)
            rows.append(
                [str(model), _verdict(results, dataset, model), mean_and_spread(kept),
                 mean_and_spread(area)]
            )  # fmt: skip
    table = Table(
        ["Model", "Verdict", f"P@{k}", "AUC"], rows,
        f"A verdict on every model: {explanation} under {attack}, radius {results.radius:g}",
        note="Differences are paired over the seeds, with their 95 % intervals; not corrected for "
        "the number of comparisons.",
    )  # fmt: skip
    note = (
        "Highlighted are vanilla, and the R2ET and the baseline that keep most at the largest "
        "radius; the thin lines are all other models."
    )
    return Section(f"{dataset}: in short", [Charts([_chart(results, dataset)], note), table])


def _verdict(results: StudyResults, dataset: str, model: Model) -> str:
    """Compare a model with vanilla in one sentence."""
    if model == VANILLA:
        return "The model that the others are compared with."
    kept = results.main_precision(dataset, model)
    difference_ = difference(kept, results.main_precision(dataset, VANILLA))
    interval = gain(difference_).text
    text = f"{compared(*difference_)} vanilla" + (f": {interval}" if interval else "")
    if _is_inaccurate(results, dataset, model):
        text += ", at a loss of accuracy"
    return f"{text}."


def compared(gain: float, half: float) -> str:
    """Say what a gain with half its interval means, in front of the name of the reference."""
    if math.isnan(half):
        return "Too few seeds to compare with"
    if abs(gain) <= half:
        return "No clear difference from"
    return "More stable than" if gain > 0 else "Less stable than"


def _is_inaccurate(results: StudyResults, dataset: str, model: Model) -> bool:
    """Return whether no setting was accurate enough for some seed."""
    return any(not s.is_accurate for s in results.settings(dataset, model).values())


def _is_baseline(results: StudyResults, dataset: str, model: Model) -> bool:
    method = results.method(dataset, model)
    return method.role == "baseline" and method.by_default and model != VANILLA


def _chart(results: StudyResults, dataset: str) -> Chart:
    attack, explanation, k = results.main_attack(dataset)
    radii = list(results.protocol["radii"])
    curves = {
        m: [mean_std(results.main_precision(dataset, m, r))[0] for r in radii]
        for m in results.models(dataset)
        if m.start == "random"
    }
    curves = {m: y for m, y in curves.items() if not math.isnan(y[-1])}
    x = [0.0, *radii]
    shown: dict[Model, Line] = {}
    highlights: tuple[tuple[str, LineStyle, list[Model]], ...] = (
        ("best R2ET", "orange", [m for m in curves if results.method(dataset, m).is_r2et]),
        ("best baseline", "blue", [m for m in curves if _is_baseline(results, dataset, m)]),
        ("vanilla", "grey", [m for m in curves if m == VANILLA]),
    )
    for name, style, models in highlights:
        if models:
            best = max(models, key=lambda m: curves[m][-1])
            shown[best] = Line(name, style, x, [1.0, *curves[best]])
    others = [
        Line("other models", "thin", x, [1.0, *y]) for m, y in curves.items() if m not in shown
    ]
    at_largest = "; ".join(f"{line.name} {line.y[-1]:.3f}" for line in shown.values())
    return Chart(
        title=f"{dataset}: share of the top {k} that stays",
        description=(
            f"P@{k} of {explanation} under {attack} by radius; at {radii[-1]:g}: {at_largest}."
        ),
        x_label="L2 radius",
        y_label=f"P@{k}",
        lines=[*others, *reversed(shown.values())],
        x_ticks=x,
    )


def _reproduction(results: StudyResults, folder: Path) -> Section:
    facts = [(name, _value(value)) for name, value in results.protocol.items()]
    command = shlex.join(
        ["captum-robust", "run", "--dataset", ",".join(results.datasets), "--out", folder.name]
    )
    return Section(
        "How to reproduce the numbers",
        [Code(command, "Run"), Facts([*facts, *versions().items()])],
        "The command continues where a run was stopped; versions are those of this report.",
    )


def _text(values: dict[int, float]) -> str:
    return mean_and_spread(values).text


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
