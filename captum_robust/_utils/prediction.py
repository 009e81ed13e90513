"""Predicted labels and probabilities from the outputs of a classifier."""

import torch
from torch import Tensor

__all__ = ["check_logits", "class_probabilities", "predicted_labels"]


def predicted_labels(outputs: Tensor) -> Tensor:
    """Return the predicted class: the largest of several outputs, or the sign of a single logit."""
    if outputs.dim() == 1 or outputs.shape[1] == 1:
        return outputs.reshape(len(outputs)) > 0
    return outputs.argmax(dim=1)


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
