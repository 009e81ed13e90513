"""The data sets of the study, by name: tables, pairs of digits, pairs of brain networks."""

from collections.abc import Sequence

from captum_robust.benchmark.study.pairs import PAIRS
from captum_robust.benchmark.study.tabular import TABLES
from captum_robust.benchmark.study.task import Task

__all__ = ["TASKS", "in_common"]

TASKS: dict[str, Task] = {**TABLES, **PAIRS}


def in_common(datasets: Sequence[str]) -> Task:
    """The first task, whose protocol is that of all.

    Raises:
        ValueError: if they have different ones, so that their results need different folders.
    """
    first, *others = (TASKS[name] for name in datasets)
    for task in others:
        if (task.k, task.rows, task.terms.radii) != (first.k, first.rows, first.terms.radii):
            raise ValueError(
                f"got {', '.join(datasets)}, accepted: either tables, or pairs of digits, or "
                "pairs of brain networks, whose radii and k differ; a folder for each kind"
            )
    return first
