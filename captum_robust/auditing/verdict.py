"""The verdict on one explanation, in one sentence."""

import math
from typing import Literal, NamedTuple

from captum_robust.auditing.result import Audit, AuditedExplanation

__all__ = ["DECISIVE", "Status", "Verdict", "verdict"]

Status = Literal["broken", "held", "proven", "undecided", "no value"]

#: Flags under which an attack that finds nothing proves nothing.
DECISIVE = {
    "zero_gradient": "the gradient is zero",
    "non_finite_gradient": "gradients were not finite",
    "training_mode": "the model is in training mode",
    "randomised": "the map depends on chance",
    "float16_underflow": "the values are too small for half precision",
    "label_flips_rejected": "worse maps were found under another prediction",
    "not_attacked": "the budget allowed no attack",
    "unconstrained_attack_fails": "not even ten times the radius changes it",
    "outside_ball": "the attack left the ball",
}


class Verdict(NamedTuple):
    """What can be said of an explanation.

    Attributes:
        status: ``"broken"``: rows lost some of their top k features; ``"held"``: none did, under
            everything tried; ``"proven"``: none can; ``"undecided"``: none did, but there is reason
            to doubt the attempt, or rows without a value; ``"no value"``: no row has a top k.
        sentence: the verdict.
        details: what else must be said, a sentence each.
        n_rows: rows that have a value.
        n_lost: rows that lost any of their top k.
        n_proven: rows whose top k provably stays.
    """

    status: Status
    sentence: str
    details: tuple[str, ...]
    n_rows: int
    n_lost: int
    n_proven: int


def verdict(audit: Audit, explanation: AuditedExplanation) -> Verdict:
    """The verdict on an explanation at the largest radius."""
    precision = explanation.worst.precision
    scored = [p for p in precision if not math.isnan(p)]
    lost = sum(p < 1 for p in scored)
    certified = explanation.certified or ()
    proven = sum(c >= audit.radius for c in certified)
    ball = f"an {_norm(audit.norm)} radius of {audit.radius:g}"
    top = f"top {audit.k}"
    rows = _of(len(scored), audit.n_rows)
    doubts = [why for flag, why in DECISIVE.items() if flag in explanation.worst.flags]
    status: Status
    if not scored:
        status = "no value"
        sentence = f"No value: none of the {audit.n_rows} rows has a {top} that could be attacked."
    elif lost:
        status = "broken"
        kept = audit.k * math.fsum(scored) / len(scored)
        sentence = (
            f"Broken: within {ball}, {lost} of {len(scored)} rows lose features of their {top} "
            f"while the prediction stays; on average {kept:.1f} of {audit.k} remain."
        )
    elif proven == len(scored) == audit.n_rows:
        status = "proven"
        sentence = (
            f"Proven: no perturbation within {ball} changes the {top} of any of {rows}, however "
            "strong the attack."
        )
    elif doubts or len(scored) < audit.n_rows:
        status = "undecided"
        why = doubts or [f"{audit.n_rows - len(scored)} rows have no value"]
        sentence = (
            f"Undecided: nothing that was tried within {ball} takes a feature out of the {top} of "
            f"{rows}, but that proves little: {', '.join(why)}."
        )
    else:
        status = "held"
        sentence = (
            f"Held: nothing that was tried within {ball} takes a feature out of the {top} of any "
            f"of {rows}; a stronger attack may."
        )
    details = tuple(_details(audit, explanation, status, proven))
    return Verdict(status, sentence, details, len(scored), lost, proven)


def _details(
    audit: Audit, explanation: AuditedExplanation, status: Status, proven: int
) -> list[str]:
    found = []
    if explanation.certified is None:
        found.append(f"Nothing is proven: {explanation.not_certified}.")
    elif status == "proven":
        found.append("The proof is about the map as float64 evaluates it.")
    else:
        found.append(
            f"Proven to keep their top {audit.k}: {proven} of {audit.n_rows} rows, as float64 "
            "evaluates the map."
        )
    against = sum(
        c >= audit.radius and p < 1
        for c, p in zip(explanation.certified or (), explanation.worst.precision, strict=False)
    )
    if against:
        found.append(
            f"The proof and the attack contradict each other in {against} of the rows: their "
            "features differ by less than the rounding of the model."
        )
    tied = sum(explanation.tied)
    if tied:
        found.append(
            f"{_rows(tied)} no top {audit.k}: feature {audit.k} ties with the next, and which of "
            "them counts is a convention."
        )
    without = sum(map(math.isnan, explanation.worst.precision)) - tied
    if without:
        found.append(
            f"{_rows(without)} no value: an input, an output or the map is not finite, or the map "
            "is constant."
        )
    return found


def _rows(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"


def _of(count: int, n_rows: int) -> str:
    return f"{count} rows" if count == n_rows else f"the {count} rows that have one, of {n_rows},"


def _norm(norm: str) -> str:
    return "L∞" if norm == "Linf" else norm
