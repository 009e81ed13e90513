"""What does not fit is refused, with the name of the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from captum_robust.visualization import (
    plot_magnitudes,
    plot_manipulation,
    plot_min_radius,
    plot_precision,
    plot_tables,
    plot_traces,
    plot_tradeoff,
    visualize_adjacency_rankings,
    visualize_graph_rankings,
    visualize_image_rankings,
    visualize_rankings,
    visualize_table_rankings,
)
from tests.visualization.pictures import attack_info
from tests.visualization.test_curves import examples, table

ROW, OTHER = torch.arange(6.0), torch.arange(6.0).flip(0)
IMAGE = torch.arange(12.0).view(3, 4)
NAN = float("nan")


def refused(message: str, draw: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=message):
        draw(*args, **kwargs, use_pyplot=False)


@pytest.mark.parametrize(
    ("draw", "values"),
    [
        (visualize_table_rankings, ROW), (visualize_image_rankings, IMAGE),
        (visualize_adjacency_rankings, ROW), (visualize_graph_rankings, ROW),
        (visualize_rankings, ROW), (visualize_rankings, IMAGE),
    ],
)  # fmt: skip
def test_maps_without_a_ranking(draw: Callable[..., Any], values: torch.Tensor) -> None:
    broken = values.clone().view(-1)
    broken[2] = NAN
    broken = broken.view_as(values)
    refused("^attribution must be finite and not constant", draw, broken, values, 2)
    refused("reference_attribution must be finite and not constant", draw, values, broken, 2)
    refused("^attribution must be finite", draw, torch.full_like(values, 3.0), values, 2)
    refused("^attribution must be finite", draw, values - float("inf"), values, 2)
    for k in (0, values.numel(), 2.0, True):
        refused(f"k must be an int with 1 <= k < {values.numel()}", draw, values, values, k)
    refused("same shape", draw, values[: -3 if values.dim() == 1 else -1], values, 2)
    refused("got a number|must be", draw, torch.tensor(1.0), values, 2)


def test_shapes() -> None:
    refused(r"attribution must be of shape \(n,\)", visualize_table_rankings, IMAGE, IMAGE, 2)
    refused(r"\(H, W, C\) or \(H, W\), got \(6,\)", visualize_image_rankings, ROW, ROW, 2)
    four = IMAGE[None, None]
    refused(r"\(H, W, C\) or \(H, W\), got \(1, 1", visualize_image_rankings, four, four, 2)
    refused("square matrix", visualize_adjacency_rankings, IMAGE, IMAGE, 2)
    refused(r"n\(n - 1\)/2", visualize_adjacency_rankings, ROW[:5], OTHER[:5], 2)
    refused(r"n\(n - 1\)/2", visualize_graph_rankings, IMAGE, IMAGE, 2)


def test_names_and_places() -> None:
    refused("feature_names must hold 6", visualize_table_rankings, ROW, OTHER, 2, ["a"])
    refused("node_names must hold 4", visualize_adjacency_rankings, ROW, OTHER, 2, node_names="abc")
    for argument, value in (
        ("node_names", "abc"), ("node_regions", "abcde"), ("positions", np.zeros((4, 3))),
        ("positions", [[0, 0], [1, 1], [0, NAN], [1, 0]]), ("edge_index", [[0, 1], [1, 2]]),
        ("edge_index", -np.ones((2, 6))), ("edge_index", np.full((2, 6), 0.5)),
    ):  # fmt: skip
        refused(argument, visualize_graph_rankings, ROW, OTHER, 2, **{argument: value})


def test_masks() -> None:
    mask = torch.zeros(3, 3, dtype=torch.int64)
    refused("feature_mask", visualize_image_rankings, IMAGE, IMAGE, 1, feature_mask=mask)
    coloured = IMAGE.view(2, 2, 3)
    mask = torch.arange(12).view(2, 2, 3)
    refused(
        "all channels of a pixel", visualize_image_rankings, coloured, coloured, 1,
        feature_mask=mask,
    )  # fmt: skip
    refused("feature_mask", visualize_table_rankings, ROW, OTHER, 1, feature_mask=mask)


def test_images() -> None:
    draw = visualize_image_rankings
    refused("given both or not at all", draw, IMAGE, IMAGE, 2, IMAGE)
    refused("given both or not at all", draw, IMAGE, IMAGE, 2, perturbed_image=IMAGE)
    refused("original_image must be of shape", draw, IMAGE, IMAGE, 2, IMAGE.T, IMAGE)
    refused(
        "perturbed_image must be of shape",
        draw,
        IMAGE,
        IMAGE,
        2,
        IMAGE,
        IMAGE[..., None].expand(3, 4, 2),
    )


def test_curves() -> None:
    values = np.ones((3, 5))
    for radii in ([], [0.0, 0.0, 1.0], [0.0, 1.0, NAN], 1.0, [2.0, 1.0, 0.0]):
        refused("radii must be finite numbers that ascend", plot_precision, {"a": values}, radii)
    radii = [0.0, 1.0, 2.0]
    refused(r"precision\['a'\] must be of shape \(3, N\)", plot_precision, {"a": values.T}, radii)
    refused(r"weights must be of shape \(5,\)", plot_precision, {"a": values}, radii, [1.0])
    refused("confidence must lie in", plot_precision, {"a": values}, radii, confidence=1.0)
    for nothing in ({}, values):
        refused("precision must map", plot_precision, nothing, radii)
        refused("min_radius must map", plot_min_radius, nothing)
        refused("models must map", plot_tradeoff, nothing)
        refused("attributions must map", plot_magnitudes, nothing, 2)


def test_radii_at_which_something_breaks() -> None:
    refused(r"min_radius\['a'\] must hold radii", plot_min_radius, {"a": [-1.0, 1.0]})
    refused(r"min_radius\['a'\] must hold radii", plot_min_radius, {"a": [NAN, NAN]})
    refused(r"min_radius\['a'\] must hold radii", plot_min_radius, {"a": np.ones((2, 2))})
    refused("at least one finite radius", plot_min_radius, {"a": [np.inf, NAN]})
    refused("confidence must lie in", plot_min_radius, {"a": [1.0]}, confidence=0)


def test_tables() -> None:
    first, second = (table(r, v, None) for r, v in zip((0.1, 0.2), examples(), strict=False))
    refused("at least one table", plot_tables, [], "P@3")
    refused("metric must be one of .*P@3", plot_tables, [first], "P@4")
    refused("different radii", plot_tables, [first, first], "P@3")
    other = type(second)(second.measurements, second.radius, "Linf", None, second.confidence)
    refused("same attributions, attacks, norm", plot_tables, [first, other], "P@3")


def test_points() -> None:
    for pair in ((NAN, 1.0), (1.0,), (1.0, []), (np.ones((2, 2)), 1.0)):
        refused(r"models\['a'\] must be finite accuracy", plot_tradeoff, {"a": pair})
    refused(r"both be of shape \(N,\)", plot_manipulation, [1.0, 2.0], [1, 2, 3])
    refused("at least three examples", plot_manipulation, [1.0, 2.0, NAN], [1, 2, 3])


def test_attacks_without_a_trace() -> None:
    info = attack_info()
    info.trace[:] = NAN
    refused("info must be the AttackInfo", plot_traces, info)
    refused("info must be the AttackInfo", plot_traces, object())
    refused("confidence must lie in", plot_traces, attack_info(), confidence=2)


def test_magnitudes() -> None:
    refused("k must be an int with 1 <= k < 6", plot_magnitudes, {"a": ROW[None]}, 6)
    refused("at least one finite map", plot_magnitudes, {"a": ROW[None] / 0}, 2)
