"""The report of an audit."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import torch

from captum_robust._html.blocks import (
    Cell,
    Charts,
    Code,
    Column,
    Facts,
    Finding,
    Note,
    Notes,
    Page,
    Section,
    Table,
    number,
)
from captum_robust._html.charts import Chart, Line
from captum_robust._utils.estimate import Estimate, estimate
from captum_robust.auditing.flag_notes import flag_note
from captum_robust.auditing.result import (
    ENSEMBLE,
    NOISE,
    OWN_GRADIENT,
    Audit,
    AuditedExplanation,
    Trial,
)
from captum_robust.auditing.verdict import verdict

__all__ = ["audit_page"]

_ATTACKS = {NOISE: "random draw", OWN_GRADIENT: "own gradient", ENSEMBLE: "ensemble"}
_STYLES = {NOISE: "noise", OWN_GRADIENT: "own", ENSEMBLE: "ensemble"}
_MOST_FEATURES = 20
_MOST_ROWS = 10


def audit_page(audit: Audit) -> Page:
    """The page of an audit: verdicts, numbers, figures, doubts, settings."""
    return Page(
        kind=", ".join(filter(None, ["Audit of explanations", audit.date])),
        title=audit.model,
        lead=(
            f"{audit.n_rows} rows; the top {audit.k} of {audit.n_features} features; perturbations "
            f"within an {_norm(audit)} radius of {audit.radius:g} that leave the prediction as it "
            f"is.{_accuracy(audit)}"
        ),
        findings=[_finding(audit, e) for e in audit.explanations],
        sections=[
            _tried(audit),
            _by_radius(audit),
            _features(audit),
            _rows(audit),
            _doubts(audit),
            _meaning(audit),
            _reproduction(audit),
        ],
    )


def _finding(audit: Audit, explanation: AuditedExplanation) -> Finding:
    found = verdict(audit, explanation)
    word, _, rest = found.sentence.partition(": ")
    return Finding(
        found.status.replace(" ", "-"), explanation.name, word, rest[:1].upper() + rest[1:],
        found.details,
    )  # fmt: skip


def _accuracy(audit: Audit) -> str:
    said = ""
    if audit.accuracy is not None:
        said += f" Accuracy on these rows: {audit.accuracy:.3f}."
    elif audit.agreement is not None:
        said += f" The predicted class is the given one in {audit.agreement:.1%} of the rows."
    return said


def _tried(audit: Audit) -> Section:
    rows = []
    for e in audit.explanations:
        for attack, title in _ATTACKS.items():
            trial = e.trial(attack, audit.radius)
            if trial is not None:
                rows.append([Cell(e.name), Cell(title), *_numbers(audit, trial)])
    columns = [
        Column("Explanation"), Column("Attack"), Column("Rows that lost", True),
        Column(f"P@{audit.k}", True), Column("95 % interval", True),
        Column("Prediction changed", True), Column("No value", True),
    ]  # fmt: skip
    thickness = "; ".join(f"{e.name} {_mean(e.thickness)}" for e in audit.explanations)
    return Section(
        "What was tried",
        [
            Table(
                f"Within an {_norm(audit)} radius of {audit.radius:g}", columns, rows,
                "Ranking thickness, the share of the ball in which the order of a top and a "
                f"lower feature holds on average: {thickness}.",
            )
        ],
    )  # fmt: skip


def _numbers(audit: Audit, trial: Trial) -> list[Cell]:
    found = estimate(torch.tensor(trial.precision))
    known = audit.n_rows - found.n_nan
    lost = sum(p < 1 for p in trial.precision)
    changed = [c for c in trial.changed if not math.isnan(c)]
    interval = f"{found.low:.3f}–{found.high:.3f}"
    return [
        Cell(f"{lost} of {known}", lost / known if known else math.nan),
        number(found.mean),
        Cell("–", math.nan) if math.isnan(found.low) else Cell(interval, found.low),
        Cell(str(int(sum(changed))), sum(changed)),
        Cell(str(found.n_nan), found.n_nan),
    ]


def _by_radius(audit: Audit) -> Section:
    charts = [_chart(audit, e) for e in audit.explanations]
    rows = []
    for e in audit.explanations:
        for attack, title in _ATTACKS.items():
            found = _means(audit, e, attack)
            if found:
                rows.append([Cell(e.name), Cell(title), *map(number, found)])
        if e.certified is not None:
            rows.append([Cell(e.name), Cell("proven"), *map(number, _proven(audit, e))])
    columns = [Column("Explanation"), Column("Attack")]
    columns += [Column(f"{radius:g}", True) for radius in audit.radii]
    lead = f"P@{audit.k}: the share of the top {audit.k} features that stay, mean over the rows."
    note = "The truth lies below the ensemble, which is what was found"
    if any(e.certified is not None for e in audit.explanations):
        note += f", and above what is proven: the rows whose whole top {audit.k} provably stays"
    note += ". The band is the 95 % confidence interval of the mean over rows like these."
    return Section(
        "By radius", [Charts(charts, note), Table(f"P@{audit.k} by radius", columns, rows)], lead
    )


def _chart(audit: Audit, explanation: AuditedExplanation) -> Chart:
    radii = [0.0, *audit.radii]
    lines = []
    if explanation.certified is not None:
        lines.append(Line("proven", "certified", radii, [1.0, *_proven(audit, explanation)]))
    for attack, title in _ATTACKS.items():
        found = _estimates(audit, explanation, attack)
        if found:
            line = Line(title, _STYLES[attack], radii, [1.0, *(f.mean for f in found)])
            if attack == ENSEMBLE:
                low, high = [f.low for f in found], [f.high for f in found]
                line = replace(line, low=[1.0, *low], high=[1.0, *high])
            lines.append(line)
    ensemble = lines[-1]
    pairs = ", ".join(
        f"{y:.3f} at {x:g}" for x, y in zip(ensemble.x, ensemble.y, strict=True) if x > 0
    )
    return Chart(
        title=f"{explanation.name}: P@{audit.k}",
        description=f"P@{audit.k} of {explanation.name} against the radius; ensemble: {pairs}.",
        x_label=f"{_norm(audit)} radius",
        y_label=f"P@{audit.k}",
        lines=lines,
        x_ticks=radii,
    )


def _estimates(audit: Audit, explanation: AuditedExplanation, attack: str) -> list[Estimate]:
    """Mean P@k under an attack at every radius; nothing where it was not made."""
    trials = [explanation.trial(attack, radius) for radius in audit.radii]
    return [estimate(torch.tensor(t.precision)) for t in trials if t is not None]


def _means(audit: Audit, explanation: AuditedExplanation, attack: str) -> list[float]:
    return [found.mean for found in _estimates(audit, explanation, attack)]


def _proven(audit: Audit, explanation: AuditedExplanation) -> list[float]:
    """Share of the rows whose top k provably stays, at every radius."""
    certified = explanation.certified or ()
    return [sum(c >= radius for c in certified) / audit.n_rows for radius in audit.radii]


def _features(audit: Audit) -> Section:
    return Section(
        "Which features hold",
        [_features_of(audit, e) for e in audit.explanations],
        f"How often a feature stands in the top {audit.k} of a row, and how often it still does "
        f"after the ensemble within {audit.radius:g}.",
    )


def _features_of(audit: Audit, explanation: AuditedExplanation) -> Table:
    pairs = list(_tops(explanation))
    before = Counter(i for top, _ in pairs for i in top)
    kept = Counter(i for top, after in pairs for i in set(top) & set(after))
    gained = Counter(i for top, after in pairs for i in set(after) - set(top))
    shown = [i for i, _ in before.most_common(_MOST_FEATURES)]
    rows = [
        [
            Cell(audit.feature_names[i]), Cell(str(before[i]), before[i]),
            Cell(str(kept[i]), kept[i]), number(kept[i] / before[i], 2),
            Cell(str(gained[i]), gained[i]),
        ]
        for i in shown
    ]  # fmt: skip
    columns = [
        Column("Feature"), Column("In the top set", True), Column("Kept", True),
        Column("Share kept", True), Column("New in another row", True),
    ]  # fmt: skip
    left_out = len(before) - len(shown)
    note = f"{left_out} further features stand in fewer rows." if left_out > 0 else ""
    return Table(explanation.name, columns, rows, note)


def _rows(audit: Audit) -> Section:
    return Section(
        "The rows that lost most",
        [_rows_of(audit, e) for e in audit.explanations],
        "Rows are counted from 0, in the order in which they were given.",
    )


def _rows_of(audit: Audit, explanation: AuditedExplanation) -> Table:
    precision = explanation.worst.precision
    order = sorted(
        (p, i) for i, p in enumerate(precision) if p < 1 and explanation.top_after[i]
    )[:_MOST_ROWS]  # fmt: skip
    rows = []
    for p, i in order:
        before, after = set(explanation.top_before[i]), set(explanation.top_after[i])
        rows.append(
            [
                Cell(str(i), i), number(p), Cell(_list(audit, before - after)),
                Cell(_list(audit, after - before)), number(explanation.thickness[i]),
            ]
        )  # fmt: skip
    columns = [
        Column("Row", True), Column(f"P@{audit.k}", True), Column("Lost"), Column("In their place"),
        Column("Thickness", True),
    ]  # fmt: skip
    return Table(explanation.name, columns, rows, "" if rows else "No row lost a feature.")


def _list(audit: Audit, features: set[int]) -> str:
    return ", ".join(audit.feature_names[i] for i in sorted(features))


def _tops(explanation: AuditedExplanation) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    for before, after in zip(explanation.top_before, explanation.top_after, strict=True):
        if before and after:
            yield before, after


def _doubts(audit: Audit) -> Section:
    notes = [Note(title, text) for title, text in audit.doubts.items()]
    raised: dict[str, list[str]] = {}
    for e in audit.explanations:
        for flag, count in _flags(e).items():
            raised.setdefault(flag, []).append(f"{e.name} {count}")
    for flag, counts in raised.items():
        notes.append(flag_note(flag, f"{', '.join(counts)} of {audit.n_rows} rows"))
    for e in audit.explanations:
        if e.not_attacked:
            notes.append(
                Note(
                    f"The own gradient was not followed ({e.name})",
                    f"{e.not_attacked}: the ensemble used that of a stand-in, simultaneous "
                    "perturbation and random search.",
                )
            )
    lead = (
        "A number with a flag is not wrong, but it says less than it seems."
        if notes
        else "No flag was raised. An attack that finds nothing still proves nothing."
    )
    return Section("Why to doubt this", [Notes(notes)] if notes else [], lead)


def _flags(explanation: AuditedExplanation) -> dict[str, int]:
    """Those of the ensemble; it does not follow the own gradient where a row is lost already."""
    found = dict(explanation.worst.flags)
    own = explanation.trial(OWN_GRADIENT, explanation.worst.radius)
    if own is not None and "zero_gradient" in own.flags:
        found["zero_gradient"] = own.flags["zero_gradient"]
    return found


def _meaning(audit: Audit) -> Section:
    notes = [
        Note(
            "What was asked",
            f"Can a perturbation of at most {audit.radius:g} take features out of the top "
            f"{audit.k} of a row's explanation without changing its prediction? The radius is in "
            "units of the inputs, and is only as meaningful as their scale.",
        ),
        Note(
            "Random draw",
            "Uniform noise in the ball: the baseline. In many dimensions chance does not find the "
            "worst, so surviving noise says little.",
        ),
        Note(
            "Own gradient",
            "ERAttack as published, along the gradient of the map itself. Networks of the ReLU "
            "family have none, and it then reports stability that is not there.",
        ),
        Note(
            "Ensemble",
            "AutoERAttack: several objectives, gradients of smoothed stand-ins, finite "
            "differences, restarts and random search; the worst for each row. What it finds is "
            "there. What it does not find may be there all the same.",
        ),
        Note(
            "Proven",
            f"The top {audit.k} of the row provably stays within the radius, whatever the attack "
            "and whatever the prediction; as float64 evaluates the map.",
        ),
        Note(
            "These rows",
            f"All numbers are about the {audit.n_rows} rows that were given. Rows that were not "
            "drawn at random say nothing about others.",
        ),
    ]
    return Section("How to read this", [Notes(notes)])


def _reproduction(audit: Audit) -> Section:
    explained = [(f"Explanation “{e.name}”", e.arguments) for e in audit.explanations]
    facts = [*audit.settings.items(), *explained, *audit.versions.items()]
    if audit.agreement is not None:
        facts.append(("Predicted is the given class", f"{audit.agreement:.1%} of the rows"))
    return Section(
        "How to get the same numbers",
        [Code(audit.command, "Run"), Facts(facts)],
        "The same call on the same model and data with these versions gives the same report.",
    )


def _mean(values: tuple[float, ...]) -> str:
    known = [v for v in values if not math.isnan(v)]
    return f"{math.fsum(known) / len(known):.4f}" if known else "without a value"


def _norm(audit: Audit) -> str:
    return "L∞" if audit.norm == "Linf" else audit.norm
