"""Faithfulness: how the output changes when the features that an explanation names are removed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, TargetType, select_target
from captum_robust._utils.prediction import Decision, class_probabilities, predicted_labels
from captum_robust.metrics._removal import Baselines, Judge, Ks, judge_removals
from captum_robust.metrics._scores import nan_where

__all__ = ["comprehensiveness", "decision_flip_fraction", "sufficiency"]


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
    tolerance: float | Tensor | None = None,
) -> Tensor:
    r"""Smallest fraction of the features, by rank, whose removal changes the prediction (DFFOT).

    .. math:: \min \{\, k / n : \arg\max_c f_c(x_{[n \setminus k]}) \ne \arg\max_c f_c(x) \,\}

    where :math:`x_{[n \setminus k]}` is x with its k most important features replaced by the
    baseline. In (0, 1], lower is more faithful. 1, the worst value, also where no k changes the
    prediction. Source: arXiv 2212.14106, C.2;
    Serrano and Smith 2019 (arXiv 1906.03731).

    Args:
        forward_func (Callable): the model; returns scores (N, C), of which the largest is
            predicted, or a single logit, (N, 1) or (N,), whose sign is.
        inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
        attributions (Tensor or tuple[Tensor, ...]): attributions of the same shapes; a tuple is
            ranked jointly. Ties go to the lowest index.
        baselines (float, Tensor or tuple, optional): values of removed features, as in Captum: a
            number, or a tensor that broadcasts to the inputs. Default: 0.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        ks (Sequence[int or float], optional): numbers of features to remove: integers in 1 … n, or
            floats in (0, 1] for fractions of n, rounded to at least one feature. Default:
            1, 2, …, n; for images, give a few fractions.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features whose
            attributions are summed first, as in Captum; groups are ranked, and removed as one.
        max_examples_per_batch (int, optional): number of changed examples evaluated at once;
            changes the result by rounding at most. Default: 256.
        tolerance (float or Tensor, optional): for regressions: the prediction changes where an
            output moves by more than this. Default: where the predicted class changes.

    Returns:
        - **fraction** (*Tensor*): shape (N,). NaN where the attributions of an example are not
          finite or are all equal, or an input or output is not finite.

    Raises:
        ValueError: for attributions, outputs or baselines whose shapes do not fit, and for other
            ks.

    Examples::

        >>> x = torch.tensor([[1.0, 3.0, 1.0]])
        >>> def is_large(x):
        ...     return x.sum(dim=1) - 1.5                       # one logit, positive at x
        >>> decision_flip_fraction(is_large, x, attributions=torch.tensor([[2.0, 3.0, 1.0]]))
        tensor([0.6667])
    """
    decision = Decision(tolerance=tolerance)

    def judge(outputs: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        readings = decision.read(outputs)
        return lambda removed, rows: ~decision.agree(decision.read(removed), readings[rows])

    changed, fractions, broken = judge_removals(
        judge, False, forward_func, inputs, attributions, baselines, additional_forward_args, ks,
        absolute, feature_mask, max_examples_per_batch,
    )  # fmt: skip
    return nan_where(broken, torch.where(changed > 0, fractions, 1).amin(dim=1))


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
        attributions (Tensor or tuple[Tensor, ...]): attributions of the same shapes.
        baselines (float, Tensor or tuple, optional): values of removed features. Default: 0.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        target (int, tuple, Tensor or list, optional): the explained class c, as in Captum. Default:
            the class that is predicted at x. The two classes of a single logit give equal results.
        ks (Sequence[int or float], optional): K, numbers of features or fractions of n. Default:
            1, 2, …, n, as in the paper for tables; its fractions for images and graphs are (0.01,
            0.05, 0.1, 0.2, 0.5).
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): number of changed examples evaluated at once.
            Default: 256.

    Returns:
        - **comprehensiveness** (*Tensor*): shape (N,). NaN where the attributions of an example are
          not finite or are all equal, or an input or output is not finite.

    Raises:
        ValueError: for attributions, outputs, targets or baselines whose shapes do not fit, and for
            other ks.

    Examples::

        >>> x, logit = torch.tensor([[2.0, 0.0]]), lambda x: x.sum(dim=1)
        >>> comprehensiveness(logit, x, attributions=torch.tensor([[1.0, 0.0]]))  # σ(2) − σ(0)
        tensor([0.3808])
    """
    changes, _, broken = judge_removals(
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
        attributions (Tensor or tuple[Tensor, ...]): attributions of the same shapes.
        baselines (float, Tensor or tuple, optional): values of removed features. Default: 0.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        target (int, tuple, Tensor or list, optional): the explained class c. Default: the class
            that is predicted at x.
        ks (Sequence[int or float], optional): K, numbers of kept features or fractions of n.
            Default: 1, 2, …, n.
        absolute (bool, optional): rank :math:`|I|`. Default: False.
        feature_mask (Tensor or tuple[Tensor, ...], optional): groups of features.
        max_examples_per_batch (int, optional): number of changed examples evaluated at once.
            Default: 256.

    Returns:
        - **sufficiency** (*Tensor*): shape (N,). NaN where the attributions of an example are not
          finite or are all equal, or an input or output is not finite.

    Raises:
        ValueError: for attributions, outputs, targets or baselines whose shapes do not fit, and for
            other ks.

    Examples::

        >>> x, logit = torch.tensor([[2.0, 0.0]]), lambda x: x.sum(dim=1)
        >>> sufficiency(logit, x, attributions=torch.tensor([[1.0, 0.0]]))
        tensor([0.])
        >>> sufficiency(logit, x, attributions=torch.tensor([[0.0, 1.0]]))  # (σ(2) − σ(0)) / 2
        tensor([0.1904])
    """
    changes, _, broken = judge_removals(
        _change_of_probability(target), True, forward_func, inputs, attributions, baselines,
        additional_forward_args, ks, absolute, feature_mask, max_examples_per_batch,
    )  # fmt: skip
    return nan_where(broken, changes.mean(dim=1))


def _change_of_probability(target: TargetType) -> Judge:
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
