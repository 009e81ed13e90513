"""The tables and charts of the report of an audit."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from captum_robust._html.blocks import Charts, Section
from captum_robust._html.charts import Chart, Line, LineStyle
from captum_robust._utils.estimate import Estimate, estimate
from captum_robust._utils.tables import Cell, Row, Table, number
from captum_robust.auditing.numbers import (
    ENSEMBLE,
    NOISE,
    NOISE_FLOOR,
    OWN_GRADIENT,
    AuditedExplanation,
    AuditNumbers,
    Trial,
)
from captum_robust.auditing.row_measures import ROW_MEASURES
from captum_robust.auditing.verdict import norm_of
from captum_robust.robust.evaluation.robustness_table import PREDICTION_CHANGED

__all__ = ["by_radius", "features", "rows", "tried"]

#: Titles and line styles of the attacks.
_ATTACKS: dict[str, tuple[str, LineStyle]] = {
    NOISE_FLOOR: ("no attack, other seeds", "thin"),
    NOISE: ("random noise", "grey"),
    OWN_GRADIENT: ("the published attack", "blue"),
    ENSEMBLE: ("all attacks together", "orange"),
}
_MAX_FEATURES = 20
_MAX_ROWS = 10


def tried(audit: AuditNumbers) -> Section:
    """Return the section on all attacks at the largest radius."""
    columns = _trial_columns(audit)
    lines: list[Row] = []
    for e in audit.explanations:
        for attack, (title, _) in _ATTACKS.items():
            trial = e.trial(attack, audit.radius)
            if trial is not None:
                lines.append([e.name, title, *(column(trial) for column in columns.values())])
    table = Table(
        ["Explanation", "Attack", *columns], lines,
        f"Within an {norm_of(audit)} radius of {audit.radius:g}",
        note=" ".join(_measures(audit)),
    )  # fmt: skip
    return Section("All attacks", [table])


def _trial_columns(audit: AuditNumbers) -> dict[str, Callable[[Trial], Cell]]:
    """Return the columns on a trial by title; a further metric has its mean as a column."""
    metrics = dict.fromkeys(name for e in audit.explanations for name in e.worst.values)
    further = [name for name in metrics if name not in ("precision", PREDICTION_CHANGED)]
    return {
        "Rows that lost features": _lost,
        f"P@{audit.k}": lambda trial: number(_estimate(trial.precision).mean),
        "95 % interval": _interval,
        "Prediction changed": lambda trial: _count(sum(c == 1 for c in trial.changed)),
        **{name: _mean_of(name) for name in further},
        "No value": lambda trial: _count(_estimate(trial.precision).n_nan),
    }


def _lost(trial: Trial) -> Cell:
    known = sum(not math.isnan(p) for p in trial.precision)
    lost = sum(p < 1 for p in trial.precision)
    return Cell(f"{lost} of {known}", lost / known if known else math.nan)


def _interval(trial: Trial) -> Cell:
    found = _estimate(trial.precision)
    if math.isnan(found.low):
        return Cell("", found.low)
    return Cell(f"{found.low:.3f}–{found.high:.3f}", found.low)


def _mean_of(metric: str) -> Callable[[Trial], Cell]:
    """Return the column with the mean of a metric, empty where a trial does not have it."""

    def cell(trial: Trial) -> Cell:
        values = trial.values.get(metric)
        return Cell("", math.nan) if values is None else number(estimate(torch.tensor(values)).mean)

    return cell


def _count(count: int) -> Cell:
    return Cell(str(count), count)


def _measures(audit: AuditNumbers) -> Iterator[str]:
    """Yield a sentence on each measure of the explanations, with its means."""
    for name in audit.explanations[0].measures:
        means = "; ".join(f"{e.name} {_mean(e.measures[name])}" for e in audit.explanations)
        known = ROW_MEASURES.get(name)
        meaning = f"{known.title}, {known.meaning}" if known else name
        yield f"{meaning}: {means}."


def _mean(values: tuple[float, ...]) -> str:
    known = [v for v in values if not math.isnan(v)]
    return f"{math.fsum(known) / len(known):.4f}" if known else "without a value"


def by_radius(audit: AuditNumbers) -> Section:
    """Return the section on P@k at every radius."""
    charts = [_chart(audit, e) for e in audit.explanations]
    lines: list[Row] = []
    for e in audit.explanations:
        for attack, (title, _) in _ATTACKS.items():
            found = _estimates(audit, e, attack)
            if found:
                lines.append([e.name, title, *(number(f.mean) for f in found)])
        if e.certified is not None:
            lines.append([e.name, "proven", *map(number, _proven(audit, e))])
    header = ["Explanation", "Attack", *(f"{radius:g}" for radius in audit.radii)]
    lead = (
        f"P@{audit.k}: the share of the top {audit.k} features that stay in the top set, mean over "
        "the rows."
    )
    note = "The true minimum is at most the value under all attacks together"
    if any(e.certified is not None for e in audit.explanations):
        note += f", and at least the share of the rows whose whole top {audit.k} is proven to stay"
    note += ". The band is the 95 % confidence interval of the mean over rows like these."
    return Section(
        "By radius", [Charts(charts, note), Table(header, lines, f"P@{audit.k} by radius")], lead
    )


def _chart(audit: AuditNumbers, explanation: AuditedExplanation) -> Chart:
    radii = [0.0, *audit.radii]
    lines = []
    if explanation.certified is not None:
        lines.append(Line("proven", "green", radii, [1.0, *_proven(audit, explanation)]))
    for attack, (title, style) in _ATTACKS.items():
        found = _estimates(audit, explanation, attack)
        if found:
            means = [f.mean for f in found]
            unmoved = means[0] if attack == NOISE_FLOOR else 1.0
            line = Line(title, style, radii, [unmoved, *means])
            if attack == ENSEMBLE:
                low, high = [f.low for f in found], [f.high for f in found]
                line = replace(line, low=[1.0, *low], high=[1.0, *high])
            lines.append(line)
    strongest = lines[-1]
    pairs = ", ".join(
        f"{y:.3f} at {x:g}" for x, y in zip(strongest.x, strongest.y, strict=True) if x > 0
    )
    return Chart(
        title=f"{explanation.name}: P@{audit.k}",
        description=(
            f"P@{audit.k} of {explanation.name} against the radius; {strongest.name}: {pairs}."
        ),
        x_label=f"{norm_of(audit)} radius",
        y_label=f"P@{audit.k}",
        lines=lines,
        x_ticks=radii,
    )


def _estimate(values: tuple[float, ...]) -> Estimate:
    """Return the mean P@k, which lies in [0, 1], with its interval."""
    return estimate(torch.tensor(values), bounds=(0, 1))


def _estimates(audit: AuditNumbers, explanation: AuditedExplanation, attack: str) -> list[Estimate]:
    """Return the mean P@k under an attack at every radius; nothing for an attack not made."""
    trials = [explanation.trial(attack, radius) for radius in audit.radii]
    return [_estimate(t.precision) for t in trials if t is not None]


def _proven(audit: AuditNumbers, explanation: AuditedExplanation) -> list[float]:
    """Return the share of the rows whose top k provably stays, at every radius."""
    certified = explanation.certified or ()
    return [sum(c >= radius for c in certified) / audit.n_rows for radius in audit.radii]


def features(audit: AuditNumbers) -> Section:
    """Return the section on the features that stay in the top sets."""
    return Section(
        "Stable features",
        [_features_of(audit, e) for e in audit.explanations],
        f"The number of rows that have a feature in their top {audit.k}, and that still have it "
        f"there after all attacks together within {audit.radius:g}.",
    )


def _features_of(audit: AuditNumbers, explanation: AuditedExplanation) -> Table:
    pairs = list(_tops(explanation))
    before = Counter(i for top, _ in pairs for i in top)
    kept = Counter(i for top, after in pairs for i in set(top) & set(after))
    gained = Counter(i for top, after in pairs for i in set(after) - set(top))
    shown = [i for i, _ in before.most_common(_MAX_FEATURES)]
    lines: list[Row] = [
        [audit.feature_names[i], _count(before[i]), _count(kept[i]), number(kept[i] / before[i], 2),
         _count(gained[i])]
        for i in shown
    ]  # fmt: skip
    left_out = len(before) - len(shown)
    return Table(
        ["Feature", "In the top set", "Kept", "Share kept", "New in another row"], lines,
        explanation.name,
        note=f"{left_out} further features are in fewer rows." if left_out > 0 else "",
    )  # fmt: skip


def rows(audit: AuditNumbers) -> Section:
    """Return the section on the rows that lost most."""
    return Section(
        "The rows that lost most",
        [_rows_of(audit, e) for e in audit.explanations],
        "Rows are counted from 0, in the order in which they were given.",
    )


def _rows_of(audit: AuditNumbers, explanation: AuditedExplanation) -> Table:
    precision = explanation.worst.precision
    order = sorted(
        (p, i) for i, p in enumerate(precision) if p < 1 and explanation.top_after[i]
    )[:_MAX_ROWS]  # fmt: skip
    measures = explanation.measures
    lines: list[Row] = []
    for p, i in order:
        before, after = set(explanation.top_before[i]), set(explanation.top_after[i])
        lines.append(
            [Cell(str(i), i), number(p), _names(audit, before - after),
             _names(audit, after - before), *(number(values[i]) for values in measures.values())]
        )  # fmt: skip
    titles = [ROW_MEASURES[name].title if name in ROW_MEASURES else name for name in measures]
    return Table(
        ["Row", f"P@{audit.k}", "Lost", "In their place", *titles], lines, explanation.name,
        note="" if lines else "No row lost a feature.",
    )  # fmt: skip


def _names(audit: AuditNumbers, chosen: set[int]) -> str:
    return ", ".join(audit.feature_names[i] for i in sorted(chosen))


def _tops(explanation: AuditedExplanation) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for before, after in zip(explanation.top_before, explanation.top_after, strict=True):
        if before and after:
            yield before, after
