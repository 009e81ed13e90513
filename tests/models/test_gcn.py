"""Graph embeddings: against the formula by loops, PyTorch Geometric, and each other."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from captum_robust.models import DenseGCN, SparseGCN, normalized_adjacency


def graphs(count: int, nodes: int, kind: str, seed: int = 0) -> Tensor:
    """Symmetric matrices; nodes 0 and 1 of the first graph are alone and joined to one other."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(count, nodes, nodes, dtype=torch.float64, generator=generator)
    if kind != "signed":
        weights = weights.abs()
    keep = torch.rand(count, nodes, nodes, generator=generator) < 0.5
    keep[0, :2], keep[0, :2, 2:], keep[0, 0, 1] = False, False, False
    keep[0, 1, 2] = True
    weights = (keep.double() if kind == "binary" else weights * keep).triu(1)
    if kind == "loops":
        weights = weights + torch.diag_embed(torch.rand(count, nodes, generator=generator).double())
    return weights + weights.triu(1).transpose(1, 2)


KINDS = ["binary", "weighted", "signed", "loops"]


@pytest.mark.parametrize("kind", KINDS)
def test_normalisation_by_loops(kind: str) -> None:
    adjacency = graphs(2, 5, kind)
    result = normalized_adjacency(adjacency)
    for graph, got in zip(adjacency.tolist(), result.tolist(), strict=True):
        degree = [1 + math.fsum(abs(weight) for weight in row) for row in graph]
        for i in range(5):
            for j in range(5):
                expected = (graph[i][j] + (i == j)) / math.sqrt(degree[i] * degree[j])
                assert got[i][j] == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("kind", ["weighted", "signed", "loops"])
def test_normalisation_is_differentiable(kind: str) -> None:
    adjacency = graphs(1, 4, kind)
    adjacency = torch.where(adjacency == 0, 0.25, adjacency).requires_grad_()  # off the kink
    assert torch.autograd.gradcheck(normalized_adjacency, adjacency)
    assert torch.autograd.gradgradcheck(normalized_adjacency, adjacency)


def test_an_absent_edge_has_the_derivative_of_one_that_is_added() -> None:
    """Also between nodes without any edge: nothing is clamped, the diagonal is not overwritten."""
    adjacency = torch.zeros(1, 4, 4, dtype=torch.float64)
    adjacency[0, 2, 3] = adjacency[0, 3, 2] = 1
    probe = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    score = lambda matrix: (normalized_adjacency(matrix) * probe).sum()  # noqa: E731
    (gradient,) = torch.autograd.grad(score(adjacency.requires_grad_()), adjacency)
    step = 1e-7
    with torch.no_grad():
        for i in range(4):
            for j in range(4):
                more = adjacency.clone()
                more[0, i, j] += step
                slope = (score(more) - score(adjacency)) / step
                assert gradient[0, i, j].item() == pytest.approx(slope.item(), abs=1e-5)


def test_a_sum_of_weights_below_zero_gives_finite_numbers() -> None:
    adjacency = -torch.ones(1, 3, 3, dtype=torch.float64, requires_grad=True)
    result = normalized_adjacency(adjacency)
    (gradient,) = torch.autograd.grad(result.square().sum(), adjacency)
    assert result.isfinite().all()
    assert gradient.isfinite().all()
    assert result[0, 0, 1].item() == pytest.approx(-1 / 4)


def reference(model: DenseGCN, adjacency: Tensor) -> Tensor:
    """Two convolutions of Kipf and Welling on identity features, then the mean over nodes."""
    matrix = normalized_adjacency(adjacency)
    features = torch.eye(adjacency.shape[1], dtype=adjacency.dtype)
    hidden = matrix @ (features @ model.hidden.weight.T) + model.hidden.bias
    nodes = matrix @ (model.activation(hidden) @ model.output.weight.T) + model.output.bias
    return nodes.mean(dim=1)


