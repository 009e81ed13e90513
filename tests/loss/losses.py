"""The losses of the generic tests: one line per loss, with the name of its weight."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_robust.loss import (
    AdversarialRankingLoss,
    CrossLipschitzLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
)

#: Of each loss its class, the arguments it must have, and what makes it the plain loss.
LOSSES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "R2ET": (R2ETLoss, {"k": 2}, {"lambda1": 0.0, "lambda2": 0.0}),
    "R2ET-mm, exp": (
        R2ETLoss,
        {"k": 2, "pairs": "mm", "gap": "exp", "hessian": "hvp"},
        {"lambda1": 0.0, "lambda2": 0.0},
    ),
    "Est-H": (HessianNormLoss, {}, {"weight": 0.0}),
    "Exact-H": (HessianNormLoss, {"hessian": "exact"}, {"weight": 0.0}),
    "spectral": (HessianNormLoss, {"hessian": "spectral"}, {"weight": 0.0}),
    "SSR": (SSRLoss, {}, {"weight": 0.0}),
    "CL": (CrossLipschitzLoss, {"k": 2}, {"weight": 0.0}),
    "AT": (AdversarialRankingLoss, {"k": 2, "radius": 0.5}, {"radius": 0.0}),
    "AT, 3 steps": (
        AdversarialRankingLoss,
        {"k": 2, "radius": 0.3, "step_num": 3, "norm": "Linf", "gap": "exp"},
        {"radius": 0.0},
    ),
}
REGULARISERS = [name for name in LOSSES if not name.startswith("AT")]


def criterion_of(name: str, model: Any, **options: Any) -> Any:
    make, needed, _ = LOSSES[name]
    return make(model, **{**needed, **options})


def plain_of(name: str, model: Any, **options: Any) -> Any:
    """The loss with its weight, or its radius, at zero."""
    return criterion_of(name, model, **{**LOSSES[name][2], **options})


class Counting(nn.Module):
    """Count the forwards of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.calls = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        output: Tensor = self.model(*inputs)
        return output


class Gated(nn.Module):
    """Rows whose first feature is negative have a score, and maps, of zero."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.model(x) * (x[:, :1] > 0)
        return output


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def random_state_after(action: Any) -> Tensor:
    torch.manual_seed(0)
    action()
    return torch.get_rng_state()
