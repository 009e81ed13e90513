"""The demonstration: a vanilla, a softplus and an R2ET network under noise and attacks."""

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
from captum_robust._utils.tables import Cell, Row, Table, write_csv
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
    """The loader of a data set, and the training on it."""

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
    """The results of one model; curves start at radius 0, where P@k is 1."""

    name: str
    auc: float = 0.0
    thickness: float = 0.0
    noise: float = 0.0
    gradient_found: bool = False
    published: list[float] = field(default_factory=lambda: [1.0])
    smoothed: list[float] = field(default_factory=lambda: [1.0])

    def at(self, curve: list[float], radius: float) -> float:
        """Return the value of a curve at a radius."""
        return curve[1 + RADII.index(radius)]


def run(dataset: str, seed: int, out: Path) -> None:
    """Train three models, print the table, and write the figure and the CSV file into ``out``."""
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
        result = _measure(name, model, inputs, seed)
        result.auc = area_under_curve(model, data.test)
        results.append(result)
    print(_table(dataset, len(inputs), results))
    write_csv(out / f"{dataset}.csv", _numbers(results))
    write_whole(out / f"{dataset}.png", partial(_save_figure, dataset, results))
    seconds = time.perf_counter() - started
    print(f"Figure and CSV file: {out / dataset}.png, .csv ({seconds:.0f} s)")


def _measure(name: str, model: nn.Module, inputs: Tensor, seed: int) -> _Result:
    """Measure thickness, noise and attacks on the saliency of the logit.

    The saliency of the probability is the same up to a factor, so it has the same ranking, but the
    factor vanishes where the sigmoid saturates.
    """
    result = _Result(name)
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

    published = [ERAttack(saliency, K)]
    smoothed = [
        ERAttack(saliency, K, smooth_relu=BETA),
        ERAttack(saliency, K, smooth_relu=BETA, pairs="mm", k_prime=1),
    ]
    lowest = {"published": torch.ones(len(inputs)), "smoothed": torch.ones(len(inputs))}
    with warnings.catch_warnings(), tqdm(RADII, desc=f"attack {result.name}") as radii:
        warnings.simplefilter("ignore", ZeroGradientWarning)  # the table says so
        for radius in radii:
            for attacks, curve, n_restarts in (
                (published, "published", 1),
                (smoothed, "smoothed", N_RESTARTS),
            ):
                for attack in attacks:
                    moved, info = attack.perturb(
                        inputs, radius, target=0, norm="L2", n_restarts=n_restarts, seed=seed,
                        return_info=True,
                    )  # fmt: skip
                    maps = saliency.attribute(moved.requires_grad_(), target=0)
                    # A smaller ball lies inside this one, so its result counts here as well.
                    lowest[curve] = lowest[curve].minimum(precision_at_k(maps, reference, K))
                    if curve == "published":
                        result.gradient_found |= bool(info.gradient_found.any())
                getattr(result, curve).append(float(lowest[curve].mean()))
    return result


def _table(dataset: str, n_explained: int, results: list[_Result]) -> str:
    header = (
        "model", "AUC", "thickness", f"P@{K} noise", f"P@{K} published attack", f"P@{K} smoothed",
    )  # fmt: skip
    rows = [header]
    for r in results:
        published = f"{r.at(r.published, TABLE_RADIUS):.3f}" + ("" if r.gradient_found else " *")
        smoothed = f"{r.at(r.smoothed, TABLE_RADIUS):.3f}"
        rows.append(
            (r.name, f"{r.auc:.3f}", f"{r.thickness:.4f}", f"{r.noise:.3f}", published, smoothed)
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    notes = [
        f"{dataset}: {n_explained} distinct test rows, saliency of the logit, "
        f"perturbations of L2 radius {TABLE_RADIUS:g}.",
        f"noise: the worst of {N_NOISE} draws. published attack: ERAttack.",
        "smoothed: the worst of two ERAttacks along the gradient with softplus for ReLU, "
        f"{N_RESTARTS} starts; scored on the model itself.",
    ]
    if not all(r.gradient_found for r in results):
        notes.append("* the gradient is exactly zero: the attack did not move, and proves nothing.")
    return "\n".join(["", *(line.rstrip() for line in lines), "", *notes])


def _numbers(results: list[_Result]) -> Table:
    rows: list[Row] = []
    for r in results:
        rows += [
            [r.name, "AUC", "", _exact(r.auc)],
            [r.name, "thickness", _exact(TABLE_RADIUS), _exact(r.thickness)],
            [r.name, f"P@{K} noise", _exact(TABLE_RADIUS), _exact(r.noise)],
        ]
        for measure, curve in (("published attack", r.published), ("smoothed", r.smoothed)):
            rows += [
                [r.name, f"P@{K} {measure}", _exact(radius), _exact(value)]
                for radius, value in zip((0.0, *RADII), curve, strict=True)
            ]
    return Table(["model", "measure", "radius", "value"], rows)


def _exact(value: float) -> Cell:
    return Cell(str(value), value)


def _save_figure(dataset: str, results: list[_Result], path: Path) -> None:
    curves = {r.name: r.smoothed for r in results}
    curves |= {
        f"{r.name},\npublished attack: zero gradient": r.published
        for r in results
        if not r.gradient_found
    }
    figure, _ = plot_precision(
        curves, (0.0, *RADII), ylabel=f"P@{K}: share of the top {K} features kept",
        xlabel="L2 radius of the perturbation", title=f"Explanations under attack ({dataset})",
        fig_size=(7, 4.2), use_pyplot=False,
    )  # fmt: skip
    figure.savefig(path, dpi=150, format="png")