@pytest.mark.parametrize("activation", [nn.LeakyReLU, nn.Softplus])
@pytest.mark.parametrize("kind", KINDS)
def test_dense_is_the_formula(kind: str, activation: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = DenseGCN(6, 7, 3, activation).double()
    adjacency = graphs(3, 6, kind)
    torch.testing.assert_close(model(adjacency), reference(model, adjacency))


def sparse_batch(adjacency: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Node features, edges, the graph of each node, and weights of the same graphs."""
    count, nodes = adjacency.shape[:2]
    graph, source, destination = adjacency.nonzero().T
    ends = torch.stack([source, destination]) + graph * nodes
    features = torch.eye(nodes, dtype=adjacency.dtype).repeat(count, 1)
    batch = torch.arange(count).repeat_interleave(nodes)
    return features, ends, batch, adjacency[graph, source, destination]


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_equals_dense(kind: str) -> None:
    torch.manual_seed(0)
    dense, sparse = DenseGCN(6, 7, 3).double(), SparseGCN(6, 7, 3).double()
    sparse.load_state_dict(dense.state_dict())
    adjacency = graphs(3, 6, kind)
    features, ends, batch, weights = sparse_batch(adjacency)
    torch.testing.assert_close(sparse(features, ends, batch, weights), dense(adjacency))

    adjacency.requires_grad_()
    weights.requires_grad_()
    (expected,) = torch.autograd.grad(dense(adjacency).square().sum(), adjacency)
    (got,) = torch.autograd.grad(sparse(features, ends, batch, weights).square().sum(), weights)
    # Which end's degree an entry counts for differs; an undirected edge is both of its entries.
    entries = torch.zeros_like(expected)
    entries[adjacency != 0] = got
    both = expected + expected.transpose(1, 2)
    there = (adjacency != 0) | torch.eye(6, dtype=torch.bool) * (kind == "loops")
    torch.testing.assert_close((entries + entries.transpose(1, 2))[there], both[there])


@pytest.mark.parametrize("kind", ["binary", "weighted"])
def test_equals_the_convolution_of_pytorch_geometric(kind: str) -> None:
    from torch_geometric.nn import GCNConv, global_mean_pool

    torch.manual_seed(0)
    model = SparseGCN(6, 7, 3).double()
    first, second = GCNConv(6, 7).double(), GCNConv(7, 3).double()
    with torch.no_grad():
        for theirs, ours in ((first, model.hidden), (second, model.output)):
            theirs.lin.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
    _, ends, batch, weights = sparse_batch(graphs(3, 6, kind))
    features = torch.randn(18, 6, dtype=torch.float64)
    nodes = second(model.activation(first(features, ends, weights)), ends, weights)
    expected = global_mean_pool(nodes, batch)
    torch.testing.assert_close(model(features, ends, batch, weights), expected)
    if kind == "binary":
        torch.testing.assert_close(model(features, ends, batch), expected)
        alone = batch == 0
        inside = alone[ends[0]]
        torch.testing.assert_close(model(features[alone], ends[:, inside])[0], expected[0])


def test_edge_masks_of_pytorch_geometric_scale_the_messages() -> None:
    """A mask of an edge multiplies its entry of the normalised matrix, and leaves the loops."""
    from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

    torch.manual_seed(0)
    model = SparseGCN(5, 4, 3).double()
    adjacency = graphs(1, 5, "weighted")
    features, ends, batch, weights = sparse_batch(adjacency)
    mask = torch.rand(len(weights), dtype=torch.float64)
    set_masks(model, mask, ends, apply_sigmoid=False)
    masked = model(features, ends, batch, weights)
    clear_masks(model)

    matrix = normalized_adjacency(adjacency)[0]
    scaled = matrix.clone()
    scaled[ends[1], ends[0]] *= mask
    hidden = model.activation(scaled @ model.hidden.weight.T + model.hidden.bias)
    expected = (scaled @ hidden @ model.output.weight.T + model.output.bias).mean(dim=0)
    torch.testing.assert_close(masked[0], expected)


@pytest.mark.parametrize("network", [DenseGCN, SparseGCN])
def test_begins_as_graph_convolutions_do(network: type[nn.Module]) -> None:
    """A random bias would give all graphs the same embedding, up to a little."""
    torch.manual_seed(0)
    model = network(190)
    for layer in (model.hidden, model.output):
        assert layer.bias.count_nonzero() == 0
        limit = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.99 * limit < layer.weight.abs().max() <= limit


@pytest.mark.parametrize("network", [DenseGCN, SparseGCN])
@pytest.mark.parametrize("wrong", [0, 1, 2])
def test_refuses_empty_layers(network: type[nn.Module], wrong: int) -> None:
    sizes = [3, 3, 3]
    sizes[wrong] = 0
    with pytest.raises(ValueError, match=r"(n_nodes|n_features|hidden|out): got 0, accepted: 1 or"):
        network(*sizes)


def test_the_models_are_imported_without_pytorch_geometric() -> None:
    code = "import sys, captum_robust.models; assert 'torch_geometric' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
