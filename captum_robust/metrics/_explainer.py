"""An explanation function of the caller's, called on any points of the examples."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.batch import feature_mask_of_examples, kwargs_of_examples
from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust._utils.diagnosis import named_output
from captum_robust._utils.graphs import one_graph_at_a_time, takes_one_graph
from captum_robust._utils.groups import by_count, counts_of_examples
from captum_robust._utils.independence import check_rows_are_examples
from captum_robust._utils.random import resolve_seed, seeded
from captum_robust._utils.state import left_as_found
from captum_robust.attr._direct import direct_attribution
from captum_robust.attr._same_draws import SameDraws, depends_on_the_batch, part_of
from captum_robust.attr.differentiable import summed_gradients
from captum_robust.metrics._chunks import LiveBytes, SavedBytes, bytes_per_call, check_chunk
from captum_robust.metrics._scores import as_scores, broken_points, unranked_rows
from captum_robust.ranking import padded_scores

__all__ = ["Explainer"]

# Rows of the first call at most, by whose memory the rows of the others are chosen.
_FIRST_CALL = 64
# Times the bytes of the inputs: what a network may need for them, until it has been measured.
_GROWTH = 64


class Explainer:
    """An explanation function with its inputs and arguments.

    As a context it leaves the model, its buffers and the global random state as found.

    Args:
        explanation_func: returns attributions of inputs.
        inputs: the examples.
        kwargs: keyword arguments of ``explanation_func`` for all examples.
        absolute: rank magnitudes.
        feature_mask: groups of features.
        max_examples_per_batch: rows per call; None chooses them by the memory of the first call.
        seed: seed of the attribution's own randomness, which is the same for every point; None
            takes fresh entropy.

    Raises:
        ValueError: without examples, or for fewer than one row per call.
    """

    def __init__(
        self,
        explanation_func: Callable[..., Inputs],
        inputs: Inputs,
        kwargs: dict[str, Any],
        absolute: bool,
        feature_mask: Inputs | None,
        max_examples_per_batch: int | None,
        seed: int | None,
    ) -> None:
        check_chunk(max_examples_per_batch)
        self.given = inputs
        self.inputs = tuple(t.detach() for t in as_tuple(inputs))
        self.n_examples = self.inputs[0].shape[0]
        if self.n_examples == 0:
            raise ValueError("inputs must hold at least one example, got none")
        self.kwargs = kwargs
        self.absolute = absolute
        self.feature_mask = feature_mask
        self.rows_per_call = max_examples_per_batch
        self.seed = resolve_seed(seed)
        self.n_features: int | None = None
        #: Number of groups of every example, (N,), where they differ; set by the first scores.
        self.group_counts: Tensor | None = None
        self._function, bound = _without_partial(explanation_func)
        self._arguments = {**bound, **kwargs}
        self._method = _innermost(self._function)
        self._attribution = _attribution_of(self._function)
        if max_examples_per_batch is None and takes_one_graph(self._method):
            self.rows_per_call = 1
        self._draws = SameDraws(self.seed)
        self._whole_batch = depends_on_the_batch(self._method)
        self._saves_nothing = False  # as the first call shows, where autograd saves nothing
        self._contexts = ExitStack()

    @property
    def first_call(self) -> int:
        """Number of rows of a call whose memory is not known yet."""
        row = sum(t[0].numel() * t.element_size() for t in self.inputs)
        fitting = bytes_per_call(self.inputs[0].device) // max(1, _GROWTH * row)
        return max(1, min(_FIRST_CALL, fitting))

    def __enter__(self) -> "Explainer":
        with ExitStack() as contexts:  # left again if the check fails
            contexts.enter_context(left_as_found(self._method))
            contexts.enter_context(seeded(self.seed))
            self._check_rows()
            self._contexts = contexts.pop_all()
        return self

    def _check_rows(self) -> None:
        """Raise ValueError unless the model of an attribution takes rows for examples."""
        attribution = getattr(self._attribution, "attribution_method", self._attribution)
        forward = getattr(attribution, "forward_func", None)
        extra = self._arguments.get("additional_forward_args")
        if forward is not None and extra is not None:
            check_rows_are_examples(forward, self.inputs, extra)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._contexts.__exit__(kind, error, trace)

    def reference(self, given: Inputs | None) -> tuple[Tensor, Tensor]:
        """Return the scores of the unperturbed examples, and which of them are invalid.

        Scores that are not finite or all equal define no ranking; they are set to zero.
        """
        if given is None:
            parts = []
            start = 0
            while start < self.n_examples:
                stop = start + (self.rows_per_call or self.first_call)
                rows = torch.arange(start, min(stop, self.n_examples))
                parts.append(self.scores(tuple(t[start:stop] for t in self.inputs), rows))
                start = stop
            scores = torch.cat(parts)
        else:
            maps = as_tuple(given, "reference_attributions")
            if len(maps[0]) != self.n_examples:
                raise ValueError(
                    f"reference_attributions must hold {self.n_examples} examples as inputs do, "
                    f"got {len(maps[0])}"
                )
            scores = self._scores_of(maps, torch.arange(self.n_examples))
        self.n_features = scores.shape[1]
        broken = unranked_rows(scores)
        return scores.masked_fill(broken[:, None], 0), broken

    def scores(self, points: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """Return the scores (P, n) of points, each of which belongs to the example in ``rows``."""
        leaves = tuple(p.requires_grad_() if p.is_floating_point() else p for p in points)
        explain = functools.partial(self._maps, leaves, rows)
        maps = self._measured(explain, points) if self.rows_per_call is None else explain()
        if len(maps[0]) != len(rows):
            raise ValueError(
                f"explanation_func must return one map per example ({len(rows)}), "
                f"got {len(maps[0])}"
            )
        scores = self._scores_of(maps, rows)
        if self.n_features not in (None, scores.shape[1]):
            raise ValueError(
                f"reference_attributions must hold {scores.shape[1]} scores per example as the "
                f"maps of explanation_func do, got {self.n_features}"
            )
        broken = broken_points(points)
        if bool(broken.any()):  # the gradient at a NaN can be finite
            scores = scores.masked_fill(broken[:, None].to(scores.device), float("nan"))
        return scores

    def each_count(
        self, judge: Callable[[Tensor, Tensor], Tensor], scores: Tensor, rows: Tensor
    ) -> Tensor:
        """Judge the scores (P, n) of points of the examples ``rows``; (P, …).

        Where examples have different numbers of groups, ``judge`` gets the points of one number at
        a time, with the examples that they belong to.
        """
        if self.group_counts is None:
            return judge(scores, rows)
        counts = self.group_counts.to(scores.device)[rows]
        return by_count(lambda part, points: judge(part, rows[points]), scores, counts)

    def _scores_of(self, maps: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """Return the scores of maps of the examples ``rows``, filled up to equal lengths."""
        n_dims = [m.dim() for m in maps]
        mask = feature_mask_of_examples(self.feature_mask, rows, self.n_examples, n_dims)
        if self.n_features is None:
            self.group_counts = counts_of_examples(self.feature_mask, self.n_examples, n_dims)
        if self.group_counts is None:
            return as_scores(maps, mask, self.absolute)
        scores, _ = padded_scores(maps, mask, self.absolute)
        missing = int(self.group_counts.amax()) - scores.shape[1]
        scores = torch.cat([scores, scores[:, :1].expand(-1, missing)], dim=1).detach()
        return scores if scores.dtype == torch.float64 else scores.float()

    def _maps(self, leaves: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
        """Return the attributions at ``leaves``, of the examples ``rows``."""

        def explain(part: slice | None) -> tuple[Tensor, ...]:
            some = rows if part is None else rows[part]
            arguments = kwargs_of_examples(self._arguments, some, self.n_examples, self._method)
            return self._call(part_of(leaves, part), arguments)

        mask = self._arguments.get("feature_mask")
        return self._draws.evaluate(explain, len(rows), self._whole_batch, mask)

    def _call(self, leaves: tuple[Tensor, ...], arguments: dict[str, Any]) -> tuple[Tensor, ...]:
        """Call the explanation function."""
        with one_graph_at_a_time(), torch.enable_grad():
            if self._attribution is not None:
                direct = direct_attribution(self._attribution, leaves, arguments)
                if direct is not None:
                    return direct.attributions
            with summed_gradients(), named_output(self._attribution, leaves, arguments):
                maps = self._function(format_like(self.given, leaves), **arguments)
        return as_tuple(maps, "the result of explanation_func")

    def _measured(
        self, explain: Callable[[], tuple[Tensor, ...]], points: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Explain, and choose the rows of the further calls by the memory of this one.

        That is what autograd saves; where it saves nothing, as for a feature ablation, the largest
        memory of all tensors at once in a second call.
        """
        if self._saves_nothing:
            live = LiveBytes()
            with live:
                maps = explain()
            self._choose_rows(live.most, points)
            return maps
        saved = SavedBytes()
        try:
            with saved:
                maps = explain()
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            maps = explain()  # torch.func allows no hooks: the size of the inputs has to do
            self._choose_rows(0, points)
            return maps
        self._saves_nothing = saved.count == 0
        if not self._saves_nothing:
            self._choose_rows(saved.count, points)
        return maps

    def _choose_rows(self, size: int, points: tuple[Tensor, ...]) -> None:
        """Choose the rows of a call by the bytes of one at these points."""
        size = max(size, sum(p.numel() * p.element_size() for p in points), 1)
        self.rows_per_call = max(1, bytes_per_call(points[0].device) * len(points[0]) // size)


def _without_partial(function: Callable[..., Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Split ``functools.partial`` into a function and the keyword arguments that it binds."""
    bound: dict[str, Any] = {}
    while isinstance(function, functools.partial) and not function.args:
        bound = {**function.keywords, **bound}
        function = function.func
    return function, bound


def _innermost(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function within ``functools.partial``, whatever that binds."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _attribution_of(function: Callable[..., Any]) -> Attribution | None:
    """Return the attribution whose ``attribute`` method this is, if it is one."""
    attribution = getattr(function, "__self__", None)
    is_method = isinstance(attribution, Attribution) and function == attribution.attribute
    return attribution if is_method else None
