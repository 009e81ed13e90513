"""Predicted labels and probabilities from the outputs of a classifier."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_robust._utils.captum import TargetType, select_target

__all__ = ["Decision", "check_logits", "class_probabilities", "predicted_labels"]


def predicted_labels(outputs: Tensor) -> Tensor:
    """Return the predicted class: the largest of several outputs, or the sign of a single logit."""
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        return outputs.reshape(len(outputs)) > 0
    return outputs.argmax(dim=1)


@dataclass(frozen=True)
class Decision:
    """The rule by which a perturbed input has the prediction of its example.

    Attributes:
        decision_func: predicted labels from outputs, which must be equal.
        tolerance: largest change of each output, in its units, in place of labels; a number, or
            one per output.

    Raises:
        ValueError: for both rules at once, and a tolerance that is not positive and finite.
    """

    decision_func: Callable[[Tensor], Tensor] = predicted_labels
    tolerance: float | Tensor | None = None

    def __post_init__(self) -> None:
        if self.tolerance is None:
            return
        values = torch.as_tensor(self.tolerance, dtype=torch.float64)
        if not bool(((values > 0) & (values < math.inf)).all()):
            raise ValueError(f"tolerance must be positive and finite, got {self.tolerance}")
        if self.decision_func is not predicted_labels:
            raise ValueError("decision_func and tolerance exclude each other, got both")

    def of_target(self, outputs: Tensor, target: TargetType) -> Tensor:
        """Return the outputs that decide: of dense outputs, those at the explained position.

        Dense outputs have shape (N, C, H, W, …), classes along dimension 1, or (N, L, C), classes
        last. A ``decision_func`` of the caller gets all of them.
        """
        dense = outputs.dim() > 2 and target is not None
        if not dense or self.decision_func is not predicted_labels:
            return outputs
        places = torch.arange(outputs[0].numel(), device=outputs.device).view(outputs.shape[1:])
        chosen = select_target(places.expand_as(outputs), target)
        if outputs.dim() == 3:
            outputs, place = outputs.mT, chosen // outputs.shape[2]
        else:
            place = chosen % outputs[0, 0].numel()
        flat = outputs.reshape(len(outputs), outputs.shape[1], -1)
        return flat.gather(2, place.view(-1, 1, 1).expand(-1, flat.shape[1], 1))[:, :, 0]

    def read(self, outputs: Tensor) -> Tensor:
        """Return labels, or the outputs themselves where they have a tolerance."""
        return self.decision_func(outputs) if self.tolerance is None else outputs

    def agree(self, readings: Tensor, reference: Tensor) -> Tensor:
        """Return whether the prediction is that of the example; (N,) bool."""
        if self.tolerance is None:
            same = readings == reference
        else:
            change = (readings.double() - reference.double()).abs()
            # An example without a finite output has no prediction to keep.
            same = (change <= self._tolerance_for(reference)) | ~reference.isfinite()
        return same if same.dim() == 1 else same.reshape(len(same), -1).all(dim=1)

    def used_tolerance(self, outputs: Tensor, reference: Tensor) -> Tensor:
        """Return the largest change of an output in units of its tolerance; (N, 1)."""
        change = (outputs.double() - reference.double()).abs() / self._tolerance_for(reference)
        return change.reshape(len(change), -1).amax(dim=1, keepdim=True)

    def _tolerance_for(self, outputs: Tensor) -> Tensor:
        values = torch.as_tensor(self.tolerance, dtype=torch.float64, device=outputs.device)
        shape = tuple(outputs.shape[1:])
        if values.numel() > 1 and tuple(values.shape) != shape:
            raise ValueError(
                f"tolerance must be a number, or one per output, shape {shape}, "
                f"got shape {tuple(values.shape)}"
            )
        return values if values.numel() > 1 else values.reshape(())


def class_probabilities(outputs: Tensor) -> Tensor:
    r"""Softmax of logits (N, C); of a single logit z the two classes :math:`\sigma(\mp z)`.

    >>> class_probabilities(torch.tensor([0.0, 20.0])).round()
    tensor([[0., 0.],
            [0., 1.]])
    """
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        logits = outputs.reshape(-1, 1)
        return torch.cat([-logits, logits], dim=1).sigmoid()
    return outputs.softmax(dim=1)


def check_logits(outputs: Tensor, n_examples: int, name: str) -> None:
    """Raise ValueError unless outputs are logits (N, C), (N, 1) or (N,) of N examples."""
    shape = tuple(outputs.shape)
    if outputs.dim() not in (1, 2) or len(outputs) != n_examples or 0 in shape[1:]:
        raise ValueError(
            f"{name} must have shape (N, C), (N, 1) or (N,) with N = {n_examples}, got {shape}"
        )
