"""Figure and tables of docs/evaluation.md: `python docs/figures/evaluation.py`."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import Attribution, DeepLift, InputXGradient, IntegratedGradients, Saliency
from matplotlib.figure import Figure
from sklearn.datasets import load_digits, load_wine
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_robust.benchmark.study.training import train
from captum_robust.datasets import distinct, load_bank, split
from captum_robust.loss import R2ETLoss
from captum_robust.metrics import certified_top_k_radius, precision_at_k_min
from captum_robust.models import TabularMLP
from captum_robust.robust import (
    AutoAttackInfo,
    AutoERAttack,
    ERAttack,
    UniformNoise,
    ZeroGradientWarning,
)

SEED, N_NOISE, BETA = 0, 1000, 10.0
RADII = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
IMAGE = Path(__file__).parents[1] / "images" / "evaluation.png"


@dataclass
class Case:
    """A trained network, its attribution method, and the examples to attack."""

    name: str
    model: nn.Module
    inputs: Tensor
    target: Tensor
    k: int
    radius: float
    attribution: type[Attribution] = Saliency
    arguments: dict[str, Any] = field(default_factory=dict)
    bounds: dict[str, float] = field(default_factory=dict)
    certifiable: bool = False

    def noise(self, radius: float) -> Tensor:
        """Return the worst precision among random draws that keep the prediction."""
        return precision_at_k_min(
            self.attribution(self.model).attribute, self.inputs, self.k,
            PredictionPreservingNoise(self.model, **self.bounds), radius, N_NOISE,
            target=self.target, seed=SEED, **self.arguments,
        )  # fmt: skip

    def er(self, radius: float, **options: Any) -> tuple[Tensor, dict[str, int]]:
        """Return precision and flags of ERAttack, by default along its own gradient."""
        attack = ERAttack(self.attribution(self.model), self.k, **self.bounds, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroGradientWarning)  # shown as a flag
            _, info = attack.perturb(
                self.inputs, radius, target=self.target, seed=SEED, return_info=True,
                **self.arguments,
            )  # fmt: skip
        return info.precision, info.flags

    def auto(self, radius: float, start: Tensor | None = None) -> tuple[Tensor, AutoAttackInfo]:
        """Run the ensemble, starting at the result of a smaller radius if given."""
        attack = AutoERAttack(self.attribution(self.model), self.k, **self.bounds)
        return attack.perturb(
            self.inputs, radius, target=self.target, seed=SEED, start=start, return_info=True,
            **self.arguments,
        )  # fmt: skip

    def certified(self, max_radius: float) -> Tensor:
        """Return the radius per example within which no attack changes the top-k set."""
        output = 0 if self.name.startswith("Bank") else self.target
        return certified_top_k_radius(
            self.model, self.inputs, self.k, output, max_radius=max_radius
        )


class PredictionPreservingNoise(UniformNoise):
    """Uniform noise, or the example itself where the noise changes the prediction."""

    def __init__(self, model: nn.Module, **bounds: float) -> None:
        super().__init__("Linf", **bounds)
        self.model = model

    def move(self, inputs: Tensor, directions: Tensor, radius: float | Tensor) -> Tensor:
        """Return the neighbours (G, D, …) of examples (G, 1, …)."""
        moved = super().move(inputs, directions, radius)
        kept = self._labels(moved) == self._labels(inputs)
        return torch.where(kept.view(*kept.shape, *(1,) * (inputs.dim() - 2)), moved, inputs)

    @torch.no_grad()
    def _labels(self, points: Tensor) -> Tensor:
        outputs = self.model(points.flatten(0, 1))
        labels = outputs > 0 if outputs.shape[1] == 1 else outputs.argmax(dim=1)
        return labels.view(points.shape[:2])


def bank() -> Case:
    """Return a ReLU network for binary features, in float64, as the certificate requires."""
    torch.manual_seed(SEED)
    data = split(load_bank(), SEED)
    model = TabularMLP(data.train.n_features, activation=nn.ReLU)
    plain = R2ETLoss(model, k=6, lambda1=0.0, lambda2=0.0)
    train(model, plain, data, 12, 128, SEED, "bank")
    inputs = distinct(data.test.inputs)[:100].double()
    target = torch.zeros(len(inputs), dtype=torch.long)
    return Case("Bank, MLP, ReLU", model.double().eval(), inputs, target, 6, 0.25, certifiable=True)


def wine() -> Case:
    """Return a network with two tanh layers for a table of measurements."""
    rows, labels = load_wine(return_X_y=True)
    order = np.random.default_rng(SEED).permutation(len(rows))
    rows, labels = torch.tensor(rows[order]), torch.tensor(labels[order])
    rows = (rows - rows[:120].mean(dim=0)) / rows[:120].std(dim=0)
    torch.manual_seed(SEED)
    model = nn.Sequential(
        nn.Linear(13, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)
    ).double()
    fit(model, rows[:120], labels[:120], n_epochs=40)
    return Case("Wine, MLP, tanh", model, rows[120:], labels[120:], 4, 0.25, certifiable=True)


class Residual(nn.Module):
    """Residual block with two convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, features: Tensor) -> Tensor:
        """Return a tensor of the shape of the input, (N, width, h, w)."""
        return torch.relu(features + self.inner(features))


