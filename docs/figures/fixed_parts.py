"""Sources of change in the attribution of pairs of brain networks.

``python docs/figures/fixed_parts.py`` fixes parts of a trained network at their values for the
unperturbed pair, attacks the rest and prints the precision at k.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from captum.attr import InputXGradient
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from captum_robust._utils.tables import Table, markdown
from captum_robust.benchmark.measure.rows import ExplainedRows
from captum_robust.benchmark.study.pairs import PAIRS, PairNetwork
from captum_robust.benchmark.study.training import area_under_curve, fit
from captum_robust.metrics import precision_at_k
from captum_robust.robust import AutoERAttack

TASK, FOLD, K, RADIUS, N_ROWS = PAIRS["adhd200-site"], 0, 50, 0.5, 8
FIXED = ((), ("kinks",), ("cosine",), ("cosine", "degrees"), ("kinks", "cosine", "degrees"))


class PartlyFixed(nn.Module):
    """Similarity of a pair, with some parts of the network fixed at another pair.

    Args:
        network: the trained network.
        parts: parts that are fixed: ``"kinks"``, which units are active; ``"cosine"``, the
            similarity as its first-order expansion in the embeddings; ``"degrees"``, which
            normalise the adjacency matrix.
    """

    def __init__(self, network: PairNetwork, parts: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.parts = parts

    def forward(self, rows: Tensor, clean: Tensor) -> Tensor:
        """Return the similarity (N, 1) of the rows, with the parts fixed at the clean rows."""
        members = zip(self.network.members(rows), self.network.members(clean), strict=True)
        moved = [self.embedding(graph, still) for graph, still in members]
        if "cosine" not in self.parts:
            return cosine_similarity(*moved)[:, None]
        still = [self.embedding(g, g).detach() for g in self.network.members(clean)]
        _, change = torch.func.jvp(
            cosine_similarity,
            tuple(still),
            tuple(m - s for m, s in zip(moved, still, strict=True)),
        )
        return change[:, None]

    def embedding(self, graph: Tensor, still: Tensor) -> Tensor:
        """Return the embedding of a graph, as ``DenseGCN`` computes it."""
        layers = self.network.siamese.embedding
        normaliser = still if "degrees" in self.parts else graph
        matrix = normalised(graph, normaliser)
        hidden = layers.hidden(matrix)
        nodes = layers.activation(hidden)
        if "kinks" in self.parts:
            is_on = layers.hidden(normalised(still, still)) > 0
            nodes = hidden * torch.where(is_on, 1.0, layers.activation.negative_slope)
        pooled = (matrix.mean(dim=1).unsqueeze(1) @ nodes).squeeze(1)
        embedding: Tensor = layers.output(pooled)
        return embedding


def normalised(graph: Tensor, of: Tensor) -> Tensor:
    """Return the adjacency matrix with self-loops, scaled by the degrees of the graph ``of``."""
    scale = (1 + of.abs().sum(dim=-1)).rsqrt()
    return scale[:, :, None] * (graph + torch.eye(graph.shape[-1])) * scale[:, None, :]


def precision(network: PairNetwork, parts: tuple[str, ...], rows: Tensor) -> float:
    """Return P@50 under the ensemble, which may change the prediction."""
    attribution = InputXGradient(PartlyFixed(network, parts))
    arguments = {"target": 0, "additional_forward_args": rows}
    attack = AutoERAttack(
        attribution, K, absolute=True, preserve_prediction="none", lower_bound=0.0, upper_bound=1.0
    )
    moved = attack.perturb(rows, RADIUS, norm="L2", seed=0, budget=300, **arguments)
    maps, reference = (
        attribution.attribute(x.requires_grad_(), **arguments).detach()
        for x in (moved.clone(), rows.clone())
    )
    return float(precision_at_k(maps, reference, K, absolute=True).mean())


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    data = TASK.load(Path(os.environ["CAPTUM_ROBUST_DATA"]))
    parts = data.parts(FOLD)
    rows = ExplainedRows.of(parts.test, N_ROWS).inputs
    torch.manual_seed(0)
    method = TASK.methods["vanilla"]
    network = method.network(data.n_features, {}, TASK.network)
    fit(
        network, method.criterion(network, K, {}), parts.train, TASK.n_epochs, TASK.batch_size,
        FOLD, learning_rate=TASK.learning_rate,
    )  # fmt: skip
    check(network, rows)
    print(f"test AUC {area_under_curve(network, parts.test):.3f}\n")
    table = [
        [", ".join(parts) or "nothing", f"{precision(network, parts, rows):.3f}"] for parts in FIXED
    ]
    print(markdown(Table(["fixed parts", f"P@{K}"], table)))


def check(network: PairNetwork, rows: Tensor) -> None:
    """Check that at the clean rows the similarity is that of the network."""
    whole = [network.siamese.embedding(g) for g in network.members(rows)]
    expected = cosine_similarity(*whole)[:, None]
    torch.testing.assert_close(PartlyFixed(network, ())(rows, rows), expected)
    torch.testing.assert_close(PartlyFixed(network, ("kinks", "degrees"))(rows, rows), expected)


if __name__ == "__main__":
    main()
