"""Tables of docs/certificates.md: `python docs/figures/certificates.py`."""

from __future__ import annotations

from itertools import product

import torch
from captum.attr import Saliency
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from captum_robust.datasets import load_breast_cancer, split
from captum_robust.metrics import certified_precision_at_k, certified_top_k_radius
from captum_robust.models import TabularMLP
from captum_robust.ranking import top_k_mask
from captum_robust.robust import ERAttack

K, MAX_RADIUS, SEEDS = 8, 4.0, (0, 1, 2)
SIGMA, RADII = 0.5, (0.02, 0.05, 0.1, 0.2)
# The activation, and β of the softplus whose gradient the attack follows; None: its own.
NETWORKS = {"softplus": (nn.Softplus, None), "LeakyReLU": (nn.LeakyReLU, 10.0)}


def train(activation, seed: int) -> tuple[nn.Module, Tensor]:
    """Train the network of the demonstration on breast cancer; return it and its test rows."""
    torch.manual_seed(seed)
    data = split(load_breast_cancer(), seed)
    model = TabularMLP(data.train.n_features, activation=activation)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(60):
        for rows in torch.randperm(len(data.train)).split(32):
            optimizer.zero_grad()
            labels = data.train.targets[rows, None].float()
            binary_cross_entropy_with_logits(model(data.train.inputs[rows]), labels).backward()
            optimizer.step()
    return model.double(), data.test.inputs.double()


def tops(model: nn.Module, inputs: Tensor) -> Tensor:
    """The top-k masks of stock Saliency."""
    return top_k_mask(Saliency(model).attribute(inputs.clone().requires_grad_()), K)


def attacked_radius(
    model: nn.Module, inputs: Tensor, norm: str, smooth_relu: float | None, certified: Tensor
) -> Tensor:
    """The smallest radius, by bisection, at which an attack changed the top-k; inf for none."""
    reference = tops(model, inputs)
    options = {"smooth_relu": smooth_relu, "preserve_prediction": "none"}
    attacks = [
        ERAttack(Saliency(model), K, pairs, k_prime=k_prime, **options)
        for pairs, k_prime in (("mm", 1), ("all", None))
    ]
    holds = certified.clamp(1e-4)
    breaks, radius = torch.full_like(holds, torch.inf), torch.full_like(holds, MAX_RADIUS)
    for seed in range(8):
        changed = torch.zeros(len(inputs), dtype=torch.bool)
        for attack in attacks:
            moved = attack.perturb(inputs, radius, step_num=12, norm=norm, n_restarts=2, seed=seed)
            changed |= (tops(model, moved) != reference).any(dim=1)
        breaks, holds = torch.where(changed, radius, breaks), torch.where(changed, holds, radius)
        radius = torch.where(breaks.isinf(), MAX_RADIUS, (holds * breaks).sqrt())
    return breaks


def radii(networks: dict[str, list[tuple[nn.Module, Tensor]]]) -> None:
    """Print certified and attacked radii."""
    print(
        "| network | norm | certified | attacked | certified / attacked | not broken | violated |"
    )
    print("|---|---|---|---|---|---|---|")
    for (name, trained_ones), norm in product(networks.items(), ("Linf", "L2")):
        certified, attacked = [], []
        for model, inputs in trained_ones:
            radius = certified_top_k_radius(model, inputs, K, None, norm, MAX_RADIUS)
            certified.append(radius)
            attacked.append(attacked_radius(model, inputs, norm, NETWORKS[name][1], radius))
        proven, found = torch.cat(certified), torch.cat(attacked)
        broken = found.isfinite()
        columns = [proven, found[broken], (proven / found)[broken]]
        print(
            f"| {name} | {norm} | " + " | ".join(map(_quartiles, columns)),
            f"| {int((~broken).sum())} | {int((proven > found).sum())} of {len(broken)} |",
            flush=True,
        )


def precisions(networks: dict[str, list[tuple[nn.Module, Tensor]]]) -> None:
    """Print the mean certified precision of the smoothed saliency."""
    print("| network | " + " | ".join(f"r = {radius}" for radius in RADII) + " |")
    print("|---|---|---|---|---|")
    for name, trained_ones in networks.items():
        bounds = [
            torch.cat(
                [
                    certified_precision_at_k(
                        Saliency(model).attribute, inputs, K, radius, SIGMA, 2000, seed=0
                    )
                    for model, inputs in trained_ones
                ]
            ).mean()
            for radius in RADII
        ]
        print(f"| {name} | " + " | ".join(f"{bound:.3f}" for bound in bounds) + " |", flush=True)


def _quartiles(values: Tensor) -> str:
    low, middle, high = values.nanquantile(torch.tensor([0.25, 0.5, 0.75]).to(values)).tolist()
    return f"{middle:.3g} ({low:.2g} … {high:.2g})"


if __name__ == "__main__":
    networks = {
        name: [train(activation, seed) for seed in SEEDS]
        for name, (activation, _) in NETWORKS.items()
    }
    radii(networks)
    print()
    precisions(networks)