def digits(name: str, layers: list[nn.Module], **options: Any) -> Case:
    """Return a network with these layers for images of 8 × 8 pixels in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    target = torch.tensor(labels)
    model = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))
    model(inputs[:2])
    fit(model, inputs[:1400], target[:1400], n_epochs=15)
    bounds = {"lower_bound": 0.0, "upper_bound": 1.0}
    return Case(
        f"Digits, {name}", model, inputs[1400:1450], target[1400:1450], 8, 0.1, bounds=bounds,
        **options,
    )  # fmt: skip


def fit(model: nn.Module, inputs: Tensor, target: Tensor, n_epochs: int) -> None:
    """Train with Adam in batches of 64, and set evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            cross_entropy(model(inputs[rows]), target[rows]).backward()
            optimizer.step()
    model.eval()


def cases() -> list[Case]:
    """Return the networks; none of them was used to tune an attack."""
    of_bank, of_wine = bank(), wine()
    torch.manual_seed(SEED)
    smooth = digits("CNN, BatchNorm, SiLU", [
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.SiLU(),
    ])  # fmt: skip
    residual = digits("residual CNN, ReLU", [
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), Residual(16), Residual(16), nn.AvgPool2d(2)
    ])  # fmt: skip
    deep_lift = digits(
        "MLP, ReLU", [nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()],
        attribution=DeepLift,
    )  # fmt: skip
    integrated = [
        replace(case, attribution=IntegratedGradients, arguments={"n_steps": 20}, certifiable=False)
        for case in (of_wine, of_bank)
    ]
    return [of_bank, of_wine, smooth, residual, deep_lift, *integrated]


def table(found: list[Case]) -> None:
    """Print all evaluations at one radius, then the wins of each member."""
    wins: Counter[str] = Counter()
    runs: Counter[str] = Counter()
    print(
        "| network | attribution | k | radius | noise | ERAttack | smoothed | AutoERAttack "
        "| certified | certified radius | queries | flags |"
    )
    print("|---" * 12 + "|")
    for case in found:
        differentiable = case.attribution is not DeepLift
        smoothed = {} if differentiable else {"surrogate": InputXGradient(case.model)}
        own = mean(case.er(case.radius)[0]) if differentiable else "refused"
        _, info = case.auto(case.radius)
        wins.update(info.wins)
        for name, precision in zip(info.members, info.member_precision, strict=True):
            runs[name] += int((~precision.isnan()).sum())
        proven, half = "–", "–"
        if case.certifiable:
            radii = case.certified(max(RADII))
            proven, half = mean((radii >= case.radius).double()), f"{float(radii.median()):.3f}"
        cells = [
            case.name, case.attribution.__name__, case.k, case.radius,
            mean(case.noise(case.radius)), own,
            mean(case.er(case.radius, smooth_relu=BETA, **smoothed)[0]), mean(info.precision),
            proven, half, f"{info.n_queries.double().mean():.0f}",
            ", ".join(f"`{name}` {count}" for name, count in info.flags.items()) or "none",
        ]  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print(f"\n{sum(len(case.inputs) for case in found)} examples\n")
    print("| member | wins | runs |\n|---|---|---|")
    for name in runs:
        print(f"| {name} | {wins[name]} | {runs[name]} |")


def figure(case: Case) -> None:
    """Plot four evaluations against the radius."""
    proven = case.certified(max(RADII))
    curves: dict[str, list[float]] = {"naive": [], "noise": [], "auto": [], "certified": []}
    start = None
    for radius in RADII:
        start, info = case.auto(radius, start)
        curves["naive"].append(float(case.er(radius)[0].nanmean()))
        curves["noise"].append(float(case.noise(radius).nanmean()))
        curves["auto"].append(float(info.precision.nanmean()))
        curves["certified"].append(float((proven >= radius).double().mean()))
    print("\n| radius | " + " | ".join(map(str, RADII)) + " |")
    print("|---" * (1 + len(RADII)) + "|")
    for name, curve in curves.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in curve) + " |")

    plot = Figure(figsize=(7, 4.4), layout="constrained")
    axis = plot.add_subplot()
    axis.fill_between(RADII, curves["certified"], curves["auto"], color="0.92")
    # Okabe-Ito colours and four markers can be told apart without colour vision and in print.
    for name, label, colour, marker, style in (
        ("naive", "ERAttack, own gradient (exactly zero)", "#D55E00", "o", ":"),
        ("noise", f"worst of {N_NOISE} random draws", "#E69F00", "s", "--"),
        ("auto", "AutoERAttack: upper bound", "#0072B2", "^", "-"),
        ("certified", "certificate: lower bound", "#009E73", "v", "-"),
    ):
        axis.plot(RADII, curves[name], color=colour, marker=marker, linestyle=style, label=label)
    axis.text(0.1, 0.45, "the true value\nlies in between", ha="center", va="center")
    axis.set_xlabel("L∞ radius of the perturbation, prediction kept")
    axis.set_ylabel(f"P@{case.k}: fraction of the top {case.k} features kept")
    axis.set_title("One ReLU network (Bank), four evaluations")
    axis.set_xscale("log")
    axis.set_xticks(RADII, map(str, RADII))
    axis.minorticks_off()
    axis.set_ylim(0, 1.04)
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize="small")
    plot.savefig(IMAGE, dpi=150)


def mean(precision: Tensor) -> str:
    """Return the mean over the examples that can be scored."""
    return f"{float(precision.nanmean()):.3f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = cases()
    table(found)
    figure(found[0])
