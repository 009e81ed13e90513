"""Outputs that depend on chance or on the other examples of a batch, found by evaluation."""

from collections.abc import Callable

import torch
from torch import Tensor

from captum_robust._utils.random import reseed, seeded

__all__ = ["output_varies"]


def output_varies(evaluate: Callable[[Tensor], Tensor], n_examples: int, seed: int) -> bool:
    """Return whether the output of an example depends on chance or on the other examples.

    Layers in training mode are the usual cause: dropout in any form, also within recurrent layers
    and attention and as a function, and batch normalisation. The model is evaluated twice, with
    other random numbers and with the first example in place of the second half of the batch; the
    outputs of the first half should agree up to rounding. Random numbers outside are unchanged.

    Args:
        evaluate: outputs of the model for these rows of the batch, which may repeat.
        n_examples: number of examples of the batch.
        seed: seed of the first evaluation.
    """
    if n_examples == 0:
        return False
    kept = (n_examples + 1) // 2
    rows = torch.arange(n_examples)
    with torch.no_grad(), seeded(seed):
        first = evaluate(rows)
        reseed(seed + 1)
        second = evaluate(rows.masked_fill(rows >= kept, 0))
    if first.shape[:1] != (n_examples,) or first.shape != second.shape:
        return False  # not one output per example
    return _differ(first[:kept], second[:kept])


def _differ(first: Tensor, second: Tensor) -> bool:
    """Return whether outputs differ by more than the rounding of their dtype explains."""
    if not first.is_floating_point():
        return not torch.equal(first, second)
    finite = first.isfinite() & second.isfinite()
    size = first.abs().masked_fill(~finite, 0).amax()
    change = (first - second).abs().masked_fill(~finite, 0).amax()
    return bool(change > torch.finfo(first.dtype).eps ** 0.5 * size)
