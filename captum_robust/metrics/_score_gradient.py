"""Gradients of the explained output, with their graph, a chunk of examples at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, TargetType, as_tuple, run_forward, select_target
from captum_robust._utils.derivatives import (
    check_first_derivative,
    check_second_derivative,
    differentiate,
)
from captum_robust._utils.eager import uncompiled
from captum_robust._utils.inference import outside_inference_mode, with_gradients
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust.attr._attention import math_attention
from captum_robust.attr._same_draws import SameDraws, depends_on_the_batch, part_of
from captum_robust.attr.differentiable import differentiable_attribution
from captum_robust.curvature import flatten
from captum_robust.metrics._chunks import SavedBytes, bytes_per_call, check_chunk

__all__ = ["ScoreGradient"]

_FIRST_CALL = 8


class ScoreGradient:
    """Gradient of the output that ``target`` selects, at points of the given examples.

    Used inside :meth:`evaluation`. The first gradient is checked for a derivative of its own if it
    is to be differentiated ``twice``.

    Raises:
        ValueError: for inputs that cannot be differentiated, or that the model does not use.
        NotDifferentiableError: if the model has no gradient, or its gradient no derivative.
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        inputs: Inputs,
        target: TargetType,
        additional_forward_args: Any,
        max_examples_per_batch: int | None,
        seed: int,
        twice: bool = True,
    ) -> None:
        check_chunk(max_examples_per_batch)
        self.forward_func = forward_func
        self.inputs = tuple(t.detach() for t in as_tuple(inputs))
        self.n_examples = len(self.inputs[0])
        if self.n_examples == 0:
            raise ValueError("inputs must hold at least one example, got none")
        if not all(t.is_floating_point() for t in self.inputs):
            dtypes = [t.dtype for t in self.inputs]
            raise ValueError(f"inputs must be floating point to be differentiated, got {dtypes}")
        self.arguments = {
            "target": target,
            "additional_forward_args": additional_forward_args,
        }
        self.rows_per_call = max_examples_per_batch
        self.seed = seed
        self._draws = SameDraws(seed)
        self._whole_batch = depends_on_the_batch(forward_func)
        self._known_apart = False
        self._to_check = twice

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Leave the model and the random state as found, whatever the modes of the caller."""
        with (
            outside_inference_mode(),
            uncompiled(self.forward_func),
            left_as_found(self.forward_func),
            seeded(self.seed),
            torch.no_grad(),
        ):
            yield

    def chunks(self) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yield consecutive rows and their inputs, as many as have Hessians of little memory."""
        start = 0
        while start < self.n_examples:
            stop = min(start + (self.rows_per_call or _FIRST_CALL), self.n_examples)
            yield torch.arange(start, stop), tuple(t[start:stop] for t in self.inputs)
            start = stop

    def at(
        self, points: tuple[Tensor, ...], rows: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return leaves with the values of ``points``, one per row, and the gradients there."""
        leaves = tuple(with_gradients(p).detach().requires_grad_() for p in points)
        arguments = with_gradients(kwargs_of_examples(self.arguments, rows, self.n_examples))
        saved = SavedBytes()
        with torch.enable_grad(), saved if self.rows_per_call is None else nullcontext():
            with differentiable_attribution():  # fused attention has no second derivative
                outputs = self._outputs(leaves, rows)
            if outputs.dim() == 0 or len(outputs) != len(rows):
                raise ValueError(
                    f"forward_func must return one output per example ({len(rows)}), "
                    f"got {tuple(outputs.shape)}"
                )
            score = select_target(outputs, arguments["target"])
            if not self._known_apart and len(rows) > 1:
                self._known_apart = _check_apart(score, leaves)
            found: tuple[Tensor | None, ...] = (None,) * len(leaves)
            if score.requires_grad:
                with math_attention():  # which a checkpoint computes again
                    found = differentiate([score.sum()], leaves, create_graph=True)
            gradients = check_first_derivative(outputs, found)
        if self._to_check:
            self._to_check = False
            check_second_derivative(
                lambda moved: self.at(moved, rows)[1], leaves, gradients, outputs
            )
        if self.rows_per_call is None:
            row = flatten(leaves)[0]
            hessian = row.numel() ** 2 * row.element_size()
            size = max(saved.count // len(rows), hessian, 1)
            self.rows_per_call = max(1, bytes_per_call(row.device) // size)
        return leaves, gradients

    def _outputs(self, leaves: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """Return the outputs at ``leaves``, of the examples ``rows``, with their graph."""

        def run(part: slice | None) -> tuple[Tensor, ...]:
            some = rows if part is None else rows[part]
            extra = with_gradients(kwargs_of_examples(self.arguments, some, self.n_examples))
            points = part_of(leaves, part, graph=True)
            return (run_forward(self.forward_func, points, extra["additional_forward_args"]),)

        (outputs,) = self._draws.evaluate(run, len(rows), self._whole_batch)
        return outputs


def _check_apart(score: Tensor, leaves: tuple[Tensor, ...]) -> bool:
    """Return whether each score is seen to depend on its own example only.

    The derivatives of all examples are taken at once, of the sum of their scores. This is wrong
    where examples interact: the sum over the outputs of batch normalisation is constant. The test
    takes the scores of every other example and their derivative by the examples between them.

    Raises:
        ValueError: if a score depends on another example.
    """
    if not score.requires_grad:
        return False
    found = differentiate([score[::2].sum()], leaves, retain_graph=True)
    across = flatten(
        tuple(torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True))
    )[1::2]
    if bool((across.abs() > 0).any()):
        raise ValueError(
            "forward_func must give every example an output that depends on no other, got one that "
            "does, as by batch normalisation in training mode or without running statistics: call "
            "model.eval(), or pass max_examples_per_batch=1"
        )
    return bool((across == 0).all(dim=1).any())  # NaN shows nothing
