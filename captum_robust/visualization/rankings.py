"""The picture for the shape of an attribution map."""

from __future__ import annotations

from typing import Any

from captum_robust.visualization.canvas import Array, Canvas
from captum_robust.visualization.change import as_map
from captum_robust.visualization.image import visualize_image_rankings
from captum_robust.visualization.table import visualize_table_rankings

__all__ = ["visualize_rankings"]


def visualize_rankings(
    attribution: Array, reference_attribution: Array, k: int, **kwargs: Any
) -> Canvas:
    r"""Show attributions before and after an attack, with features kept, lost and gained marked.

    A map of shape (n,) is drawn by :func:`visualize_table_rankings`, one of (H, W) or (H, W, C) by
    :func:`visualize_image_rankings`. The maps of graphs have such shapes as
    well, so call :func:`visualize_adjacency_rankings` or :func:`visualize_graph_rankings` for them.

    Args:
        attribution (Tensor or ndarray): attribution map of one example after the attack.
        reference_attribution (Tensor or ndarray): attribution map before the attack, of the same
            shape.
        k (int): size of the top sets.
        **kwargs: further arguments of the function that draws.

    Returns:
        - **figure** and list of **axes**.

    Raises:
        ValueError: for maps of other shapes, and for what the function that draws refuses.

    Examples::

        >>> import torch
        >>> before, after = torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
        >>> figure, axes = visualize_rankings(after, before, k=2, use_pyplot=False)
        >>> axes[1].get_title()
        'after: P@2 = 0.5'
    """
    dimensions = as_map(attribution, "attribution").dim()
    draw = visualize_table_rankings if dimensions == 1 else visualize_image_rankings
    return draw(attribution, reference_attribution, k, **kwargs)
