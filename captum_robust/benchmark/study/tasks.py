"""The data sets of the study by name: tables, pairs of digits, pairs of brain networks."""

from collections.abc import Sequence

from captum_robust.benchmark.study.pairs import PAIRS
from captum_robust.benchmark.study.tabular import TABULAR_DATA
from captum_robust.benchmark.study.task import Task

__all__ = ["TASKS", "in_common"]

TASKS: dict[str, Task] = {**TABULAR_DATA, **PAIRS}


def in_common(datasets: Sequence[str]) -> Task:
    """Return the first task; all others must have the same protocol.

    Raises:
        ValueError: for tasks with different protocols, whose results need different folders.
    """
    first, *others = (TASKS[name] for name in datasets)
    for task in others:
        if (task.k, task.rows, task.settings.radii) != (first.k, first.rows, first.settings.radii):
            raise ValueError(
                f"got {', '.join(datasets)}, accepted: either tables, or pairs of digits, or "
                "pairs of brain networks, whose radii and k differ; a folder for each kind"
            )
    return first
