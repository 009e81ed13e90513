"""What there is to do: trainings, and measurements of the models that were selected."""

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from captum_robust.benchmark.study.methods import DEFAULT
from captum_robust.benchmark.study.tasks import TASKS

__all__ = ["STARTS", "Chapter", "Group", "Plan", "Unit"]

STARTS = ("random", "vanilla")


class Chapter(NamedTuple):
    """What can be done without the rest: one split of one data set."""

    dataset: str
    seed: int


class Group(NamedTuple):
    """The trainings of which one is selected: those of a method in all its settings."""

    dataset: str
    method: str
    seed: int
    start: str


class Unit(NamedTuple):
    """One piece of work, and its record.

    Attributes:
        dataset: name of the table.
        method: how the model is trained.
        setting: the point of the method's grid, ``"weight=0.1 gap=exp"``.
        seed: of the split, the first weights, the order of the rows, the attacks.
        start: ``"random"`` weights, or those of the ``"vanilla"`` model.
        part: ``"training"``, ``"properties"``, or an attack, ``"auto saliency 8"``: its name, the
            explanation and k.
    """

    dataset: str
    method: str
    setting: str
    seed: int
    start: str
    part: str = "training"

    @property
    def group(self) -> Group:
        """The group of the model."""
        return Group(self.dataset, self.method, self.seed, self.start)

    @property
    def model(self) -> "Unit":
        """The training that made the model."""
        return self._replace(part="training")

    @property
    def vanilla(self) -> "Unit":
        """The training of the vanilla model on the same split."""
        return Unit(self.dataset, "vanilla", "", self.seed, "random")

    @property
    def file_name(self) -> str:
        """A name for files: readable, and different for different units."""
        text = " ".join(map(str, self))
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        return f"{re.sub('[^A-Za-z0-9.=]+', '-', text)}-{digest}"

    def __str__(self) -> str:
        """One line."""
        words = (self.dataset, self.method, self.setting, f"seed {self.seed}", self.start)
        return ", ".join(word for word in (*words, self.part) if word)


@dataclass(frozen=True)
class Plan:
    """The units of a command; ``other_ks`` are attacked beside k, for which models are trained."""

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    starts: tuple[str, ...]
    attacks: tuple[str, ...]
    explanations: tuple[str, ...]
    k: int
    other_ks: tuple[int, ...] = ()

    def chapters(self) -> list[Chapter]:
        """The pieces in the order in which they are done."""
        return [Chapter(dataset, seed) for dataset in self.datasets for seed in self.seeds]

    def groups(self, chapter: Chapter) -> list[Group]:
        """All of a chapter; the vanilla one, to which the others are compared, comes first."""
        dataset, seed = chapter
        methods = TASKS[dataset].methods
        groups = [Group(dataset, "vanilla", seed, "random")]
        for start in self.starts:
            for name in self.methods:
                fits = start == "random" or methods[name].activation == "leaky_relu"
                if name != "vanilla" and fits:
                    groups.append(Group(dataset, name, seed, start))
        return groups

    def trainings(self, group: Group) -> list[Unit]:
        """One training for each setting."""
        dataset, method, seed, start = group
        grid = TASKS[dataset].methods[method].grid
        return [Unit(dataset, method, setting, seed, start) for setting in grid]

    def parts(self, group: Group) -> list[str]:
        """What is measured of the selected model.

        All explanations for the usual methods from random weights, the first for further methods
        and for those from the vanilla model; other k for the first explanation under the last
        attack.
        """
        if group.method not in self.methods:
            return []
        if group.start == "vanilla" or group.method not in DEFAULT:
            return ["properties", *(f"{a} {self.explanations[0]} {self.k}" for a in self.attacks)]
        return [
            "properties",
            *(f"{a} {e} {self.k}" for e in self.explanations for a in self.attacks),
            *(f"{self.attacks[-1]} {self.explanations[0]} {k}" for k in self.other_ks),
        ]
