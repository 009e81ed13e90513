"""Made-up work: units that take no time and have reproducible results, and stores full of them.

As a program it is a runner of ``FEW`` of them that writes a line when it begins and ends one:
``made_up.py FOLDER LOG SECONDS MEET``.
"""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from captum_robust.benchmark.measure.experiment import Experiment
from captum_robust.benchmark.plan.plan import Plan
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.runner import run
from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Unit
from captum_robust.benchmark.study.settings import RADII

PLAN = Plan(
    datasets=("breast-cancer",),
    methods=("vanilla", "wd", "sp", "r2et"),
    seeds=(0, 1),
    starts=("random", "vanilla"),
    attacks=("er", "auto"),
    explanations=("saliency", "ig"),
    k=8,
    other_ks=(5, 2),
)
#: A part of it, for what is run several times.
FEW = replace(
    PLAN, methods=("vanilla", "r2et"), seeds=(0,), explanations=("saliency",), other_ks=()
)
N_ROWS = 6
N_FEATURES = 30


def result_of(unit: Unit) -> Result:
    """Numbers that depend on the unit alone; one row in ten cannot be scored."""
    rng = np.random.default_rng(list(" ".join(map(str, unit)).encode()))
    if unit.part == TRAINING:
        return {
            "auc": float(rng.uniform(0.88, 0.92)),
            "precision": float(rng.uniform(0.5, 1)),
            "epoch_seconds": float(rng.uniform(1, 2)),
            "sha256": "",
        }
    if unit.part == PROPERTIES:
        names = (
            "thickness", "gaussian thickness", "gaussian minimum thickness",
            "adversarial thickness", "manipulation step", "hessian norm", "dffot", "comp", "suff",
        )  # fmt: skip
        return {
            "auc": float(rng.uniform(0.88, 0.92)),
            "magnitudes": sorted(rng.uniform(size=N_FEATURES).tolist(), reverse=True),
            **{name: rng.uniform(size=N_ROWS).tolist() for name in names},
        }
    kept = rng.integers(0, 9, size=(len(RADII), N_ROWS)) / 8
    kept[rng.uniform(size=kept.shape) < 0.1] = math.nan
    return {
        "precision": kept.tolist(),
        "changed": rng.uniform(size=len(RADII)).tolist(),
        "clean_auc": float(rng.uniform()),
        "attacked_auc": rng.uniform(size=len(RADII)).tolist(),
    }


class MadeUp(Experiment):
    """A worker that writes a log; its first unit lasts until ``meet`` runners are at work."""

    log: Path | None = None
    seconds = 0.0
    meet = 1

    def do(self, unit: Unit) -> Result:
        self._write("begin", unit)
        while self.log is not None and len(lines(self.log, "begin")) < self.meet:
            time.sleep(0.01)
        time.sleep(self.seconds)
        if unit.part == TRAINING:
            path = self.store.weights_path(unit)
            path.parent.mkdir(exist_ok=True)
            path.touch()  # a training whose weights are lost would be done again
        self._write("end", unit)
        return result_of(unit)

    def _write(self, word: str, unit: Unit) -> None:
        if self.log is not None:
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{word} {unit}\n")


def fill(folder: Path, plan: Plan = PLAN) -> Store:
    """A finished store."""
    protocol = Protocol()
    run(plan, protocol, folder, lambda store: MadeUp(store, protocol, None))
    return Store(folder)


def lines(log: Path | None, word: str) -> list[str]:
    """The units of the log after a word."""
    if log is None or not log.exists():
        return []
    text = log.read_text(encoding="utf-8").splitlines()
    return [line.removeprefix(f"{word} ") for line in text if line.startswith(word)]


if __name__ == "__main__":
    folder, log, seconds, meet = sys.argv[1:]
    MadeUp.log, MadeUp.seconds, MadeUp.meet = Path(log), float(seconds), int(meet)
    fill(Path(folder), FEW)
