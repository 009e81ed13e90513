"""P@k, thickness or another metric against the radius."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from captum_robust.visualization.canvas import Array, Canvas, as_array, one_axis, show
from captum_robust.visualization.curves import Curve, curve_of_means
from captum_robust.visualization.radius import (
    SIZE,
    check_confidence,
    check_curves,
    draw_against_radius,
)

__all__ = ["plot_precision"]


def plot_precision(
    precision: Mapping[str, Array],
    radii: Array,
    weights: Array | None = None,
    confidence: float = 0.95,
    ylabel: str = "P@k",
    xlabel: str = "radius of the perturbation",
    ylim: tuple[float, float] | None = None,
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = SIZE,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot P@k, thickness or another metric against the radius, one curve per name.

    A curve is the mean over the examples that have a value; its band is Student's t interval of
    that mean, :math:`m \pm t_{n-1} s / \sqrt{n}`: it is about other examples like these, not about
    another seed or a stronger attack. It is cut off at the limits of the axis, and has no width
    where all values are equal. The intervals of :class:`~captum_robust.robust.RobustnessTable` lie
    in the range of the metric, and have a width there too.

    Args:
        precision (Mapping[str, Tensor or ndarray]): for each curve one value per radius and
            example, (R, N), NaN where there is none; or (R,) means, which get no band.
        radii (Tensor, ndarray or Sequence): the radii, ascending, (R,).
        weights (Tensor or ndarray, optional): weights of the examples, (N,).
        confidence (float, optional): coverage of the band, in (0, 1). Default: 0.95.
        ylabel (str, optional): label of the vertical axis.
        xlabel (str, optional): label of the horizontal axis, with norm and units.
        ylim (tuple, optional): limits of the vertical axis. Default: 0 to 1, or to what is drawn.
        title (str, optional): title of the plot.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for no curve, values that do not fit the radii or the weights, radii that do
            not ascend, and a confidence outside (0, 1).

    Examples::

        >>> precision = {"vanilla": torch.tensor([[1.0, 1.0], [0.5, 0.75], [0.25, 0.5]])}
        >>> figure, axis = plot_precision(precision, [0.0, 0.1, 0.2], use_pyplot=False)
        >>> axis.get_lines()[0].get_ydata().tolist()
        [1.0, 0.625, 0.375]
    """
    x = as_array(radii)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all() or not (np.diff(x) > 0).all():
        raise ValueError(f"radii must be finite numbers that ascend, shape (R,), got {radii!r}")
    check_confidence(confidence)
    curves = []
    for name, given in check_curves("precision", precision).items():
        values = as_array(given)
        if values.ndim not in (1, 2) or len(values) != len(x):
            raise ValueError(
                f"precision[{name!r}] must be of shape ({len(x)}, N) or ({len(x)},), "
                f"got {values.shape}"
            )
        if values.ndim == 1:
            none = np.full(len(x), np.nan)
            curves.append(Curve(name, x, values, none, none))
            continue
        of_examples = None if weights is None else torch.from_numpy(as_array(weights))
        if of_examples is not None and tuple(of_examples.shape) != values.shape[1:]:
            raise ValueError(
                f"weights must be of shape ({values.shape[1]},), got {tuple(of_examples.shape)}"
            )
        curves.append(curve_of_means(name, x, values, of_examples, confidence))
    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    draw_against_radius(axis, curves, xlabel, ylabel, ylim, title)
    show(use_pyplot)
    return figure, axis
