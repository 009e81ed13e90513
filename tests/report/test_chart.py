"""Charts: values at their places."""

import math
import re
from itertools import pairwise

from captum_robust._html.charts import Chart, Line


def chart(*lines: Line, ticks: tuple[float, ...] = (0, 0.5, 1)) -> Chart:
    return Chart("title", "description", "x", "y", lines, ticks)


def test_the_corners_of_the_frame() -> None:
    line = Line("a", "orange", [0, 0.5, 2], [1, 0.5, 0])
    frame = chart(line).frame
    first, middle, last = chart(line).marks(line)
    assert (first.x, first.y) == (frame["left"], frame["top"])
    assert (last.x, last.y) == (frame["right"], frame["bottom"])
    assert middle.x == frame["left"] + 0.25 * (frame["right"] - frame["left"])
    assert middle.y == (frame["top"] + frame["bottom"]) / 2


def test_what_has_no_value_is_left_out_and_what_is_outside_stays_in_the_frame() -> None:
    line = Line("a", "orange", [0, 1, 2], [1, math.nan, 1.5])
    assert len(chart(line).marks(line)) == 2
    assert chart(line).path(line) == "M40.0 14.0 L366.0 14.0"


def test_a_band_goes_there_and_back() -> None:
    line = Line("a", "orange", [0, 1], [1, 0.5], low=[1, 0.25], high=[1, 0.75])
    points = re.findall(r"([\d.]+) ([\d.]+)", chart(line).band(line))
    assert [float(x) for x, _ in points] == [40, 366, 366, 40]
    _, high, low, _ = (float(y) for _, y in points)
    assert high < low  # downwards
    assert chart(Line("b", "blue", [0, 1], [1, 1])).band(Line("b", "blue", [0, 1], [1, 1])) == ""


def test_labels_do_not_touch_and_the_last_is_there() -> None:
    line = Line("a", "orange", [0, 1], [1, 1])
    ticks = chart(line, ticks=(0, 0.01, 0.02, 0.5, 0.98, 1)).ticks_of_x
    assert [t.label for t in ticks] == ["0", "", "", "0.5", "", "1"]
    shown = [t.at for t in ticks if t.label]
    assert all(b - a >= 34 for a, b in pairwise(shown))


def test_one_value_at_zero_is_no_division_by_zero() -> None:
    line = Line("a", "orange", [0], [1])
    assert chart(line).marks(line)[0].x == 40
