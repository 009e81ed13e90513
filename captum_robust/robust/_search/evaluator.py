"""Scores of an attribution and predictions of its model, from shared forward passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.batch import feature_mask_of_examples, kwargs_of_examples
from captum_robust._utils.captum import (
    Inputs,
    as_tuple,
    call_forward,
    format_like,
    run_forward,
)
from captum_robust._utils.diagnosis import named_output
from captum_robust._utils.graphs import one_graph_at_a_time
from captum_robust._utils.prediction import Decision
from captum_robust._utils.state import in_training_mode
from captum_robust._utils.tensors import Points, flatten
from captum_robust.attr._direct import direct_attribution
from captum_robust.attr._same_draws import SameDraws, depends_on_the_batch, part_of
from captum_robust.attr.differentiable import differentiable_attribution, summed_gradients
from captum_robust.attr.smooth import smooth_relu
from captum_robust.ranking import flatten_attributions

__all__ = ["Draws", "Evaluator", "Predictions"]

#: From inputs and additional arguments to results of a model, as tensors of logits.
Predictions = Callable[..., Inputs]


class Draws:
    """The random numbers of an attribution, of its model, and of the results that must stay."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.of_maps = SameDraws(seed)
        self.of_outputs = SameDraws(seed)
        self.of_predictions = SameDraws(seed)


