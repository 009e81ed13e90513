"""What an audit found, and the file that keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from captum_robust._utils.files import write_whole

__all__ = ["FILE", "Audit", "AuditError", "AuditedExplanation", "Trial"]

FILE = "audit.json"

_FORMAT = "captum_robust audit 1"

#: Names of the attacks of an audit, the weakest first.
NOISE, OWN_GRADIENT, ENSEMBLE = "noise", "own gradient", "ensemble"


class AuditError(Exception):
    """A file that holds no audit; the message says why in one line."""


@dataclass(frozen=True)
class Trial:
    """One attack on one explanation at one radius.

    Attributes:
        attack (str): ``"noise"``, one random draw; ``"own gradient"``, :class:`ERAttack` as
            published; ``"ensemble"``, :class:`AutoERAttack`.
        radius (float): radius of the ball.
        precision (tuple[float, ...]): share of the top k that every row kept; NaN where it has no
            top k, or the map could not be ranked.
        changed (tuple[float, ...]): 1 where the predicted class changed, else 0; NaN as above.
        flags (dict[str, int]): reasons to doubt it, in rows.
    """

    attack: str
    radius: float
    precision: tuple[float, ...]
    changed: tuple[float, ...]
    flags: dict[str, int]


@dataclass(frozen=True)
class AuditedExplanation:
    """What was found of one attribution.

    Attributes:
        name (str): its name.
        arguments (str): what it is, and what it was called with.
        trials (tuple[Trial, ...]): attacks by radius, ascending.
        tied (tuple[bool, ...]): rows whose k-th feature ties with the next: they have no top k.
        thickness (tuple[float, ...]): ranking thickness of every row at the largest radius.
        certified (tuple[float, ...], optional): radius within which the top k of every row provably
            stays, at most the largest. None where nothing can be proven.
        not_certified (str): why there is no certificate; empty where there is one.
        not_attacked (str): why its own gradient was not followed; empty where it was.
        top_before (tuple[tuple[int, ...], ...]): the top k features of every row, ascending; empty
            for a row without a top k.
        top_after (tuple[tuple[int, ...], ...]): those after the ensemble at the largest radius.
    """

    name: str
    arguments: str
    trials: tuple[Trial, ...]
    tied: tuple[bool, ...]
    thickness: tuple[float, ...]
    certified: tuple[float, ...] | None
    not_certified: str
    not_attacked: str
    top_before: tuple[tuple[int, ...], ...]
    top_after: tuple[tuple[int, ...], ...]

    def trial(self, attack: str, radius: float) -> Trial | None:
        """The trial of an attack at a radius, if there was one."""
        found = (t for t in self.trials if (t.attack, t.radius) == (attack, radius))
        return next(found, None)

    @property
    def worst(self) -> Trial:
        """The ensemble at the largest radius."""
        return max((t for t in self.trials if t.attack == ENSEMBLE), key=lambda t: t.radius)


@dataclass(frozen=True)
class Audit:
    """What attacks and proofs say about the explanations of one model.

    Print it for the verdicts; :meth:`to_html` writes the report, :meth:`save` the report and the
    numbers.

    Attributes:
        model (str): its name.
        n_rows (int): number of examples.
        n_features (int): number of features, or groups of them, that are ranked.
        k (int): size of the top set.
        radii (tuple[float, ...]): radii of the balls, ascending, in units of the inputs.
        norm (str): norm of the balls, ``"Linf"`` or ``"L2"``.
        explanations (tuple[AuditedExplanation, ...]): one an attribution.
        feature_names (tuple[str, ...]): one a feature.
        agreement (float, optional): share of the rows whose predicted class is the explained one.
        accuracy (float, optional): share of the rows whose predicted class is the label.
        doubts (dict[str, str]): reasons to doubt the audit as a whole, by their titles.
        settings (dict[str, str]): what was asked and chosen.
        versions (dict[str, str]): of the software.
        command (str): what to run for the same audit.
        date (str): day of the audit.
    """

    model: str
    n_rows: int
    n_features: int
    k: int
    radii: tuple[float, ...]
    norm: str
    explanations: tuple[AuditedExplanation, ...]
    feature_names: tuple[str, ...]
    agreement: float | None = None
    accuracy: float | None = None
    doubts: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""

    @property
    def radius(self) -> float:
        """The largest radius, which the verdict is about."""
        return self.radii[-1]

    def __str__(self) -> str:
        from captum_robust.auditing.verdict import verdict

        return "\n".join(f"{e.name}: {verdict(self, e).sentence}" for e in self.explanations)

    def __repr__(self) -> str:
        return f"<Audit of {self.model}>\n{self}"

    def to_html(self, path: str | Path) -> None:
        """Write the report, one file that needs no other, whole or not at all; needs jinja2."""
        from captum_robust._html.page import write_page
        from captum_robust.auditing.page import audit_page

        write_page(audit_page(self), Path(path))

    def to_json(self) -> str:
        """All of it; NaN as null."""
        return json.dumps({"format": _FORMAT, **_plain(asdict(self))}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Audit:
        """Read what :meth:`to_json` wrote.

        Raises:
            AuditError: if the text is something else.
        """
        try:
            found = json.loads(text)
            if not isinstance(found, dict) or found.pop("format", None) != _FORMAT:
                raise AuditError(f"no {_FORMAT!r}")
            _check_names(cls, found)
            if not found["explanations"]:
                raise AuditError("no explanations")
            return cls(
                model=str(found["model"]),
                n_rows=int(found["n_rows"]),
                n_features=int(found["n_features"]),
                k=int(found["k"]),
                radii=tuple(map(float, found["radii"])),
                norm=str(found["norm"]),
                explanations=tuple(map(_explanation, found["explanations"])),
                feature_names=tuple(map(str, found["feature_names"])),
                agreement=_number(found["agreement"]),
                accuracy=_number(found["accuracy"]),
                doubts=_texts(found["doubts"]),
                settings=_texts(found["settings"]),
                versions=_texts(found["versions"]),
                command=str(found["command"]),
                date=str(found["date"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise AuditError(f"not an audit: {type(error).__name__} {error}") from error

    def save(self, folder: str | Path) -> None:
        """Write ``audit.json`` and ``audit.html`` into a folder, which is made if need be."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = self.to_json() + "\n"
        write_whole(folder / FILE, lambda path: _write(path, text))
        self.to_html(folder / "audit.html")

    @classmethod
    def load(cls, folder: str | Path) -> Audit:
        """Read what :meth:`save` wrote.

        Raises:
            AuditError: if the folder holds no audit.
        """
        path = Path(folder) / FILE
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (AuditError, UnicodeDecodeError) as error:
            raise AuditError(f"{path} is damaged: {error}") from error
        except OSError as error:
            raise AuditError(f"{path} cannot be read: {error.strerror}") from error


