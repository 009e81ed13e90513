"""The verdict on one explanation."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from captum_robust.auditing.numbers import (
    NOISE_FLOOR,
    OVER_SEEDS,
    AuditedExplanation,
    AuditNumbers,
)
from captum_robust.robust.flags import flag_called

__all__ = ["Status", "Verdict", "norm_of", "verdict"]

Status = Literal["not stable", "no change found", "proven stable", "undecided", "no value"]


class Verdict(NamedTuple):
    """What can be said of an explanation.

    Attributes:
        status: ``"not stable"``: rows lost features of their top k; ``"no change found"``: none
            did, under all attacks; ``"proven stable"``: none can; ``"undecided"``: none did, but
            there is a warning about the attacks, or a row has no value; ``"no value"``: no row has
            a top k.
        text: the verdict in a sentence, without the status.
        details: further sentences.
        n_rows: number of rows that have a value.
        n_lost: number of rows that lost features of their top k.
        n_proven: number of rows whose top k provably stays.
    """

    status: Status
    text: str
    details: tuple[str, ...]
    n_rows: int
    n_lost: int
    n_proven: int

    @property
    def sentence(self) -> str:
        """The status and the text."""
        return f"{self.status.capitalize()}: {self.text}"


def verdict(audit: AuditNumbers, explanation: AuditedExplanation) -> Verdict:
    """Return the verdict on an explanation at the largest radius."""
    precision = explanation.worst.precision
    scored = [p for p in precision if not math.isnan(p)]
    lost = sum(p < 1 for p in scored)
    proven = sum(c >= audit.radius for c in explanation.certified or ())
    ball = f"within an {norm_of(audit)} radius of {audit.radius:g}"
    top = f"top {audit.k}"
    warnings = [flag_called(flag) for flag in explanation.worst.flags]
    reasons = [warning.title for warning in warnings if warning.decisive]
    status: Status
    if not scored:
        status = "no value"
        text = f"none of the {audit.n_rows} rows has a {top} that could be attacked."
    elif lost:
        status = "not stable"
        kept = audit.k * math.fsum(scored) / len(scored)
        text = (
            f"{ball}, {_fraction(lost, len(scored))} lose features of their {top} while the "
            f"prediction stays the same; on average {kept:.1f} of {audit.k} features remain."
        )
    elif proven == len(scored) == audit.n_rows:
        status = "proven stable"
        text = (
            f"{ball}, no perturbation changes the {top} in {_fraction(proven, audit.n_rows)}, "
            "however strong the attack."
        )
    elif reasons or len(scored) < audit.n_rows:
        status = "undecided"
        without = [f"{audit.n_rows - len(scored)} of {audit.n_rows} rows have no value"]
        text = (
            f"{ball}, no attack changes the {top} in {_fraction(len(scored), audit.n_rows)}, but "
            f"this proves little. {'. '.join(reasons or without)}."
        )
    else:
        status = "no change found"
        text = (
            f"{ball}, no attack changes the {top} in {_fraction(len(scored), audit.n_rows)}; a "
            "stronger attack may."
        )
    details = tuple(_details(audit, explanation, status, len(scored) - lost, proven))
    return Verdict(status, text, details, len(scored), lost, proven)


def _details(
    audit: AuditNumbers,
    explanation: AuditedExplanation,
    status: Status,
    unchanged: int,
    proven: int,
) -> list[str]:
    found = []
    floor = explanation.trial(NOISE_FLOOR, audit.radius)
    if floor is not None:
        over_seeds = explanation.worst.values.get(OVER_SEEDS, ())
        found.append(
            f"The attribution is random: without an attack, two seeds have P@{audit.k} "
            f"{_mean(floor.precision)}. Under attack it is {_mean(explanation.worst.precision)} at "
            f"the seed of the attack and {_mean(over_seeds)} on average over other seeds."
        )
    if status == "not stable" and unchanged:
        found.append(f"No change found in {_fraction(unchanged, audit.n_rows)}.")
    if explanation.certified is None:
        found.append(f"Nothing is proven: {explanation.not_certified}.")
    elif status == "proven stable":
        found.append("The proof is about the attribution as float64 evaluates it.")
    else:
        found.append(
            f"Proven stable: {_fraction(proven, audit.n_rows)}, as float64 evaluates the "
            "attribution."
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
            f"{_rows_have(tied)} no top {audit.k}: feature {audit.k} ties with the next, and "
            "which of them counts is a convention."
        )
    without = sum(map(math.isnan, explanation.worst.precision)) - tied
    if without:
        found.append(
            f"{_rows_have(without)} no value: an input, an output or the attribution is not "
            "finite, or the attribution is constant."
        )
    return found


def norm_of(audit: AuditNumbers) -> str:
    """Return the norm as it is written in texts."""
    return "L∞" if audit.norm == "Linf" else audit.norm


def _mean(values: Sequence[float]) -> str:
    known = [v for v in values if not math.isnan(v)]
    return f"{math.fsum(known) / len(known):.2f}" if known else "unknown"


def _fraction(count: int, n_rows: int) -> str:
    return f"{count} of {n_rows} rows ({100 * count / n_rows:.0f} %)"


def _rows_have(count: int) -> str:
    return "1 row has" if count == 1 else f"{count} rows have"
