"""Scores at points between every example and its perturbed neighbours, in chunks."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.checks import check_count, check_movable, check_radius
from captum_robust._utils.random import example_generators
from captum_robust.metrics._explainer import FIRST_CALL, Explainer
from captum_robust.metrics._perturb_func import perturb_once
from captum_robust.metrics._scores import unranked_rows
from captum_robust.noise import Noise

__all__ = ["ScoredPoints", "neighbour_scores"]


class ScoredPoints(NamedTuple):
    """One chunk of explained points."""

    rows: Tensor  #: index of the example of every point; (P,)
    draws: Tensor  #: index of its neighbour among those of the example; (P,)
    scores: Tensor  #: scores (P, n), zero where they are invalid
    invalid: Tensor  #: points whose scores are not finite or all equal; (P,) bool


# From the examples start … stop to their neighbours, tensors (G, D, ...), and the times of these,
# (G, D, T); None for the neighbours themselves.
_Neighbourhood = Callable[[int, int], tuple[tuple[Tensor, ...], Tensor | None]]


def neighbour_scores(
    explainer: Explainer,
    perturb_func: Callable[..., Any],
    radius: float,
    n_draws: int,
    times: Tensor | None,
    show_progress: bool,
) -> Iterator[ScoredPoints]:
    """Explain points :math:`x + t (x' - x)` for the neighbours :math:`x'` of every example.

    Args:
        explainer: what to explain.
        perturb_func: where the neighbours come from.
        radius: radius of the neighbourhood.
        n_draws: number of neighbours per example.
        times: the t of every neighbour, shape (T,). None draws one t per neighbour, stratified
            over [0, 1], with antithetic pairs of neighbours.
        show_progress: show a progress bar over the points.

    Yields:
        The points in order of the examples, as many at once as the explainer takes.
    """
    check_radius(radius, "perturb_radius")
    check_count("n_perturb_samples", n_draws, 1)
    if isinstance(perturb_func, Noise) and radius > 0:
        check_movable(explainer.inputs)
    neighbours = _neighbourhood(explainer, perturb_func, radius, n_draws, times)
    n_times = 1 if times is None else len(times)
    n_points = explainer.n_examples * n_draws * n_times
    with tqdm(total=n_points, disable=not show_progress, unit="point") as bar:
        start = 0
        while start < explainer.n_examples:
            rows_per_call = explainer.rows_per_call or FIRST_CALL
            stop = min(start + max(1, rows_per_call // (n_draws * n_times)), explainer.n_examples)
            ends, at = neighbours(start, stop)
            block = max(1, rows_per_call // ((stop - start) * n_times))
            for first in range(0, n_draws, block):
                last = min(first + block, n_draws)
                here = None if at is None else at[:, first:last]
                points = tuple(
                    _between(t[start:stop], e[:, first:last], here)
                    for t, e in zip(explainer.inputs, ends, strict=True)
                )
                examples, some = torch.arange(start, stop), torch.arange(first, last)
                all_rows = examples.repeat_interleave((last - first) * n_times)
                all_draws = some.repeat_interleave(n_times).repeat(stop - start)
                for at_row in range(0, len(all_rows), rows_per_call):
                    part = slice(at_row, at_row + rows_per_call)
                    rows, draws = all_rows[part], all_draws[part]
                    scores = explainer.scores(tuple(p[part] for p in points), rows)
                    invalid = unranked_rows(scores)
                    if bool(invalid.any()):
                        scores = scores.masked_fill(invalid[:, None], 0)
                    device = scores.device
                    yield ScoredPoints(rows.to(device), draws.to(device), scores, invalid)
                    bar.update(len(rows))
            start = stop


def _between(starts: Tensor, ends: Tensor, times: Tensor | None) -> Tensor:
    """Return the points on the segments from (G, ...) to (G, D, ...) at times (G, D, T).

    They are (G·D·T, ...), and the neighbours themselves without times. Between integers there are
    no points: they take the value of the neighbour.
    """
    shape = starts.shape[1:]
    if times is None:
        return ends.reshape(-1, *shape)
    if not starts.is_floating_point():
        return ends[:, :, None].expand(*times.shape, *shape).reshape(-1, *shape)
    at = times.to(starts).view(*times.shape, *(1,) * len(shape))
    return torch.lerp(starts[:, None, None], ends[:, :, None], at).reshape(-1, *shape)


def _neighbourhood(
    explainer: Explainer,
    perturb_func: Callable[..., Any],
    radius: float,
    n_draws: int,
    times: Tensor | None,
) -> _Neighbourhood:
    """Return the function that makes the neighbours of some examples and their times."""
    inputs, seed = explainer.inputs, explainer.seed
    by_noise = isinstance(perturb_func, Noise)
    drawn: tuple[Tensor, ...] = ()
    if not by_noise:
        copies = [
            perturb_once(perturb_func, explainer.given, radius, explainer.kwargs, seed + draw)
            for draw in range(n_draws)
        ]
        drawn = tuple(torch.stack(draws, dim=1) for draws in zip(*copies, strict=True))
    # An end is reached without rounding.
    fixed = None if times is None or (bool((times == 1).all()) and len(times) == 1) else times
    stratified = times is None

    def make(start: int, stop: int) -> tuple[tuple[Tensor, ...], Tensor | None]:
        some = tuple(t[start:stop] for t in inputs)
        generators = example_generators(some, seed) if by_noise or stratified else []
        if isinstance(perturb_func, Noise):
            ends = _random_neighbours(perturb_func, some, radius, n_draws, stratified, generators)
        else:
            ends = tuple(d[start:stop] for d in drawn)
        if stratified:
            n_shared = 2 if by_noise else 1  # the neighbours of an antithetic pair
            return ends, _stratified_times(n_draws, n_shared, generators)
        if fixed is None:
            return ends, None
        return ends, fixed.expand(stop - start, n_draws, len(fixed))

    return make


def _random_neighbours(
    noise: Noise,
    inputs: tuple[Tensor, ...],
    radius: float,
    n_draws: int,
    antithetic: bool,
    generators: list[torch.Generator],
) -> tuple[Tensor, ...]:
    """Draw neighbours (G, D, ...) by noise; antithetic ones in pairs x + d, x − d."""
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
    return tuple(ends)


def _stratified_times(n_draws: int, n_shared: int, generators: list[torch.Generator]) -> Tensor:
    """Draw times of the neighbours, of which ``n_shared`` in a row share one; (G, D, 1).

    One time in each of the parts of [0, 1], as long as the draws that share it are many.
    """
    edges = torch.arange(0, n_draws + n_shared, n_shared).clamp(max=n_draws).double() / n_draws
    offsets = torch.empty(len(generators), len(edges) - 1, dtype=torch.float64)
    for row, generator in zip(offsets, generators, strict=True):
        row.uniform_(generator=generator)
    times = edges[:-1] + edges.diff() * offsets
    return times.repeat_interleave(n_shared, dim=1)[:, :n_draws, None]
