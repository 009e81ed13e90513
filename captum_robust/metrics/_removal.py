"""Outputs of a model for examples whose most important features are removed, or only them kept."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, as_tuple, run_forward
from captum_robust._utils.prediction import check_logits
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust.attr._same_draws import SameDraws, depends_on_the_batch, part_of
from captum_robust.metrics._chunks import check_chunk
from captum_robust.metrics._scores import as_scores
from captum_robust.ranking import group_indices, invalid_rows, ranking

__all__ = ["Baselines", "Judge", "Ks", "judge_removals"]

Baselines = float | Tensor | tuple[float | Tensor, ...]
Ks = Sequence[int | float]
#: Given the outputs of all examples, a function of the outputs of changed examples and their rows.
Judge = Callable[[Tensor], Callable[[Tensor, Tensor], Tensor]]

_ROWS_PER_CALL = 256


def judge_removals(
    judge: Judge,
    keep: bool,
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    attributions: Inputs,
    baselines: Baselines | None,
    additional_forward_args: Any,
    ks: Ks | None,
    absolute: bool,
    feature_mask: Inputs | None,
    max_examples_per_batch: int | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Judge every example with its top k features removed, or only them kept, for every k.

    Returns:
        The values that ``judge`` gives, (N, K); the ks as fractions of the features, (K,); and
        which examples cannot be judged, (N,) bool.
    """
    check_chunk(max_examples_per_batch)
    points = tuple(t.detach() for t in as_tuple(inputs))
    n_examples = len(points[0])
    if n_examples == 0:
        raise ValueError("inputs must hold at least one example, got none")
    maps = as_tuple(attributions, "attributions")
    shapes, expected = ([tuple(t.shape) for t in tensors] for tensors in (maps, points))
    if shapes != expected:
        raise ValueError(f"attributions must have the shapes of inputs {expected}, got {shapes}")
    fills = _fills(baselines, points)
    scores = as_scores(maps, feature_mask, absolute)
    counts = _counts(ks, scores.shape[1])
    broken = invalid_rows(scores) | ~as_scores(points).isfinite().all(dim=1)
    places = _places(scores.masked_fill(broken[:, None], 0), maps, feature_mask)

    draws, whole_batch = SameDraws(0), depends_on_the_batch(forward_func)

    def outputs_at(points: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        def run(part: slice | None) -> tuple[Tensor, ...]:
            arguments = kwargs_of_examples(
                {"additional_forward_args": additional_forward_args},
                rows if part is None else rows[part],
                n_examples,
            )
            return (run_forward(forward_func, part_of(points, part), **arguments),)

        (outputs,) = draws.evaluate(run, len(rows), whole_batch)
        check_logits(outputs, len(rows), "the output of forward_func")
        return as_scores(outputs)

    rows_per_call = max_examples_per_batch or _ROWS_PER_CALL
    with left_as_found(forward_func), seeded(0), torch.no_grad():
        outputs = torch.cat(
            [
                outputs_at(tuple(x[rows] for x in points), rows)
                for rows in torch.arange(n_examples).split(rows_per_call)
            ]
        )
        compare = judge(outputs)
        broken = broken.to(outputs.device) | ~outputs.isfinite().all(dim=1)
        judged = torch.zeros(n_examples, len(counts), dtype=outputs.dtype, device=outputs.device)
        index = torch.cartesian_prod(torch.arange(n_examples), torch.arange(len(counts)))
        for part in index.split(rows_per_call):
            rows, which = part.unbind(dim=1)
            changed = tuple(
                _changed(x[rows], fill[rows], place[rows], counts[which], keep)
                for x, fill, place in zip(points, fills, places, strict=True)
            )
            found = outputs_at(changed, rows)
            judged[rows, which] = compare(found, rows).to(judged)
            finite = found.isfinite().all(dim=1).cpu()
            broken[rows[~finite]] = True
    return judged, counts.to(judged) / scores.shape[1], broken


def _fills(baselines: Baselines | None, points: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the values of removed features, in the shapes of the inputs."""
    if baselines is None:
        baselines = (0,) * len(points)
    given = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(given) != len(points):
        raise ValueError(f"baselines must hold one per input ({len(points)}), got {len(given)}")
    fills = []
    for x, baseline in zip(points, given, strict=True):
        fill = torch.as_tensor(baseline, dtype=x.dtype, device=x.device)
        try:
            fills.append(fill.expand_as(x))
        except RuntimeError as error:
            raise ValueError(
                f"baselines must broadcast to the inputs {tuple(x.shape)}, got {tuple(fill.shape)}"
            ) from error
    return fills


def _counts(ks: Ks | None, n_features: int) -> Tensor:
    """Return the numbers of features that ks mean; (K,)."""
    if ks is None:
        return torch.arange(1, n_features + 1)
    counts = []
    for k in ks if isinstance(ks, Sequence) else ():
        if isinstance(k, float) and 0 < k <= 1:
            counts.append(max(1, int(k * n_features + 0.5)))
        elif isinstance(k, int) and not isinstance(k, bool) and 1 <= k <= n_features:
            counts.append(k)
    if not counts or len(counts) < len(ks):
        raise ValueError(
            f"ks must hold integers in 1 … {n_features}, the number of ranked features, or floats "
            f"in (0, 1]; got {ks!r}"
        )
    return torch.tensor(counts)


def _places(scores: Tensor, maps: tuple[Tensor, ...], feature_mask: Inputs | None) -> list[Tensor]:
    """Return the rank of every feature in its example, from 0, in the shapes of the maps.

    It is −1 for features that are not ranked.
    """
    order = ranking(scores, scores.shape[1])
    places = order.argsort(dim=1)
    if feature_mask is not None:
        groups, _ = group_indices(maps, feature_mask)
        groups = groups.to(places.device).expand(len(places), -1)
        places = places.gather(1, groups.clamp_min(0)).where(groups >= 0, -1)
    sizes = [m[0].numel() for m in maps]
    return [p.reshape(m.shape) for p, m in zip(places.split(sizes, dim=1), maps, strict=True)]


def _changed(x: Tensor, fill: Tensor, place: Tensor, counts: Tensor, keep: bool) -> Tensor:
    """Return the examples without their top features, or with those alone.

    Features that are not ranked stay as they are.
    """
    is_top = place < counts.to(place).view(-1, *(1,) * (place.dim() - 1))
    removed = (is_top != keep) & (place >= 0)
    return torch.where(removed.to(x.device), fill, x)
