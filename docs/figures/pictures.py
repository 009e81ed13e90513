"""Figures of docs/pictures.md: `python docs/figures/pictures.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust.benchmark.study.training import area_under_curve, train
from captum_robust.datasets import (
    distinct,
    load_adult,
    load_breast_cancer,
    split,
    synthetic_connectomes,
)
from captum_robust.graph import UndirectedModel
from captum_robust.loss import R2ETLoss
from captum_robust.metrics import certified_top_k_radius, precision_at_k, ranking_thickness
from captum_robust.models import DenseGCN, TabularMLP
from captum_robust.robust import ERAttack, MinRadius, UniformNoise
from captum_robust.visualization import (
    plot_magnitudes,
    plot_manipulation,
    plot_min_radius,
    plot_precision,
    plot_traces,
    plot_tradeoff,
    visualize_adjacency_rankings,
    visualize_graph_rankings,
    visualize_table_rankings,
)

SEED, K, BETA, RADII = 0, 8, 5.0, (0.25, 0.5, 1.0, 2.0)
IMAGES = Path(__file__).parents[1] / "images"
NETWORKS = {
    "LeakyReLU": (nn.LeakyReLU, 0.0),
    "softplus": (nn.Softplus, 0.0),
    "R2ET, λ = 0.001": (nn.Softplus, 0.001),
    "R2ET, λ = 0.01": (nn.Softplus, 0.01),
    "R2ET, λ = 0.1": (nn.Softplus, 0.1),
}


def save(name: str, picture: tuple[Any, Any]) -> None:
    """Write a figure into docs/images."""
    picture[0].savefig(IMAGES / f"{name}.png", dpi=120)


def train_network(
    data: Any, activation: type[nn.Module], weight: float, n_epochs: int
) -> nn.Module:
    """Train an n → 32 → 1 network, by R2ET unless its weight is 0."""
    torch.manual_seed(SEED)
    model = TabularMLP(data.train.n_features, activation=activation)
    loss = R2ETLoss(model, k=K, lambda1=weight, lambda2=weight)
    train(model, loss, data, n_epochs, 128 if n_epochs < 20 else 32, SEED, f"weight {weight}")
    return model


def saliency(model: nn.Module, rows: Tensor) -> Tensor:
    """Return magnitudes of the gradient of the logit."""
    return Saliency(model).attribute(rows.clone().requires_grad_(), target=0)


def attack_rows(
    model: nn.Module, rows: Tensor, radius: float, **options: Any
) -> tuple[Tensor, Any]:
    """Run ERAttack in an L2 ball along the gradient of a softplus network."""
    attack = ERAttack(Saliency(model), K, smooth_relu=BETA)
    return attack.perturb(rows, radius, target=0, norm="L2", seed=SEED, return_info=True, **options)


def tables() -> None:
    """Plot bars, curves, trade-off, traces, manipulation step and magnitudes on Adult."""
    data = split(load_adult(), SEED)
    rows = distinct(data.test.inputs)[:150]
    models = {
        name: train_network(data, activation, weight, 6)
        for name, (activation, weight) in NETWORKS.items()
    }
    curves, points = {}, {}
    for name, model in models.items():
        maps = saliency(model, rows)
        precision = [torch.ones(len(rows))]
        for radius in RADII:
            moved, _ = attack_rows(model, rows, radius)
            # A result in a smaller ball also lies in this one.
            precision.append(precision[-1].minimum(precision_at_k(saliency(model, moved), maps, K)))
        curves[name] = torch.stack(precision)
        points[name] = (area_under_curve(model, data.test), float(precision[3].nanmean()))
        print(f"{name}: AUC {points[name][0]:.4f}, P@{K} {curves[name].nanmean(dim=1).tolist()}")
    save(
        "pictures-precision",
        plot_precision(
            {name: curves[name] for name in list(NETWORKS)[:4] if name != "R2ET, λ = 0.001"},
            [0.0, *RADII], ylabel=f"P@{K} under ERAttack", xlabel="L2 radius of the perturbation",
            use_pyplot=False,
        ),
    )  # fmt: skip
    save(
        "pictures-tradeoff",
        plot_tradeoff(points, "AUC", f"P@{K} under ERAttack, L2 radius 1", use_pyplot=False),
    )

    model = models["LeakyReLU"]
    moved, info = attack_rows(model, rows, 1.0, step_num=100, step_size=0.01)
    before, after = saliency(model, rows), saliency(model, moved)
    precision = precision_at_k(after, before, K)
    shown = int((precision == precision.quantile(0.5, interpolation="lower")).nonzero()[0])
    save(
        "pictures-table",
        visualize_table_rankings(
            after[shown], before[shown], K, data.test.feature_names, use_pyplot=False
        ),
    )
    thickness = ranking_thickness(
        Saliency(model).attribute, rows, K, UniformNoise("L2"), 1.0, target=0, seed=SEED
    )
    save(
        "pictures-manipulation",
        plot_manipulation(thickness, info.first_change_step, title="LeakyReLU", use_pyplot=False),
    )
    _, restarts = attack_rows(model, rows, 1.0, n_restarts=3)
    save("pictures-traces", plot_traces(restarts, use_pyplot=False))
    save(
        "pictures-magnitudes",
        plot_magnitudes(
            {name: saliency(models[name], rows) for name in ("LeakyReLU", "R2ET, λ = 0.01")}, K,
            "|gradient of the logit|", use_pyplot=False,
        ),
    )  # fmt: skip


def radii() -> None:
    """Plot the radius at which explanations change, and the certified radius."""
    data = split(load_breast_cancer(), SEED)
    model = train_network(data, nn.Softplus, 0.0, 60).double()
    rows = data.test.inputs.double()
    attack = ERAttack(Saliency(model), K, "mm", k_prime=1, preserve_prediction="none")
    found = MinRadius(attack, upper=4.0).evaluate(rows, 0, norm="L2", seed=SEED)
    proven = certified_top_k_radius(model, rows, K, norm="L2", max_radius=4.0)
    print(f"median radius: changed {found.median():.3f}, certified {proven.median():.3f}")
    curves = {"under ERAttack": found, "certified": proven}
    save(
        "pictures-min-radius",
        plot_min_radius(curves, xlabel="L2 radius of the perturbation", use_pyplot=False),
    )


def graphs() -> None:
    """Plot the top edges of a synthetic brain network before and after an attack."""
    brains = synthetic_connectomes(n_graphs=80, n_regions=20, seed=SEED)
    torch.manual_seed(SEED)
    network = nn.Sequential(DenseGCN(20, hidden=32, out=16), nn.LeakyReLU(), nn.Linear(16, 2))
    model = UndirectedModel(network, 20)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(brains.edges[:60]), brains.targets[:60]).backward()
        optimizer.step()
    edges, labels = brains.edges[60:], brains.targets[60:]
    print(f"accuracy on 20 graphs: {(model(edges).argmax(dim=1) == labels).double().mean():.2f}")
    explanation = Saliency(model)
    attack = ERAttack(explanation, K, lower_bound=0.0, upper_bound=1.0, smooth_relu=BETA)
    moved, info = attack.perturb(edges, 0.1, target=labels, seed=SEED, return_info=True)
    before, after = (
        explanation.attribute(e.clone().requires_grad_(), target=labels) for e in (edges, moved)
    )
    print(f"P@{K} of the graphs: {info.precision.tolist()}")
    shown = int(
        (info.precision == info.precision.quantile(0.5, interpolation="lower")).nonzero()[0]
    )
    lobes = [lobe for lobe in ("A", "B", "C", "D", "E") for _ in range(4)]
    pair = after[shown], before[shown], K
    save("pictures-adjacency", visualize_adjacency_rankings(*pair, use_pyplot=False))
    save("pictures-graph", visualize_graph_rankings(*pair, node_regions=lobes, use_pyplot=False))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tables()
    radii()
    graphs()
