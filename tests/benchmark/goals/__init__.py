"""The measures, by subject."""

from tests.benchmark.goals import (
    attack,
    correlation,
    counted,
    counting,
    ensemble,
    graphs,
    losses,
    precision,
    saliency,
    sampling,
    sensitivity,
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
    *sensitivity.MEASURES,
    *attack.MEASURES,
    *ensemble.MEASURES,
    *training.MEASURES,
    *losses.MEASURES,
    *graphs.MEASURES,
    *precision.MEASURES,
    *correlation.MEASURES,
    *counted.MEASURES,
]
