"""The objective of an attack, step by step."""

from __future__ import annotations

import numpy as np

from captum_robust.robust.info import AttackInfo
from captum_robust.visualization.canvas import Canvas, as_array, one_axis, show
from captum_robust.visualization.curves import curve_of_means
from captum_robust.visualization.labels import label_ends

__all__ = ["plot_traces"]

_COLOUR, _CHANGE = "#0072B2", "#D55E00"


def plot_traces(
    info: AttackInfo,
    confidence: float = 0.95,
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = (6.4, 3.8),
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot the objective of an attack against its steps: each restart, and the best so far.

    The thin grey lines are the means over the examples of the iterates, one line per restart. The
    thick line is the mean of the smallest objective so far over all restarts, with Student's t
    interval. The orange ticks at the bottom are the steps at which examples first lost a top-k
    feature. An attack whose objective still falls at its last step needs more steps. An attack that
    never moves found no gradient and proves nothing; the plot says so. Iterates count whether or
    not they keep the prediction.

    Args:
        info (AttackInfo): the second result of ``perturb(…, return_info=True)``.
        confidence (float, optional): coverage of the band, in (0, 1). Default: 0.95.
        title (str, optional): title of the plot.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for an attack on no example, an attack without a trace, and a confidence outside
            (0, 1).

    Examples::

        >>> import torch
        >>> from captum.attr import Saliency
        >>> from captum_robust.robust import ERAttack
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(6, 8), torch.nn.Softplus(), torch.nn.Linear(8, 2))
        >>> _, info = ERAttack(Saliency(model), k=2).perturb(
        ...     torch.randn(5, 6), radius=0.5, step_num=10, target=0, seed=0, return_info=True)
        >>> figure, axis = plot_traces(info, use_pyplot=False)
        >>> len(axis.get_lines()[0].get_xdata())
        11
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    trace = getattr(info, "trace", None)
    if trace is None or trace.dim() != 3 or trace.shape[2] == 0 or bool(trace.isnan().all()):
        raise ValueError(
            "info must be the AttackInfo of an attack on at least one example, got "
            f"{type(info).__name__} without a trace"
        )
    values = as_array(trace)
    steps = np.arange(values.shape[1], dtype=np.float64)
    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    for restart in values:
        curve = curve_of_means("each restart", steps, restart, None, confidence)
        axis.plot(steps, curve.mean, color="0.6", linewidth=0.9, zorder=2)
    best = np.fmin.accumulate(np.fmin.reduce(values, axis=0), axis=0)
    curve = curve_of_means("best so far", steps, best, None, confidence)
    axis.fill_between(steps, curve.low, curve.high, color=_COLOUR, alpha=0.15, linewidth=0)
    axis.plot(steps, curve.mean, color=_COLOUR, linewidth=2.2, zorder=3)
    low, high = axis.get_ylim()
    axis.set_ylim(low - 0.2 * (high - low), high)  # room for the ticks
    if info.first_change_step is not None:
        changes = as_array(info.first_change_step)
        changes = changes[changes >= 0]
        foot = axis.get_xaxis_transform()
        axis.plot(
            changes, np.full(len(changes), 0.03), color=_CHANGE, linestyle="none", marker="|",
            markersize=12, alpha=0.6, transform=foot, gid="first change",
        )  # fmt: skip
        axis.text(
            steps[0], 0.07, "a top-k feature first lost", color=_CHANGE, transform=foot,
            va="bottom",
        )  # fmt: skip
    if not bool(info.gradient_found.any()):
        axis.text(
            0.5, 0.5, "gradient exactly zero:\nproves nothing", transform=axis.transAxes,
            ha="center", va="center", color=_CHANGE, weight="bold",
        )  # fmt: skip
    ends = [(steps[-1], curve.mean[-1], "best so far", _COLOUR)]
    if len(values) > 1:
        last = np.nanmax(values[:, -1].mean(axis=1))
        ends.append((steps[-1], last, "each restart", "0.6"))
    axis.set_xlabel("step")
    axis.set_ylabel("objective, mean over examples")
    axis.spines[["top", "right"]].set_visible(False)
    if title is not None:
        axis.set_title(title)
    label_ends(axis, ends)
    show(use_pyplot)
    return figure, axis
