"""What a label explains: the probability or the logit of its class, and its gradient."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Explain", "default_loss", "explained_score", "input_gradient", "SameNoise"]

Explain = Literal["probability", "logit"]


def is_binary(outputs: Tensor) -> bool:
    """Whether the model returns one logit an example, (N,) or (N, 1)."""
    return outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)


def explained_score(outputs: Tensor, target: Tensor, explain: Explain) -> Tensor:
    """Score (N,) of the labelled class from logits (N, C), (N, 1) or (N,)."""
    if is_binary(outputs):
        # Class 0 of a single logit z has the logit −z.
        logits = outputs.reshape(-1)
        signed = torch.where(target.reshape(-1) > 0.5, logits, -logits)
        return signed.sigmoid() if explain == "probability" else signed
    if outputs.dim() != 2:
        raise ValueError(f"forward_func must return (N, C), (N, 1) or (N,), got {tuple(outputs.shape)}")
    scores = outputs.softmax(dim=1) if explain == "probability" else outputs
    return scores.gather(1, target.view(-1, 1)).squeeze(1)


def default_loss(outputs: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Cross-entropy of logits (N, C), binary cross-entropy of a single logit."""
    if is_binary(outputs):
        logits = outputs.reshape(-1)
        return F.binary_cross_entropy_with_logits(
            logits, target.reshape(-1).to(logits), reduction=reduction
        )
    return F.cross_entropy(outputs, target, reduction=reduction)


def input_gradient(score: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Gradient of each example's score, with its graph; zero for inputs that are not used."""
    gradients = torch.autograd.grad(score.sum(), inputs, create_graph=True, allow_unused=True)
    return tuple(
        torch.zeros_like(x) if g is None else g for x, g in zip(inputs, gradients, strict=True)
    )


class SameNoise:
    """Repeat a forward with the random numbers (dropout masks) of an earlier one.

    Made before the first forward; the second one runs in :meth:`again`, which leaves the random state as
    the first forward left it, and the running statistics of BatchNorm untouched.
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        self.modules = list(forward_func.modules()) if isinstance(forward_func, nn.Module) else []
        self.devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        self.cpu = torch.get_rng_state()
        self.cuda = [torch.cuda.get_rng_state(d) for d in self.devices]

    @contextmanager
    def again(self) -> Iterator[None]:
        """The block of the second forward."""
        moving = [
            m
            for m in self.modules
            if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training and m.track_running_stats
        ]
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            for module in moving:
                module.track_running_stats = False
            try:
                yield
            finally:
                for module in moving:
                    module.track_running_stats = True
