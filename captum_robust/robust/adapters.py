"""Use an attack where Captum expects a perturbation function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._batch import of_examples
from captum_robust._captum import Inputs, Perturbation, TargetType, as_tuple

__all__ = ["as_perturb_func"]


def as_perturb_func(
    attack: Perturbation,
    target: TargetType = None,
    additional_forward_args: Any = None,
    **kwargs: Any,
) -> Callable[[Inputs, float], tuple[Tensor, ...]]:
    """Turn an attack into the ``perturb_func`` of ``captum.metrics.sensitivity_max``.

    Captum repeats every example n times and gives the function neither target nor additional
    arguments; here they are repeated alike. :func:`~captum_robust.metrics.ranking_thickness`
    needs no adapter: it takes the attack itself.

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
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Softplus(), torch.nn.Linear(8, 2))
        >>> x, y, ig = torch.randn(4, 5), torch.tensor([0, 1, 1, 0]), IntegratedGradients(model)
        >>> worst = as_perturb_func(ERAttack(ig, k=2), target=y, step_num=5)
        >>> sensitivity_max(ig.attribute, x, worst, 0.1, n_perturb_samples=2, target=y).shape
        torch.Size([4])
    """
    arguments = {"target": target, "additional_forward_args": additional_forward_args, **kwargs}
    given = {name: value for name, value in arguments.items() if value is not None}

    def perturb_func(inputs: Inputs, perturb_radius: float) -> tuple[Tensor, ...]:
        n_rows = len(as_tuple(inputs)[0])
        n_examples = _n_examples(target, additional_forward_args)
        own = given
        if n_examples is not None and 0 < n_examples < n_rows:
            rows = torch.arange(n_examples).repeat_interleave(n_rows // n_examples)
            own = {name: of_examples(value, rows, n_examples) for name, value in given.items()}
        return as_tuple(attack.perturb(inputs, radius=perturb_radius, **own))

    return perturb_func


def _n_examples(target: TargetType, additional_forward_args: Any) -> int | None:
    """Number of unrepeated examples, as far as the arguments tell."""
    if isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1):
        return len(target)
    extra = additional_forward_args
    tensors = [t for t in (extra if isinstance(extra, tuple) else (extra,)) if isinstance(t, Tensor)]
    return len(tensors[0]) if tensors and tensors[0].dim() > 0 else None
