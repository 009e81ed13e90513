"""R2ET: robust ranking explanations by thickness, without an inner attack."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_robust._captum import Inputs, as_tuple, like, run_forward
from captum_robust.attr.check import require_differentiable
from captum_robust.attr.differentiable import differentiable_attribution
from captum_robust.curvature import exact_norm, finite_difference_norm, hessian_vector_norm
from captum_robust.loss._repeat import Repeat
from captum_robust.loss._score import (
    Explain,
    attribute_label,
    default_loss,
    explained_score,
    input_gradient,
)
from captum_robust.ranking import (
    Gap,
    Pairs,
    check_k,
    flatten_attributions,
    gap_sum,
    log_exp_gap_sum,
)

__all__ = ["R2ETLoss"]

Hessian = Literal["finite_difference", "hvp", "exact"]
Reduction = Literal["mean", "sum", "none"]

_CHOICES = {
    "pairs": get_args(Pairs),
    "gap": get_args(Gap),
    "hessian": get_args(Hessian),
    "explain": get_args(Explain),
    "reduction": get_args(Reduction),
}


class R2ETLoss(nn.Module):
    r"""Classification loss with wide gaps around the top-k and little curvature (R2ET).

    .. math::
        L = L_{cls} - \lambda_1 \sum_{(i, j)} \big( I_i(x) - I_j(x) \big) + \lambda_2 \|H(x)\|_2

    with :math:`I(x) = |\nabla_x f_y(x)|` the saliency of the labelled class, its Hessian H, and
    pairs (i, j) of a top-k and a lower feature. Source: arXiv 2212.14106, equation (5) and section
    4. :math:`\lambda_2 = 0` is R2ET\\H, :math:`\lambda_1 = 0` is Est-H.

    With ``gap="linear"`` and the same k', ``pairs="anchor"`` (R2ET) and ``pairs="mm"`` (R2ET-mm)
    are the same function, because the anchor cancels; they differ with ``gap="exp"``.

    Cost: one forward for the classification loss and the saliency, one more for the finite
    difference, nothing else; about 4 plain training steps, or 2 with :math:`\lambda_2 = 0`.

    In training mode BatchNorm couples the examples of a batch, so that gradients by an input also
    hold its effect on the others; the running statistics see every batch once. Dropout draws one
    mask for both forwards (an ``attribution`` draws its own). Both need ``forward_func`` to be the
    module itself, not a function around it. On a network of the ReLU family the exact Hessian of a
    logit is zero: use ``hessian="finite_difference"``, or smooth activations.

    The loss has no parameters and does not register the model: ``criterion(x, y).backward()`` is
    the whole integration, and any optimiser over ``model.parameters()`` will do. It may be called
    under ``torch.no_grad()``, but not under ``torch.inference_mode()``, which has no gradients.

    Args:
        forward_func (Callable): the model; returns logits (N, C), or (N,) or (N, 1) for a binary
            one.
        k (int): size of the top set, 1 <= k < n features or groups.
        base_loss (Callable, optional): ``base_loss(outputs, target)``. One value an example, which
            ``reduction="none"`` needs, is reduced here; a scalar is taken as reduced. Default:
            cross-entropy, or binary cross-entropy with logits for a single logit.
        lambda1 (float, optional): weight of the gaps, not negative. Default: 0.1.
        lambda2 (float, optional): weight of the Hessian norm, not negative. Default: 0.1.
        pairs (str, optional): ``"anchor"``, ``"mm"`` or ``"all"``
            (:func:`captum_robust.ranking.gap_sum`). Default: ``"anchor"``.
        k_prime (int, optional): number of pairs of ``"anchor"`` and ``"mm"``. Default: k.
        gap (str, optional): ``"linear"``: maximise the gaps; ``"exp"``: minimise :math:`\sum
            e^{-(I_i - I_j)}`, which never turns negative. Default: ``"linear"``.
        hessian (str, optional): ``"finite_difference"`` of two gradients along the sign of the
            gradient, ``kappa`` apart; ``"hvp"``, the exact product with the same direction;
            ``"exact"``, the Frobenius norm by n products. Always of the explained score.
        kappa (float, optional): length of the finite step in units of the inputs. Rounding drowns
            it in half precision: use ``"hvp"`` there. Default: 1e-2.
        attribution (Attribution, optional): Captum attribution, of the same model, whose maps are
            ranked in place of :math:`|\nabla_x f_y|`; its own forwards come on top. It explains
            the output for the label (for a single logit, the output itself).
        explain (str, optional): ``"probability"``: softmax or sigmoid of the labelled class;
            ``"logit"``. Default: ``"probability"``.
        normalize (bool, optional): divide each map by the sum of its magnitudes. Default: False.
        adaptive (bool, optional): scale each term to :math:`\lambda (L_{cls} + 1)` at every step,
            as the authors' code does; its gradient keeps its direction. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose saliencies
            are summed, as in Captum.
        reduction (str, optional): ``"mean"``, ``"sum"`` or ``"none"`` over the examples.

    Attributes:
        last_terms (dict[str, Tensor]): detached batch means of the last call, for logging:
            ``"base"``, ``"gap"`` (the mean sum of gaps, higher is wider; for ``gap="exp"`` the
            exponential sum, lower is wider) and ``"hessian"``; those that were computed.

    Raises:
        ValueError: for arguments outside their ranges.
        NotDifferentiableError: for an ``attribution`` that has no gradient.

    Examples::

        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> criterion = R2ETLoss(model, k=2)
        >>> criterion(torch.randn(8, 6), torch.randint(2, (8,))).backward()
        >>> sorted(criterion.last_terms)
        ['base', 'gap', 'hessian']
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        k: int,
        base_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        lambda1: float = 0.1,
        lambda2: float = 0.1,
        pairs: Pairs = "anchor",
        k_prime: int | None = None,
        gap: Gap = "linear",
        hessian: Hessian = "finite_difference",
        kappa: float = 1e-2,
        attribution: Attribution | None = None,
        explain: Explain = "probability",
        normalize: bool = False,
        adaptive: bool = False,
        feature_mask: Inputs | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        given = {
            "pairs": pairs, "gap": gap, "hessian": hessian, "explain": explain,
            "reduction": reduction,
        }  # fmt: skip
        for name, value in given.items():
            if value not in _CHOICES[name]:
                raise ValueError(f"{name} must be one of {_CHOICES[name]}, got {value!r}")
        if not _is_count(k):
            raise ValueError(f"k must be an int of at least 1, got {k!r}")
        if k_prime is not None and not (_is_count(k_prime) and k_prime <= k):
            raise ValueError(f"k_prime must be an int in 1 … k = {k}, got {k_prime!r}")
        for name, weight in (("lambda1", lambda1), ("lambda2", lambda2)):
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name} must be finite and not negative, got {weight}")
        if not (math.isfinite(kappa) and kappa > 0):
            raise ValueError(f"kappa must be positive and finite, got {kappa}")
        if attribution is not None:
            require_differentiable(attribution)
        self.forward_func = forward_func
        self.k = k
        self.base_loss = base_loss
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.pairs = pairs
        self.k_prime = k_prime
        self.gap = gap
        self.hessian = hessian
        self.kappa = kappa
        self.attribution = attribution
        self.explain = explain
        self.normalize = normalize
        self.adaptive = adaptive
        self.feature_mask = feature_mask
        self.reduction = reduction
        self.last_terms: dict[str, Tensor] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep the model out of the registered modules: its parameters are not this one's."""
        if name == "forward_func":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(
        self,
        inputs: Inputs,
        target: Tensor,
        additional_forward_args: Any = None,
        reference_attributions: Inputs | None = None,
    ) -> Tensor:
        r"""Compute the loss of a batch.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0. A graph behind them
                is kept.
            target (Tensor): labels, shape (N,): class indices, or 0 and 1 for a binary model.
            additional_forward_args: further arguments of the model, as in Captum.
            reference_attributions (Tensor or tuple[Tensor, ...], optional): maps whose ranking
                defines the pairs, those of a model before retraining, say. Default: the current
                maps, as in the paper.

        Returns:
            - **loss** (*Tensor*): a scalar, or (N,) for ``reduction="none"``.

        Raises:
            ValueError: if k is not below the number of features; for outputs, labels and
                reference maps whose shapes do not fit.
        """
        points = as_tuple(inputs)
        if self.lambda1 == 0 and self.lambda2 == 0:
            outputs = run_forward(self.forward_func, points, additional_forward_args)
            return self._total(self._base(outputs, target), {}, len(points[0]))

        repeat = Repeat(self.forward_func)

        def outputs_at(leaves: tuple[Tensor, ...]) -> Tensor:
            with differentiable_attribution():  # fused attention has no second derivative
                return run_forward(self.forward_func, leaves, additional_forward_args)

        def gradient_at(moved: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            leaves = _differentiable(moved)
            with repeat.again():
                outputs = outputs_at(leaves)
            return input_gradient(explained_score(outputs, target, self.explain), leaves)

        with torch.enable_grad():
            leaves = _differentiable(points)
            outputs = outputs_at(leaves)
            base = self._base(outputs, target)
            gradients: tuple[Tensor, ...] = ()
            if self.attribution is None or self.lambda2 > 0:
                gradients = input_gradient(explained_score(outputs, target, self.explain), leaves)
            terms: dict[str, Tensor] = {}
            if self.lambda1 > 0:
                maps: Inputs = tuple(g.abs() for g in gradients)
                if self.attribution is not None:
                    maps = attribute_label(
                        self.attribution,
                        like(inputs, leaves),
                        outputs,
                        target,
                        additional_forward_args,
                    )
                terms["gap"] = self._gaps(maps, reference_attributions)
            if self.lambda2 > 0:
                if self.hessian == "finite_difference":
                    # From the points, whose graph there may be, not from leaves that cut it off.
                    norm = finite_difference_norm(gradient_at, points, gradients, self.kappa)
                elif self.hessian == "hvp":
                    norm = hessian_vector_norm(leaves, gradients)
                else:
                    norm = exact_norm(leaves, gradients)
                terms["hessian"] = norm
        return self._total(base, terms, len(points[0]))

    def _base(self, outputs: Tensor, target: Tensor) -> Tensor:
        if self.base_loss is None:
            return default_loss(outputs, target, self.reduction)
        loss = self.base_loss(outputs, target)
        if loss.dim() > 0:
            return self._reduced(loss.reshape(-1))
        if self.reduction == "none":
            raise ValueError(
                "base_loss must return one value an example for reduction='none', got a scalar"
            )
        return loss

    def _gaps(self, maps: Inputs, reference_attributions: Inputs | None) -> Tensor:
        """Sum of the gaps (linear) or of their negative exponentials (exp); (N,)."""
        scores = flatten_attributions(maps, self.feature_mask)
        check_k(self.k, scores.shape[1])
        if self.normalize:
            total = scores.abs().sum(dim=1, keepdim=True)
            scores = scores / total.where(total > 0, 1)
        reference = scores.detach()
        if reference_attributions is not None:
            reference = flatten_attributions(reference_attributions, self.feature_mask).detach()
            if reference.shape != scores.shape:
                raise ValueError(
                    f"reference_attributions must have the shape of the maps {tuple(scores.shape)} "
                    f"once flattened, got {tuple(reference.shape)}"
                )
        if self.gap == "linear":
            return gap_sum(scores, reference, self.k, self.pairs, self.k_prime)
        return log_exp_gap_sum(scores, reference, self.k, self.pairs, self.k_prime).exp()

    def _total(self, base: Tensor, terms: dict[str, Tensor], n_examples: int) -> Tensor:
        mean = base.detach() / n_examples if self.reduction == "sum" else base.detach().mean()
        self.last_terms = {"base": mean, **{name: t.detach().mean() for name, t in terms.items()}}
        weights = {
            "gap": -self.lambda1 if self.gap == "linear" else self.lambda1,
            "hessian": self.lambda2,
        }
        total = base
        for name, term in terms.items():
            reduced = self._reduced(term)
            weight: float | Tensor = weights[name]
            if self.adaptive:
                size = reduced.detach().abs()
                weight = weight * (base.detach() + 1).abs() / size.where(size > 0, 1)
            total = total + weight * reduced
        return total

    def _reduced(self, values: Tensor) -> Tensor:
        if self.reduction == "none":
            return values
        return values.mean() if self.reduction == "mean" else values.sum()


def _is_count(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _differentiable(points: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The points themselves where they carry a graph, else leaves that share their values."""
    return tuple(p if p.requires_grad else p.detach().requires_grad_() for p in points)
