"""Comparison with Captum and Quantus on the same attributions: `make benchmark-peers`.

Quantus is the extra `peers`. Every metric uses 50 perturbed copies of each example and their
explanations; the number of explanations that an attack computes is printed on stderr.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import quantus
import torch
from captum.attr import Saliency
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_robust.datasets import distinct, load_bank, split
from captum_robust.metrics import certified_top_k_radius, precision_at_k_min
from captum_robust.robust import AutoERAttack, ERAttack, UniformNoise

K, RADIUS, N_DRAWS, SEED = 6, 0.1, 50, 0


@dataclass
class Case:
    """A network and the examples on which the metrics are compared."""

    name: str
    model: nn.Module
    inputs: Tensor
    row: int | None = None  # report this example alone; None: the mean of all
    radius: float = RADIUS

    @property
    def target(self) -> Tensor:
        """Return the explained class."""
        return torch.zeros(len(self.inputs), dtype=torch.long)

    def summary(self, values: Tensor) -> str:
        """Return the value of the row, or the mean over the rows that have a value."""
        value = values.double().nanmean() if self.row is None else values[self.row]
        return "NaN" if bool(value.isnan()) else f"{float(value):.3f}"


def captum_sensitivity(q: Case) -> Tensor:
    """Compute the metric of Captum with uniform noise."""
    return sensitivity_max(
        Saliency(q.model).attribute, q.inputs, perturb_radius=q.radius,
        n_perturb_samples=N_DRAWS, target=q.target,
    )  # fmt: skip


def captum_infidelity(q: Case) -> Tensor:
    """Compute the metric of Captum with uniform noise."""

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        drawn = q.radius * (2 * torch.rand_like(inputs) - 1)
        return drawn, inputs - drawn

    maps = Saliency(q.model).attribute(q.inputs, target=q.target, abs=False)
    return infidelity(q.model, noise, q.inputs, maps, target=q.target, n_perturb_samples=N_DRAWS)


def quantus_metric(kind: type, scale: str = "lower_bound") -> Callable[[Case], Tensor]:
    """Return a metric of Quantus on Captum's Saliency; ``scale`` is its name for the radius."""

    def evaluate(q: Case) -> Tensor:
        metric = kind(
            **{scale: q.radius}, nr_samples=N_DRAWS, normalise=False, disable_warnings=True
        )
        scores = metric(
            model=q.model, x_batch=q.inputs.detach().numpy(), y_batch=q.target.numpy(),
            a_batch=None, explain_func=quantus.explain, batch_size=len(q.inputs),
            explain_func_kwargs={"method": "Saliency", "xai_lib": "captum"},
        )  # fmt: skip
        return torch.tensor(np.asarray(scores, dtype=float))

    return evaluate


def our_noise(q: Case) -> Tensor:
    """Return P@k of the worst of the random draws."""
    return precision_at_k_min(
        Saliency(q.model).attribute, q.inputs, K, UniformNoise(), q.radius, N_DRAWS, seed=SEED,
        target=q.target,
    )  # fmt: skip


def our_attack(attack: Any) -> Callable[[Case], Tensor]:
    """Return a metric: P@k under an attack."""

    def evaluate(q: Case) -> Tensor:
        _, info = attack(q).perturb(
            q.inputs, q.radius, target=q.target, seed=SEED, return_info=True
        )
        queries = f"{info.n_queries.double().mean():.0f} explanations"
        print(f"{q.name}, radius {q.radius}:", info.flags, queries, file=sys.stderr)
        return info.precision

    return evaluate


def our_certificate(q: Case) -> Tensor:
    """Return the radius within which the top k provably stays the same."""
    return certified_top_k_radius(q.model, q.inputs, K, q.target, max_radius=q.radius)


METRICS: dict[str, Callable[[Case], Tensor]] = {
    "Captum sensitivity_max ↓": captum_sensitivity,
    "Captum infidelity ↓": captum_infidelity,
    "Quantus MaxSensitivity ↓": quantus_metric(quantus.MaxSensitivity),
    "Quantus AvgSensitivity ↓": quantus_metric(quantus.AvgSensitivity),
    "Quantus LocalLipschitz ↓": quantus_metric(quantus.LocalLipschitzEstimate, "perturb_std"),
    "P@k, worst of the draws ↑": our_noise,
    "P@k, ERAttack own gradient ↑": our_attack(lambda q: ERAttack(Saliency(q.model), K)),
    "P@k, AutoERAttack ↑": our_attack(lambda q: AutoERAttack(Saliency(q.model), K)),
    "certified radius ↑": our_certificate,
}


def cases() -> list[Case]:
    """Return a ReLU network, the same with a NaN, and two with constant attributions."""
    data = split(load_bank(), SEED)
    torch.manual_seed(SEED)
    model = nn.Sequential(nn.Linear(18, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(4):
        for rows in torch.randperm(len(data.train)).split(128):
            optimizer.zero_grad()
            cross_entropy(model(data.train.inputs[rows]), data.train.targets[rows]).backward()
            optimizer.step()
    inputs = distinct(data.test.inputs)[:64]
    broken = inputs.clone()
    broken[0, 3] = float("nan")
    linear, dead = nn.Sequential(nn.Linear(18, 2)), nn.Sequential(nn.Linear(18, 2))
    nn.init.zeros_(dead[0].weight)
    return [
        Case("ReLU network, mean of 64 rows", model.eval(), inputs),
        Case("the same network, row 0 with a NaN", model, broken, row=0),
        Case("linear network (constant attribution)", linear.eval(), inputs),
        Case("dead network (all attributions zero)", dead.eval(), inputs),
    ]


def print_comparison(compared: list[Case]) -> None:
    """Print a table with one row per metric and one column per case."""
    print("| metric | " + " | ".join(q.name for q in compared) + " |")
    print("|---" * (1 + len(compared)) + "|")
    for name, metric in METRICS.items():
        cells = []
        for q in compared:
            try:
                cells.append(q.summary(seeded(metric, q)))
            except AssertionError:
                cells.append("refuses")
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_best_scores(network: Case) -> None:
    """Print how many rows get the best score, and for how many of them an attack succeeds."""
    print(
        "\n| radius | library | rows with the score 0.000 "
        "| of these, top k changed by AutoERAttack |"
    )
    print("|---|---|---|---|")
    for radius in (0.01, 0.02, 0.05, 0.1):
        q = replace(network, radius=radius)
        broken = METRICS["P@k, AutoERAttack ↑"](q) < 1
        for library in ("Captum sensitivity_max ↓", "Quantus MaxSensitivity ↓"):
            best = seeded(METRICS[library], q) == 0
            print(
                f"| {radius} | {library[:-2]} | {int(best.sum())} | {int((best & broken).sum())} |"
            )


def seeded(metric: Callable[[Case], Tensor], q: Case) -> Tensor:
    """Evaluate a metric with the same random draws every time."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002, Quantus draws from it
    return metric(q)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the other libraries warn about many things
    compared = cases()
    print_comparison(compared)
    print_best_scores(compared[0])
