"""The report of a run: a verdict on every model, the figures, and all tables."""

import math
import shlex
from pathlib import Path

from captum_robust._html.blocks import (
    Cell,
    Charts,
    Code,
    Column,
    Facts,
    Finding,
    Page,
    Section,
    Table,
)
from captum_robust._html.charts import Chart, Line
from captum_robust.auditing.provenance import versions
from captum_robust.benchmark.study.methods import BASELINES
from captum_robust.benchmark.tables.cells import cell, interval
from captum_robust.benchmark.tables.markdown import sections
from captum_robust.benchmark.tables.report import report
from captum_robust.benchmark.tables.results import Findings, Model
from captum_robust.benchmark.tables.statistics import difference, mean_std

__all__ = ["run_page"]

_VANILLA = Model("vanilla", "random")
_LINEAR = Model("linear", "random")


def run_page(folder: Path) -> Page:
    """The page of the results in a folder.

    Raises:
        StoreError: if there are none, or the store is damaged.
    """
    findings = Findings(folder)
    radius = findings.radius
    k = findings.protocol["k"]
    tables = list(sections(report(folder)))
    return Page(
        kind="Explanations that hold still: results of a run",
        title=", ".join(findings.datasets),
        lead=(
            f"Share of the top {k} features that a perturbation within radius {radius:g} leaves, "
            "under the strongest attack that was run; means over the seeds."
        ),
        findings=[_finding(findings, dataset, radius) for dataset in findings.datasets],
        sections=[
            *(_verdicts(findings, dataset, radius) for dataset in findings.datasets),
            *tables,
            _reproduction(findings, folder),
        ],
    )


def _finding(findings: Findings, dataset: str, radius: float) -> Finding:
    part = findings.main_part(dataset)
    kept = {
        m: findings.precision(dataset, m, part, radius)
        for m in findings.models(dataset)
        if not _inaccurate(findings, dataset, m)
    }
    kept = {m: values for m, values in kept.items() if values}
    attack = part.split()[0]
    if not kept:
        return Finding("no-value", dataset, "", f"No model was attacked by {attack} yet.")
    vanilla = findings.precision(dataset, _VANILLA, part, radius)
    sides = {
        "of R2ET": [m for m in kept if m.method.startswith("r2et")],
        "of the baselines": [m for m in kept if m.method in BASELINES and m != _VANILLA],
    }
    best = {
        side: max(models, key=lambda m: mean_std(kept[m])[0])
        for side, models in sides.items()
        if models
    }
    said = [f"vanilla keeps {cell(vanilla)} of its top features"] if vanilla else []
    said += [f"the most stable {side}, {m}, {cell(kept[m])}" for side, m in best.items()]
    sentence = f"Under {attack} {'; '.join(said)}."
    if len(best) == 2:
        ours, theirs = best.values()
        sentence = f"{sentence[:-1]} (difference {interval(difference(kept[ours], kept[theirs]))})."
    details = ["Models whose AUC falls short of vanilla's by more than 0.01 are left out here."]
    linear = findings.precision(dataset, _LINEAR, part, radius)
    if linear:
        details.append(f"A linear model, whose map is the same everywhere, keeps {cell(linear)}.")
    return Finding("neutral", dataset, "", sentence, details)


def _verdicts(findings: Findings, dataset: str, radius: float) -> Section:
    part = findings.main_part(dataset)
    attack, explanation, k = part.split()
    rows = []
    for model in findings.models(dataset):
        kept = findings.precision(dataset, model, part, radius)
        if kept:
            area = findings.area_under_curve(dataset, model)
            rows.append(
                [
                    Cell(str(model)), Cell(_verdict(findings, dataset, model, part, radius)),
                    Cell(cell(kept), mean_std(kept)[0]),
                    Cell(cell(area) or "–", mean_std(area)[0]),
                ]
            )  # fmt: skip
    columns = [
        Column("Model"), Column("Verdict"), Column(f"P@{k}", True), Column("AUC", True),
    ]  # fmt: skip
    table = Table(
        f"A verdict on every model: {explanation} under {attack}, radius {radius:g}", columns, rows,
        "Differences are paired over the seeds, with their 95 % intervals; not corrected for the "
        "number of comparisons.",
    )  # fmt: skip
    charts = [_chart(findings, dataset, part)]
    note = (
        "Highlighted are vanilla, and the R2ET and the baseline that keep most at the largest "
        "radius; the thin lines are all other models."
    )
    return Section(f"{dataset}: in short", [Charts(charts, note), table])


def _verdict(findings: Findings, dataset: str, model: Model, part: str, radius: float) -> str:
    """One sentence on a model."""
    if model == _VANILLA:
        return "What the others are compared with."
    kept = findings.precision(dataset, model, part, radius)
    gain = difference(kept, findings.precision(dataset, _VANILLA, part, radius))
    text = f"{_compared(*gain)} vanilla" + (f": {interval(gain)}" if interval(gain) else "")
    if _inaccurate(findings, dataset, model):
        text += ", and bought with accuracy"
    return f"{text}."


def _compared(gain: float, half: float) -> str:
    if math.isnan(half):
        return "Too few seeds to compare with"
    if abs(gain) <= half:
        return "No clear difference from"
    return "More stable than" if gain > 0 else "Less stable than"


def _inaccurate(findings: Findings, dataset: str, model: Model) -> bool:
    """Whether no setting was accurate enough for some seed."""
    return any(s.endswith("*") for s in findings.settings(dataset, model).values())


def _chart(findings: Findings, dataset: str, part: str) -> Chart:
    radii = list(findings.protocol["radii"])
    curves = {
        m: [mean_std(findings.precision(dataset, m, part, r))[0] for r in radii]
        for m in findings.models(dataset)
        if m.start == "random"
    }
    curves = {m: y for m, y in curves.items() if not math.isnan(y[-1])}
    groups = {
        "ensemble": ("best R2ET", [m for m in curves if m.method.startswith("r2et")]),
        "own": ("best baseline", [m for m in curves if m.method in BASELINES and m != _VANILLA]),
        "noise": ("vanilla", [m for m in curves if m == _VANILLA]),
    }
    shown = {
        max(models, key=lambda m: curves[m][-1]): (name, style)
        for style, (name, models) in groups.items()
        if models
    }
    x = [0.0, *radii]
    lines = [Line("other models", "other", x, [1.0, *curves[m]]) for m in curves if m not in shown]
    lines += [
        Line(name, style, x, [1.0, *curves[m]]) for m, (name, style) in reversed(shown.items())
    ]
    attack, explanation, k = part.split()
    said = "; ".join(f"{name} {curves[m][-1]:.3f}" for m, (name, _) in shown.items())
    return Chart(
        title=f"{dataset}: share of the top {k} that stays",
        description=f"P@{k} of {explanation} under {attack} by radius; at {radii[-1]:g}: {said}.",
        x_label="L2 radius",
        y_label=f"P@{k}",
        lines=lines,
        x_ticks=x,
    )


def _reproduction(findings: Findings, folder: Path) -> Section:
    facts = [(name, _said(value)) for name, value in findings.protocol.items()]
    command = shlex.join(
        ["captum-robust", "run", "--dataset", ",".join(findings.datasets), "--out", folder.name]
    )
    return Section(
        "How to get the same numbers",
        [Code(command, "Run"), Facts([*facts, *versions().items()])],
        "The folder goes on where a run was stopped; versions are those of this report.",
    )


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
