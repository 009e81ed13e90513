"""R2ET: robust ranking explanations by thickness, without an inner attack."""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from captum_robust._utils.batch import feature_mask_of_examples, of_examples
from captum_robust._utils.captum import Inputs, as_tuple, run_forward
from captum_robust._utils.precision import is_coarse
from captum_robust.attr.check import require_differentiable
from captum_robust.loss._checks import (
    check_choices,
    check_positive,
    check_ranking,
    check_weights,
    is_count,
)
from captum_robust.loss._compiled import CompiledStep
from captum_robust.loss._distributed import inside_forward
from captum_robust.loss._fused import Examples, FusedForward, Hessian, order_of
from captum_robust.loss._regularised import Loss, Reduction, RegularisedLoss, Terms
from captum_robust.loss._schedule import Schedule, spread
from captum_robust.loss._score import Explain, LabelledOutputs
from captum_robust.ranking import (
    Gap,
    Pairs,
    check_k,
    flatten_attributions,
    log_exp_gap_sum,
)

__all__ = ["R2ETLoss"]


class R2ETLoss(RegularisedLoss):
    r"""Classification loss with wide gaps around the top-k and little curvature (R2ET).

    .. math::
        L = L_{cls} - \lambda_1 \sum_{(i, j)} \big( I_i(x) - I_j(x) \big) + \lambda_2 \|H(x)\|_2

    with the saliency :math:`I(x) = |\nabla_x f_y(x)|` of the labelled class, its Hessian H, and
    pairs (i, j) of a top-k and a lower feature. Source: arXiv 2212.14106, equation (5) and section
    4. :math:`\lambda_2 = 0` is R2ET\\H, :math:`\lambda_1 = 0` is Est-H.

    With ``gap="linear"`` and the same k', ``pairs="anchor"`` (R2ET) and ``pairs="mm"`` (R2ET-mm)
    are the same function, because the anchor cancels; they differ with ``gap="exp"``.

    Cost: one forward pass for the classification loss and the saliency, and one for the finite
    difference: 4.5 to 6.1 times the processor time of a step without regulariser, or 2.4 to 3.1
    times with :math:`\lambda_2 = 0`, on the networks of the documentation of losses.

    In training mode batch normalisation couples the examples of a batch, so that the gradient of an
    example by its input includes the effect on other examples. ``hessian="exact"`` and
    ``"spectral"`` then use the inputs of one example at a time, which takes n products per example.
    Running statistics are updated once per batch. Dropout uses the same mask in both forward passes
    (an ``attribution`` draws its own masks). Both require that ``forward_func`` is the module
    itself, not a function around it. On networks of the ReLU family the exact Hessian of a logit is
    zero almost everywhere: use ``hessian="finite_difference"`` or smooth activations.

    The loss has no parameters and does not register the model: call
    ``criterion(x, y).backward()`` with any optimiser over ``model.parameters()``. A model in
    ``DistributedDataParallel`` may be given as it is; the whole loss is then computed in its
    forward pass. The loss may be called under ``torch.no_grad()`` and ``torch.inference_mode()``,
    as in validation. The first call checks that the derivatives exist; see the page of assumptions.

    Args:
        forward_func (Callable): the model; returns logits (N, C), or (N,) or (N, 1) if it is
            binary.
        k (int): size of the top set, 1 <= k < n features or groups.
        base_loss (Callable, optional): ``base_loss(outputs, target)``. One value per example, which
            ``reduction="none"`` needs, is reduced here; a scalar counts as reduced. Default:
            cross-entropy, or binary cross-entropy with logits for a single logit.
        lambda1 (float, optional): weight of the gaps, not negative. Default: 0.1.
        lambda2 (float, optional): weight of the Hessian norm, not negative. Default: 0.1.
        pairs (str, optional): ``"anchor"``, ``"mm"`` or ``"all"``
            (:func:`captum_robust.ranking.gap_sum`). Default: ``"anchor"``.
        k_prime (int, optional): number of pairs of ``"anchor"`` and ``"mm"``. Default: k. The
            variants ``tx{N}`` of the authors' code leave out the k-th feature, which no
            ``k_prime`` does.
        gap (str, optional): ``"linear"``: maximise the gaps; ``"exp"``: minimise :math:`\sum
            e^{-(I_i - I_j)}`, which is never negative. Default: ``"linear"``.
        hessian (str, optional): ``"finite_difference"``: difference of two gradients, ``kappa``
            apart along the sign of the gradient; ``"hvp"``: exact product with that direction;
            ``"exact"``: Frobenius norm by n products; ``"spectral"``: largest absolute eigenvalue
            by n products. All are of the explained score. Default: ``"finite_difference"``.
        kappa (float, optional): length of the finite step in units of the inputs. In half precision
            and under autocast, where rounding errors are larger than the difference, it is taken in
            single precision, by one more forward pass. Default: 1e-2.
        attribution (Attribution, optional): Captum attribution of the same model whose maps are
            ranked instead of :math:`|\nabla_x f_y|`, by additional forward passes. It explains the
            output for the label (for a single logit, the output itself).
        explain (str, optional): ``"probability"``: softmax or sigmoid of the labelled class;
            ``"logit"``. Default: ``"probability"``.
        normalize (bool, optional): divide each map by the sum of its magnitudes. Default: False.
        adaptive (bool, optional): scale each term to :math:`\lambda (L_{cls} + 1)` at every step,
            as the authors' code does; its gradient keeps its direction. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose saliencies
            are summed, as in Captum.
        reduction (str, optional): ``"mean"``, ``"sum"`` or ``"none"`` over the examples.
        every (int, optional): regularise only every m-th step, the first one included, with m-fold
            weights. A step is a call in training mode of the loss with gradients enabled; other
            calls compute the whole loss and are not counted. Default: 1.
        fraction (float, optional): regularise a random part of each batch, rounded up, whose mean
            stands for that of the batch, by a separate forward pass. Default: 1.
        seed (int, optional): seed of ``fraction``. None: fresh entropy. The choice depends on the
            seed and the number of the step; both are in ``state_dict``.
        compile (bool, optional): compute calls with gradients enabled by ``torch.compile``; the
            result is the same within rounding. The first call for each shape of the inputs takes
            some seconds to compile, and is checked against the uncompiled result. Calls that cannot
            be compiled are computed as without this option, and a
            :class:`~captum_robust.robust.CompileWarning` gives the first reason: an
            ``attribution``, a ``feature_mask``, another ``hessian``, a model that is distributed,
            has hooks, draws random numbers or changes its buffers in training mode, or has
            operations that torch cannot compile, and a machine without a compiler. A compiled loss
            cannot be differentiated twice by parameters. Default: False.
        absolute (bool, optional): rank the magnitudes of the maps of ``attribution``, as attacks
            and metrics do with ``absolute=True``. Gradients are ranked by magnitude in any case.
            Default: False.

    Attributes:
        last_terms (dict[str, Tensor]): detached batch means of the last call, for logging:
            ``"base"``, ``"gap"`` (the mean sum of gaps, higher is wider; for ``gap="exp"`` the
            exponential sum, lower is wider) and ``"hessian"``; those that were computed. With
            ``fraction``, an estimate of the batch mean.

    Raises:
        ValueError: for arguments outside their ranges.
        NotDifferentiableError: for an ``attribution`` without a gradient.

    Examples::

        >>> from torch import nn
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
        every: int = 1,
        fraction: float = 1.0,
        seed: int | None = None,
        compile: bool = False,
        absolute: bool = False,
    ) -> None:
        super().__init__(forward_func, base_loss, explain, adaptive, reduction)
        check_choices(Pairs, pairs=pairs)
        check_choices(Gap, gap=gap)
        check_choices(Hessian, hessian=hessian)
        check_ranking(k, k_prime)
        check_weights(lambda1=lambda1, lambda2=lambda2)
        check_positive(kappa=kappa)
        if not is_count(every):
            raise ValueError(f"every must be an int of at least 1, got {every!r}")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
        if fraction < 1 and adaptive and reduction == "none":
            raise ValueError(
                "adaptive weights of a fraction of the batch need reduction='mean' or 'sum', "
                "got 'none'"
            )
        if attribution is not None:
            require_differentiable(attribution)
        self.k = k
        self.lambda1 = lambda1
        self.lambda2 = lambda2
        self.pairs = pairs
        self.k_prime = k_prime
        self.gap = gap
        self.hessian = hessian
        self.kappa = kappa
        self.attribution = attribution
        self.normalize = normalize
        self.feature_mask = feature_mask
        self.absolute = absolute
        lazy = every > 1 or fraction < 1
        self.schedule = Schedule(every, fraction, seed) if lazy else None
        self._compiled = CompiledStep() if compile else None

    def forward(
        self,
        inputs: Inputs,
        target: Tensor,
        additional_forward_args: Any = None,
        reference_attributions: Inputs | None = None,
    ) -> Tensor:
        r"""Compute the loss of a batch.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0. Their graph is kept.
            target (Tensor): labels, shape (N,): class indices, or 0 and 1 for a binary model.
            additional_forward_args: further arguments of the model, as in Captum.
            reference_attributions (Tensor or tuple[Tensor, ...], optional): maps whose ranking
                defines the pairs, such as those of a model before retraining. Default: the current
                maps, as in the paper.

        Returns:
            - **loss** (*Tensor*): a scalar, or (N,) for ``reduction="none"``.

        Raises:
            ValueError: if k is not less than the number of features, for outputs, labels and
                reference maps whose shapes do not fit, labels that are none of the classes, and
                inputs that the model does not use.
            NotDifferentiableError: if the model has no gradient by the inputs, or its gradient none
                by the parameters.
        """
        return inside_forward(
            self.forward_func, self._of_batch,
            inputs, target, additional_forward_args, reference_attributions,
        )  # fmt: skip

    def _is_plain(self) -> bool:
        return self.lambda1 == 0 and self.lambda2 == 0

    def _order(self) -> int:
        return 2 if self.lambda2 == 0 else order_of(self.hessian)

    def _loss(self, model: Callable[..., Tensor], examples: Examples) -> Loss:
        if self._is_plain():
            return self._plain(model, examples)
        examples = examples._replace(feature_mask=self.feature_mask)
        rows, times = None, 1
        if self.schedule is not None and self.training and torch.is_grad_enabled():
            rows, times = self.schedule.rows(examples.n_examples), self.schedule.every
            if rows is None:
                return self._plain(model, examples)
        if self._compiled is not None and torch.is_grad_enabled():
            obstacle = self._obstacle(as_tuple(examples.inputs))
            return self._compiled(obstacle, self._step, model, examples, rows, times)
        return self._step(model, examples, rows, times)

    def _obstacle(self, inputs: tuple[Tensor, ...]) -> str:
        """Return the option that does not allow to compile the step; or ""."""
        if self.lambda2 > 0 and is_coarse(inputs):
            return "the finite difference is taken in single precision"
        if self.attribution is not None:
            return "an attribution is given"
        if self.lambda2 > 0 and self.hessian != "finite_difference":
            return f"hessian is {self.hessian!r}"
        if self.feature_mask is not None:
            return "a feature_mask is given"
        if isinstance(self.forward_func, DistributedDataParallel):
            return "forward_func is distributed"
        return ""

    def _step(
        self,
        model: Callable[..., Tensor],
        examples: Examples,
        rows: Tensor | None,
        times: int,
        forward: type[FusedForward] = FusedForward,
    ) -> Loss:
        """Return the loss with ``times`` the terms, of all examples or only of ``rows``."""
        with torch.enable_grad():
            if rows is None or len(rows) == examples.n_examples:
                batch = forward(model, examples, self.explain, self._order())
                self._examine(batch)
                terms, base = self._terms(batch), self._base(batch.labelled)
            else:
                base, terms = self._of_part(model, examples, rows, forward)
        weighted = {name: (times * weight, values) for name, (weight, values) in terms.items()}
        return self._total(base, weighted, examples.n_examples)

    def _of_part(
        self,
        model: Callable[..., Tensor],
        examples: Examples,
        rows: Tensor,
        forward: type[FusedForward],
    ) -> tuple[Tensor, Terms]:
        """Return the loss of all examples and the terms of some, which stand for those of all.

        Both have a forward pass of their own, so that batch normalisation gives the same loss as
        without the terms.
        """
        n_examples = examples.n_examples
        repeat = forward.repeat(model)
        points = as_tuple(examples.inputs)
        outputs = run_forward(model, points, examples.additional_forward_args)
        n_dims = [point.dim() for point in points]
        part = Examples(*of_examples(examples[:-1], rows, n_examples))._replace(
            feature_mask=feature_mask_of_examples(self.feature_mask, rows, n_examples, n_dims)
        )
        with repeat.again():
            batch = forward(model, part, self.explain, self._order())
            self._examine(batch)
            terms = self._terms(batch)
        spread_terms = {
            name: (weight, spread(values, rows, n_examples))
            for name, (weight, values) in terms.items()
        }
        return self._base(LabelledOutputs(outputs, examples.target)), spread_terms

    def _terms(self, batch: FusedForward) -> Terms:
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.lambda1 > 0:
            weight = -self.lambda1 if self.gap == "linear" else self.lambda1
            terms["gap"] = weight, self._gaps(batch)
        if self.lambda2 > 0:
            terms["hessian"] = self.lambda2, batch.hessian_norm(self.hessian, self.kappa)
        return terms

    def _gaps(self, batch: FusedForward) -> Tensor:
        """Return the sum of the gaps (linear) or of their negative exponentials (exp); (N,)."""
        examples = batch.examples
        scores = batch.scores(
            self.attribution, examples.feature_mask, self.normalize, self.absolute
        )
        check_k(self.k, scores.shape[1])
        reference = scores.detach()
        if examples.reference_attributions is not None:
            reference = flatten_attributions(
                examples.reference_attributions, examples.feature_mask, self.absolute
            ).detach()
            if reference.shape != scores.shape:
                raise ValueError(
                    f"reference_attributions must have the shape of the maps {tuple(scores.shape)} "
                    f"once flattened, got {tuple(reference.shape)}"
                )
        pairs = self.k, self.pairs, self.k_prime
        if self.gap == "linear":
            return (batch.gap_weights(reference, *pairs) * scores).sum(dim=1)
        features = batch.pair_features(reference, *pairs)
        return log_exp_gap_sum(scores, reference, *pairs, features).exp()
