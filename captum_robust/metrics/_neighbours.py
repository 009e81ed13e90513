"""Explain the points between examples and their perturbed neighbours, in chunks."""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from tqdm.auto import tqdm

from captum_robust._utils.batch import feature_mask_of_examples, kwargs_of_examples
from captum_robust._utils.captum import Inputs, Perturbation, as_tuple, like
from captum_robust._utils.graphs import one_graph_at_a_time, takes_one_graph
from captum_robust._utils.random import example_generators, reseed, resolve_seed, seeded
from captum_robust._utils.state import left_as_found
from captum_robust.attr.differentiable import summed_gradients
from captum_robust.metrics._scores import as_scores
from captum_robust.noise import Noise, check_radius
from captum_robust.ranking import invalid_rows, non_finite_rows

__all__ = ["Explainer", "SavedBytes", "bytes_per_call", "neighbour_scores"]

# Live memory of one call that keeps a CPU's caches useful: within 10 % of the best on networks
# from MLPs to ResNets (see the performance page).
_BYTES_ON_CPU = 30_000_000
# A GPU has no such cache to keep, and wants to be filled: a few percent of its memory.
_BYTES_ELSEWHERE = 1_000_000_000
_FIRST_CALL = 64
_RADIUS_NAMES = ("perturb_radius", "radius", "epsilon", "eps")


