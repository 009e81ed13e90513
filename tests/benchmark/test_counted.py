"""Counted goals are the same on every machine, so they are tests as well; times are not."""

import pytest

from tests.benchmark.goals.counted import MEASURES
from tests.benchmark.row import Effort, Measure


@pytest.mark.parametrize("measure", MEASURES, ids=lambda measure: measure.what)
def test_counted_goals_are_reached(measure: Measure) -> None:
    row = measure.row(Effort(seconds=0, min_rounds=1, max_rounds=1))
    assert row.verdict == "reached", row.found
