"""The conventions of captum.attr.visualization, and that nothing of the caller's is touched."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure

import captum_robust.visualization as pictures
from tests.visualization.pictures import PICTURES, attack_info

PAIRS = {
    "visualize_adjacency_rankings", "visualize_graph_rankings", "visualize_image_rankings",
    "visualize_rankings", "visualize_table_rankings",
}  # fmt: skip
ROW = torch.tensor([3.0, 1.0, 2.0, 6.0, 5.0, 4.0])


def calls() -> dict[str, Callable[..., Any]]:
    """Every public function with arguments; a few values each."""
    pair = (ROW, ROW.flip(0), 2)
    grid = (ROW.view(2, 3), ROW.flip(0).view(2, 3), 2)
    return {
        "visualize_adjacency_rankings": partial(pictures.visualize_adjacency_rankings, *pair),
        "visualize_graph_rankings": partial(pictures.visualize_graph_rankings, *pair),
        "visualize_image_rankings": partial(pictures.visualize_image_rankings, *grid),
        "visualize_rankings": partial(pictures.visualize_rankings, *pair),
        "visualize_table_rankings": partial(pictures.visualize_table_rankings, *pair),
        "plot_magnitudes": partial(pictures.plot_magnitudes, {"a": ROW[None]}, 2),
        "plot_manipulation": partial(pictures.plot_manipulation, ROW, ROW),
        "plot_min_radius": partial(pictures.plot_min_radius, {"a": ROW}),
        "plot_precision": partial(pictures.plot_precision, {"a": ROW / 6}, range(6)),
        "plot_traces": partial(pictures.plot_traces, attack_info()),
        "plot_tradeoff": partial(pictures.plot_tradeoff, {"a": (1, 2), "b": (2, 1)}),
    }


def test_nothing_public_is_forgotten() -> None:
    assert set(calls()) | {"plot_tables"} == set(pictures.__all__)


@pytest.mark.parametrize("name", calls())
def test_the_callers_axes_are_drawn_on(name: str) -> None:
    figure = Figure()
    axes = figure.subplots(1, 2 if name in PAIRS else 1)
    given = list(axes) if name in PAIRS else axes
    found, drawn = calls()[name](plt_fig_axis=(figure, given), use_pyplot=False)
    assert found is figure and drawn == given
    assert figure.axes == list(np.ravel(axes))
    for wrong in (figure.subplots(1, 3), []):
        with pytest.raises(ValueError, match="plt_fig_axis must hold a figure and"):
            calls()[name](plt_fig_axis=(figure, wrong), use_pyplot=False)


@pytest.mark.parametrize("name", calls())
def test_pyplot_is_used_and_shows_when_it_is_asked(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.get_fignums()))
    figure, _ = calls()[name](title="a title")
    assert shown == [[figure.number]]
    texts = [axis.get_title() for axis in figure.axes] + [t.get_text() for t in figure.texts]
    assert any("a title" in text for text in texts)
    pyplot.close(figure)
    other, _ = calls()[name](use_pyplot=False)
    assert isinstance(other, Figure) and len(shown) == 1


@pytest.mark.parametrize("kind", ["gradient", "bfloat16", "numpy", "list"])
def test_any_array_gives_the_same_picture_and_stays(kind: str) -> None:
    after, before = torch.tensor([4.0, 1.0, 2.0]), torch.tensor([1.0, 2.0, 3.0])
    convert: dict[str, Callable[[torch.Tensor], Any]] = {
        "gradient": lambda t: t.clone().requires_grad_(),
        "bfloat16": lambda t: t.bfloat16(),
        "numpy": lambda t: t.numpy().copy(),
        "list": lambda t: t.tolist(),
    }
    given = [convert[kind](t) for t in (after, before)]
    _, axes = pictures.visualize_rankings(*given, k=2, use_pyplot=False)
    assert [bar.get_width() for bar in axes[1].patches] == [2.0, 1.0, 4.0]
    for left, right in zip(given, (after, before), strict=True):
        values = left.detach().float() if isinstance(left, torch.Tensor) else torch.tensor(left)
        assert torch.equal(values, right)
    curves = {"a": given[0]}
    _, axis = pictures.plot_precision(curves, given[1], use_pyplot=False)
    assert axis.get_lines()[0].get_xydata().tolist() == [[1.0, 4.0], [2.0, 1.0], [3.0, 2.0]]


def test_a_picture_in_a_subfigure() -> None:
    whole = Figure(figsize=(8, 4), layout="constrained")
    left, right = whole.subfigures(1, 2)
    _, axis = pictures.plot_tradeoff(
        {"a": (1, 2), "b": (2, 1)}, plt_fig_axis=(left, left.subplots()), use_pyplot=False
    )
    pictures.visualize_rankings(
        ROW, ROW.flip(0), 2, plt_fig_axis=(right, right.subplots(1, 2)), use_pyplot=False
    )
    assert {t.get_text() for t in axis.texts} == {"a", "b"}


@pytest.mark.parametrize("name", PICTURES)
def test_texts_do_not_touch_and_stay_in_the_figure(name: str) -> None:
    figure, _ = PICTURES[name]()
    figure.draw_without_rendering()
    boxes = []
    for axis in figure.axes:
        labels = [axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        ticks = [
            label
            for side, (low, high) in ((axis.xaxis, axis.get_xlim()), (axis.yaxis, axis.get_ylim()))
            for place, label in zip(side.get_ticklocs(), side.get_ticklabels(), strict=True)
            if axis.axison and min(low, high) <= place <= max(low, high)
        ]
        key = axis.get_legend().get_texts() if axis.get_legend() else []
        boxes += [
            (text.get_text(), text.get_window_extent())
            for text in (*labels, *ticks, *key)
            if text.get_text() and text.get_visible()
        ]
    width, height = figure.bbox.size
    for said, box in boxes:
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, said
    for (said, box), (other, place) in combinations(boxes, 2):
        over = min(box.x1, place.x1) - max(box.x0, place.x0)
        high = min(box.y1, place.y1) - max(box.y0, place.y0)
        assert over <= 1 or high <= 1, f"{said!r} touches {other!r}"


def test_crowded_names_are_kept_apart() -> None:
    generator = np.random.default_rng(0)
    models = {f"method {i}": tuple(0.9 + 0.02 * generator.random(2)) for i in range(14)}
    models["far"] = (0.5, 0.5)
    _, axis = pictures.plot_tradeoff(models, use_pyplot=False)
    boxes = [t.get_window_extent() for t in axis.texts if t.get_text()]
    points = axis.transData.transform(list(models.values()))
    assert len(boxes) == 15
    for one, other in combinations(boxes, 2):
        assert not one.overlaps(other)
    assert not any(box.contains(*point) for box in boxes for point in points)


def test_ends_of_curves_that_meet_are_named_apart_and_in_order() -> None:
    curves = {f"curve {i}": [1.0, 0.5 + i / 1000] for i in range(6)} | {"low": [1.0, 0.0]}
    _, axis = pictures.plot_precision(curves, [0.0, 1.0], use_pyplot=False)
    boxes = {t.get_text(): t.get_window_extent() for t in axis.texts if t.get_text()}
    heights = [boxes[f"curve {i}"] for i in range(6)]
    for below, above in pairwise(heights):
        assert below.y1 <= above.y0 + 0.5
    middle = (heights[0].y0 + heights[-1].y1) / 2
    assert middle == pytest.approx(axis.transData.transform((1.0, 0.5025))[1], abs=1.5)
    assert boxes["low"].y0 >= axis.get_window_extent().y0 - 0.5


def test_matplotlib_and_networkx_wait_until_something_is_drawn() -> None:
    folder = Path(pictures.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                roots = {name.split(".")[0] for name in names}
                assert not roots & {"matplotlib", "networkx"}, path.name
