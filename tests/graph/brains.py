"""Small connectomes and a Siamese network for them, from fixed seeds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_robust.graph import UndirectedModel
from captum_robust.models import DenseGCN, SiameseNetwork

N_NODES, N_EDGES = 6, 15


def connectomes(n: int, seed: int = 0) -> Tensor:
    """Weights between 0.2 and 0.8, (n, 15), float64."""
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(n, N_EDGES, generator=generator, dtype=torch.float64)


def pairs(n: int) -> tuple[Tensor, Tensor]:
    return connectomes(n), connectomes(n, seed=1)


def binary(n: int, n_edges: int = N_EDGES, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, (n, n_edges), generator=generator).double()


def siamese(n_nodes: int = N_NODES, activation: type[nn.Module] = nn.Softplus) -> SiameseNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SiameseNetwork(DenseGCN(n_nodes, 8, 4, activation), 4).double()
    for parameter in network.parameters():  # steep enough to be attacked
        parameter.data *= 4
    return _balanced(network, n_nodes)


@torch.no_grad()
def _balanced(network: SiameseNetwork, n_nodes: int) -> SiameseNetwork:
    """Half of the pairs alike, half of the graphs of either class."""
    n_edges = n_nodes * (n_nodes - 1) // 2
    model = UndirectedModel(network, n_nodes, n_graphs=2)
    pair, first, second = model.predictions(binary(64, n_edges), binary(64, n_edges, seed=1))
    # The quantile is half-way between the two examples in the middle, so that none of them lies on
    # the boundary, where rounding would decide what is predicted.
    network.output.bias -= pair.quantile(0.5)
    logits = torch.cat([first, second])
    network.classifier.bias[0] -= (logits[:, 0] - logits[:, 1]).quantile(0.5)
    return network.eval()


def pair_model(**options: type[nn.Module]) -> UndirectedModel:
    return UndirectedModel(siamese(**options), N_NODES, n_graphs=2)


class Weighted(nn.Module):
    """One graph (N, 6, 6) and node features (N, 6) -> (N, 2), smooth and not symmetric in A."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.randn(6, 2, generator=generator, dtype=torch.float64))

    def forward(self, graphs: Tensor, features: Tensor) -> Tensor:
        hidden = torch.tanh(graphs @ features.unsqueeze(-1)).squeeze(-1)
        return (graphs * hidden.unsqueeze(1)).sum(dim=-1) @ self.w
