"""Certified precision of a smoothed attribution, by randomised smoothing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from captum_robust._utils.captum import Inputs
from captum_robust._utils.checks import (
    check_count,
    check_movable,
    check_radius,
    radius_of_examples,
)
from captum_robust._utils.movement import check_moved
from captum_robust._utils.rounding import spacing
from captum_robust.metrics._explainer import Explainer
from captum_robust.metrics._neighbours import neighbour_scores
from captum_robust.metrics._scores import nan_where
from captum_robust.metrics._top_sets import in_top_k, top_k_of
from captum_robust.noise import GaussianNoise
from captum_robust.ranking import fraction

__all__ = ["certified_precision_at_k"]


def certified_precision_at_k(
    explanation_func: Callable[..., Inputs],
    inputs: Inputs,
    k: int,
    radius: float | Tensor,
    sigma: float | Tensor,
    n_samples: int = 1000,
    confidence: float = 0.95,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
    show_progress: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""Fraction of the top-k of the smoothed attribution that provably stays within an L2 radius.

    Certified is not the attribution of ``explanation_func`` but a smoothed one, sparsified
    SmoothGrad (Levine, Singla and Feizi 2019, arXiv 1905.12105): the probability that a feature
    ranks among the top k of a noisy input,

    .. math:: s_i(x) = P(i \in top_k(I(x + \eta))), \quad \eta \sim N(0, \sigma^2 1).

    The result bounds :math:`|top_k(s(x)) \cap top_k(s(x + \delta))| / k` from below, for all
    :math:`\|\delta\|_2 \le r` at once. It does not apply to the unsmoothed attribution at x, nor to
    an average over finitely many draws. The explanation may be any function that always gives the
    same attribution for the same input; one that draws random numbers of its own is not covered.
    Higher is more stable.

    The indicator lies in [0, 1], so by Neyman and Pearson (Cohen et al. 2019, arXiv 1902.02918)

    .. math::
        \Phi(\Phi^{-1}(s_i(x)) - r/\sigma) \le s_i(x + \delta)
        \le \Phi(\Phi^{-1}(s_i(x)) + r/\sigma).

    The s_i are unknown. From the hits among ``n_samples`` draws, one-sided Clopper–Pearson bounds,
    each of level (1 − confidence) / 2n, give :math:`l_i \le s_i(x) \le u_i` for all n features at
    once, with probability ``confidence`` or more for each example (union bound; for N examples
    together, pass 1 − (1 − confidence) / N). Sorted in decreasing order, T features stay if

    .. math:: \Phi^{-1}(l_{(T)}) - r/\sigma > \Phi^{-1}(u_{(2k - T + 1)}) + r/\sigma.

    For suppose that fewer than T stay, so k − T + 1 or more leave and as many enter. Of those that
    leave, one ranks T or higher in s(x); of those that enter, one ranks 2k − T + 1 or lower; the
    order of these two would have to turn, which the condition rules out. The result is the largest
    T / k. (Where 2k − T + 1 > n, there are too few features to enter, and T stay anyway.)

    The noise is PyTorch's, in the precision of the inputs, and a point x + η is rounded to it; that
    its distribution is exactly normal is assumed, as everywhere in randomised smoothing. Nothing is
    certified where :math:`\sigma` is below the spacing of the floating point numbers at an input,
    which the noise then does not move.

    More samples tighten the bounds: even where every noisy map has the same top-k, a proof takes
    :math:`n_{samples} > \log(2n / (1 - confidence)) / (-\log \Phi(r/\sigma))`.

    Args:
        explanation_func (Callable): returns attributions of inputs, as in
            :func:`ranking_thickness`.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0.
        k (int): size of the top sets, of the indicator and of the overlap; 1 <= k < n.
        radius (float or Tensor): L2 radius r over all input tensors jointly, in units of the
            inputs; one for all examples or one per example, shape (N,).
        sigma (float or Tensor): standard deviation of the noise, in units of the inputs, positive;
            one or one per example, shape (N,).
        n_samples (int, optional): number of noisy inputs per example. Default: 1000.
        confidence (float, optional): probability, in (0, 1), over the draw of the noise with which
            the bound of an example is valid. Default: 0.95.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): number of points explained at once; never changes
            the result.
        show_progress (bool, optional): show a progress bar over the rows. Default: False.
        seed (int, optional): seed of the noise. None: fresh entropy.
        **kwargs: passed to ``explanation_func``; per-example arguments are expanded.

    Returns:
        - **precision** (*Tensor*): lower bound in [0, 1], shape (N,). NaN where the attributions of
          the example or of a noisy input are not finite or are all equal, and where sigma is below
          the spacing of the numbers at one of the inputs.

    Raises:
        ImportError: without scipy, which ``captum-robust[benchmark]`` brings.
        ValueError: for arguments outside their ranges, for inputs that are not floating point, and
            where sigma is below the spacing of the numbers for every example.

    Warns:
        UnmovedWarning: if it is for some of the examples.

    Examples::

        >>> x = torch.tensor([[3.0, 2.0, 0.0, 0.0]])
        >>> for radius in (1.0, 1.4, 2.0):                   # the input is its own attribution
        ...     certified_precision_at_k(
        ...         lambda x: x, x, k=2, radius=radius, sigma=0.5, n_samples=10_000, seed=0
        ...     )
        tensor([1.])
        tensor([0.5000])
        tensor([0.])
    """
    check_radius(radius)
    check_radius(sigma, "sigma")
    if not bool((torch.as_tensor(sigma) > 0).all()):
        raise ValueError(f"sigma must be positive, got {sigma}")
    check_count("n_samples", n_samples, 1)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    with Explainer(
        explanation_func, inputs, kwargs, absolute, feature_mask, max_examples_per_batch, seed
    ) as explainer:
        radius = radius_of_examples("radius", radius, explainer.n_examples)
        sigma = radius_of_examples("sigma", sigma, explainer.n_examples)
        coarse = _coarse(explainer.inputs, sigma)
        check_moved(coarse, "sigma")
        reference, broken = explainer.reference(None)
        broken = broken | coarse.to(broken.device)
        every = torch.arange(len(reference), device=reference.device)
        explainer.each_count(lambda part, _: top_k_of(part, k), reference, every)
        hits = torch.zeros_like(reference, dtype=torch.long)
        for rows, _, scores, invalid in neighbour_scores(
            explainer, GaussianNoise(), sigma, n_samples, torch.ones(1), show_progress
        ):
            inside = explainer.each_count(
                lambda part, _: pad(in_top_k(part, k), (0, hits.shape[1] - part.shape[1])),
                scores, rows,
            )  # fmt: skip
            hits.index_add_(0, rows, inside.long())
            broken[rows[invalid]] = True
    shift = torch.as_tensor(radius).double() / torch.as_tensor(sigma).double()
    shift = shift.to(hits.device).reshape(-1, 1).expand(len(hits), 1)

    def features_kept(hits: Tensor, rows: Tensor) -> Tensor:
        level = (1 - confidence) / (2 * hits.shape[1])
        # Φ⁻¹(1 − p) = −Φ⁻¹(p) bounds the hits from above by the misses, and rounds nothing to 1.
        quantiles = torch.special.ndtri(lower_bounds(n_samples, level)).to(hits.device)
        return features_that_stay(quantiles[hits], -quantiles[n_samples - hits], k, shift[rows])

    kept = explainer.each_count(features_kept, hits, every)
    return nan_where(broken, fraction(kept, k).to(reference.dtype))


