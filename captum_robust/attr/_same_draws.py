"""Evaluation of functions of examples with random numbers that belong to the example."""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Attribution, FeaturePermutation
from torch import Tensor

from captum_robust._utils.random import DrawWatch, reseed
from captum_robust._utils.state import uses_batch_statistics
from captum_robust.attr._captum_draws import DrawsOfOneExample

__all__ = ["SameDraws", "depends_on_the_batch", "part_of"]

# Of the one set of global generators.
_WATCH = DrawWatch()

#: From a part of the examples, None for all of them, to tensors with one row per example.
_OfExamples = Callable[[slice | None], tuple[Tensor, ...]]


class SameDraws:
    """Random numbers of a function of examples: the same for every example and evaluation.

    The result for an example is that of a batch of this example alone, evaluated after all global
    generators were set to the seed. It depends on the example and the seed only, not on the other
    examples, their order or their number.

    A function that draws nothing is evaluated for the whole batch. One that draws is evaluated
    again: for the whole batch where all draws are those of Captum's NoiseTunnel, GradientShap or
    Shapley sampling, which can be repeated for every example, otherwise one example at a time.
    Where one example alone is an error, as in batch normalisation in training mode, the draws are
    those of the whole batch.

    Only inside :func:`~captum_robust._utils.random.seeded`.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        #: Whether the function has drawn random numbers.
        self.random = False
        self._together = True  # until another draw than one of Captum's was found
        self._needs_the_batch = False  # as an error for one example has shown

    def evaluate(
        self,
        function: _OfExamples,
        n_examples: int,
        whole_batch: bool = False,
        feature_mask: Any = None,
    ) -> tuple[Tensor, ...]:
        """Return the tensors of the function for all examples.

        Args:
            function: returns tensors with one row per example for a part of the examples.
            n_examples: number of examples.
            whole_batch: the examples depend on each other, so that none can be evaluated alone.
            feature_mask: the mask that Captum is given, if any. With one mask per example, the
                examples may differ in their number of features, and so in their draws.
        """
        if not self.random:
            _WATCH.resume()
            found = function(None)
            if _WATCH.is_undisturbed():
                return found
            self.random = True
        if whole_batch or n_examples == 1 or self._needs_the_batch:
            return self._seeded(function, None)
        if self._together and not _is_per_example(feature_mask):
            with DrawsOfOneExample(self.seed, n_examples) as draws:
                found = function(None)
            if draws.are_all():
                return found
            self._together = False
        try:
            parts = [self._seeded(function, slice(row, row + 1)) for row in range(n_examples)]
        except ValueError:  # of batch normalisation in training mode, in a model that is not known
            self._needs_the_batch = True
            return self._seeded(function, None)
        return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))

    def _seeded(self, function: _OfExamples, part: slice | None) -> tuple[Tensor, ...]:
        reseed(self.seed)
        return function(part)


def part_of(
    points: tuple[Tensor, ...], part: slice | None, graph: bool = False
) -> tuple[Tensor, ...]:
    """Return a part of some points, with their graph or as new leaves; None for all of them."""
    if part is None:
        return points
    if graph:
        return tuple(p[part] for p in points)
    return tuple(p.detach()[part].requires_grad_(p.requires_grad) for p in points)


def depends_on_the_batch(explainer: Any) -> bool:
    """Return whether the attribution of an example depends on the other examples of the batch."""
    attribution = getattr(explainer, "__self__", explainer)
    attribution = getattr(attribution, "attribution_method", attribution)
    permutes = isinstance(attribution, Attribution) and isinstance(attribution, FeaturePermutation)
    return permutes or uses_batch_statistics(explainer)


def _is_per_example(feature_mask: Any) -> bool:
    masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    return any(isinstance(mask, Tensor) and mask.dim() > 1 and len(mask) > 1 for mask in masks)
