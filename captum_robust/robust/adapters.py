"""Adapters from attacks to the perturbation functions of Captum."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.batch import of_examples
from captum_robust._utils.captum import Inputs, Perturbation, TargetType, as_tuple

__all__ = ["as_perturb_func"]


def as_perturb_func(
    attack: Perturbation,
    target: TargetType = None,
    additional_forward_args: Any = None,
    **kwargs: Any,
) -> Callable[[Inputs, float], tuple[Tensor, ...]]:
    """Turn an attack into the ``perturb_func`` of ``captum.metrics.sensitivity_max``.

    Captum repeats every example n times and passes neither the target nor additional arguments to
    the function. The adapter repeats them as often as the examples; it finds n from the number of
    targets or, with one target for all examples, from the runs of equal rows.
    :func:`~captum_robust.metrics.ranking_thickness` takes attacks without an adapter.

    Args:
        attack (Perturbation): an attack with ``perturb(inputs, radius=…)``.
        target: target of the unrepeated examples, in any of Captum's forms.
        additional_forward_args: further arguments of the model for the unrepeated examples.
        **kwargs: passed to ``attack.perturb``.

    Returns:
        - **perturb_func** (*Callable*): ``perturb_func(inputs, perturb_radius)``, a tuple of
          perturbed tensors.

    Examples::

        >>> from captum.attr import IntegratedGradients
        >>> from captum.metrics import sensitivity_max
        >>> from captum_robust.robust import ERAttack
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(5, 8), nn.Softplus(), nn.Linear(8, 2))
        >>> x, y, ig = torch.randn(4, 5), torch.tensor([0, 1, 1, 0]), IntegratedGradients(model)
        >>> worst = as_perturb_func(ERAttack(ig, k=2), target=y, step_num=5)
        >>> sensitivity_max(ig.attribute, x, worst, 0.1, n_perturb_samples=2, target=y).shape
        torch.Size([4])
    """
    arguments = {"target": target, "additional_forward_args": additional_forward_args, **kwargs}
    given = {name: value for name, value in arguments.items() if value is not None}

    def perturb_func(inputs: Inputs, perturb_radius: float) -> tuple[Tensor, ...]:
        tensors = as_tuple(inputs)
        n_rows, n_examples = len(tensors[0]), _n_examples(target, tensors)
        own = given
        if 0 < n_examples < n_rows and n_rows % n_examples == 0:
            rows = torch.arange(n_examples).repeat_interleave(n_rows // n_examples)
            own = {name: of_examples(value, rows, n_examples) for name, value in given.items()}
        return as_tuple(attack.perturb(inputs, radius=perturb_radius, **own))

    return perturb_func


def _n_examples(target: TargetType, inputs: tuple[Tensor, ...]) -> int:
    """Return the number of unrepeated examples, from the targets or from runs of equal rows."""
    if isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1):
        return len(target)
    flat = torch.cat([t.detach().flatten(1) for t in inputs], dim=1)
    return min(1, len(flat)) + int((flat[1:] != flat[:-1]).any(dim=1).sum())
