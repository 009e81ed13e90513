"""Ranking thickness: the fraction of the neighbourhood that keeps the ranking."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.checks import check_choice, check_count
from captum_robust.metrics._explainer import Explainer
from captum_robust.metrics._neighbours import neighbour_scores
from captum_robust.metrics._pairs import check_pair_range, expanded_pairs
from captum_robust.metrics._scores import nan_where
from captum_robust.metrics._top_sets import top_k_of
from captum_robust.noise import Noise, UniformNoise
from captum_robust.ranking import fraction, win_counts

__all__ = ["default_perturb_func", "pairwise_ranking_thickness", "ranking_thickness"]

Surrogate = Literal["indicator", "margin"]
Reduction = Literal["mean", "min"]
Sampling = Literal["stratified", "grid"]

#: Uniform noise in the :math:`L_\infty` ball: the perturbation used where none is given.
default_perturb_func: Noise = UniformNoise()


def ranking_thickness(
    explanation_func: Callable[..., Inputs],
    inputs: Inputs,
    k: int,
    perturb_func: Callable[..., Any] = default_perturb_func,
    perturb_radius: float | Tensor = 0.02,
    n_perturb_samples: int = 10,
    n_steps: int = 32,
    surrogate: Surrogate = "indicator",
    reduction: Reduction = "mean",
    sampling: Sampling | None = None,
    reference_attributions: Inputs | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    show_progress: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""Fraction of the neighbourhood in which the top-k features stay above the others.

    .. math::
        \Theta(x, k) = \frac{1}{k(n-k)} \sum_{i \in top_k(x)} \sum_{j \notin top_k(x)}
        E_{x' \sim D} \int_0^1 1[\, I_i(x(t)) \ge I_j(x(t)) \,]\, dt, \quad x(t) = (1-t) x + t x'

    where :math:`I_i` is the attribution of feature i, D the distribution of the neighbours x' and
    x(t) a point between the example and a neighbour. In [0, 1], higher is more stable; 1 if no top
    feature ever falls below another feature.

    Source: arXiv 2212.14106, equations (2) and (3). Cost: one attribution for each example and each
    of its n_perturb_samples × n_steps points, and one sort per point for the sum over pairs, which
    is a Mann–Whitney count.

    Args:
        explanation_func (Callable): ``explanation_func(inputs, **kwargs)`` returns attributions;
            usually the ``attribute`` method of a Captum attribution.
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0. A tensor is passed on
            as a tensor, a tuple as a tuple.
        k (int): size of the top set, 1 <= k < n, the number of features or groups.
        perturb_func (Callable or Perturbation, optional): where the neighbours x' come from.
            :class:`~captum_robust.robust.UniformNoise` (both norms) and
            :class:`~captum_robust.robust.GaussianNoise` draw them. Any other Perturbation, such as
            an attack for the adversarial thickness, is called with the radius, the ``kwargs`` and a
            seed as far as it accepts them. A function is called as ``perturb_func(inputs,
            perturb_radius)``, as by ``captum.metrics.sensitivity_max``. Default: uniform noise in
            the :math:`L_\infty` ball.
        perturb_radius (float or Tensor, optional): :term:`radius` of the neighbourhood, in input
            units; one for all examples or one per example, shape (N,). Radius 0 gives 1.
        n_perturb_samples (int, optional): number of neighbours of each example. Default: 10.
        n_steps (int, optional): points on the segment to each neighbour, at the midpoints
            :math:`t_m = (m - 1/2) / n_{steps}`. Default: 32.
        surrogate (str, optional): ``"indicator"``, the formula above; ``"margin"``, the gap
            :math:`I_i - I_j` in place of the indicator, in units of the attribution.
        reduction (str, optional): ``"mean"`` over the neighbours, or the ``"min"``.
        sampling (str, optional): ``"grid"``: n_steps points on the segment to each of
            n_perturb_samples neighbours, the definition. ``"stratified"``: n_perturb_samples ×
            n_steps neighbours with one stratified t each, in antithetic pairs for noise; an
            unbiased estimate of the same integral, which needs fewer gradients for equal error.
            Default: stratified for the mean over noise; grid for the minimum, which is taken over
            whole segments, and for any other ``perturb_func``, each call of which may be an attack.
        reference_attributions (Tensor or tuple[Tensor, ...], optional): attributions of the
            unperturbed inputs, where they are known already.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum; groups are ranked.
        max_examples_per_batch (int, optional): number of points explained at once. Never changes
            the result. Default: as many as make autograd save about
            30 MB.
        show_progress (bool, optional): show a progress bar over the points. Default: False.
        seed (int, optional): seed of the neighbours and of the attribution's own randomness. None:
            fresh entropy. The noise of an example depends on its own values and the seed only.
        **kwargs: passed to ``explanation_func``. Arguments with one entry per example (targets,
            additional forward arguments, baselines) are expanded; others are left alone. Bind
            arguments whose names this function has too, n_steps and feature_mask, with
            ``functools.partial``; they are expanded as well.

    Returns:
        - **thickness** (*Tensor*): shape (N,); its mean is the model-level thickness. NaN where the
          attributions of the example, or of one of its points, are not finite or are all equal, and
          where no neighbour differs from the example at a radius above 0.

    Raises:
        ValueError: for arguments outside their ranges, for arguments, masks or attributions whose
            shapes do not fit the inputs, and if no example can move.

    Warns:
        UnmovedWarning: if some of the examples cannot move.

    Examples::

        >>> from captum.attr import Saliency
        >>> model = torch.nn.Linear(5, 2)                       # its saliency is constant in x
        >>> ranking_thickness(Saliency(model).attribute, torch.ones(2, 5), k=2, target=0)
        tensor([1., 1.])
    """
    check_choice("surrogate", surrogate, get_args(Surrogate))

    def judge(explainer: Explainer, reference: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        every = torch.arange(len(reference), device=reference.device)
        top = explainer.each_count(lambda part, _: top_k_of(part, k), reference, every)

        def judge_points(scores: Tensor, rows: Tensor) -> Tensor:
            n_features = scores.shape[1]
            n_pairs = k * (n_features - k)
            own = top.index_select(0, rows)  # several times faster than top[rows]
            if surrogate == "indicator":
                return fraction(win_counts(scores, own).double(), n_pairs)[:, None]
            scores = scores.double()  # the difference of two large sums
            gaps = n_features * scores.gather(1, own).sum(dim=1) - k * scores.sum(dim=1)
            return gaps[:, None] / n_pairs

        return judge_points

    with Explainer(
        explanation_func, inputs, kwargs, absolute, feature_mask, max_examples_per_batch, seed
    ) as explainer:
        return _average(
            explainer, judge, 1, reference_attributions, perturb_func, perturb_radius,
            n_perturb_samples, n_steps, reduction, sampling, show_progress,
        )[:, 0]  # fmt: skip


def pairwise_ranking_thickness(
    explanation_func: Callable[..., Inputs],
    inputs: Inputs,
    pairs: Tensor,
    perturb_func: Callable[..., Any] = default_perturb_func,
    perturb_radius: float | Tensor = 0.02,
    n_perturb_samples: int = 10,
    n_steps: int = 32,
    surrogate: Surrogate = "indicator",
    reduction: Reduction = "mean",
    sampling: Sampling | None = None,
    reference_attributions: Inputs | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    show_progress: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""Fraction of the neighbourhood in which feature i stays above feature j, for given pairs.

    .. math:: \Theta(x, i, j) = E_{x' \sim D} \int_0^1 1[\, I_i(x(t)) \ge I_j(x(t)) \,]\, dt

    Source: arXiv 2212.14106, equation (2). Arguments as in :func:`ranking_thickness`, but:

    Args:
        explanation_func (Callable): returns attributions of inputs.
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
        pairs (Tensor): indices (i, j) of flattened features or groups; shape (P, 2) for all
            examples or (N, P, 2).
        perturb_func (Callable or Perturbation, optional): where the neighbours come from.
        perturb_radius (float or Tensor, optional): radius of the neighbourhood in units of the
            inputs, one or one per example, (N,).
        n_perturb_samples (int, optional): number of neighbours of each example. Default: 10.
        n_steps (int, optional): points on the segment to each neighbour. Default: 32.
        surrogate (str, optional): ``"indicator"`` or ``"margin"``.
        reduction (str, optional): ``"mean"`` or ``"min"`` over the neighbours.
        sampling (str, optional): ``"grid"``, ``"stratified"`` or None.
        reference_attributions (Tensor or tuple[Tensor, ...], optional): attributions of the
            unperturbed inputs, where they are known already.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): number of points explained at once.
        show_progress (bool, optional): show a progress bar over the points. Default: False.
        seed (int, optional): seed of the neighbours. None: fresh entropy.
        **kwargs: passed to ``explanation_func``.

    Returns:
        - **thickness** (*Tensor*): shape (N, P). NaN for examples whose attributions, or those of
          one of their points, are not finite or are all equal.

    Raises:
        ValueError: for arguments outside their ranges.

    Examples::

        >>> from captum.attr import InputXGradient
        >>> model = torch.nn.Linear(2, 1, bias=False)
        >>> _ = model.weight.data.fill_(1.0)                    # the map of x is x itself
        >>> x, pairs = torch.tensor([[1.0, 0.0]]), torch.tensor([[0, 1], [1, 0]])
        >>> pairwise_ranking_thickness(
        ...     InputXGradient(model).attribute, x, pairs, perturb_radius=0.4, target=0)
        tensor([[1., 0.]])
    """
    check_choice("surrogate", surrogate, get_args(Surrogate))
    pairs = expanded_pairs(pairs, len(as_tuple(inputs)[0]))

    def judge(explainer: Explainer, reference: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        own = pairs.to(reference.device)
        every = torch.arange(len(reference), device=reference.device)

        def check_range(part: Tensor, rows: Tensor) -> Tensor:
            check_pair_range(own[rows], part.shape[1])
            return rows

        explainer.each_count(check_range, reference, every)

        def judge_points(scores: Tensor, rows: Tensor) -> Tensor:
            gaps = scores.gather(1, own[rows, :, 0]) - scores.gather(1, own[rows, :, 1])
            return (gaps >= 0).double() if surrogate == "indicator" else gaps.double()

        return judge_points

    with Explainer(
        explanation_func, inputs, kwargs, absolute, feature_mask, max_examples_per_batch, seed
    ) as explainer:
        return _average(
            explainer, judge, pairs.shape[1], reference_attributions, perturb_func, perturb_radius,
            n_perturb_samples, n_steps, reduction, sampling, show_progress,
        )  # fmt: skip


def _average(
    explainer: Explainer,
    judge: Callable[[Explainer, Tensor], Callable[[Tensor, Tensor], Tensor]],
    n_values: int,
    reference_attributions: Inputs | None,
    perturb_func: Callable[..., Any],
    perturb_radius: float | Tensor,
    n_perturb_samples: int,
    n_steps: int,
    reduction: Reduction,
    sampling: Sampling | None,
    show_progress: bool,
) -> Tensor:
    """Average the values that ``judge`` gives to the points of each example; (N, n_values)."""
    check_choice("reduction", reduction, get_args(Reduction))
    check_choice("sampling", sampling, (None, *get_args(Sampling)))
    if sampling == "stratified" and reduction == "min":
        raise ValueError("reduction='min' needs sampling='grid': a neighbour has one t otherwise")
    check_count("n_perturb_samples", n_perturb_samples, 1)
    check_count("n_steps", n_steps, 1)
    if sampling is None:
        by_noise = isinstance(perturb_func, Noise) and reduction == "mean"
        sampling = "stratified" if by_noise else "grid"

    reference, broken = explainer.reference(reference_attributions)
    judge_points = judge(explainer, reference)
    times: Tensor | None = None
    n_draws = n_perturb_samples
    if sampling == "grid":
        times = (torch.arange(n_steps, dtype=torch.float64) + 0.5) / n_steps
    else:
        n_draws *= n_steps
    n_kept = n_draws if reduction == "min" else 1
    totals = torch.zeros(
        len(reference), n_kept, n_values, dtype=torch.float64, device=reference.device
    )
    for rows, draws, scores, invalid in neighbour_scores(
        explainer, perturb_func, perturb_radius, n_draws, times, show_progress
    ):
        slot = draws if reduction == "min" else torch.zeros_like(draws)
        values = explainer.each_count(judge_points, scores, rows)
        totals.index_put_((rows, slot), values, accumulate=True)
        broken[rows[invalid]] = True
    points_each = n_draws * (1 if times is None else n_steps) / n_kept
    return nan_where(broken, fraction(totals.amin(dim=1), points_each)).to(reference.dtype)
