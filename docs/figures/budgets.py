"""Tables of budgets in docs/evaluation.md: `python docs/figures/budgets.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from evaluation import SEED, Case, PredictionPreservingNoise, bank, digits, mean

from captum_robust.metrics import precision_at_k_min
from captum_robust.robust import AutoERAttack, ERAttack

BUDGETS = (10, 30, 45, 60, 100, 200, None)
N_EXAMPLES = 50


def networks() -> list[Case]:
    """Return a perceptron and a convolutional network, both with ReLU."""
    of_bank = bank()
    torch.manual_seed(SEED)
    layers: list[nn.Module] = [
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return [of_bank, digits("CNN, ReLU", layers)]


def table(case: Case) -> None:
    """Print P@k under AutoERAttack beside other attacks with as many attributions."""
    x, target = case.inputs[:N_EXAMPLES], case.target[:N_EXAMPLES]
    saliency = Saliency(case.model)
    given: dict[str, Any] = {"target": target, "seed": SEED}
    print(f"\n{case.name}\n")
    print("| budget | queries | AutoERAttack | ERAttack, β = 10 | random draws | not attacked |")
    print("|---" * 6 + "|", flush=True)
    before: Tensor | None = None
    for budget in BUDGETS:
        _, info = AutoERAttack(saliency, case.k, **case.bounds).perturb(
            x, case.radius, budget=budget, return_info=True, **given
        )
        if budget is not None:
            assert before is None or bool((info.precision <= before).all()), "weaker"
            before = info.precision
        n_queries = budget or round(float(info.n_queries.double().mean()))
        er = ERAttack(saliency, case.k, smooth_relu=10.0, keep="precision", **case.bounds)
        _, one = er.perturb(
            x, case.radius, step_num=(n_queries - 1) // 2, return_info=True, **given
        )
        draws = precision_at_k_min(
            saliency.attribute, x, case.k, PredictionPreservingNoise(case.model, **case.bounds),
            case.radius, n_queries, **given,
        )  # fmt: skip
        cells = [
            "none" if budget is None else budget, f"{info.n_queries.double().mean():.0f}",
            mean(info.precision), mean(one.precision), mean(draws),
            info.flags.get("not_attacked", 0),
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for network in networks():
        table(network)
