"""The common base of the losses: a classification loss, weighted terms and a reduction."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple, run_forward
from captum_robust._utils.derivatives import rehearse_backward
from captum_robust._utils.eager import uncompiled
from captum_robust._utils.inference import outside_inference_mode, with_gradients
from captum_robust.loss._checks import check_choices
from captum_robust.loss._distributed import inside_forward
from captum_robust.loss._fused import Examples, FusedForward
from captum_robust.loss._score import Explain, LabelledOutputs

__all__ = ["Loss", "Reduction", "RegularisedLoss", "Terms"]

Reduction = Literal["mean", "sum", "none"]

#: The weight of each term and its values, one per example.
Terms = Mapping[str, tuple[float, Tensor]]

#: A loss, and the detached means of its parts.
Loss = tuple[Tensor, dict[str, Tensor]]


class RegularisedLoss(nn.Module):
    """A classification loss and weighted terms from the same forward.

    A subclass defines the terms (:meth:`_terms`) and when there are none (:meth:`_is_plain`).
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        base_loss: Callable[[Tensor, Tensor], Tensor] | None,
        explain: Explain,
        adaptive: bool,
        reduction: Reduction,
    ) -> None:
        super().__init__()
        check_choices(Explain, explain=explain)
        check_choices(Reduction, reduction=reduction)
        self.forward_func = forward_func
        self.base_loss = base_loss
        self.explain = explain
        self.adaptive = adaptive
        self.reduction = reduction
        self.last_terms: dict[str, Tensor] = {}
        self._examined = False
        self._rehearsed = False

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep the model out of the registered modules: the loss has no parameters."""
        if name == "forward_func":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(
        self, inputs: Inputs, target: Tensor, additional_forward_args: Any = None
    ) -> Tensor:
        r"""Compute the loss of a batch.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0. Their graph is kept.
            target (Tensor): labels, shape (N,): class indices, or 0 and 1 for a binary model.
            additional_forward_args: further arguments of the model, as in Captum.

        Returns:
            - **loss** (*Tensor*): a scalar, or (N,) for ``reduction="none"``.

        Raises:
            ValueError: for inputs, outputs and labels whose shapes do not fit, labels that are none
                of the classes, and inputs that the model does not use.
            NotDifferentiableError: if the model has no gradient by the inputs, or its gradient none
                by the parameters.
        """
        return inside_forward(
            self.forward_func, self._of_batch, inputs, target, additional_forward_args
        )

    def _of_batch(self, model: Callable[..., Tensor], *call: Any) -> Tensor:
        with outside_inference_mode(), uncompiled(model):
            loss, self.last_terms = self._loss(model, Examples(*map(with_gradients, call)))
            if loss.requires_grad and len(self.last_terms) > 1 and not self._rehearsed:
                rehearse_backward(loss)  # whose errors would be torch's in the caller's backward
                self._rehearsed = True
        return loss

    def _examine(self, batch: FusedForward) -> None:
        """Check once that the derivatives of the model exist."""
        if not self._examined:
            batch.check_derivatives(self._differentiates_twice())
            self._examined = True

    def _differentiates_twice(self) -> bool:
        """Return whether the value of the loss has second derivatives by the inputs."""
        return self._order() > 2

    def _is_plain(self) -> bool:
        """Return whether there is nothing to add to the classification loss."""
        raise NotImplementedError

    def _terms(self, batch: FusedForward) -> Terms:
        """Return the terms, from a forward pass of the model."""
        raise NotImplementedError

    def _order(self) -> int:
        """Return how many times the outputs are differentiated, by the parameters included."""
        return 2

    def _loss(self, model: Callable[..., Tensor], examples: Examples) -> Loss:
        if self._is_plain():
            return self._plain(model, examples)
        with torch.enable_grad():
            batch = FusedForward(model, examples, self.explain, self._order())
            self._examine(batch)
            terms, base = self._terms(batch), self._base(batch.labelled)
        return self._total(base, terms, examples.n_examples)

    def _plain(self, model: Callable[..., Tensor], examples: Examples) -> Loss:
        """Return the classification loss alone."""
        points = as_tuple(examples.inputs)
        outputs = run_forward(model, points, examples.additional_forward_args)
        return self._total(
            self._base(LabelledOutputs(outputs, examples.target)), {}, len(points[0])
        )

    def _base(self, labelled: LabelledOutputs) -> Tensor:
        if self.base_loss is None:
            return labelled.loss(self.reduction)
        loss = self.base_loss(labelled.outputs, labelled.target)
        if loss.dim() > 0:
            return self._reduced(loss.reshape(-1))
        if self.reduction == "none":
            raise ValueError(
                "base_loss must return one value per example for reduction='none', got a scalar"
            )
        return loss

    def _total(self, base: Tensor, terms: Terms, n_examples: int) -> Loss:
        known = base.detach()
        # What is returned may be written to.
        mean = known.clone() if self.reduction == "mean" else known.sum() / n_examples
        means = {"base": mean}
        total = base
        for name, (weight, values) in terms.items():
            reduced = self._reduced(values)
            means[name] = (reduced if self.reduction == "mean" else values.mean()).detach()
            if self.adaptive:
                size = reduced.detach().abs()
                total = total + weight * (known + 1).abs() / size.where(size > 0, 1) * reduced
            else:
                total = torch.add(total, reduced, alpha=weight)
        return total, means

    def _reduced(self, values: Tensor) -> Tensor:
        if self.reduction == "none":
            return values
        return values.mean() if self.reduction == "mean" else values.sum()
