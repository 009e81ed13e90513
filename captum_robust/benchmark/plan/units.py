"""Units of work: the training of a model, and the measurements of a model that was selected."""

import hashlib
import re
from typing import NamedTuple

__all__ = ["PROPERTIES", "STARTS", "TRAINING", "Group", "Part", "Split", "Unit"]

STARTS = ("random", "vanilla")


class Split(NamedTuple):
    """One split of one data set; the units of a split need no others."""

    dataset: str
    seed: int


class Group(NamedTuple):
    """The trainings of one method in all its settings, of which one is selected."""

    dataset: str
    method: str
    seed: int
    start: str


class Part(NamedTuple):
    """The part of the work on a model that a unit does.

    Attributes:
        name: ``"training"``, ``"properties"``, or the name of an attack.
        explanation: name of the explanation that is attacked; empty unless this is an attack.
        k: size of the top set that is attacked; 0 unless this is an attack.
    """

    name: str
    explanation: str = ""
    k: int = 0

    @property
    def is_attack(self) -> bool:
        """Return whether an explanation is attacked."""
        return self.k > 0

    def __str__(self) -> str:
        """Such as ``"training"`` or ``"auto saliency 8"``."""
        return f"{self.name} {self.explanation} {self.k}" if self.is_attack else self.name


TRAINING = Part("training")
PROPERTIES = Part("properties")


class Unit(NamedTuple):
    """One piece of work, and the key of its record.

    Attributes:
        dataset: name of the data set.
        method: name of the training method.
        setting: point of the grid of the method, ``"weight=0.1 gap=exp"``.
        seed: seed of the split, the initial weights, the order of the rows and the attacks.
        start: ``"random"`` for random initial weights, ``"vanilla"`` for those of the vanilla
            model.
        part: the part of the work.
    """

    dataset: str
    method: str
    setting: str
    seed: int
    start: str
    part: Part = TRAINING

    @property
    def group(self) -> Group:
        """The group of the model."""
        return Group(self.dataset, self.method, self.seed, self.start)

    @property
    def model(self) -> "Unit":
        """The training that made the model."""
        return self._replace(part=TRAINING)

    @property
    def vanilla(self) -> "Unit":
        """The training of the vanilla model on the same split."""
        return Unit(self.dataset, "vanilla", "", self.seed, "random")

    @property
    def file_name(self) -> str:
        """A readable name for files; different units have different names."""
        text = " ".join(map(str, self))
        digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
        return f"{re.sub('[^A-Za-z0-9.=]+', '-', text)}-{digest}"

    def __str__(self) -> str:
        """The unit in one line."""
        words = (self.dataset, self.method, self.setting, f"seed {self.seed}", self.start)
        return ", ".join(str(word) for word in (*words, self.part) if word)
