"""A metric of comparator tables against the radius."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from captum_robust.robust.evaluation.robustness_table import RobustnessTable
from captum_robust.visualization.canvas import Canvas, one_axis, show
from captum_robust.visualization.curves import Curve
from captum_robust.visualization.radius import SIZE, draw_against_radius

__all__ = ["plot_tables"]


def plot_tables(
    tables: Sequence[RobustnessTable],
    metric: str,
    title: str | None = None,
    ylim: tuple[float, float] | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = SIZE,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot a metric of tables of different radii, one curve per attribution and attack.

    Means and bands are those of the tables, with their weights and their confidence.

    Args:
        tables (Sequence[RobustnessTable]): one per radius, with the same attributions, attacks,
            norm and confidence.
        metric (str): name of the metric.
        title (str, optional): title of the plot.
        ylim (tuple, optional): limits of the vertical axis. Default: 0 to 1, or to what is drawn.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for no table, tables with different attributions, attacks, norms or
            confidences, two tables of one radius, and a metric that they do not have.

    Examples::

        >>> from functools import partial
        >>> import torch
        >>> from captum.attr import Saliency
        >>> from captum_robust.metrics import precision_at_k
        >>> from captum_robust.robust import ERAttack, ExplanationComparator
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(6, 8), torch.nn.Softplus(), torch.nn.Linear(8, 2)
        ... )
        >>> saliency, x = Saliency(model), torch.randn(8, 6)
        >>> comparator = ExplanationComparator(
        ...     {"Saliency": saliency},
        ...     {"ERAttack": ERAttack(saliency, k=2)},
        ...     {"P@2": partial(precision_at_k, k=2)},
        ... )
        >>> tables = [comparator.evaluate(x, r, target=0, seed=0) for r in (0.1, 0.5)]
        >>> figure, axis = plot_tables(tables, "P@2", use_pyplot=False)
        >>> [line.get_label() for line in axis.get_lines()]
        ['noise', 'ERAttack']
    """
    found = sorted(tables, key=lambda table: table.radius)
    if not found:
        raise ValueError("tables must hold at least one table, got none")
    kinds = {
        (t.norm, t.confidence, tuple((m.attribution, m.attack) for m in t.measurements))
        for t in found
    }
    radii = [table.radius for table in found]
    if len(kinds) > 1 or len(set(radii)) < len(radii):
        raise ValueError(
            "tables must have the same attributions, attacks, norm and confidence, and different "
            f"radii, got {len(kinds)} kinds of tables with radii {radii}"
        )
    for table in found:
        if metric not in table.metrics:
            raise ValueError(f"metric must be one of {table.metrics}, got {metric!r}")
    names = [(m.attribution, m.attack) for m in found[0].measurements]
    one_attribution = len({attribution for attribution, _ in names}) == 1
    curves = []
    for attribution, attack in names:
        estimates = [table.estimate(attribution, attack, metric) for table in found]
        mean, low, high = (
            np.array([getattr(e, end) for e in estimates]) for end in ("mean", "low", "high")
        )
        name = attack if one_attribution else f"{attribution}, {attack}"
        curves.append(Curve(name, np.array(radii), mean, low, high))
    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    draw_against_radius(
        axis, curves, f"{found[0].norm} radius of the perturbation", metric, ylim, title
    )
    show(use_pyplot)
    return figure, axis
