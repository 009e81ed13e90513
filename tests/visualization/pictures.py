"""One small picture of every kind, on fixed numbers; each can be told to be slightly wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from captum_robust.robust import AttackInfo
from captum_robust.visualization import (
    plot_magnitudes,
    plot_manipulation,
    plot_min_radius,
    plot_precision,
    plot_traces,
    plot_tradeoff,
    visualize_adjacency_rankings,
    visualize_graph_rankings,
    visualize_image_rankings,
    visualize_table_rankings,
)

Picture = tuple[Any, Any]


def maps(*shape: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A map after and before, with some of the top features in common."""
    generator = np.random.default_rng(seed)
    before = generator.random(shape) ** 2
    return before + 0.8 * generator.random(shape) ** 2, before


def swapped(after: np.ndarray, wrong: bool) -> np.ndarray:
    """The map, or, if it is to be wrong, one whose largest and smallest scores changed places."""
    changed = after.copy()
    if wrong:
        flat = changed.ravel()
        flat[[after.argmax(), after.argmin()]] = flat[[after.argmin(), after.argmax()]]
    return changed


def image(wrong: bool = False) -> Picture:
    after, before = maps(6, 6)
    picture = (before, np.clip(after, 0, 1))
    return visualize_image_rankings(swapped(after, wrong), before, 5, *picture, use_pyplot=False)


def superpixels(wrong: bool = False) -> Picture:
    after, before = maps(12, 12)
    mask = np.add.outer(4 * (np.arange(12) // 3), np.arange(12) // 3)
    after[:3, :3] += 0.4 * wrong
    return visualize_image_rankings(
        after, before, 4, feature_mask=mask, fig_size=(5, 3), use_pyplot=False
    )


def table(wrong: bool = False) -> Picture:
    after, before = maps(9, seed=1)
    names = ["age", "education", "hours", "gain", "loss", "sex", "married", "work", "native"]
    before[8] = after[2] = -0.2
    return visualize_table_rankings(swapped(after, wrong), before, 4, names, use_pyplot=False)


def adjacency(wrong: bool = False) -> Picture:
    after, before = maps(28)
    return visualize_adjacency_rankings(
        swapped(after, wrong), before, 6, node_names=list("ABCDEFGH"), use_pyplot=False
    )


def graph(wrong: bool = False) -> Picture:
    after, before = maps(45)
    regions = ["front"] * 4 + ["side"] * 3 + ["back"] * 3
    return visualize_graph_rankings(
        swapped(after, wrong), before, 7, node_regions=regions, use_pyplot=False
    )


def sparse_graph(wrong: bool = False) -> Picture:
    ends = np.array([[0, 1, 2, 3, 0, 4, 5], [1, 2, 3, 0, 4, 5, 6]])
    places = [[0, 0], [1, 0], [1, 1], [0, 1], [-1, 0], [-1, 1], [-2, 1]]
    after, before = maps(7)
    return visualize_graph_rankings(
        swapped(after, wrong), before, 3, ends, positions=places, use_pyplot=False
    )


def precision(wrong: bool = False) -> Picture:
    radii = np.array([0.0, 0.1, 0.2, 0.4])
    noise = np.random.default_rng(0).random((4, 20))
    curves = {
        "vanilla": np.clip(1 - radii[:, None] * (1 + noise), 0, 1),
        "softplus": np.clip(1 - 0.4 * radii[:, None] * noise, 0, 1),
        "R2ET": np.clip(1 - 0.3 * radii[:, None] * noise, 0, 1),
        "own gradient:\nexactly zero": np.ones(4),
    }
    curves["vanilla"][3] += 0.1 * wrong
    return plot_precision(curves, radii, fig_size=(4.5, 3), use_pyplot=False)


def min_radius(wrong: bool = False) -> Picture:
    radii = np.random.default_rng(0).random(30)
    found = {"attacked": radii + 0.2 + 0.1 * wrong, "certified": 0.7 * radii}
    return plot_min_radius(found, fig_size=(4.5, 3), use_pyplot=False)


def tradeoff(wrong: bool = False) -> Picture:
    models = {
        "vanilla": (0.88, 0.60), "SSR": (0.87, 0.58), "R2ET": ([0.86, 0.87], [0.95, 0.99]),
        "softplus": (0.875, 0.90 - 0.35 * wrong), "AT": (0.87, 0.70),
    }  # fmt: skip
    return plot_tradeoff(models, fig_size=(4.5, 3), use_pyplot=False)


def manipulation(wrong: bool = False) -> Picture:
    thickness = np.random.default_rng(0).random(25)
    steps = np.where(thickness > 0.85, -1, np.round(60 * thickness))
    steps[0] += 20 * wrong
    return plot_manipulation(thickness, steps, fig_size=(4, 3), use_pyplot=False)


def attack_info(found: bool = True) -> AttackInfo:
    """Three examples, two starts, five steps."""
    falling = torch.tensor([1.0, 0.8, 0.7, 0.75, 0.6, 0.6])
    trace = torch.stack([torch.outer(falling, w) for w in torch.tensor([[1.0, 2, 3], [2, 1, 2]])])
    return AttackInfo(
        objective=trace.amin(dim=(0, 1)), prediction_kept=torch.ones(3, dtype=torch.bool),
        first_change_step=torch.tensor([1, -1, 4]),
        gradient_found=torch.full((3,), found), trace=trace,
        n_queries=torch.full((3,), 12), precision=torch.ones(3), flags={},
    )  # fmt: skip


def traces(wrong: bool = False) -> Picture:
    info = attack_info()
    info.trace[0, 3:] += 0.5 * wrong
    return plot_traces(info, fig_size=(4.5, 3), use_pyplot=False)


def magnitudes(wrong: bool = False) -> Picture:
    generator = np.random.default_rng(0)
    falling = np.exp(-np.arange(12.0))
    found = {
        "vanilla": falling**0.3 * generator.random((20, 12)),
        "R2ET": falling * generator.random((20, 12)) * (1 + wrong),
    }
    return plot_magnitudes(found, 4, fig_size=(4.5, 3), use_pyplot=False)


PICTURES: dict[str, Callable[..., Picture]] = {
    function.__name__: function
    for function in (
        image, superpixels, table, adjacency, graph, sparse_graph, precision, min_radius, tradeoff,
        manipulation, traces, magnitudes,
    )
}  # fmt: skip
