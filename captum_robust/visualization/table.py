"""The top-k features of a table row before and after an attack, as bars."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captum_robust.visualization.canvas import Array, Canvas, open_canvas, show
from captum_robust.visualization.change import as_map, ranking_change
from captum_robust.visualization.marks import draw_key, draw_marks, sides

__all__ = ["visualize_table_rankings"]

_MOST_BARS = 30
_REST = "0.75"


def visualize_table_rankings(
    attribution: Array,
    reference_attribution: Array,
    k: int,
    feature_names: Sequence[str] | None = None,
    absolute: bool = False,
    feature_mask: Array | None = None,
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] | None = None,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Show the attributions of a table row before and after an attack as bars, the top k marked.

    Both sides list the features by decreasing score *before* the attack; a line separates the top
    k. Each side has its own scale. A lost feature is above the line with a grey bar on the right
    side; a gained feature is below the line. Of more than 30 features, those in either top set are
    shown, and the next ones up to 30.

    Args:
        attribution (Tensor or ndarray): attribution map after the attack, one score per feature,
            (n,).
        reference_attribution (Tensor or ndarray): attribution map before the attack, (n,).
        k (int): size of the top sets, 1 <= k < n.
        feature_names (Sequence[str], optional): names of the features, or of the groups of
            ``feature_mask`` in the order of their ids. Default: their numbers.
        absolute (bool, optional): rank, and show, :math:`|I|`. Default: False.
        feature_mask (Tensor or ndarray, optional): integer group of every feature, (n,); scores
            are summed within a group, and groups are ranked.
        title (str, optional): title of the figure.
        plt_fig_axis (tuple, optional): figure and its two axes. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and list of the two **axes**.

    Raises:
        ValueError: for maps, names or a mask that do not fit together, for a map without a ranking
            (not finite or constant), and for k out of its range.

    Examples::

        >>> import torch
        >>> before, after = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([3.0, 1.0, 2.0])
        >>> figure, axes = visualize_table_rankings(
        ...     after, before, k=2, feature_names=["age", "sex", "pay"], use_pyplot=False)
        >>> axes[1].get_title()
        'after: P@2 = 0.5'
    """
    maps = [
        as_map(attribution, "attribution"),
        as_map(reference_attribution, "reference_attribution"),
    ]
    for values, name in zip(maps, ("attribution", "reference_attribution"), strict=True):
        if values.dim() != 1:
            raise ValueError(f"{name} must be of shape (n,), got {tuple(values.shape)}")
    mask = None if feature_mask is None else as_map(feature_mask, "feature_mask")
    change = ranking_change(maps[0], maps[1], k, absolute, mask)
    n = len(change.before)
    names = [str(i) for i in range(n)] if feature_names is None else list(feature_names)
    if len(names) != n:
        raise ValueError(f"feature_names must hold {n} names, got {len(names)}")

    order = np.lexsort((np.arange(n), -change.before))
    either = change.top_before | change.top_after
    first = order[np.argsort(~either[order], kind="stable")[: max(_MOST_BARS, either.sum())]]
    shown = order[np.isin(order, first)]
    places = np.arange(len(shown))

    size = (6.4, 0.24 * len(shown) + 1.1) if fig_size is None else fig_size
    figure, axes = open_canvas(plt_fig_axis, use_pyplot, size, 1, 2)
    for axis, side in zip(axes, sides(change), strict=True):
        scores = side.scores[shown]
        bars = axis.barh(places, scores, color=_REST, height=0.7)
        span = np.ptp([0.0, *scores])
        for mark, which in side.marks:
            at = places[which[shown]]
            for place in at:
                bars[place].set(facecolor=mark.colour, hatch=mark.hatch, edgecolor="white")
            ends = np.maximum(scores[at], 0)
            draw_marks(axis, mark, ends + 0.05 * span, at, 7)
        axis.axhline(k - 0.5, color="0.3", linewidth=0.8, linestyle=(0, (1, 1)))
        axis.text(
            1, k - 0.5, f"top {k}", color="0.3", fontsize="small", ha="right", va="bottom",
            transform=axis.get_yaxis_transform(),
        )  # fmt: skip
        axis.set_yticks(places, [names[i] for i in shown] if axis is axes[0] else [])
        axis.set_ylim(len(shown) - 0.4, -0.6)
        axis.set_xlim(right=max(scores.max(), 0) + 0.1 * span)
        axis.set_xticks([])
        axis.axvline(0, color="black", linewidth=0.8)
        axis.tick_params(axis="y", length=0)
        axis.spines[:].set_visible(False)
        axis.set_title(side.heading)
        draw_key(axis, side.marks)
    if len(shown) < n:
        axes[0].set_xlabel(f"{n - len(shown)} features below are not shown", loc="left")
    if title is not None:
        figure.suptitle(title)
    show(use_pyplot)
    return figure, axes
