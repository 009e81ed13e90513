"""The table of costs in docs/algorithms: every formula against what is counted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust.graph import EdgeFlipAttack
from captum_robust.loss import (
    AdversarialRankingLoss,
    CrossLipschitzLoss,
    HessianNormLoss,
    R2ETLoss,
    SSRLoss,
)
from captum_robust.metrics import (
    certified_precision_at_k,
    hessian_norm,
    precision_at_k,
    precision_at_k_min,
    ranking_gap,
    ranking_thickness,
    thickness_bounds,
)
from captum_robust.robust import (
    CenterOfMassAttack,
    ERAttack,
    MSEAttack,
    RandomSearchAttack,
    TargetMapAttack,
    TopKAttack,
)

PAGE = Path(__file__).parents[2] / "docs" / "algorithms" / "index.md"
# In the names of the page; n_examples only to divide by.
SIZES = {"s": 7, "S": 5, "T": 4, "n": 6, "k": 2, "c": 3, "J": 16, "b": 2, "C": 3}
N_EXAMPLES = 5


class Counted(nn.Module):
    """Counts its forwards, their rows, and the backward passes that come through it."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(SIZES["n"], 8), nn.Linear(8, SIZES["c"])
        self.rows: list[int] = []
        self.passed: list[tuple[int, int]] = []
        self.n_runs = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        hidden = self.first(x)
        if hidden.requires_grad:
            hidden.register_hook(lambda _: self.passed.append((self.n_runs, len(x))))
        return self.last(nn.functional.softplus(hidden))


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted, engine = Counted(), torch.autograd._engine_run_backward

    def run(*arguments, **options):
        counted.n_runs += 1
        return engine(*arguments, **options)

    monkeypatch.setattr(torch.autograd, "_engine_run_backward", run)
    return counted


def examples() -> Tensor:
    return torch.randn(N_EXAMPLES, SIZES["n"], generator=torch.Generator().manual_seed(0))


def attack(kind: Callable, **options: object) -> Callable[[Counted], object]:
    call = {"step_num": SIZES["s"], "target": 1, "seed": 0}
    return lambda m: kind(Saliency(m), k=2, **options).perturb(examples(), 0.3, **call)


def measured(metric: Callable, **options: object) -> Callable[[Counted], object]:
    return lambda m: metric(Saliency(m).attribute, examples(), 2, seed=0, target=1, **options)


def loss(kind: Callable, *arguments: object, **options: object) -> Callable[[Counted], object]:
    labels = torch.tensor([0, 1, 2, 0, 1])

    def steps(m: Counted) -> None:
        criterion = kind(m, *arguments, **options)
        criterion(examples(), labels)  # checks that the derivatives exist, once
        m.rows.clear()
        m.passed.clear()
        criterion(examples(), labels).backward()

    return steps


def norm(**options: object) -> Callable[[Counted], object]:
    return lambda m: hessian_norm(m, examples(), 1, seed=0, **options)


def of_given_maps(metric: Callable) -> Callable[[Counted], object]:
    return lambda _: metric(examples(), reference_attributions=examples() + 0.1, k=2)


RUNS = {
    "precision_at_k": of_given_maps(precision_at_k),
    "ranking_gap": of_given_maps(ranking_gap),
    "precision_at_k_min": measured(precision_at_k_min, n_perturb_samples=5),
    "ranking_thickness": measured(ranking_thickness, n_perturb_samples=5, n_steps=4),
    "thickness_bounds": lambda m: thickness_bounds(
        m, examples(), 2, 0.1, target=1, n_samples=5, seed=0
    ),
    "hessian_norm": norm(),
    'hessian_norm(method="hutchinson")': norm(method="hutchinson", n_probes=5),
    'hessian_norm(method="finite_difference")': norm(method="finite_difference"),
    "certified_precision_at_k": measured(
        certified_precision_at_k, radius=0.1, sigma=0.5, n_samples=5
    ),
    "ERAttack": attack(ERAttack),
    "TopKAttack": attack(TopKAttack),
    'ERAttack(preserve_prediction="qp")': attack(ERAttack, preserve_prediction="qp"),
    "ERAttack(smooth_relu=…)": attack(ERAttack, smooth_relu=5.0),
    'ERAttack(gradient="finite_difference")': attack(ERAttack, gradient="finite_difference"),
    'ERAttack(gradient="spsa")': attack(ERAttack, gradient="spsa"),
    "ERAttack(path_points=T)": attack(ERAttack, path_points=4),
    "MSEAttack": attack(MSEAttack),
    "CenterOfMassAttack": attack(CenterOfMassAttack),
    "TargetMapAttack": attack(TargetMapAttack, target_map=torch.ones(1, SIZES["n"])),
    "RandomSearchAttack": attack(RandomSearchAttack),
    "EdgeFlipAttack": lambda m: EdgeFlipAttack(
        Saliency(m), 2, n_candidates=3, preserve_prediction="none"
    ).perturb((examples() > 0).float(), 2, target=1),
    "R2ETLoss": loss(R2ETLoss, 2),
    "R2ETLoss(lambda2=0)": loss(R2ETLoss, 2, lambda2=0.0),
    'R2ETLoss(hessian="hvp")': loss(R2ETLoss, 2, hessian="hvp"),
    "HessianNormLoss": loss(HessianNormLoss),
    "SSRLoss": loss(SSRLoss),
    "AdversarialRankingLoss": loss(AdversarialRankingLoss, 2, 0.1, step_num=7),
    "CrossLipschitzLoss": loss(CrossLipschitzLoss, 2),
}


def rows() -> list[tuple[str, str, str]]:
    lines = PAGE.read_text(encoding="utf-8").split("<!-- costs")[1].splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines if line[:3] == "| `"]
    return [
        (name, forwards, backwards)
        for names, forwards, backwards, _ in cells
        for name in re.findall("`([^`]*)`", names)
    ]


def value(formula: str) -> int:
    """2 s + 1 and (1 + S) (1 + n), with the letters of the page."""
    product = re.sub(r"(?<=[\w)])\s+(?=[\w(])", "*", formula.strip("[]").replace("′", ""))
    return int(eval(product, {}, SIZES))


def test_the_page_and_the_runs_name_the_same() -> None:
    assert sorted(name for name, _, _ in rows()) == sorted(RUNS)


@pytest.mark.parametrize("name, forwards, backwards", rows(), ids=[name for name, _, _ in rows()])
def test_cost(name: str, forwards: str, backwards: str, model: Counted) -> None:
    RUNS[name](model)
    passes = dict(model.passed)  # one entry a run of autograd's engine
    if forwards.startswith("["):
        found = sum(model.rows) / N_EXAMPLES, sum(passes.values()) / N_EXAMPLES
    else:
        found = len(model.rows), len(passes)
    assert found == (value(forwards), value(backwards))


def test_formulas_are_read_as_they_are_written() -> None:
    assert value("2 s + 1") == 15 and value("(1 + S) (1 + n)") == 42 and value("[1 + S T]") == 21
