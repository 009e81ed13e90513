"""Reasons to doubt the result of an attack, counted in examples and stated beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from captum_robust._utils.state import models_of

if TYPE_CHECKING:
    from captum_robust.robust._search.search import Search

__all__ = ["FLAGS", "concerned", "counted", "flags_of", "in_training_mode", "underflow"]

#: What each flag means. The value of a flag is the number of examples that it concerns.
FLAGS = {
    "zero_gradient": "the gradient of the objective is exactly zero: the attack went nowhere, "
    "which proves nothing (networks of the ReLU family hide their second derivative)",
    "non_finite_gradient": "a gradient was NaN or infinite, and gave no step",
    "still_falling": "the best point is that of the last step: more steps may find more",
    "label_flips_rejected": "a worse explanation was found, but under another prediction, and was "
    "not returned",
    "training_mode": "dropout or batch normalisation is in training mode: maps depend on chance, "
    "or on the other examples; call model.eval()",
    "randomised": "the map depends on the seed: the attack is against one draw of it",
    "float16_underflow": "the ranking is decided among values too small for half precision",
    "tied_reference": "the k-th feature of the unperturbed map ties with the next: which of them "
    "is in the top k is a convention, and any change may swap them",
    "black_box_beats_white_box": "random search found less precision than every gradient: the "
    "gradients are masked",
    "not_attacked": "the budget allows no attack: that nothing was found says nothing",
    "unconstrained_attack_fails": "even ten times the radius, without regard to bounds and "
    "prediction, does not break the explanation: it is constant (a linear model), or the attack "
    "does not see it",
}


def in_training_mode(*explainers: Any) -> bool:
    """Whether a layer whose output depends on chance or on the batch is in training mode."""
    return any(
        module.training and isinstance(module, _DropoutNd | _BatchNorm | nn.RReLU)
        for explainer in explainers
        for model in models_of(explainer)
        for module in model.modules()
    )


def concerned(search: Search) -> dict[str, Tensor]:
    """The examples of a search that each flag concerns, (N,) bool."""
    ranked = ~search.broken
    return {
        "zero_gradient": search.looked_for_gradient & ~search.gradient_found & ranked,
        "non_finite_gradient": search.gradient_broken & ranked,
        "still_falling": (search.best_step == search.step_num) & ranked & (search.step_num > 0),
        "label_flips_rejected": search.flips_rejected & ranked,
        "training_mode": ranked & in_training_mode(search.attack.attribution),
        "float16_underflow": search.underflow & ranked,
        "tied_reference": search.tied & ranked,
    }


def flags_of(searches: Sequence[Search]) -> dict[str, int]:
    """The flags of an attack, of those that concern an example."""
    each = [concerned(search) for search in searches]
    return counted({name: sum(int(e[name].sum()) for e in each) for name in each[0]})


def counted(flags: dict[str, int]) -> dict[str, int]:
    """The flags that concern an example, in the order of :data:`FLAGS`."""
    return {name: flags[name] for name in FLAGS if flags.get(name, 0) > 0}


def underflow(scores: Tensor, dtype: torch.dtype, k: int) -> Tensor:
    """Rows whose k-th largest magnitude is no normal number of a half-precision ``dtype``; (N,)."""
    if dtype not in (torch.float16, torch.bfloat16):
        return torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    kth = scores.abs().topk(k, dim=1).values[:, -1]
    return kth < torch.finfo(dtype).tiny
