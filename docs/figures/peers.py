"""What Captum, Quantus and this library say of the same maps: `make benchmark-peers`.

Quantus is the extra `peers`. Every metric sees 50 perturbed copies of each example and as many
explanations of them; the attacks count theirs on stderr.
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
class Question:
    """A network and examples, and what is to be said of them."""

    name: str
    model: nn.Module
    inputs: Tensor
    row: int | None = None  # of this example alone; None: of all
    radius: float = RADIUS

    @property
    def target(self) -> Tensor:
        """The class that is explained."""
        return torch.zeros(len(self.inputs), dtype=torch.long)

    def answer(self, values: Tensor) -> str:
        """The value of the row, or the mean of all that have one."""
        value = values.double().nanmean() if self.row is None else values[self.row]
        return "NaN" if bool(value.isnan()) else f"{float(value):.3f}"


def captum_sensitivity(q: Question) -> Tensor:
    """Stock Captum, uniform noise."""
    return sensitivity_max(
        Saliency(q.model).attribute, q.inputs, perturb_radius=q.radius,
        n_perturb_samples=N_DRAWS, target=q.target,
    )  # fmt: skip


def captum_infidelity(q: Question) -> Tensor:
    """Stock Captum, uniform noise."""

    def noise(inputs: Tensor) -> tuple[Tensor, Tensor]:
        drawn = q.radius * (2 * torch.rand_like(inputs) - 1)
        return drawn, inputs - drawn

    maps = Saliency(q.model).attribute(q.inputs, target=q.target, abs=False)
    return infidelity(q.model, noise, q.inputs, maps, target=q.target, n_perturb_samples=N_DRAWS)


def of_quantus(kind: type, scale: str = "lower_bound") -> Callable[[Question], Tensor]:
    """A metric of Quantus over Captum's Saliency; ``scale`` is its name for the radius."""

    def ask(q: Question) -> Tensor:
        metric = kind(
            **{scale: q.radius}, nr_samples=N_DRAWS, normalise=False, disable_warnings=True
        )
        scores = metric(
            model=q.model, x_batch=q.inputs.detach().numpy(), y_batch=q.target.numpy(),
            a_batch=None, explain_func=quantus.explain, batch_size=len(q.inputs),
            explain_func_kwargs={"method": "Saliency", "xai_lib": "captum"},
        )  # fmt: skip
        return torch.tensor(np.asarray(scores, dtype=float))

    return ask


def our_noise(q: Question) -> Tensor:
    """P@k of the worst of the random draws."""
    return precision_at_k_min(
        Saliency(q.model).attribute, q.inputs, K, UniformNoise(), q.radius, N_DRAWS, seed=SEED,
        target=q.target,
    )  # fmt: skip


def our_attack(attack: Any) -> Callable[[Question], Tensor]:
    """P@k under an attack."""

    def ask(q: Question) -> Tensor:
        _, info = attack(q).perturb(
            q.inputs, q.radius, target=q.target, seed=SEED, return_info=True
        )
        queries = f"{info.n_queries.double().mean():.0f} explanations"
        print(f"{q.name}, radius {q.radius}:", info.flags, queries, file=sys.stderr)
        return info.precision

    return ask


def our_certificate(q: Question) -> Tensor:
    """Radius within which the top k provably stay."""
    return certified_top_k_radius(q.model, q.inputs, K, q.target, max_radius=q.radius)


METRICS: dict[str, Callable[[Question], Tensor]] = {
    "Captum sensitivity_max ↓": captum_sensitivity,
    "Captum infidelity ↓": captum_infidelity,
    "Quantus MaxSensitivity ↓": of_quantus(quantus.MaxSensitivity),
    "Quantus AvgSensitivity ↓": of_quantus(quantus.AvgSensitivity),
    "Quantus LocalLipschitz ↓": of_quantus(quantus.LocalLipschitzEstimate, "perturb_std"),
    "P@k, worst of the draws ↑": our_noise,
    "P@k, ERAttack own gradient ↑": our_attack(lambda q: ERAttack(Saliency(q.model), K)),
    "P@k, AutoERAttack ↑": our_attack(lambda q: AutoERAttack(Saliency(q.model), K)),
    "certified radius ↑": our_certificate,
}


def questions() -> list[Question]:
    """A trained ReLU network; the same with a broken row; networks whose map never changes."""
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
        Question("ReLU network, 64 rows", model.eval(), inputs),
        Question("the same, a NaN in row 0: row 0", model, broken, row=0),
        Question("linear network: its map is the same everywhere", linear.eval(), inputs),
        Question("dead network: all maps are zero", dead.eval(), inputs),
    ]


def answers(asked: list[Question]) -> None:
    """Print a metric a line, a question a column."""
    print("| metric | " + " | ".join(q.name for q in asked) + " |")
    print("|---" * (1 + len(asked)) + "|")
    for metric, ask in METRICS.items():
        cells = []
        for q in asked:
            try:
                cells.append(q.answer(seeded(ask, q)))
            except AssertionError:
                cells.append("refuses")
        print(f"| {metric} | " + " | ".join(cells) + " |")


def perfect(network: Question) -> None:
    """Print how many rows each peer gives its best score, and how many an attack breaks."""
    print(
        "\n| radius | library | rows with the score 0.000 | their top k changed by AutoERAttack |"
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


def seeded(ask: Callable[[Question], Tensor], q: Question) -> Tensor:
    """The answer under the same draws every time."""
    torch.manual_seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002, Quantus draws from it
    return ask(q)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the peers warn of many things
    asked = questions()
    answers(asked)
    perfect(asked[0])
