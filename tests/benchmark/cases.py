"""A network with its examples, the classes to explain and k."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust.graph.triangle import n_edges
from tests.benchmark.device import device
from tests.benchmark.models import DenseGCN, PairOfGraphs, ResNet9, convnet, mlp

__all__ = ["Case", "cnn_case", "gcn_case", "mlp_case", "pair_case", "resnet_case"]


@dataclass(frozen=True)
class Case:
    """A network, its examples and k; ``target`` is the prediction."""

    model: nn.Module
    inputs: Tensor
    target: Tensor
    k: int

    @property
    def attribute(self) -> Callable[..., Tensor]:
        """Stock Captum."""
        attribute: Callable[..., Tensor] = Saliency(self.model).attribute
        return attribute

    def some(self, n_examples: int) -> "Case":
        """The first examples alone."""
        inputs = self.inputs.detach()[:n_examples].requires_grad_()
        return replace(self, inputs=inputs, target=self.target[:n_examples])

    def double(self) -> "Case":
        """In double precision: attacks amplify what single precision rounds."""
        inputs = self.inputs.detach().double().requires_grad_()
        return replace(self, model=copy.deepcopy(self.model).double(), inputs=inputs)


def _case(make: Callable[[], nn.Module], shape: tuple[int, ...], k: int) -> Case:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = make().eval().to(device())
        inputs = torch.rand(shape).to(device())  # the same on every device
    with torch.no_grad():
        target = model(inputs).argmax(dim=1)
    return Case(model, inputs.requires_grad_(), target, k)


def mlp_case(batch: int) -> Case:
    """28 features, as the table Adult has."""
    return _case(mlp, (batch, 28), k=8)


def cnn_case(batch: int) -> Case:
    """784 pixels."""
    return _case(convnet, (batch, 1, 28, 28), k=50)


def gcn_case(batch: int) -> Case:
    """Dense graphs of 100 nodes, 10 000 edges."""
    return _case(DenseGCN, (batch, 100, 100), k=50)


def pair_case(batch: int) -> Case:
    """Pairs of weighted graphs of 190 nodes with a tenth of the 17 955 edges that there can be."""
    case = _case(PairOfGraphs, (batch, 2 * n_edges(190)), k=50)
    drawn = case.inputs.detach()
    inputs = torch.where(drawn < 0.1, 10 * drawn, 0)
    with torch.no_grad():
        target = case.model(inputs).argmax(dim=1)
    return replace(case, inputs=inputs.requires_grad_(), target=target)


def resnet_case(batch: int) -> Case:
    """3 072 pixels and channels."""
    return _case(ResNet9, (batch, 3, 32, 32), k=100)
