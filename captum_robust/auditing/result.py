"""The result of an audit, its report, and the file that keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captum_robust._html.page import write_page
from captum_robust._utils.files import write_text
from captum_robust.auditing.encoding import decode, encode
from captum_robust.auditing.numbers import AuditNumbers
from captum_robust.auditing.page import audit_page
from captum_robust.auditing.verdict import verdict
from captum_robust.robust.evaluation.robustness_table import PREDICTION_CHANGED

__all__ = ["FILE", "Audit", "AuditError"]

FILE = "audit.json"

_FORMAT = "captum_robust audit 2"
_OLD_FORMAT = "captum_robust audit 1"


class AuditError(Exception):
    """A file that holds no audit; the message gives the reason in one line."""


@dataclass(frozen=True)
class Audit(AuditNumbers):
    """The results of attacks and proofs on the explanations of one model.

    Print it for the verdicts; :meth:`to_html` writes the report, :meth:`save` the report and the
    numbers.

    Attributes:
        model (str): its name.
        n_rows (int): number of examples.
        n_features (int): number of features, or groups of features, that are ranked.
        k (int): size of the top set.
        radii (tuple[float, ...]): radii of the balls, ascending, in units of the inputs.
        norm (str): norm of the balls, ``"Linf"`` or ``"L2"``.
        explanations (tuple[AuditedExplanation, ...]): one per attribution.
        feature_names (tuple[str, ...]): one per feature.
        agreement (float, optional): fraction of the rows whose predicted class is the explained
            one.
        accuracy (float, optional): fraction of the rows whose predicted class is the label.
        caveats (dict[str, str]): caveats about the audit as a whole, by their titles.
        settings (dict[str, str]): the arguments and the choices of the audit.
        versions (dict[str, str]): versions of the software.
        command (str): command or call that repeats the audit.
        date (str): day of the audit.
    """

    def __str__(self) -> str:
        return "\n".join(f"{e.name}: {verdict(self, e).sentence}" for e in self.explanations)

    def __repr__(self) -> str:
        return f"<Audit of {self.model}>\n{self}"

    def to_html(self, path: str | Path) -> None:
        """Write the report as one HTML file, completely or not at all; needs jinja2."""
        write_page(audit_page(self), Path(path))

    def to_json(self) -> str:
        """Return the results as JSON, with NaN as null."""
        return json.dumps({"format": _FORMAT, **encode(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Audit:
        """Read what :meth:`to_json` wrote.

        Raises:
            AuditError: for another text.
        """
        try:
            found = json.loads(text)
            written = found.pop("format", None)
            if written == _OLD_FORMAT:
                _update(found)
            elif written != _FORMAT:
                raise AuditError(f"no {_FORMAT!r}")
            if not found["explanations"]:
                raise AuditError("no explanations")
            audit: Audit = decode(cls, found)
            return audit
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AuditError(f"not an audit: {type(error).__name__} {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write ``audit.json`` and ``audit.html`` into a folder, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / FILE, self.to_json() + "\n")
        self.to_html(folder / "audit.html")

    @classmethod
    def load(cls, folder: str | Path) -> Audit:
        """Read what :meth:`save` wrote.

        Raises:
            AuditError: for a folder without an audit, or a damaged one.
        """
        path = Path(folder) / FILE
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (AuditError, UnicodeDecodeError) as error:
            raise AuditError(f"{path} is damaged: {error}") from error
        except OSError as error:
            raise AuditError(f"{path} cannot be read: {error.strerror}") from error


def _update(found: dict[str, Any]) -> None:
    """Convert an audit of the old format, with other names and without dicts of metrics."""
    found["caveats"] = found.pop("doubts")
    for explanation in found["explanations"]:
        explanation["measures"] = {"thickness": explanation.pop("thickness")}
        for trial in explanation["trials"]:
            trial["values"] = {
                "precision": trial.pop("precision"), PREDICTION_CHANGED: trial.pop("changed"),
            }  # fmt: skip
