"""A user's own model and data: do its explanations hold, and why might the answer be wrong?"""

from captum_robust.auditing.attributions import ATTRIBUTIONS
from captum_robust.auditing.result import Audit, AuditedExplanation, AuditError, Trial
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
