"""Adversarial training against attacks on the ranking of an explanation."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust._utils.checks import check_norm
from captum_robust._utils.state import evaluation_mode
from captum_robust.attr.check import require_differentiable
from captum_robust.attr.smooth import smooth_relu as smoothed
from captum_robust.loss._checks import (
    check_choices,
    check_positive,
    check_ranking,
    check_weights,
    is_count,
)
from captum_robust.loss._fused import Examples, FusedForward
from captum_robust.loss._regularised import Loss, Reduction, RegularisedLoss
from captum_robust.loss._score import Explain, gradient_of_scores
from captum_robust.noise import Norm
from captum_robust.ranking import Gap, Pairs, check_k, gap_sum, log_exp_gap_sum, pair_features

__all__ = ["AdversarialRankingLoss"]


class AdversarialRankingLoss(RegularisedLoss):
    r"""Classification loss at inputs that an attack on the ranking has perturbed (AT).

    .. math::
        L = L_{cls}(x + \delta^*, y), \quad \delta^* = \arg\min_{\|\delta\| \le radius}
            \sum_{(i, j)} \big( I_i(x + \delta) - I_j(x + \delta) \big)

    with the saliency :math:`I(x) = |\nabla_x f_y(x)|` of the labelled class, and pairs (i, j) of a
    feature in the top-k at x and a lower one. Source: the baseline AT of arXiv 2212.14106, section
    5; the code of its authors takes one L2 step over the ``"anchor"`` pairs.

    The model is in evaluation mode during the attack, so that dropout does not disturb it and batch
    statistics do not change. Every module is back in its own mode for the training step. The steps
    are those of :class:`~captum_robust.robust.ERAttack` without its search for the best iterate and
    its constraint on the prediction, which would cost more than a training step of a small network.
    Use ``ERAttack`` to measure robustness, and this class to train.

    Networks of the ReLU family have a second derivative of zero almost everywhere, so that the
    attack has no gradient to follow: set ``smooth_relu``.

    Cost: one forward pass, one saliency and one backward pass through it per step of the attack,
    and a plain training step.

    Args:
        forward_func (Callable): the model itself, so that its mode can be switched; returns logits
            (N, C), or (N,) or (N, 1) if it is binary.
        k (int): size of the top set, 1 <= k < n features or groups.
        radius (float): radius of the ball around each input tensor in units of the inputs, not
            negative. 0 gives the plain loss.
        base_loss (Callable, optional): ``base_loss(outputs, target)``, one value per example or a
            reduced scalar. Default: cross-entropy, or binary cross-entropy with logits for a
            single logit.
        step_num (int, optional): number of steps of the attack. Default: 1.
        step_size (float, optional): length of a step in the norm of the ball. Default: 2.5 ×
            radius / step_num.
        norm (str, optional): ``"L2"`` or ``"Linf"``, of the ball and the steps. Default: ``"L2"``.
        pairs (str, optional): ``"all"``, ``"anchor"`` or ``"mm"``
            (:func:`captum_robust.ranking.gap_sum`). Default: ``"all"``.
        k_prime (int, optional): number of pairs of ``"anchor"`` and ``"mm"``. Default: k.
        gap (str, optional): ``"linear"``, or ``"exp"``: the attack increases
            :math:`\sum e^{-(I_i - I_j)}`, to which the smallest gaps contribute most.
        attribution (Attribution, optional): Captum attribution of the same model whose ranking is
            attacked instead of :math:`|\nabla_x f_y|`.
        explain (str, optional): ``"probability"``: softmax or sigmoid of the labelled class;
            ``"logit"``. Default: ``"probability"``.
        normalize (bool, optional): divide each map by the sum of its magnitudes. Default: False.
        smooth_relu (float, optional): :math:`\beta` of the softplus that replaces the ReLU family
            during the attack (:class:`~captum_robust.attr.smooth_relu`). Default: no replacement.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose saliencies
            are summed, as in Captum.
        reduction (str, optional): ``"mean"``, ``"sum"`` or ``"none"`` over the examples.
        absolute (bool, optional): rank the magnitudes of the maps of ``attribution``, as attacks
            and metrics do with ``absolute=True``. Gradients are ranked by magnitude in any case.
            Default: False.

    Attributes:
        last_terms (dict[str, Tensor]): detached batch mean of the last call: ``"base"``, the loss
            at the perturbed inputs.

    Raises:
        ValueError: for arguments outside their ranges.
        NotDifferentiableError: for an ``attribution`` without a gradient.

    Examples::

        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> criterion = AdversarialRankingLoss(model, k=2, radius=0.5)
        >>> criterion(torch.randn(8, 6), torch.randint(2, (8,))).backward()
        >>> sorted(criterion.last_terms)
        ['base']
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        k: int,
        radius: float,
        base_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        step_num: int = 1,
        step_size: float | None = None,
        norm: Norm = "L2",
        pairs: Pairs = "all",
        k_prime: int | None = None,
        gap: Gap = "linear",
        attribution: Attribution | None = None,
        explain: Explain = "probability",
        normalize: bool = False,
        smooth_relu: float | None = None,
        feature_mask: Inputs | None = None,
        reduction: Reduction = "mean",
        absolute: bool = False,
    ) -> None:
        super().__init__(forward_func, base_loss, explain, adaptive=False, reduction=reduction)
        check_choices(Pairs, pairs=pairs)
        check_choices(Gap, gap=gap)
        check_ranking(k, k_prime)
        check_weights(radius=radius)
        check_norm(norm)
        if not is_count(step_num):
            raise ValueError(f"step_num must be an int of at least 1, got {step_num!r}")
        if step_size is not None:
            check_positive(step_size=step_size)
        if smooth_relu is not None:
            check_positive(smooth_relu=smooth_relu)
        if attribution is not None:
            require_differentiable(attribution)
        self.k = k
        self.radius = radius
        self.step_num = step_num
        self.step_size = step_size
        self.norm = norm
        self.pairs = pairs
        self.k_prime = k_prime
        self.gap = gap
        self.attribution = attribution
        self.normalize = normalize
        self.smooth_relu = smooth_relu
        self.feature_mask = feature_mask
        self.absolute = absolute

    def _differentiates_twice(self) -> bool:
        return True

    def _loss(self, model: Callable[..., Tensor], examples: Examples) -> Loss:
        if self.radius > 0:
            with evaluation_mode(model), torch.enable_grad():
                shifts = self._attack(model, examples)
            # Added to the inputs themselves, which may have a graph.
            points = as_tuple(examples.inputs)
            moved = tuple(p + s.to(p) for p, s in zip(points, shifts, strict=True))
            examples = examples._replace(inputs=format_like(examples.inputs, moved))
        return self._plain(model, examples)

    def _attack(self, model: Callable[..., Tensor], examples: Examples) -> tuple[Tensor, ...]:
        """Return the perturbation of every input tensor."""
        points = tuple(p.detach() for p in as_tuple(examples.inputs))
        # In half precision small steps would round to nothing.
        shifts = tuple(
            torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in points
        )
        size = 2.5 * self.radius / self.step_num if self.step_size is None else self.step_size
        features: Tensor | None = None
        for _ in range(self.step_num):
            moved = tuple((p + s).to(p) for p, s in zip(points, shifts, strict=True))
            with nullcontext() if self.smooth_relu is None else smoothed(self.smooth_relu):
                attacked = examples._replace(inputs=format_like(examples.inputs, moved))
                batch = FusedForward(model, attacked, self.explain)
                self._examine(batch)
                scores = batch.scores(
                    self.attribution, self.feature_mask, self.normalize, self.absolute
                )
            if features is None:  # the pairs are those at the inputs
                check_k(self.k, scores.shape[1])
                features = pair_features(scores.detach(), self.k, self.pairs, self.k_prime)
            chosen = (scores, self.k, self.pairs, self.k_prime, features)
            linear = self.gap == "linear"
            gaps = gap_sum(scores, *chosen) if linear else -log_exp_gap_sum(scores, *chosen)
            slopes = gradient_of_scores(gaps, batch.leaves, create_graph=False)
            shifts = tuple(
                _into_ball(shift - size * _unit(slope.to(shift), self.norm), self.radius, self.norm)
                for shift, slope in zip(shifts, slopes, strict=True)
            )
        return shifts


def _unit(slopes: Tensor, norm: Norm) -> Tensor:
    """Return the steepest direction of length 1 in the norm; zero where there is none."""
    if norm == "Linf":
        return slopes.sign().nan_to_num(nan=0.0)
    rows = slopes.flatten(1)
    rows = rows / rows.abs().amax(dim=1, keepdim=True)  # squares of a tiny slope underflow
    rows = rows.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    return unit.view_as(slopes)


def _into_ball(shifts: Tensor, radius: float, norm: Norm) -> Tensor:
    if norm == "Linf":
        return shifts.clamp(-radius, radius)
    inside: Tensor = shifts.flatten(1).renorm(2, 0, radius)
    return inside.view_as(shifts)
