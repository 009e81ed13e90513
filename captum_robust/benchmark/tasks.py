"""The data sets of the study, by name: tables, pairs of digits, pairs of brain networks."""

from captum_robust.benchmark.pairs import PAIRS
from captum_robust.benchmark.tables import TABLES
from captum_robust.benchmark.task import Task

__all__ = ["TASKS"]

TASKS: dict[str, Task] = {**TABLES, **PAIRS}
