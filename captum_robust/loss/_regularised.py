"""What all losses share: the classification loss, weighted terms beside it, and the reduction."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple, run_forward
from captum_robust.loss._checks import check_choices
from captum_robust.loss._distributed import inside_forward
from captum_robust.loss._fused import FusedForward
from captum_robust.loss._score import Explain, default_loss

__all__ = ["Reduction", "RegularisedLoss", "Terms"]

Reduction = Literal["mean", "sum", "none"]

#: Of each term its weight and its values, one an example.
Terms = Mapping[str, tuple[float, Tensor]]


class RegularisedLoss(nn.Module):
    """A classification loss and weighted terms from the same forward.

    A subclass says which terms (:meth:`_terms`), and whether there are any (:meth:`_is_plain`).
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

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep the model out of the registered modules: its parameters are not this one's."""
        if name == "forward_func":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def forward(
        self, inputs: Inputs, target: Tensor, additional_forward_args: Any = None
    ) -> Tensor:
        r"""Compute the loss of a batch.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0. A graph behind them
                is kept.
            target (Tensor): labels, shape (N,): class indices, or 0 and 1 for a binary model.
            additional_forward_args: further arguments of the model, as in Captum.

        Returns:
            - **loss** (*Tensor*): a scalar, or (N,) for ``reduction="none"``.

        Raises:
            ValueError: for inputs, outputs and labels whose shapes do not fit.
        """
        return inside_forward(
            self.forward_func, self._of_batch, inputs, target, additional_forward_args
        )

    def _is_plain(self) -> bool:
        """Whether nothing is to be added to the classification loss."""
        raise NotImplementedError

    def _terms(self, batch: FusedForward, *context: Any) -> Terms:
        """The terms of a forward; ``context`` is what a subclass adds to the call."""
        raise NotImplementedError

    def _order(self) -> int:
        """How often the outputs are differentiated, the gradient by the parameters included."""
        return 2

    def _of_batch(
        self,
        model: Callable[..., Tensor],
        inputs: Inputs,
        target: Tensor,
        additional_forward_args: Any,
        *context: Any,
    ) -> Tensor:
        call = (model, inputs, target, additional_forward_args)
        if self._is_plain():
            return self._plain(*call)
        with torch.enable_grad():
            base, terms = self._fused(*call, *context)
        return self._total(base, terms, len(as_tuple(inputs)[0]))

    def _fused(
        self,
        model: Callable[..., Tensor],
        inputs: Inputs,
        target: Tensor,
        additional_forward_args: Any,
        *context: Any,
    ) -> tuple[Tensor, Terms]:
        """The classification loss and the terms from one forward."""
        batch = FusedForward(
            model, inputs, target, additional_forward_args, self.explain, self._order()
        )
        return self._base(batch.outputs, target), self._terms(batch, *context)

    def _plain(
        self,
        model: Callable[..., Tensor],
        inputs: Inputs,
        target: Tensor,
        additional_forward_args: Any,
    ) -> Tensor:
        """The classification loss alone."""
        points = as_tuple(inputs)
        outputs = run_forward(model, points, additional_forward_args)
        return self._total(self._base(outputs, target), {}, len(points[0]))

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

    def _total(self, base: Tensor, terms: Terms, n_examples: int) -> Tensor:
        known = base.detach()
        if self.reduction == "mean":
            self.last_terms = {"base": known.clone()}  # what is returned may be written to
        else:
            self.last_terms = {"base": known.sum() / n_examples}
        total = base
        for name, (given, values) in terms.items():
            reduced = self._reduced(values)
            mean = reduced if self.reduction == "mean" else values.mean()
            self.last_terms[name] = mean.detach()
            weight: float | Tensor = given
            if self.adaptive:
                size = reduced.detach().abs()
                weight = weight * (known + 1).abs() / size.where(size > 0, 1)
            total = total + weight * reduced
        return total

    def _reduced(self, values: Tensor) -> Tensor:
        if self.reduction == "none":
            return values
        return values.mean() if self.reduction == "mean" else values.sum()