class Explainer:
    """An explanation function with its inputs and arguments, called on any rows of points.

    As a context it leaves the model, its buffers and the global random state as found.
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
        if max_examples_per_batch is not None and max_examples_per_batch < 1:
            raise ValueError(
                f"max_examples_per_batch must be at least 1, got {max_examples_per_batch}"
            )
        self.explanation_func = explanation_func
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
        self._attribute = _unwrapped(explanation_func)
        if max_examples_per_batch is None and takes_one_graph(self._attribute):
            self.rows_per_call = 1
        self._contexts = ExitStack()

    def __enter__(self) -> "Explainer":
        self._contexts.enter_context(left_as_found(self._attribute))
        self._contexts.enter_context(seeded(self.seed))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._contexts.__exit__(kind, error, trace)

    def reference(self, given: Inputs | None) -> tuple[Tensor, Tensor]:
        """Scores of the unperturbed examples, and which of them hold no ranking (rows zeroed)."""
        if given is None:
            parts = []
            start = 0
            while start < self.n_examples:
                stop = start + (self.rows_per_call or _FIRST_CALL)
                rows = torch.arange(start, min(stop, self.n_examples))
                parts.append(self.scores(tuple(t[start:stop] for t in self.inputs), rows))
                start = stop
            scores = torch.cat(parts)
        else:
            maps = as_tuple(given, "reference_attributions")
            scores = as_scores(maps, self.feature_mask, self.absolute)
            if len(scores) != self.n_examples:
                raise ValueError(
                    f"reference_attributions must hold {self.n_examples} examples as inputs do, "
                    f"got {len(scores)}"
                )
        self.n_features = scores.shape[1]
        broken = invalid_rows(scores)
        return scores.masked_fill(broken[:, None], 0), broken

    def scores(self, points: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        """Scores of points, each of which belongs to the example in ``rows``."""
        leaves = tuple(p.requires_grad_() if p.is_floating_point() else p for p in points)
        kwargs = kwargs_of_examples(self.kwargs, rows, self.n_examples, self._attribute)
        explain = functools.partial(self.explanation_func, like(self.given, leaves), **kwargs)
        reseed(self.seed)  # stochastic attributions draw the same noise at every call
        with one_graph_at_a_time(), torch.enable_grad(), summed_gradients():
            given = self._measured(explain, points) if self.rows_per_call is None else explain()
        maps = as_tuple(given, "the result of explanation_func")
        n_dims = [m.dim() for m in maps]
        mask = feature_mask_of_examples(self.feature_mask, rows, self.n_examples, n_dims)
        scores = as_scores(maps, mask, self.absolute)
        if len(scores) != len(rows):
            raise ValueError(
                f"explanation_func must return one map an example ({len(rows)}), got {len(scores)}"
            )
        if self.n_features not in (None, scores.shape[1]):
            raise ValueError(
                f"reference_attributions must hold {scores.shape[1]} scores an example as the "
                f"maps of explanation_func do, got {self.n_features}"
            )
        broken = non_finite_rows(points)
        if bool(broken.any()):  # the gradient at a NaN can be finite
            scores = scores.masked_fill(broken[:, None].to(scores.device), float("nan"))
        return scores

    def _measured(self, explain: Callable[[], Inputs], points: tuple[Tensor, ...]) -> Inputs:
        """Explain, and choose the rows of the further calls by the bytes that autograd saves."""
        saved = SavedBytes()
        try:
            with saved:
                maps = explain()
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            reseed(self.seed)
            maps = explain()  # torch.func lets nobody look: the inputs have to do
        size = max(saved.count, sum(p.numel() * p.element_size() for p in points), 1)
        self.rows_per_call = max(1, bytes_per_call(points[0].device) * len(points[0]) // size)
        return maps


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function within ``functools.partial``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function


def bytes_per_call(device: torch.device) -> int:
    """How much autograd may save in one call on a device."""
    return _BYTES_ON_CPU if device.type == "cpu" else _BYTES_ELSEWHERE


class SavedBytes(saved_tensors_hooks):
    """Counts the bytes that autograd saves, parameters aside."""

    def __init__(self) -> None:
        self.count = 0
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter) and not isinstance(tensor._base, nn.Parameter):
            self.count += tensor.numel() * tensor.element_size()
        return tensor


def neighbour_scores(
    explainer: Explainer,
    perturb_func: Callable[..., Any],
    radius: float,
    n_draws: int,
    times: Tensor | None,
    show_progress: bool,
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Explain points :math:`x + t (x' - x)` for the neighbours :math:`x'` of every example.

    Args:
        explainer: what to explain.
        perturb_func: where the neighbours come from.
        radius: radius of the neighbourhood.
        n_draws: number of neighbours of each example.
        times: the t of every neighbour; None draws one t a neighbour, stratified over [0, 1], with
            antithetic pairs of neighbours.
        show_progress: show a progress bar over the points.

    Yields:
        For each chunk: the example and the draw of every row, its scores, and which rows hold no
        ranking (these rows are zeroed).
    """
    check_radius(radius, "perturb_radius")
    if n_draws < 1:
        raise ValueError(f"n_perturb_samples must be at least 1, got {n_draws}")
    neighbours = _neighbourhood(explainer, perturb_func, radius, n_draws, times)
    n_times = 1 if times is None else len(times)
    n_points = explainer.n_examples * n_draws * n_times
    with tqdm(total=n_points, disable=not show_progress, unit="point") as bar:
        start = 0
        while start < explainer.n_examples:
            rows_per_call = explainer.rows_per_call or _FIRST_CALL
            stop = min(start + max(1, rows_per_call // (n_draws * n_times)), explainer.n_examples)
            ends, at = neighbours(start, stop)
            block = max(1, rows_per_call // ((stop - start) * n_times))
            for first in range(0, n_draws, block):
                last = min(first + block, n_draws)
                points = tuple(
                    _between(t[start:stop], e[:, first:last], at[:, first:last])
                    for t, e in zip(explainer.inputs, ends, strict=True)
                )
                index = torch.cartesian_prod(
                    torch.arange(start, stop), torch.arange(first, last), torch.arange(n_times)
                )
                for part in torch.arange(len(index)).split(rows_per_call):
                    rows, draws = index[part, 0], index[part, 1]
                    scores = explainer.scores(tuple(p[part] for p in points), rows)
                    invalid = invalid_rows(scores)
                    if bool(invalid.any()):
                        scores = scores.masked_fill(invalid[:, None], 0)
                    device = scores.device
                    yield rows.to(device), draws.to(device), scores, invalid
                    bar.update(len(part))
            start = stop


def _between(starts: Tensor, ends: Tensor, times: Tensor) -> Tensor:
    """Points on the segments from (G, ...) to (G, D, ...) at times (G, D, T): (G·D·T, ...).

    Between integers there is nothing: they take the value of the neighbour.
    """
    shape = starts.shape[1:]
    if not starts.is_floating_point():
        return ends[:, :, None].expand(*times.shape, *shape).reshape(-1, *shape)
    at = times.to(starts).view(*times.shape, *(1,) * len(shape))
    return torch.lerp(starts[:, None, None], ends[:, :, None], at).reshape(-1, *shape)


# The neighbours of the examples start … stop: tensors (G, D, ...), and their times (G, D, T).
_Neighbourhood = Callable[[int, int], tuple[tuple[Tensor, ...], Tensor]]


def _neighbourhood(
    explainer: Explainer,
    perturb_func: Callable[..., Any],
    radius: float,
    n_draws: int,
    times: Tensor | None,
) -> _Neighbourhood:
    inputs, seed = explainer.inputs, explainer.seed
    if isinstance(perturb_func, Noise):
        return lambda start, stop: _random_neighbours(
            perturb_func, tuple(t[start:stop] for t in inputs), radius, n_draws, times, seed
        )
    drawn = [_perturbed(explainer, perturb_func, radius, draw) for draw in range(n_draws)]
    ends = tuple(torch.stack(draws, dim=1) for draws in zip(*drawn, strict=True))

    def made(start: int, stop: int) -> tuple[tuple[Tensor, ...], Tensor]:
        generators = example_generators(tuple(t[start:stop] for t in inputs), seed)
        return tuple(e[start:stop] for e in ends), _times(times, n_draws, 1, generators)

    return made


def _random_neighbours(
    noise: Noise,
    inputs: tuple[Tensor, ...],
    radius: float,
    n_draws: int,
    times: Tensor | None,
    seed: int,
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Neighbours by noise; for stratified times, in antithetic pairs x + d, x − d at one time."""
    generators = example_generators(inputs, seed)
    antithetic = times is None
    n_directions = (n_draws + 1) // 2 if antithetic else n_draws
    ends = []
    for tensor in inputs:
        if not tensor.is_floating_point():
            ends.append(tensor[:, None].expand(-1, n_draws, *tensor.shape[1:]))
            continue
        drawn = torch.stack(
            [noise.directions(n_directions, x, g) for x, g in zip(tensor, generators, strict=True)]
        )
        if antithetic:
            drawn = torch.stack([drawn, -drawn], dim=2).flatten(1, 2)[:, :n_draws]
        ends.append(noise.move(tensor[:, None], drawn.to(tensor), radius))
    return tuple(ends), _times(times, n_draws, 2, generators)


def _times(
    times: Tensor | None, n_draws: int, n_shared: int, generators: list[torch.Generator]
) -> Tensor:
    """The given times for every neighbour, or one stratified time each; (G, D, T)."""
    if times is not None:
        return times.expand(len(generators), n_draws, len(times))
    return torch.stack([_strata(n_draws, n_shared, g) for g in generators])[:, :, None]


def _strata(n_draws: int, n_shared: int, generator: torch.Generator) -> Tensor:
    """Times of the draws, of which ``n_shared`` in a row share one; (n_draws,).

    One time in each of the parts of [0, 1], as long as the draws that share it are many.
    """
    edges = torch.arange(0, n_draws + n_shared, n_shared).clamp(max=n_draws).double() / n_draws
    offsets = torch.rand(len(edges) - 1, dtype=torch.float64, generator=generator)
    times = edges[:-1] + edges.diff() * offsets
    return times.repeat_interleave(n_shared)[:n_draws]


def _perturbed(
    explainer: Explainer, perturb_func: Callable[..., Any], radius: float, draw: int
) -> tuple[Tensor, ...]:
    """One perturbed copy of all examples, by a Perturbation or a function of the caller's."""
    given = like(explainer.given, tuple(t.clone() for t in explainer.inputs))
    seed = explainer.seed + draw
    reseed(seed)
    with warnings.catch_warnings():  # Captum's PGD warns of its own iterates
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        if isinstance(perturb_func, Perturbation):
            method = perturb_func.perturb
            named = _radius_keyword(method, radius) or {"radius": radius}
            offered = {**explainer.kwargs, **named, "seed": seed}
            perturbed = method(given, **_accepted(method, offered))
        elif _takes_radius(perturb_func):
            perturbed = perturb_func(given, radius)
        else:
            perturbed = perturb_func(given, **_radius_keyword(perturb_func, radius))
    tensors = as_tuple(perturbed, "the result of perturb_func")
    shapes, expected = [t.shape for t in tensors], [t.shape for t in explainer.inputs]
    if shapes != expected:
        raise ValueError(f"perturb_func must return tensors of shapes {expected}, got {shapes}")
    return tuple(t.detach().to(x) for t, x in zip(tensors, explainer.inputs, strict=True))


def _accepted(function: Callable[..., Any], offered: dict[str, Any]) -> dict[str, Any]:
    """The offered keyword arguments that a function takes; all of them where it has **kwargs."""
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return offered
    return {name: value for name, value in offered.items() if name in parameters}


def _takes_radius(function: Callable[..., Any]) -> bool:
    """Whether the second positional parameter is a radius, by name or because it is required."""
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) < 2:
        return False
    second = parameters[1]
    if second.kind is second.VAR_POSITIONAL:
        return True
    positional = second.kind in (second.POSITIONAL_ONLY, second.POSITIONAL_OR_KEYWORD)
    return positional and (second.name in _RADIUS_NAMES or second.default is second.empty)


def _radius_keyword(function: Callable[..., Any], radius: float) -> dict[str, float]:
    """The radius under its name among the parameters, unless ``functools.partial`` gave it one."""
    bound = function.keywords if isinstance(function, functools.partial) else {}
    names = inspect.signature(function).parameters
    return {name: radius for name in _RADIUS_NAMES if name in names and name not in bound}
