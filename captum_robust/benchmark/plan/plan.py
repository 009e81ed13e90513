"""The units of a command."""

from dataclasses import dataclass

from captum_robust.benchmark.plan.units import PROPERTIES, Group, Part, Split, Unit
from captum_robust.benchmark.study.tasks import TASKS

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The units of a command.

    Attributes:
        datasets: names of the data sets.
        methods: names of the training methods.
        seeds: seeds of the splits.
        starts: initial weights, ``"random"``, ``"vanilla"`` or both.
        attacks: names of the attacks, the strongest last.
        explanations: names of the explanations.
        k: size of the top set for which models are trained.
        other_ks: other sizes that are attacked.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    starts: tuple[str, ...]
    attacks: tuple[str, ...]
    explanations: tuple[str, ...]
    k: int
    other_ks: tuple[int, ...] = ()

    def splits(self) -> list[Split]:
        """Return the splits in the order in which they are done."""
        return [Split(dataset, seed) for dataset in self.datasets for seed in self.seeds]

    def groups(self, split: Split) -> list[Group]:
        """Return all groups of a split; the vanilla one, the reference of all, comes first."""
        dataset, seed = split
        methods = TASKS[dataset].methods
        groups = [Group(dataset, "vanilla", seed, "random")]
        for start in self.starts:
            for name in self.methods:
                fits = start == "random" or methods[name].activation == "leaky_relu"
                if name != "vanilla" and fits:
                    groups.append(Group(dataset, name, seed, start))
        return groups

    def trainings(self, group: Group) -> list[Unit]:
        """Return one training for each setting of the method."""
        dataset, method, seed, start = group
        grid = TASKS[dataset].methods[method].grid
        return [Unit(dataset, method, setting, seed, start) for setting in grid]

    def parts(self, group: Group) -> list[Part]:
        """Return what is measured of the selected model.

        All explanations for methods that are trained by default and start from random weights, the
        first explanation for others; other k for the first explanation under the last attack.
        """
        if group.method not in self.methods:
            return []
        first = self.explanations[0]
        if group.start == "vanilla" or not TASKS[group.dataset].methods[group.method].by_default:
            return [PROPERTIES, *(Part(a, first, self.k) for a in self.attacks)]
        return [
            PROPERTIES,
            *(Part(a, e, self.k) for e in self.explanations for a in self.attacks),
            *(Part(self.attacks[-1], first, k) for k in self.other_ks),
        ]
