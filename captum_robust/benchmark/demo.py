"""The demonstration: a vanilla, a softplus and an R2ET network under noise and attack."""

import csv
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_robust._utils.files import write_whole
from captum_robust.benchmark.study.training import area_under_curve, train
from captum_robust.datasets import (
    TabularDataset,
    distinct,
    load_adult,
    load_bank,
    load_breast_cancer,
    split,
)
from captum_robust.loss import R2ETLoss
from captum_robust.metrics import precision_at_k, precision_at_k_min, ranking_thickness
from captum_robust.models import TabularMLP
from captum_robust.robust import ERAttack, UniformNoise, ZeroGradientWarning
from captum_robust.visualization import plot_precision

__all__ = ["DATASETS", "run"]

K = 8
RADII = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
TABLE_RADIUS = 1.0
N_EXPLAINED = 150
N_NOISE = 10
N_RESTARTS = 3
BETA = 5.0


@dataclass(frozen=True)
class _Setting:
    """How a table is loaded and trained on."""

    load: Callable[[], TabularDataset]
    n_epochs: int
    batch_size: int
    lambda1: float
    lambda2: float


DATASETS = {
    "adult": _Setting(load_adult, 12, 128, 0.01, 0.01),
    "bank": _Setting(load_bank, 12, 128, 0.01, 0.01),
    "breast-cancer": _Setting(load_breast_cancer, 60, 32, 0.01, 0.01),
}


@dataclass
class _Result:
    """What was measured of one model; curves start at radius 0, where nothing has moved."""

    name: str
    auc: float = 0.0
    thickness: float = 0.0
    noise: float = 0.0
    own_gradient_found: bool = False
    own: list[float] = field(default_factory=lambda: [1.0])
    smoothed: list[float] = field(default_factory=lambda: [1.0])

    def at(self, curve: list[float], radius: float) -> float:
        return curve[1 + RADII.index(radius)]


def run(dataset: str, seed: int, out: Path) -> None:
    """Train the three models, print the table, and write the figure and the CSV into ``out``."""
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    setting = DATASETS[dataset]
    data = split(setting.load(), seed)
    inputs = distinct(data.test.inputs)[:N_EXPLAINED]
    plain: Callable[[nn.Module], R2ETLoss] = partial(R2ETLoss, k=K, lambda1=0.0, lambda2=0.0)
    r2et: Callable[[nn.Module], R2ETLoss] = partial(
        R2ETLoss, k=K, lambda1=setting.lambda1, lambda2=setting.lambda2
    )
    results = []
    for name, activation, criterion in (
        ("vanilla (LeakyReLU)", nn.LeakyReLU, plain),
        ("softplus", nn.Softplus, plain),
        ("R2ET (softplus)", nn.Softplus, r2et),
    ):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = TabularMLP(data.train.n_features, activation=activation)
        loss = criterion(model)
        train(model, loss, data, setting.n_epochs, setting.batch_size, seed, name)
        result = _measured(_Result(name), model, inputs, seed)
        result.auc = area_under_curve(model, data.test)
        results.append(result)
    print(_table(dataset, len(inputs), results))
    write_whole(out / f"{dataset}.csv", partial(_save_csv, results))
    write_whole(out / f"{dataset}.png", partial(_save_figure, dataset, results))
    seconds = time.perf_counter() - started
    print(f"Figure and CSV: {out / dataset}.png, .csv ({seconds:.0f} s)")