class Evaluator:
    """An attribution of some examples and the output of its model, at perturbed inputs.

    The attributions are counted. All examples and evaluations have the same random numbers, so that
    a random attribution is a function of one example and the seed.

    Args:
        attribution: a Captum attribution.
        given: the inputs of the caller, which give the form: a tensor or a tuple.
        arguments: of ``attribution.attribute``, for these examples.
        absolute: whether magnitudes are ranked.
        feature_mask: groups of features whose scores are summed, for all examples of the batch.
        draws: the random numbers of the attribution and of the model.
        smooth_beta: sharpness of the ReLU family; None leaves the network as it is.
        rows: indices of the examples in the whole batch, if they are a part of it.
        n_examples: number of examples of the whole batch.
        output_varies: the output of the model depends on chance or on the other examples.
    """

    def __init__(
        self,
        attribution: Attribution,
        given: Inputs,
        arguments: dict[str, Any],
        absolute: bool,
        feature_mask: Inputs | None,
        draws: Draws,
        smooth_beta: float | None = None,
        rows: Tensor | None = None,
        n_examples: int = 0,
        output_varies: bool = False,
    ) -> None:
        self.attribution = attribution
        self.given = given
        self.arguments = arguments
        self.absolute = absolute
        self.feature_mask = feature_mask
        self.draws = draws
        self.smooth_beta = smooth_beta
        self.rows = rows
        self.n_examples = n_examples
        self.output_varies = output_varies
        self.n_queries = 0
        self.map_dtype = torch.float32  # of the map; set by the first
        self.map_shapes: tuple[tuple[int, ...], ...] = ()  # of one example; set by the first map
        self._has_attention = True  # until a map without attention was differentiated
        self._seen: tuple[Points, Tensor] | None = None  # the last points and their output

    @property
    def forward_func(self) -> Callable[..., Tensor]:
        """Return the forward function whose output is explained."""
        method = getattr(self.attribution, "attribution_method", self.attribution)
        forward: Callable[..., Tensor] = method.forward_func
        return forward

    @property
    def depends_on_the_batch(self) -> bool:
        """Return whether leaving out some examples would change the maps of the others.

        A model whose output varies although it draws no random numbers depends on the batch.
        """
        return self._whole_batch or (self.output_varies and not self.is_random)

    @cached_property
    def _whole_batch(self) -> bool:
        return depends_on_the_batch(self.attribution) or depends_on_the_batch(self.forward_func)

    @property
    def is_random(self) -> bool:
        """Return whether a map has drawn random numbers so far."""
        return self.draws.of_maps.random

    @cached_property
    def in_training_mode(self) -> bool:
        """Return whether the output of the model depends on chance or on the other examples."""
        return self.output_varies or in_training_mode(self.forward_func)

    def maps(self, points: Points, graph: bool, **changed: Any) -> Inputs:
        """Return the attributions at ``points``, with their graph or without."""
        self.n_queries += 1
        self._seen = None
        arguments = {**self.arguments, **changed} if changed else self.arguments
        has_output, is_tuple = False, False

        def explain(part: slice | None) -> Points:
            nonlocal has_output, is_tuple
            some = part_of(points, part, graph)
            own = self._of_part(arguments, part, len(points[0]))
            maps, output = self._explain(some, own, graph)
            has_output, is_tuple = output is not None, isinstance(maps, tuple)
            return (*as_tuple(maps, "attributions"), *(() if output is None else (output,)))

        mask = arguments.get("feature_mask")
        with nullcontext() if self.smooth_beta is None else smooth_relu(self.smooth_beta):
            found = self._evaluate(self.draws.of_maps, explain, points, mask)
        if has_output:
            self._seen, found = (points, found[-1]), found[:-1]
        return found if is_tuple else found[0]

    def _evaluate(
        self,
        draws: SameDraws,
        function: Callable[[slice | None], Points],
        points: Points,
        mask: Any = None,
    ) -> Points:
        return draws.evaluate(function, len(points[0]), self._whole_batch, mask)

    def _of_part(
        self, arguments: dict[str, Any], part: slice | None, n_examples: int
    ) -> dict[str, Any]:
        """Return the arguments of a part of these examples."""
        if part is None:
            return arguments
        rows = torch.arange(n_examples)[part]
        return kwargs_of_examples(arguments, rows, n_examples, self.attribution)

    def _explain(
        self, points: Points, arguments: dict[str, Any], graph: bool
    ) -> tuple[Inputs, Tensor | None]:
        """Return attributions, and the output of the model where it is known."""
        with one_graph_at_a_time():
            found = direct_attribution(
                self.attribution, points, arguments, graph, self._has_attention
            )
            if found is not None:
                self._has_attention = found.has_attention
                return format_like(self.given, found.attributions), found.output
            mode = differentiable_attribution() if graph else summed_gradients()
            with mode, named_output(self.attribution, points, arguments):
                maps: Inputs = _own(self.attribution).attribute(
                    format_like(self.given, points), **arguments
                )
            return maps, None

    def scores(self, points: Points, graph: bool) -> Tensor:
        """Return the scores (N, n) at ``points``, in at least single precision."""
        return self.as_scores(self.maps(points, graph))

    def as_scores(self, maps: Inputs) -> Tensor:
        """Return the scores of maps of the attribution, and record dtype and shapes of the maps."""
        if not self.map_shapes:
            tensors = as_tuple(maps, "attributions")
            self.map_dtype = tensors[0].dtype
            self.map_shapes = tuple(tuple(m.shape[1:]) for m in tensors)
        return self.flattened(maps)

    def flattened(self, maps: Inputs) -> Tensor:
        """Return the flattened, joined and grouped maps of these examples."""
        if self.feature_mask is None:
            scores = flatten((maps,) if isinstance(maps, Tensor) else maps)
            scores = scores.abs() if self.absolute else scores
        else:
            scores = flatten_attributions(maps, self._groups(maps), self.absolute)
        return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores

    def _groups(self, maps: Inputs) -> Inputs | None:
        """Return the feature mask of these examples."""
        if self.feature_mask is None or self.rows is None:
            return self.feature_mask
        n_dims = [m.dim() for m in as_tuple(maps, "attributions")]
        return feature_mask_of_examples(self.feature_mask, self.rows, self.n_examples, n_dims)

    def scores_of_signed(self, gradients: Points) -> Tensor:
        """Return the scores of a Saliency, from its gradients with their sign."""
        magnitudes = self.arguments.get("abs", True)
        return self.as_scores(tuple(g.abs() for g in gradients) if magnitudes else gradients)

    def outputs(self, points: Points, graph: bool = False) -> Tensor:
        """Return the output of the model at ``points``.

        The output comes from the forward pass of the maps where possible. An output with its graph
        takes another forward pass, unless the maps have kept theirs.
        """
        if self._seen is not None and self._seen[0] is points:
            output = self._seen[1]
            if not graph or output.requires_grad:
                return output if graph else output.detach()
        run = partial(run_forward, self.forward_func)
        (output,) = self._run(run, points, graph, self.draws.of_outputs, "the output")
        return output if graph else output.detach()

    def _run(
        self,
        call: Callable[[Points, Any], Any],
        points: Points,
        graph: bool,
        draws: SameDraws,
        name: str,
    ) -> Points:
        """Return the results of a call with points and additional arguments."""

        def run(part: slice | None) -> Points:
            own = self._of_part(self.arguments, part, len(points[0]))
            extra = own.get("additional_forward_args")
            return as_tuple(call(part_of(points, part, graph), extra), name)

        with torch.set_grad_enabled(graph):
            return self._evaluate(draws, run, points)

    def note(self, points: Points, output: Tensor, n_queries: int) -> None:
        """Count attributions that were computed elsewhere, with the output at ``points``."""
        self.n_queries += n_queries
        self._seen = points, output

    def results(
        self,
        points: Points,
        predictions: Predictions | None,
        decision: Decision,
        graph: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return the results whose prediction counts, one tensor of logits per result.

        By default this is the output alone, or what decides of it. ``predictions`` takes a forward
        pass of its own.
        """
        if predictions is None:
            outputs = self.outputs(points, graph)
            return (decision.of_target(outputs, self.arguments.get("target")),)
        draws = self.draws.of_predictions
        run = partial(call_forward, predictions)
        found = self._run(run, points, graph, draws, "predictions")
        if len(found[0]) != len(points[0]):
            raise ValueError(
                f"predictions must return tensors with one row per example, {len(points[0])}, "
                f"got {len(found[0])}"
            )
        return found


def _own(attribution: Attribution) -> Attribution:
    """Copy an attribution for one call, which may leave flags and hook handles on the copy."""
    own = copy.copy(attribution)
    for name, value in vars(attribution).items():
        if isinstance(value, Attribution):
            own.__dict__[name] = _own(value)
        elif isinstance(value, list | dict):
            own.__dict__[name] = copy.copy(value)
    return own
