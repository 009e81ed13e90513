"""The share of unchanged explanations against the radius."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from captum_robust.visualization.canvas import Array, Canvas, as_array, one_axis, show
from captum_robust.visualization.curves import Curve
from captum_robust.visualization.radius import (
    SIZE,
    check_confidence,
    check_curves,
    draw_against_radius,
)

__all__ = ["plot_min_radius"]


def plot_min_radius(
    min_radius: Mapping[str, Array],
    confidence: float = 0.95,
    xlabel: str = "radius of the perturbation",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = SIZE,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot the share of examples whose explanation is unchanged at each radius, as steps.

    The radii are those at which explanations change (:class:`~captum_robust.robust.MinRadius`), or
    up to which they are certified (:func:`~captum_robust.metrics.certified_top_k_radius`). The band
    is Wilson's interval of each share.

    Args:
        min_radius (Mapping[str, Tensor or ndarray]): for each curve one radius per example,
            (N,); inf for examples that no attack changes, NaN for examples that cannot be scored,
            which are left out.
        confidence (float, optional): coverage of the band, in (0, 1). Default: 0.95.
        xlabel (str, optional): label of the horizontal axis, with norm and units.
        title (str, optional): title of the plot.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for no curve, radii of another shape, negative ones, or none that is finite in
            all of them, and a confidence outside (0, 1).

    Examples::

        >>> import torch
        >>> found = {"AutoERAttack": torch.tensor([0.1, 0.3, 0.2, float("inf")])}
        >>> figure, axis = plot_min_radius(found, use_pyplot=False)
        >>> axis.get_lines()[0].get_ydata().tolist()
        [1.0, 0.75, 0.5, 0.25]
    """
    check_confidence(confidence)
    radii = {name: as_array(r) for name, r in check_curves("min_radius", min_radius).items()}
    for name, values in radii.items():
        if values.ndim != 1 or (values < 0).any() or np.isnan(values).all():
            raise ValueError(
                f"min_radius[{name!r}] must hold radii of at least 0, shape (N,), and one or more "
                f"that are not NaN, got {values}"
            )
    together = np.concatenate(list(radii.values()))
    breaks = np.unique(together[np.isfinite(together)])
    if not len(breaks):
        raise ValueError("min_radius must hold at least one finite radius, got none")
    x = np.concatenate([[0.0], breaks[breaks > 0]])
    curves = []
    for name, values in radii.items():
        known = values[~np.isnan(values)]
        fraction = (known[None] > x[:, None]).mean(axis=1)
        low, high = _wilson(fraction, len(known), confidence)
        curves.append(Curve(name, x, fraction, low, high))
    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    draw_against_radius(
        axis, curves, xlabel, "share of unchanged explanations", None, title, steps=True
    )
    show(use_pyplot)
    return figure, axis


def _wilson(
    fraction: NDArray[np.float64], n: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of Wilson's score interval (1927), which lie in [0, 1]."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (fraction + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    return middle - half, middle + half