def _measured(result: _Result, model: nn.Module, inputs: Tensor, seed: int) -> _Result:
    """Thickness, noise and attacks on the saliency of the logit.

    The probability has the same map up to a factor, so the same ranking, but its factor hides
    gradients where the sigmoid saturates.
    """
    saliency = Saliency(model)
    reference = saliency.attribute(inputs.clone().requires_grad_(), target=0)
    ball = UniformNoise("L2")
    neighbourhood: dict[str, Any] = {
        "k": K, "perturb_func": ball, "perturb_radius": TABLE_RADIUS, "target": 0, "seed": seed,
    }  # fmt: skip
    explain = saliency.attribute
    result.thickness = float(ranking_thickness(explain, inputs, **neighbourhood).mean())
    worst = precision_at_k_min(explain, inputs, n_perturb_samples=N_NOISE, **neighbourhood)
    result.noise = float(worst.mean())

    own = [ERAttack(saliency, K)]
    smoothed = [
        ERAttack(saliency, K, smooth_relu=BETA),
        ERAttack(saliency, K, smooth_relu=BETA, pairs="mm", k_prime=1),
    ]
    lowest = {"own": torch.ones(len(inputs)), "smoothed": torch.ones(len(inputs))}
    with warnings.catch_warnings(), tqdm(RADII, desc=f"attack {result.name}") as radii:
        warnings.simplefilter("ignore", ZeroGradientWarning)  # said in the table
        for radius in radii:
            for attacks, curve, n_restarts in (
                (own, "own", 1),
                (smoothed, "smoothed", N_RESTARTS),
            ):
                for attack in attacks:
                    moved, info = attack.perturb(
                        inputs, radius, target=0, norm="L2", n_restarts=n_restarts, seed=seed,
                        return_info=True,
                    )  # fmt: skip
                    maps = saliency.attribute(moved.requires_grad_(), target=0)
                    # What lies in a smaller ball lies in this one.
                    lowest[curve] = lowest[curve].minimum(precision_at_k(maps, reference, K))
                    if curve == "own":
                        result.own_gradient_found |= bool(info.gradient_found.any())
                getattr(result, curve).append(float(lowest[curve].mean()))
    return result


def _table(dataset: str, n_explained: int, results: list[_Result]) -> str:
    header = ("model", "AUC", "thickness", f"P@{K} noise", f"P@{K} own gradient", f"P@{K} smoothed")
    rows = [header]
    for r in results:
        own = f"{r.at(r.own, TABLE_RADIUS):.3f}" + ("" if r.own_gradient_found else " *")
        smoothed = f"{r.at(r.smoothed, TABLE_RADIUS):.3f}"
        rows.append((r.name, f"{r.auc:.3f}", f"{r.thickness:.4f}", f"{r.noise:.3f}", own, smoothed))
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    notes = [
        f"{dataset}: {n_explained} distinct test rows, saliency of the logit, "
        f"perturbations of L2 radius {TABLE_RADIUS:g}.",
        f"noise: worst of {N_NOISE} draws. own gradient: ERAttack as published.",
        "smoothed: worst of two ERAttacks whose gradient is taken with softplus for ReLU, "
        f"{N_RESTARTS} starts; scored on the model itself.",
    ]
    if not all(r.own_gradient_found for r in results):
        notes.append("* the gradient is exactly zero: nothing moved, so this proves nothing.")
    return "\n".join(["", *(line.rstrip() for line in lines), "", *notes])


def _save_csv(results: list[_Result], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("model", "measure", "radius", "value"))
        for r in results:
            writer.writerow((r.name, "AUC", "", r.auc))
            writer.writerow((r.name, "thickness", TABLE_RADIUS, r.thickness))
            writer.writerow((r.name, f"P@{K} noise", TABLE_RADIUS, r.noise))
            for measure, curve in (("own gradient", r.own), ("smoothed", r.smoothed)):
                for radius, value in zip((0.0, *RADII), curve, strict=True):
                    writer.writerow((r.name, f"P@{K} {measure}", radius, value))


def _save_figure(dataset: str, results: list[_Result], path: Path) -> None:
    curves = {r.name: r.smoothed for r in results}
    curves |= {f"{r.name},\nown gradient: zero": r.own for r in results if not r.own_gradient_found}
    figure, _ = plot_precision(
        curves, (0.0, *RADII), ylabel=f"P@{K}: share of the top {K} features kept",
        xlabel="L2 radius of the perturbation", title=f"Explanations under attack ({dataset})",
        fig_size=(7, 4.2), use_pyplot=False,
    )  # fmt: skip
    figure.savefig(path, dpi=150, format="png")
