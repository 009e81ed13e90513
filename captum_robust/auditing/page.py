"""The report of an audit."""

from captum_robust._html.blocks import Code, Facts, Finding, Note, Notes, Page, Section, Tone
from captum_robust.auditing.numbers import (
    NOISE_FLOOR,
    OWN_GRADIENT,
    AuditedExplanation,
    AuditNumbers,
)
from captum_robust.auditing.tables import by_radius, features, rows, tried
from captum_robust.auditing.verdict import Status, norm_of, verdict
from captum_robust.robust.flags import flag_called

__all__ = ["audit_page"]

_TONES: dict[Status, Tone] = {
    "not stable": "alarm", "no change found": "info", "proven stable": "success",
    "undecided": "caution", "no value": "quiet",
}  # fmt: skip


def audit_page(audit: AuditNumbers) -> Page:
    """Return the page of an audit: verdicts, numbers, charts, warnings, settings."""
    return Page(
        kind=", ".join(filter(None, ["Audit of explanations", audit.date])),
        title=audit.model,
        lead=(
            f"{audit.n_rows} rows; the top {audit.k} of {audit.n_features} features; perturbations "
            f"within an {norm_of(audit)} radius of {audit.radius:g} that keep the prediction."
            f"{_accuracy(audit)}"
        ),
        findings=[_finding(audit, e) for e in audit.explanations],
        sections=[
            tried(audit),
            by_radius(audit),
            features(audit),
            rows(audit),
            _warnings(audit),
            _glossary(audit),
            _reproduction(audit),
        ],
    )


def _finding(audit: AuditNumbers, explanation: AuditedExplanation) -> Finding:
    found = verdict(audit, explanation)
    text = found.text[:1].upper() + found.text[1:]
    return Finding(
        _TONES[found.status], explanation.name, found.status.capitalize(), text, found.details
    )


def _accuracy(audit: AuditNumbers) -> str:
    if audit.accuracy is not None:
        return f" Accuracy on these rows: {audit.accuracy:.3f}."
    if audit.agreement is not None:
        return f" The predicted class is the given one in {audit.agreement:.1%} of the rows."
    return ""


def _warnings(audit: AuditNumbers) -> Section:
    notes = [Note(title, text) for title, text in audit.caveats.items()]
    raised: dict[str, list[str]] = {}
    for e in audit.explanations:
        for flag, count in _flags(e).items():
            raised.setdefault(flag, []).append(f"{e.name} {count}")
    for flag, counts in raised.items():
        found = flag_called(flag)
        notes.append(
            Note(f"{found.title} ({', '.join(counts)} of {audit.n_rows} rows)", found.text)
        )
    for e in audit.explanations:
        if e.not_attacked:
            notes.append(
                Note(
                    f"The published attack was left out ({e.name})",
                    f"{e.not_attacked}: all attacks together used simultaneous perturbation, "
                    "random search, and where possible finite differences or the gradient of "
                    "another attribution.",
                )
            )
    lead = (
        "A number with a warning is not wrong, but it proves less than it seems to."
        if notes
        else "There are no warnings. An attack that finds nothing still proves nothing."
    )
    return Section("Warnings", [Notes(notes)] if notes else [], lead)


def _flags(explanation: AuditedExplanation) -> dict[str, int]:
    """Return the flags of all attacks together, with the zero gradients of the published attack.

    All attacks together do not follow the gradient of a row that is already lost.
    """
    found = dict(explanation.worst.flags)
    published = explanation.trial(OWN_GRADIENT, explanation.worst.radius)
    if published is not None and "zero_gradient" in published.flags:
        found["zero_gradient"] = published.flags["zero_gradient"]
    return found


def _glossary(audit: AuditNumbers) -> Section:
    notes = [
        Note(
            "The question",
            f"Can a perturbation of at most {audit.radius:g} remove features from the top "
            f"{audit.k} of a row's explanation without changing its prediction? The radius is in "
            "units of the inputs, and is only as meaningful as their scale.",
        ),
        Note(
            "Random noise",
            "One draw of uniform noise in the ball, as a baseline. In many dimensions noise rarely "
            "finds the worst perturbation, so an explanation that survives it may not be stable. "
            "Rows whose prediction it changes have no value; the table counts them.",
        ),
        Note(
            "The published attack",
            "ERAttack as published, along the gradient of the attribution. In networks of the ReLU "
            "family the second derivative is zero, so the attack does not move, and its result "
            "looks like stability.",
        ),
        Note(
            "All attacks together",
            "AutoERAttack: several objectives, gradients of smoothed networks, finite differences, "
            "restarts and random search; the worst result for each row. A change that it finds is "
            "real. A change that it does not find may still exist.",
        ),
        *_note_on_seeds(audit),
        Note(
            "Proven",
            f"The top {audit.k} of the row provably stays the same within the radius, whatever the "
            "attack and whatever the prediction; as float64 evaluates the attribution.",
        ),
        Note(
            "Rows",
            f"All numbers are about the {audit.n_rows} rows that were given. Rows that were not "
            "drawn at random say nothing about other rows.",
        ),
    ]
    return Section("How to read this report", [Notes(notes)])


def _note_on_seeds(audit: AuditNumbers) -> list[Note]:
    """Return the note on random attributions, where there are any."""
    if all(e.trial(NOISE_FLOOR, audit.radius) is None for e in audit.explanations):
        return []
    text = (
        f"A random attribution is attacked at one seed, so that only the inputs differ. The noise "
        f"floor is the P@{audit.k} of two other seeds at the same row, without an attack. An "
        "attack that leaves a P@k near the noise floor changes the attribution no more than "
        "another seed does. The mean over seeds explains the rows found with four other seeds."
    )
    return [Note("No attack, other seeds", text)]


def _reproduction(audit: AuditNumbers) -> Section:
    explained = [(f"Explanation “{e.name}”", e.arguments) for e in audit.explanations]
    facts = [*audit.settings.items(), *explained, *audit.versions.items()]
    if audit.agreement is not None:
        facts.append(("Predicted is the given class", f"{audit.agreement:.1%} of the rows"))
    return Section(
        "How to reproduce the numbers",
        [Code(audit.command, "Run"), Facts(facts)],
        "The same call on the same model and data with these versions gives the same report.",
    )
