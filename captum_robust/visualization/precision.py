"""P@k, thickness, or what else is measured, against the radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from captum_robust.robust.evaluation.robustness_table import RobustnessTable
from captum_robust.visualization.canvas import Array, Canvas, as_array, one_axis, show
from captum_robust.visualization.curves import Curve, curve_of_means, draw_curves, draw_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_min_radius", "plot_precision", "plot_tables"]

_SIZE = (6.4, 3.8)


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
    fig_size: tuple[float, float] = _SIZE,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot P@k, thickness or another metric against the radius, one curve a name.

    A curve is the mean over the examples that have a value; its band is Student's t interval of
    that mean, :math:`m \pm t_{n-1} s / \sqrt{n}`, as in
    :class:`~captum_robust.robust.RobustnessTable`: about other examples like these, not about
    another seed or a stronger attack. It is drawn as far as the limits of the axis.

    Args:
        precision (Mapping[str, Tensor or ndarray]): for each curve one value a radius and example,
            (R, N), NaN for those without; or (R,) means, which get no band.
        radii (Tensor, ndarray or Sequence): the radii, ascending, (R,).
        weights (Tensor or ndarray, optional): weights of the examples, (N,).
        confidence (float, optional): coverage of the band, in (0, 1). Default: 0.95.
        ylabel (str, optional): what was measured.
        xlabel (str, optional): of what the radius is, its norm and its units.
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
    _check_confidence(confidence)
    curves = []
    for name, given in _named("precision", precision).items():
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
    _draw(axis, curves, xlabel, ylabel, ylim, title)
    show(use_pyplot)
    return figure, axis


def plot_tables(
    tables: Sequence[RobustnessTable],
    metric: str,
    title: str | None = None,
    ylim: tuple[float, float] | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = _SIZE,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot a metric of tables of different radii, one curve an attribution and attack.

    Means and bands are those of the tables, with their weights and their confidence.

    Args:
        tables (Sequence[RobustnessTable]): one for each radius, alike otherwise.
        metric (str): name of the metric.
        title (str, optional): title of the plot.
        ylim (tuple, optional): limits of the vertical axis. Default: 0 to 1, or to what is drawn.
        plt_fig_axis (tuple, optional): figure and axis. Default: new ones.
        fig_size (tuple, optional): size of a new figure, inches.
        use_pyplot (bool, optional): create and show the figure by pyplot. Default: True.

    Returns:
        - **figure** and **axis**.

    Raises:
        ValueError: for no table, tables of unlike attributions, attacks, norms or confidences,
            two of one radius, and a metric that they do not have.

    Examples::

        >>> from functools import partial
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
    likeness = {
        (t.norm, t.confidence, tuple((m.attribution, m.attack) for m in t.measurements))
        for t in found
    }
    radii = [table.radius for table in found]
    if len(likeness) > 1 or len(set(radii)) < len(radii):
        raise ValueError(
            "tables must have the same attributions, attacks, norm and confidence, and different "
            f"radii, got {len(likeness)} kinds of table, of radii {radii}"
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
    _draw(axis, curves, f"{found[0].norm} radius of the perturbation", metric, ylim, title)
    show(use_pyplot)
    return figure, axis


def plot_min_radius(
    min_radius: Mapping[str, Array],
    confidence: float = 0.95,
    xlabel: str = "radius of the perturbation",
    title: str | None = None,
    plt_fig_axis: Canvas | None = None,
    fig_size: tuple[float, float] = _SIZE,
    use_pyplot: bool = True,
) -> Canvas:
    r"""Plot the share of examples whose explanation still holds at each radius, as steps.

    For radii at which explanations break (:class:`~captum_robust.robust.MinRadius`), or up to which
    they are certified (:func:`~captum_robust.metrics.certified_top_k_radius`). The band is
    Wilson's interval of each share.

    Args:
        min_radius (Mapping[str, Tensor or ndarray]): for each curve one radius an example, (N,);
            inf for those that nothing breaks, NaN for those that cannot be scored, which are left
            out.
        confidence (float, optional): coverage of the band, in (0, 1). Default: 0.95.
        xlabel (str, optional): of what the radius is, its norm and its units.
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

        >>> found = {"AutoERAttack": torch.tensor([0.1, 0.3, 0.2, float("inf")])}
        >>> figure, axis = plot_min_radius(found, use_pyplot=False)
        >>> axis.get_lines()[0].get_ydata().tolist()
        [1.0, 0.75, 0.5, 0.25]
    """
    _check_confidence(confidence)
    radii = {name: as_array(r) for name, r in _named("min_radius", min_radius).items()}
    for name, values in radii.items():
        if values.ndim != 1 or (values < 0).any() or np.isnan(values).all():
            raise ValueError(
                f"min_radius[{name!r}] must hold radii of at least 0, shape (N,), and some that "
                f"are numbers, got {values}"
            )
    together = np.concatenate(list(radii.values()))
    breaks = np.unique(together[np.isfinite(together)])
    if not len(breaks):
        raise ValueError("min_radius must hold at least one finite radius, got none")
    x = np.concatenate([[0.0], breaks[breaks > 0]])
    curves = []
    for name, values in radii.items():
        known = values[~np.isnan(values)]
        share = (known[None] > x[:, None]).mean(axis=1)
        low, high = _wilson(share, len(known), confidence)
        curves.append(Curve(name, x, share, low, high))
    figure, axis = one_axis(plt_fig_axis, use_pyplot, fig_size)
    _draw(axis, curves, xlabel, "share of explanations that hold", None, title, steps=True)
    show(use_pyplot)
    return figure, axis


def _wilson(
    share: NDArray[np.float64], n: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval (1927), which stays in [0, 1]."""
    from statistics import NormalDist

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return middle - half, middle + half


def _draw(
    axis: Axes,
    curves: Sequence[Curve],
    xlabel: str,
    ylabel: str,
    ylim: tuple[float, float] | None,
    title: str | None,
    steps: bool = False,
) -> None:
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(axis="y", color="0.9", linewidth=0.8)
    axis.spines[["top", "right"]].set_visible(False)
    means = np.concatenate([curve.mean for curve in curves])
    if ylim is None and np.nanmin(means) >= 0 and np.nanmax(means) <= 1:
        ylim = (0, 1.03)
    if ylim is not None:
        axis.set_ylim(ylim)
    if title is not None:
        axis.set_title(title)
    (draw_steps if steps else draw_curves)(axis, curves)


def _named(argument: str, given: Mapping[str, Array]) -> Mapping[str, Array]:
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"{argument} must map the name of each curve to its values, got {given!r}")
    return given


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
