"""The networks that are measured: smooth, randomly initialised, in evaluation mode."""

import torch
from torch import Tensor, nn

from captum_robust import models
from captum_robust.graph import UndirectedModel

__all__ = ["DenseGCN", "PairOfGraphs", "ResNet9", "convnet", "mlp"]


def _smooth() -> nn.Module:
    return nn.Softplus(beta=5)


def mlp(n_features: int = 28, n_hidden: int = 32, n_classes: int = 2) -> nn.Module:
    """The network for tables."""
    return nn.Sequential(nn.Linear(n_features, n_hidden), _smooth(), nn.Linear(n_hidden, n_classes))


def convnet() -> nn.Module:
    """Two convolutions and two fully connected layers for (N, 1, 28, 28)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), _smooth(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), _smooth(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 64), _smooth(), nn.Linear(64, 10),
    )  # fmt: skip


class DenseGCN(nn.Module):
    """Two convolutions over adjacency matrices (N, nodes, nodes); all graphs share features."""

    def __init__(self, n_nodes: int = 100, n_features: int = 16, n_hidden: int = 32) -> None:
        super().__init__()
        self.first = nn.Linear(n_features, n_hidden)
        self.second = nn.Linear(n_hidden, n_hidden)
        self.output = nn.Linear(n_hidden, 2)
        self.activation = _smooth()
        self.register_buffer("features", torch.randn(n_nodes, n_features))
        self.features: Tensor

    def forward(self, adjacency: Tensor) -> Tensor:
        degrees = adjacency.abs().sum(dim=2, keepdim=True) + 1
        nodes = self.activation(self.first((adjacency @ self.features) / degrees))
        nodes = self.activation(self.second((adjacency @ nodes) / degrees))
        logits: Tensor = self.output(nodes.mean(dim=1))
        return logits


class PairOfGraphs(nn.Module):
    """The Siamese network of the papers for pairs of graphs, the edges of both in one row."""

    def __init__(self, n_nodes: int = 190) -> None:
        super().__init__()
        embedding = models.DenseGCN(n_nodes, 256, 128, activation=_smooth)
        with torch.no_grad():  # untrained, it would hardly tell one graph from another
            embedding.hidden.weight.mul_(30)
            embedding.hidden.bias.zero_()
        siamese = models.SiameseNetwork(embedding, 128)
        self.of_edges = UndirectedModel(siamese, n_nodes, n_graphs=2)

    def forward(self, edges: Tensor) -> Tensor:
        first, second = edges.chunk(2, dim=1)
        logit: Tensor = self.of_edges(first, second)
        return torch.cat([-logit, logit], dim=1)


class ResNet9(nn.Module):
    """The residual network of the paper's CIFAR-10 experiments, for (N, 3, 32, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_block(3, 64), _block(64, 128, pool=2))
        self.first = nn.Sequential(_block(128, 128), _block(128, 128))
        self.middle = nn.Sequential(_block(128, 256, pool=2), _block(256, 512, pool=2))
        self.second = nn.Sequential(_block(512, 512), _block(512, 512))
        self.head = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(512, 10))

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        maps = self.middle(maps + self.first(maps))
        logits: Tensor = self.head(maps + self.second(maps))
        return logits


def _block(n_in: int, n_out: int, pool: int = 1) -> nn.Module:
    layers = [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), _smooth()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(pool)] if pool > 1 else []))
