"""Scores at points between every example and its perturbed neighbours, in chunks."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_robust._utils.checks import check_count, check_movable, radius_of_examples
from captum_robust.metrics._draws import neighbours_of
from captum_robust.metrics._explainer import Explainer
from captum_robust.metrics._movement import Movement
from captum_robust.metrics._scores import unranked_rows
from captum_robust.noise import Noise

__all__ = ["ScoredPoints", "neighbour_scores"]


class ScoredPoints(NamedTuple):
    """One chunk of explained points."""

    rows: Tensor  #: index of the example of every point; (P,)
    draws: Tensor  #: index of its neighbour among those of the example; (P,)
    scores: Tensor  #: scores (P, n), zero where they are invalid
    invalid: Tensor  #: points whose scores are not finite or all equal; (P,) bool


def neighbour_scores(
    explainer: Explainer,
    perturb_func: Callable[..., Any],
    radius: float | Tensor,
    n_draws: int,
    times: Tensor | None,
    show_progress: bool,
) -> Iterator[ScoredPoints]:
    """Explain points :math:`x + t (x' - x)` for the neighbours :math:`x'` of every example.

    All points of an example are invalid if none of its neighbours differs from it at a radius
    above 0, since nothing is known about an explanation whose input does not move.

    Args:
        explainer: what to explain.
        perturb_func: where the neighbours come from.
        radius: radius of the neighbourhood, one or one per example, (N,).
        n_draws: number of neighbours per example.
        times: the t of every neighbour, shape (T,). None draws one t per neighbour, stratified
            over [0, 1], with antithetic pairs of neighbours.
        show_progress: show a progress bar over the points.

    Yields:
        The points in order of the examples, as many at once as the explainer takes.

    Raises:
        ValueError: for arguments outside their ranges, and where no example can move.

    Warns:
        UnmovedWarning: if some of the examples cannot move.
    """
    radius = radius_of_examples("perturb_radius", radius, explainer.n_examples)
    check_count("n_perturb_samples", n_draws, 1)
    if isinstance(perturb_func, Noise) and bool(torch.as_tensor(radius).any()):
        check_movable(explainer.inputs)
    neighbours = neighbours_of(explainer, perturb_func, radius, n_draws, times)
    moved = Movement(perturb_func, radius, explainer.n_examples)
    n_times = 1 if times is None else len(times)
    n_points = explainer.n_examples * n_draws * n_times
    with tqdm(total=n_points, disable=not show_progress, unit="point") as bar:
        start = 0
        while start < explainer.n_examples:
            rows_per_call = explainer.rows_per_call or explainer.first_call
            stop = min(start + max(1, rows_per_call // (n_draws * n_times)), explainer.n_examples)
            examples = torch.arange(start, stop)
            inputs = tuple(t[start:stop] for t in explainer.inputs)
            n_at_once = max(1, rows_per_call // (len(examples) * n_times))
            last = 0
            for ends, at in neighbours(start, stop, n_at_once):
                first, last = last, last + ends[0].shape[1]
                moved.note(examples, inputs, ends)
                points = tuple(_between(t, e, at) for t, e in zip(inputs, ends, strict=True))
                all_rows = examples.repeat_interleave((last - first) * n_times)
                some = torch.arange(first, last)
                all_draws = some.repeat_interleave(n_times).repeat(stop - start)
                for at_row in range(0, len(all_rows), rows_per_call):
                    part = slice(at_row, at_row + rows_per_call)
                    rows, draws = all_rows[part], all_draws[part]
                    scores = explainer.scores(tuple(p[part] for p in points), rows)
                    invalid = unranked_rows(scores)
                    if last == n_draws:  # all neighbours are known
                        invalid = invalid | moved.stays[rows].to(invalid.device)
                    if bool(invalid.any()):
                        scores = scores.masked_fill(invalid[:, None], 0)
                    device = scores.device
                    yield ScoredPoints(rows.to(device), draws.to(device), scores, invalid)
                    bar.update(len(rows))
            start = stop
    moved.warn()


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
