"""The numbers of an audit: trials by explanation, attack and radius."""

from __future__ import annotations

from dataclasses import dataclass, field

from captum_robust.robust.evaluation.robustness_table import NOISE_FLOOR, PREDICTION_CHANGED

__all__ = [
    "ENSEMBLE", "NOISE", "NOISE_FLOOR", "OVER_SEEDS", "OWN_GRADIENT", "AuditNumbers",
    "AuditedExplanation", "Trial",
]  # fmt: skip

#: Names of the attacks of an audit, the weakest first.
NOISE, OWN_GRADIENT, ENSEMBLE = "noise", "own gradient", "ensemble"


#: Metric of random attributions: the precision, averaged over other seeds than that of the attack.
OVER_SEEDS = "P@k, mean over seeds"


@dataclass(frozen=True)
class Trial:
    """One attack on one explanation at one radius.

    Attributes:
        attack (str): ``"noise"``, one draw of random noise; ``"own gradient"``, the published
            attack, :class:`~captum_robust.robust.ERAttack`; ``"ensemble"``, all attacks together,
            :class:`~captum_robust.robust.AutoERAttack`. ``"no attack, other seeds"``, for random
            attributions, the noise floor: two seeds at the row itself.
        radius (float): radius of the ball.
        values (dict[str, tuple[float, ...]]): for each metric one value per row; NaN for a row
            without a top k, and for a row whose attribution could not be ranked. Among them
            ``"precision"`` and ``"prediction changed"``; for attacks on random attributions also
            ``"P@k, mean over seeds"``, the precision at the same points with other seeds.
        flags (dict[str, int]): warnings, with the number of rows that each concerns;
            :data:`~captum_robust.robust.FLAGS` explains them.
    """

    attack: str
    radius: float
    values: dict[str, tuple[float, ...]]
    flags: dict[str, int]

    def __post_init__(self) -> None:
        missing = {"precision", PREDICTION_CHANGED} - set(self.values)
        if missing:
            raise ValueError(f"values must hold {sorted(missing)}, got {sorted(self.values)}")

    @property
    def precision(self) -> tuple[float, ...]:
        """Fraction of the top k that each row kept."""
        return self.values["precision"]

    @property
    def changed(self) -> tuple[float, ...]:
        """1 for rows whose predicted class changed, else 0."""
        return self.values[PREDICTION_CHANGED]


@dataclass(frozen=True)
class AuditedExplanation:
    """The results for one attribution.

    Attributes:
        name (str): its name.
        arguments (str): its class, and the arguments of its ``attribute``.
        trials (tuple[Trial, ...]): attacks by radius, ascending.
        tied (tuple[bool, ...]): rows whose k-th feature ties with the next, so that they have no
            top k.
        measures (dict[str, tuple[float, ...]]): for each measure one value per row. Among them
            ``"thickness"``, the ranking thickness at the largest radius.
        certified (tuple[float, ...], optional): radius within which the top k of each row provably
            stays, at most the largest. None where nothing can be proven.
        not_certified (str): why there is no certificate; empty where there is one.
        not_attacked (str): why the published attack was left out; empty where it was not.
        top_before (tuple[tuple[int, ...], ...]): the top k features of each row, ascending; empty
            for a row without a top k.
        top_after (tuple[tuple[int, ...], ...]): those after all attacks at the largest radius.
    """

    name: str
    arguments: str
    trials: tuple[Trial, ...]
    tied: tuple[bool, ...]
    measures: dict[str, tuple[float, ...]]
    certified: tuple[float, ...] | None
    not_certified: str
    not_attacked: str
    top_before: tuple[tuple[int, ...], ...]
    top_after: tuple[tuple[int, ...], ...]

    def trial(self, attack: str, radius: float) -> Trial | None:
        """Return the trial of an attack at a radius, if there was one."""
        found = (t for t in self.trials if (t.attack, t.radius) == (attack, radius))
        return next(found, None)

    @property
    def worst(self) -> Trial:
        """The trial of all attacks together at the largest radius."""
        return max((t for t in self.trials if t.attack == ENSEMBLE), key=lambda t: t.radius)

    @property
    def thickness(self) -> tuple[float, ...]:
        """Ranking thickness of each row at the largest radius."""
        return self.measures["thickness"]


@dataclass(frozen=True)
class AuditNumbers:
    """The numbers of an audit, which :class:`~captum_robust.auditing.Audit` explains."""

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
    caveats: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    date: str = ""

    @property
    def radius(self) -> float:
        """The largest radius, which the verdict is about."""
        return self.radii[-1]
