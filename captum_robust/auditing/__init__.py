"""The audit of the explanations of your own model on your own data, with a report."""

from captum_robust.auditing.explanations import ATTRIBUTIONS
from captum_robust.auditing.numbers import AuditedExplanation, Trial
from captum_robust.auditing.result import Audit, AuditError
from captum_robust.auditing.run import audit
from captum_robust.auditing.verdict import Verdict, verdict

__all__ = [
    "ATTRIBUTIONS",
    "Audit",
    "AuditError",
    "AuditedExplanation",
    "Trial",
    "Verdict",
    "audit",
    "verdict",
]
