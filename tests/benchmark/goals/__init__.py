"""The measures, by subject."""

from tests.benchmark.goals import (
    attack,
    counted,
    counting,
    precision,
    saliency,
    sampling,
    thickness,
    training,
)
from tests.benchmark.row import Measure

__all__ = ["MEASURES"]

MEASURES: list[Measure] = [
    *saliency.MEASURES,
    *counting.MEASURES,
    *thickness.MEASURES,
    *sampling.MEASURES,
    *attack.MEASURES,
    *training.MEASURES,
    *precision.MEASURES,
    *counted.MEASURES,
]
