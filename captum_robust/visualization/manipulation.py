"""Thickness against the step at which an attack first changes the explanation."""

from __future__ import annotations

import numpy as np
import torch

from captum_robust.metrics import spearman_correlation
from captum_robust.visualization.canvas import Array, Canvas, as_array, one_axis, show

__all__ = ["plot_manipulation"]


def plot_manipulation(
    thickness: Array,
    first_change_step: Array,
    xlabel: str = "ranking thickness",
    ylabel: str = "manipulation step",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = (5.2, 4.0),
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot the thickness of each example against the first step at which an attack changed it.

    If thickness predicts robustness, thick rankings change late. The title gives Spearman's rank
    correlation :math:`\rho` over the examples that have both values; examples that never changed
    rank above all others, and are drawn as triangles above a line. After the experiments of arXiv
    2212.14106, which do not name their coefficient.

    Args:
        thickness (Tensor or ndarray): thickness or another predictor of robustness, (N,); NaN
            where it is missing.
        first_change_step (Tensor or ndarray): ``AttackInfo.first_change_step``, (N,); −1 for never.
        xlabel (str, optional): label of the horizontal axis.
        ylabel (str, optional): label of the vertical axis.
        title (str, optional): title of the plot, before the correlation.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for arguments of wrong or different shapes, and for fewer than three examples
            that have both values.

    Examples::

        >>> thickness, steps = torch.tensor([0.9, 0.95, 0.99, 1.0]), torch.tensor([3, 2, 7, -1])
        >>> figure, axis = plot_manipulation(thickness, steps, use_pyplot=False)
        >>> axis.get_title()
        'ρ = 0.80 (n = 4)'
    """
    x, steps = as_array(thickness), as_array(first_change_step)
    if x.ndim != 1 or x.shape != steps.shape:
        raise ValueError(
            "thickness and first_change_step must both be of shape (N,), got "
            f"{x.shape} and {steps.shape}"
        )
    known = np.isfinite(x) & np.isfinite(steps)
    x, steps = x[known], steps[known]
    if len(x) < 3:
        raise ValueError(f"thickness must hold at least three examples with a step, got {len(x)}")
    never = steps < 0
    top = max(steps.max(), 1.0)
    steps = np.where(never, 1.12 * top, steps)
    ranks = torch.from_numpy(np.stack([x, steps]))
    rho = float(spearman_correlation(ranks[:1], ranks[1:]))
    correlation = "ρ undefined" if np.isnan(rho) else f"ρ = {rho:.2f}"

    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    for which, marker, colour in ((~never, "o", "#0072B2"), (never, "^", "#009E73")):
        axis.scatter(x[which], steps[which], s=36, c=colour, marker=marker, alpha=0.6, linewidths=0)
    axis.set_ylim(0, 1.18 * top if never.any() else 1.05 * top)
    if never.any():
        axis.axhline(1.05 * top, color="0.6", linewidth=0.8, linestyle=(0, (1, 1)))
        ticks = [tick for tick in axis.get_yticks() if tick <= top]
        axis.set_yticks([*ticks, 1.12 * top], [*(f"{tick:g}" for tick in ticks), "never"])
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title("".join([f"{title}: " if title else "", correlation, f" (n = {len(x)})"]))
    show(use_pyplot)
    return figure, axis
