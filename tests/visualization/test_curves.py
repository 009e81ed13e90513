"""Means, bands, steps and fronts against scipy, numpy and brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from captum_robust.benchmark.tables.statistics import pareto_front
from captum_robust.robust import Measurement, RobustnessTable
from captum_robust.visualization import (
    plot_magnitudes,
    plot_manipulation,
    plot_min_radius,
    plot_precision,
    plot_tables,
    plot_traces,
    plot_tradeoff,
)
from tests.visualization.drawn import points
from tests.visualization.pictures import attack_info

RADII = [0.0, 0.5, 2.0]


def band(axis: Any, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end of a band at every x, from its polygon."""
    x, y = axis.collections[number].get_paths()[0].vertices.T
    places = np.unique(x)
    return np.array([y[x == p].min() for p in places]), np.array([y[x == p].max() for p in places])


def examples(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((3, 12))


def test_the_band_is_students_interval_of_the_mean() -> None:
    values = examples()
    values[1, [2, 5]] = np.nan
    _, axis = plot_precision({"a": values}, RADII, confidence=0.9, use_pyplot=False)
    known = [row[~np.isnan(row)] for row in values]
    assert axis.get_lines()[0].get_ydata() == pytest.approx([row.mean() for row in known])
    intervals = [stats.t.interval(0.9, len(r) - 1, r.mean(), stats.sem(r)) for r in known]
    low, high = band(axis)
    assert low == pytest.approx([i[0] for i in intervals])
    assert high == pytest.approx([i[1] for i in intervals])
    assert axis.get_ylim() == (0, 1.03)


def test_a_curve_of_means_has_no_band() -> None:
    _, axis = plot_precision({"a": [1.0, 0.5, 0.2]}, torch.tensor(RADII), use_pyplot=False)
    assert axis.get_lines()[0].get_ydata().tolist() == [1.0, 0.5, 0.2]
    assert not axis.collections[0].get_paths()


def test_names_stand_at_the_ends() -> None:
    curves = {"a": [1.0, 0.5, 0.2], "b": [1.0, 0.5, np.nan], "c": [np.nan] * 3}
    _, axis = plot_precision(curves, RADII, use_pyplot=False)
    assert {t.get_text(): t.xy for t in axis.texts if t.get_text()} == {
        "a": (2.0, 0.2), "b": (0.5, 0.5),
    }  # fmt: skip


def table(radius: float, values: np.ndarray, weights: torch.Tensor | None) -> RobustnessTable:
    changed = torch.zeros(len(values)).double()
    still = torch.ones(len(values)).double()
    measurements = tuple(
        Measurement("Saliency", attack, {"P@3": v, "prediction changed": changed}, {})
        for attack, v in (("noise", still), ("ER", torch.from_numpy(values)))
    )
    return RobustnessTable(measurements, radius, "L2", weights, 0.8)


@pytest.mark.parametrize("weighted", [False, True])
def test_tables_give_their_own_means_and_intervals(weighted: bool) -> None:
    weights = torch.rand(12, generator=torch.Generator().manual_seed(0)) if weighted else None
    tables = [table(r, v, weights) for r, v in zip(RADII, examples(), strict=True)]
    _, axis = plot_tables([tables[2], tables[0], tables[1]], "P@3", use_pyplot=False)
    noise, er = axis.get_lines()
    assert [noise.get_label(), er.get_label()] == ["noise", "ER"]
    estimates = [t.estimate("Saliency", "ER", "P@3") for t in tables]
    assert er.get_xdata().tolist() == RADII
    assert er.get_ydata().tolist() == [e.mean for e in estimates]
    low, high = band(axis, 1)
    assert low.tolist() == [e.low for e in estimates]
    assert high.tolist() == [e.high for e in estimates]
    # The same numbers by the other way.
    _, other = plot_precision({"ER": examples()}, RADII, weights, confidence=0.8, use_pyplot=False)
    assert other.get_lines()[0].get_ydata() == pytest.approx(er.get_ydata())
    assert band(other)[0] == pytest.approx(low)


def test_the_steps_count_the_unchanged_explanations() -> None:
    radii = np.array([0.3, np.inf, 0.1, np.nan, 0.3, 0.0, 0.7])
    _, axis = plot_min_radius({"a": radii}, use_pyplot=False)
    line = axis.get_lines()[0]
    known = radii[~np.isnan(radii)]
    assert line.get_xdata().tolist() == [0.0, 0.1, 0.3, 0.7]
    assert line.get_ydata() == pytest.approx(
        [np.mean([r > x for r in known]) for x in line.get_xdata()]
    )
    ends = set()
    for share in line.get_ydata():
        test = stats.binomtest(round(share * len(known)), len(known))
        ends |= set(test.proportion_ci(0.95, "wilson"))
    polygon = axis.collections[0].get_paths()[0].vertices
    assert sorted(set(polygon[:, 1].round(9))) == pytest.approx(sorted(ends), abs=1e-8)
    low, high = band(axis)
    assert low[0] == pytest.approx(min(stats.binomtest(5, 6).proportion_ci(0.95, "wilson")))
    assert high[0] == pytest.approx(max(stats.binomtest(5, 6).proportion_ci(0.95, "wilson")))


@pytest.mark.parametrize("seed", range(8))
def test_the_front_is_that_of_brute_force(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 5, (8, 2)) / 5  # with equal points and equal coordinates
    models = {str(i): tuple(v) for i, v in enumerate(values)}
    _, axis = plot_tradeoff(models, use_pyplot=False)
    front = {models[name] for name in pareto_front(models)}
    assert set(points(axis, "front")) == front
    assert set(points(axis, "dominated")) == set(models.values()) - front
    assert {t.get_text() for t in axis.texts if t.get_text()} == set(models)
    # The stairs pass through the front, and nothing lies beyond them.
    stairs = axis.get_lines()[-1].get_xydata()
    assert {tuple(corner) for corner in stairs} >= front
    assert (np.diff(stairs[1:-1, 0]) >= 0).all() and (np.diff(stairs[:, 1]) <= 0).all()
    for x, y in models.values():
        assert y <= stairs[stairs[:, 0] >= x, 1].max() + 1e-12


def test_runs_are_shown_by_their_mean_and_deviation() -> None:
    accuracy, robustness = [0.8, 0.9, 0.85], [0.5, 0.6, 0.9]
    _, axis = plot_tradeoff({"a": (accuracy, robustness), "b": (0.1, 0.1)}, use_pyplot=False)
    assert points(axis, "front") == [(pytest.approx(0.85), pytest.approx(2 / 3))]
    across, upright = (c.get_segments()[0] for c in axis.collections)
    assert np.ptp(across[:, 0]) == pytest.approx(2 * np.std(accuracy, ddof=1))
    assert np.ptp(upright[:, 1]) == pytest.approx(2 * np.std(robustness, ddof=1))


@pytest.mark.parametrize("seed", range(3))
def test_the_correlation_is_spearmans_and_never_comes_last(seed: int) -> None:
    generator = np.random.default_rng(seed)
    thickness = generator.integers(0, 9, 30) / 9
    steps = generator.integers(-1, 12, 30).astype(float)
    thickness[3] = np.nan
    _, axis = plot_manipulation(thickness, steps, use_pyplot=False)
    known = ~np.isnan(thickness)
    late = np.where(steps < 0, np.inf, steps)[known]
    rho = stats.spearmanr(thickness[known], stats.rankdata(late)).statistic
    assert axis.get_title() == f"ρ = {rho:.2f} (n = 29)"
    broken, never = (c.get_offsets() for c in axis.collections)
    assert len(never) == (late == np.inf).sum() and len(broken) == (late < np.inf).sum()
    assert never[:, 1].min() > broken[:, 1].max()


def test_an_undefined_correlation_is_called_so() -> None:
    _, axis = plot_manipulation([1.0, 1.0, 1.0], [1, 2, 3], title="flat", use_pyplot=False)
    assert axis.get_title() == "flat: ρ undefined (n = 3)"


def test_traces() -> None:
    info = attack_info()
    info.trace[1, 3:, 0] = np.nan  # stopped early
    _, axis = plot_traces(info, use_pyplot=False)
    lines = axis.get_lines()
    trace = info.trace.double().numpy()
    for restart in (0, 1):
        assert lines[restart].get_ydata() == pytest.approx(np.nanmean(trace[restart], axis=1))
    best = [
        np.mean([np.nanmin(trace[:, : step + 1, example]) for example in range(3)])
        for step in range(6)
    ]
    assert lines[2].get_ydata() == pytest.approx(best)
    assert [x for x, _ in points(axis, "first change")] == [1, 4]
    assert "proves nothing" not in "".join(t.get_text() for t in axis.texts)


def test_an_attack_without_a_gradient_proves_nothing() -> None:
    _, axis = plot_traces(attack_info(found=False), use_pyplot=False)
    assert "proves nothing" in "".join(t.get_text() for t in axis.texts)


def test_magnitudes_are_sorted_within_each_example() -> None:
    maps = np.random.default_rng(0).standard_normal((9, 2, 5))
    maps[4, 0, 0] = np.nan
    _, axis = plot_magnitudes({"a": torch.from_numpy(maps)}, 3, use_pyplot=False)
    rows = [sorted(abs(row).ravel(), reverse=True) for i, row in enumerate(maps) if i != 4]
    assert axis.get_lines()[0].get_ydata() == pytest.approx(np.median(rows, axis=0))
    low, high = band(axis)
    assert low == pytest.approx(np.quantile(rows, 0.25, axis=0))
    assert high == pytest.approx(np.quantile(rows, 0.75, axis=0))
    assert axis.get_yscale() == "log"
    assert axis.get_lines()[1].get_xdata() == [3.5, 3.5]