def _plain(value: Any) -> Any:
    """Numbers, texts, lists and dicts of them; None for NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _explanation(found: dict[str, Any]) -> AuditedExplanation:
    _check_names(AuditedExplanation, found)
    certified = found["certified"]
    return AuditedExplanation(
        name=str(found["name"]),
        arguments=str(found["arguments"]),
        trials=tuple(_trial(t) for t in found["trials"]),
        tied=tuple(map(bool, found["tied"])),
        thickness=_numbers(found["thickness"]),
        certified=None if certified is None else _numbers(certified),
        not_certified=str(found["not_certified"]),
        not_attacked=str(found["not_attacked"]),
        top_before=_sets(found["top_before"]),
        top_after=_sets(found["top_after"]),
    )


def _trial(found: dict[str, Any]) -> Trial:
    _check_names(Trial, found)
    return Trial(
        attack=str(found["attack"]),
        radius=float(found["radius"]),
        precision=_numbers(found["precision"]),
        changed=_numbers(found["changed"]),
        flags={str(name): int(count) for name, count in found["flags"].items()},
    )


def _check_names(kind: type[Any], found: dict[str, Any]) -> None:
    expected = {f.name for f in fields(kind)}
    if set(found) != expected:
        raise ValueError(f"{kind.__name__} with {sorted(set(found) ^ expected)}")


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _texts(found: dict[str, str]) -> dict[str, str]:
    return {str(name): str(text) for name, text in found.items()}


def _numbers(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(math.nan if v is None else float(v) for v in values)


def _sets(rows: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(map(int, row)) for row in rows)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