def lower_bounds(n_samples: int, level: float) -> Tensor:
    """Clopper–Pearson lower bounds of a probability, from 0 … n_samples hits among the samples.

    Each is valid with probability 1 − ``level``; by symmetry, 1 − the bound of the misses is the
    upper bound of the hits. Float64, shape (n_samples + 1,).
    """
    try:
        from scipy.special import betaincinv
    except ImportError as error:
        raise ImportError(
            "certified_precision_at_k needs scipy: pip install captum-robust[benchmark]"
        ) from error
    hits = torch.arange(1, n_samples + 1, dtype=torch.float64)
    level *= 1 - 1e-8  # the inverse is off by less
    above_zero = betaincinv(hits.numpy(), (n_samples + 1 - hits).numpy(), level)
    return torch.cat([torch.zeros(1, dtype=torch.float64), torch.from_numpy(above_zero)])


def _coarse(inputs: tuple[Tensor, ...], sigma: float | Tensor) -> Tensor:
    """Return examples with a value whose neighbours are further away than sigma; (N,) bool."""
    check_movable(inputs)
    sigmas = torch.as_tensor(sigma, dtype=torch.float64).cpu().expand(len(inputs[0]))
    widest = [
        spacing(t).double().flatten(1).amax(dim=1).cpu() for t in inputs if t.is_floating_point()
    ]
    return torch.stack(widest).amax(dim=0) > sigmas


def features_that_stay(lower: Tensor, upper: Tensor, k: int, shift: float | Tensor) -> Tensor:
    """Return the largest T that meets the condition, for quantiles Φ⁻¹ (N, n) and r/σ; (N,).

    The shift r/σ is one number, or one per example, (N, 1).
    """
    n_features = lower.shape[1]
    first = torch.arange(k, device=lower.device)  # T − 1
    rival = 2 * k - 1 - first  # 2k − T + 1, counted from 0
    stays = lower.sort(dim=1, descending=True).values - shift
    enters = upper.sort(dim=1, descending=True).values + shift
    holds = stays[:, first] > enters[:, rival.clamp(max=n_features - 1)]
    kept: Tensor = (holds | (rival >= n_features)).sum(dim=1)  # it gets harder as T grows
    return kept
