"""Does the model use the features that the explanation names: what their removal changes."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, TargetType, as_tuple, run_forward, select_target
from captum_robust._utils.prediction import check_logits, class_probabilities, predicted_labels
from captum_robust._utils.random import reseed, seeded
from captum_robust._utils.state import left_as_found
from captum_robust.metrics._score_gradient import check_chunk
from captum_robust.metrics._scores import as_scores, nan_where
from captum_robust.ranking import group_indices, invalid_rows, ranking

__all__ = ["comprehensiveness", "decision_flip_fraction", "sufficiency"]

Baselines = float | Tensor | tuple[float | Tensor, ...]
Ks = Sequence[int | float]

_ROWS_PER_CALL = 256


def decision_flip_fraction(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    attributions: Inputs,
    baselines: Baselines | None = None,
    additional_forward_args: Any = None,
    ks: Ks | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
) -> Tensor:
    r"""Smallest share of the features, by rank, whose removal changes the prediction (DFFOT).

    .. math:: \min \{\, k / n : \arg\max_c f_c(x_{[n \setminus k]}) \ne \arg\max_c f_c(x) \,\}

    where :math:`x_{[n \setminus k]}` is x with its k most important features replaced by the
    baseline. In (0, 1], lower is more faithful. 1 where no k changes the prediction: the worst
    value, as that of an explanation that needs all features. Source: arXiv 2212.14106, C.2;
    Serrano and Smith 2019 (arXiv 1906.03731).

    Args:
        forward_func (Callable): the model; returns scores (N, C), of which the largest is
            predicted, or a single logit, (N, 1) or (N,), whose sign is.
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
        attributions (Tensor or tuple[Tensor, ...]): maps of the same shapes; a tuple is ranked
            jointly. Ties go to the lowest index.
        baselines (float, Tensor or tuple, optional): what stands for a removed feature, as in
            Captum: a number, or a tensor that broadcasts to the inputs. Default: 0.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        ks (Sequence[int or float], optional): how many features are removed: integers in 1 … n
            count them; floats in (0, 1] are shares of n, rounded, at least one feature. Default:
            1, 2, …, n; for images, give a few shares.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum; groups are ranked, and removed as one.
        max_examples_per_batch (int, optional): rows evaluated at once; never changes the result
            but by rounding. Default: 256.

    Returns:
        - **fraction** (*Tensor*): shape (N,). NaN where a map is not finite or constant, or an
          input or output is not finite.

    Raises:
        ValueError: for maps, outputs or baselines whose shapes do not fit, and for other ks.

    Examples::

        >>> x = torch.tensor([[1.0, 3.0, 1.0]])
        >>> def is_large(x):
        ...     return x.sum(dim=1) - 1.5                       # one logit, positive at x
        >>> decision_flip_fraction(is_large, x, attributions=torch.tensor([[2.0, 3.0, 1.0]]))
        tensor([0.6667])
    """

    def judge(outputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        labels = predicted_labels(outputs)
        return lambda removed, rows: predicted_labels(removed) != labels[rows]

    changed, shares, broken = _over_ks(
        judge, False, forward_func, inputs, attributions, baselines, additional_forward_args, ks,
        absolute, feature_mask, max_examples_per_batch,
    )  # fmt: skip
    return nan_where(broken, torch.where(changed > 0, shares, 1).amin(dim=1))


def comprehensiveness(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    attributions: Inputs,
    baselines: Baselines | None = None,
    additional_forward_args: Any = None,
    target: TargetType = None,
    ks: Ks | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
) -> Tensor:
    r"""Mean change of the probability when the k most important features are removed (COMP).

    .. math:: \frac{1}{|K|} \sum_{k \in K} |f_c(x) - f_c(x_{[n \setminus k]})|

    In [0, 1], higher is more faithful. Source: arXiv 2212.14106, C.2, with its magnitudes; DeYoung
    et al. 2020 (arXiv 1911.03429). Arguments as in :func:`decision_flip_fraction`, but:

    Args:
        forward_func (Callable): the model; returns logits (N, C), or (N, 1) or (N,) for a binary
            model. :math:`f_c` is their softmax, or the sigmoid of a single logit.
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
        attributions (Tensor or tuple[Tensor, ...]): maps of the same shapes.
        baselines (float, Tensor or tuple, optional): what stands for a removed feature. Default:
            0.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        target (int, tuple, Tensor or list, optional): the explained class c, as in Captum. Default:
            the class that is predicted at x. The two classes of a single logit give equal results.
        ks (Sequence[int or float], optional): K, numbers of features or shares of n. Default:
            1, 2, …, n, the paper's for tables; its shares for images and graphs are (0.01, 0.05,
            0.1, 0.2, 0.5).
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): rows evaluated at once. Default: 256.

    Returns:
        - **comprehensiveness** (*Tensor*): shape (N,). NaN where a map is not finite or constant,
          or an input or output is not finite.

    Raises:
        ValueError: for maps, outputs, targets or baselines whose shapes do not fit, and for other
            ks.

    Examples::

        >>> x, logit = torch.tensor([[2.0, 0.0]]), lambda x: x.sum(dim=1)
        >>> comprehensiveness(logit, x, attributions=torch.tensor([[1.0, 0.0]]))  # σ(2) − σ(0)
        tensor([0.3808])
    """
    changes, _, broken = _over_ks(
        _change_of_probability(target), False, forward_func, inputs, attributions, baselines,
        additional_forward_args, ks, absolute, feature_mask, max_examples_per_batch,
    )  # fmt: skip
    return nan_where(broken, changes.mean(dim=1))


def sufficiency(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    attributions: Inputs,
    baselines: Baselines | None = None,
    additional_forward_args: Any = None,
    target: TargetType = None,
    ks: Ks | None = None,
    absolute: bool = False,
    feature_mask: Inputs | None = None,
    max_examples_per_batch: int | None = None,
) -> Tensor:
    r"""Mean change of the probability when only the k most important features are kept (SUFF).

    .. math:: \frac{1}{|K|} \sum_{k \in K} |f_c(x) - f_c(x_{[k]})|

    where :math:`x_{[k]}` is x with all but its k most important features replaced by the baseline.
    In [0, 1], lower is more faithful. Source: arXiv 2212.14106, C.2, with its magnitudes; DeYoung
    et al. 2020 (arXiv 1911.03429). Arguments as in :func:`comprehensiveness`:

    Args:
        forward_func (Callable): the model; returns logits (N, C), (N, 1) or (N,).
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
        attributions (Tensor or tuple[Tensor, ...]): maps of the same shapes.
        baselines (float, Tensor or tuple, optional): what stands for a removed feature. Default:
            0.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        target (int, tuple, Tensor or list, optional): the explained class c. Default: the class
            that is predicted at x.
        ks (Sequence[int or float], optional): K, numbers of kept features or shares of n. Default:
            1, 2, …, n.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): rows evaluated at once. Default: 256.

    Returns:
        - **sufficiency** (*Tensor*): shape (N,). NaN where a map is not finite or constant, or an
          input or output is not finite.

    Raises:
        ValueError: for maps, outputs, targets or baselines whose shapes do not fit, and for other
            ks.

    Examples::

        >>> x, logit = torch.tensor([[2.0, 0.0]]), lambda x: x.sum(dim=1)
        >>> sufficiency(logit, x, attributions=torch.tensor([[1.0, 0.0]]))
        tensor([0.])
        >>> sufficiency(logit, x, attributions=torch.tensor([[0.0, 1.0]]))  # (σ(2) − σ(0)) / 2
        tensor([0.1904])
    """
    changes, _, broken = _over_ks(
        _change_of_probability(target), True, forward_func, inputs, attributions, baselines,
        additional_forward_args, ks, absolute, feature_mask, max_examples_per_batch,
    )  # fmt: skip
    return nan_where(broken, changes.mean(dim=1))


# Given the outputs of all examples, a function of the outputs of changed examples and their rows.
_Judge = Callable[[Tensor], Callable[[Tensor, Tensor], Tensor]]


def _change_of_probability(target: TargetType) -> _Judge:
    def judge(outputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        probabilities = class_probabilities(outputs)
        if target is None:
            classes = predicted_labels(outputs).long()
        else:
            ids = torch.arange(probabilities.shape[1], device=outputs.device)
            classes = select_target(ids.expand_as(probabilities), target)
        explained = probabilities.gather(1, classes[:, None])

        def change(changed: Tensor, rows: Tensor) -> Tensor:
            found = class_probabilities(changed).gather(1, classes[rows, None])
            return (found - explained[rows]).abs().squeeze(1)

        return change

    return judge


def _over_ks(
    judge: _Judge,
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

    Returns what was judged, (N, K), the ks as shares of the features, (K,), and which examples are
    broken, (N,).
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

    def outputs_at(points: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        arguments = kwargs_of_examples(
            {"additional_forward_args": additional_forward_args}, rows, n_examples
        )
        reseed(0)  # every call sees the same dropout masks
        outputs = run_forward(forward_func, points, **arguments)
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
    """What stands for the removed features, in the shapes of the inputs."""
    if baselines is None:
        baselines = (0,) * len(points)
    given = baselines if isinstance(baselines, tuple) else (baselines,)
    if len(given) != len(points):
        raise ValueError(f"baselines must hold one an input ({len(points)}), got {len(given)}")
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
    """The numbers of features that ks stand for; (K,)."""
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
    """Place of every feature in the ranking of its example, from 0, in the shapes of the maps."""
    order = ranking(scores, scores.shape[1])
    places = order.argsort(dim=1)
    if feature_mask is not None:
        groups, _ = group_indices(maps, feature_mask)
        places = places.gather(1, groups.to(places.device).expand(len(places), -1))
    sizes = [m[0].numel() for m in maps]
    return [p.reshape(m.shape) for p, m in zip(places.split(sizes, dim=1), maps, strict=True)]


def _changed(x: Tensor, fill: Tensor, place: Tensor, counts: Tensor, keep: bool) -> Tensor:
    """Examples without their top features, or with nothing else."""
    is_top = place < counts.to(place).view(-1, *(1,) * (place.dim() - 1))
    return torch.where((is_top != keep).to(x.device), fill, x)
