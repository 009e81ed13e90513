"""Audits of made-up numbers, for every case of a verdict; no attack is run."""

import math
from dataclasses import replace
from typing import Any

from captum_robust.auditing import Audit, AuditedExplanation, Trial

#: What would be a tag, an attribute, a script, an entity and a template, were it not escaped.
HOSTILE = "<script>alert(1)</script>\"'>&amp;{{ 7*7 }}</style><!--"

N_ROWS = 6
K = 2
RADII = (0.05, 0.1)
NAN = math.nan


def trial(attack: str, radius: float, *precision: float, **flags: int) -> Trial:
    """One attack; the prediction of none of the rows has changed."""
    changed = tuple(NAN if math.isnan(p) else 0.0 for p in precision)
    values = {"precision": tuple(map(float, precision)), "prediction changed": changed}
    return Trial(attack, radius, values, flags)


def explanation(
    *precision: float, flags: dict[str, int] | None = None, **changed: Any
) -> AuditedExplanation:
    """An explanation of which each row keeps so much under all attacks at the largest radius."""
    n = len(precision)
    whole = tuple(NAN if math.isnan(p) else 1.0 for p in precision)
    found = AuditedExplanation(
        name="saliency",
        arguments="Saliency",
        trials=tuple(
            t
            for radius in RADII
            for t in (
                trial("noise", radius, *whole),
                trial("own gradient", radius, *whole, zero_gradient=n),
                trial("ensemble", radius, *precision, **(flags or {})),
            )
        ),
        tied=(False,) * n,
        measures={"thickness": tuple(p / 2 + 0.5 for p in precision)},
        certified=None,
        not_certified="no bound is known for Made",
        not_attacked="",
        top_before=tuple(() if math.isnan(p) else (0, 1) for p in precision),
        top_after=tuple(() if math.isnan(p) else (0, 1 if p == 1 else 2) for p in precision),
    )
    return replace(found, **changed)


def audit(*explanations: AuditedExplanation, **changed: Any) -> Audit:
    """An audit of these explanations."""
    n_rows = len(explanations[0].tied)
    found = Audit(
        model="Made",
        n_rows=n_rows,
        n_features=4,
        k=K,
        radii=RADII,
        norm="Linf",
        explanations=explanations,
        feature_names=("age", "hours", "height", "sex"),
        agreement=0.75,
        settings={"Seed": "0"},
        versions={"torch": "2.0"},
        command="captum_robust.audit(model, inputs)",
        date="2026-01-02",
    )
    return replace(found, **changed)


def hostile() -> Audit:
    """Every text that comes from outside is hostile."""
    one = explanation(
        1, 1, 0.5, 0.5, 0, NAN, flags={HOSTILE: 3, "tied_reference": 2}, name=HOSTILE,
        arguments=HOSTILE, not_certified=HOSTILE, not_attacked=HOSTILE,
    )  # fmt: skip
    return audit(
        one, replace(one, name=f"second {HOSTILE}", certified=(0.1,) * 6), model=HOSTILE,
        feature_names=tuple(f"{i} {HOSTILE}" for i in range(4)), caveats={HOSTILE: HOSTILE},
        settings={HOSTILE: HOSTILE}, versions={HOSTILE: HOSTILE}, command=HOSTILE, date=HOSTILE,
    )  # fmt: skip
