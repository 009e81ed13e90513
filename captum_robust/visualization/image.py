"""The top-k pixels of an image before and after an attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.visualization.canvas import Array, Canvas, as_array, open_canvas, show
from captum_robust.visualization.change import as_map, ranking_change
from captum_robust.visualization.grid import draw_map, draw_regions
from captum_robust.visualization.labels import lay_out
from captum_robust.visualization.marks import draw_key, sides

__all__ = ["visualize_image_rankings"]


def visualize_image_rankings(
    attribution: Array,
    reference_attribution: Array,
    k: int,
    original_image: Array | None = None,
    perturbed_image: Array | None = None,
    absolute: bool = False,
    feature_mask: Array | None = None,
    cmap: Any = "Greys",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] | None = None,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Show the attributions of an image before and after an attack, with its top k pixels marked.

    On the left is the attribution map before the attack, with the pixels that were kept (blue
    circle, solid line) and lost (orange cross, dashed); on the right the map after the attack, with
    those kept and gained (green triangle, dotted). Each map has its own scale, from its smallest to
    its largest value: darker is more important. Pixels that are smaller than 6 points are marked
    but not outlined.

    Args:
        attribution (Tensor or ndarray): attribution map after the attack, (H, W, C) or (H, W),
            channels last as in :mod:`captum.attr.visualization`. Channels are summed, so that
            pixels are ranked, in the order of :func:`~captum_robust.metrics.precision_at_k` whose
            ``feature_mask`` gives the channels of a pixel the same id.
        reference_attribution (Tensor or ndarray): attribution map before the attack, of the same
            shape.
        k (int): size of the top sets, 1 <= k < number of pixels or groups.
        original_image (Tensor or ndarray, optional): the input before the attack, shown above its
            map; (H, W, C) or (H, W), floats in [0, 1] or integers in [0, 255].
        perturbed_image (Tensor or ndarray, optional): the input after the attack; give both images
            or none.
        absolute (bool, optional): rank :math:`|I|`, before channels are summed. Default: False.
        feature_mask (Tensor or ndarray, optional): integer group of every pixel, (H, W) or
            (H, W, C), for super-pixels. The regions are outlined.
        cmap (str or Colormap, optional): colours of the maps. Default: white to black.
        title (str, optional): title of the figure.
        plt_fig_axis (tuple, optional): figure and its two axes, or four with the images.
            Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and list of **axes**: the images, if given, then the two maps.

    Raises:
        ValueError: for maps, images or a mask that do not fit together, for a map without a ranking
            (not finite or constant), and for k out of its range.

    Examples::

        >>> before = torch.arange(16.0).reshape(4, 4)
        >>> figure, axes = visualize_image_rankings(before.T, before, k=4, use_pyplot=False)
        >>> [axis.get_title() for axis in axes]
        ['before', 'after: P@4 = 0.25']
    """
    maps = [
        _pixels(as_map(values, name), name)
        for values, name in (
            (attribution, "attribution"), (reference_attribution, "reference_attribution"),
        )
    ]  # fmt: skip
    shape = tuple(maps[0].shape[:2])
    mask = torch.arange(shape[0] * shape[1]).reshape(*shape, 1)
    if feature_mask is not None:
        mask = _pixels(as_map(feature_mask, "feature_mask"), "feature_mask")
    change = ranking_change(maps[0], maps[1], k, absolute, mask)
    region = change.group.reshape(*shape, -1)
    if (region != region[:, :, :1]).any():
        raise ValueError("feature_mask must give all channels of a pixel the same id")
    images = _images(original_image, perturbed_image, shape)

    n_rows = 2 if images else 1
    ratio = shape[0] / shape[1]
    size = (6.0, min(n_rows * (3.0 * ratio + 0.1) + 0.6, 10.0)) if fig_size is None else fig_size
    figure, axes = open_canvas(plt_fig_axis, use_pyplot, size, n_rows, 2)
    for axis, image in zip(axes, images, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_axis_off()
    before_and_after = list(zip(axes[-2:], sides(change), strict=True))
    for (axis, side), values in zip(before_and_after, reversed(maps), strict=True):
        draw_map(axis, (values.abs() if absolute else values).double().sum(dim=2).numpy(), cmap)
        draw_key(axis, side.marks)
        axis.set_title(side.heading)
    if title is not None:
        figure.suptitle(title)
    lay_out(axes[-1])
    for axis, side in before_and_after:
        for mark, which in side.marks:
            draw_regions(axis, mark, region[:, :, 0], which)
    show(use_pyplot)
    return figure, axes


def _pixels(values: Tensor, name: str) -> Tensor:
    """Return a map as (H, W, C); it may lack its channels."""
    if values.dim() == 2:
        values = values[:, :, None]
    if values.dim() != 3:
        raise ValueError(f"{name} must be of shape (H, W, C) or (H, W), got {tuple(values.shape)}")
    return values


def _images(
    original: Array | None, perturbed: Array | None, shape: tuple[int, ...]
) -> list[NDArray[np.float64]]:
    """Return both images in [0, 1], grey ones as (H, W); none where none is given."""
    if original is None and perturbed is None:
        return []
    if original is None or perturbed is None:
        raise ValueError("original_image and perturbed_image must be given both or not at all")
    pair = []
    for values, name in ((original, "original_image"), (perturbed, "perturbed_image")):
        image = as_array(values)
        if image.shape[:2] != shape or image.shape[2:] not in ((), (1,), (3,), (4,)):
            raise ValueError(
                f"{name} must be of shape {shape} with 1, 3 or 4 channels last or none, "
                f"got {image.shape}"
            )
        pair.append(image[:, :, 0] if image.shape[2:] == (1,) else image)
    scale = 255.0 if pair[0].max() > 1 else 1.0  # an attack without bounds may leave [0, 1]
    return [np.clip(image / scale, 0, 1) for image in pair]
