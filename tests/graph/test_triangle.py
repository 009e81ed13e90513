"""Edges and adjacency matrices, against loops over pairs of nodes."""

import re
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_robust.graph import adjacency, upper_triangle

many = settings(max_examples=30, deadline=None, derandomize=True)


def drawn(n_graphs, n_nodes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_graphs, n_nodes * (n_nodes - 1) // 2, generator=generator).to(dtype)


def matrices(edges, n_nodes):
    """By the definition, an entry at a time."""
    found = torch.zeros(len(edges), n_nodes, n_nodes, dtype=edges.dtype)
    for e, (i, j) in enumerate(combinations(range(n_nodes), 2)):
        found[:, i, j] = found[:, j, i] = edges[:, e]
    return found


@many
@given(st.integers(0, 4), st.integers(2, 9), st.integers(0, 99))
def test_there_and_back(n_graphs, n_nodes, seed):
    edges = drawn(n_graphs, n_nodes, seed)
    expected = matrices(edges, n_nodes)
    assert torch.equal(adjacency(edges), expected)
    assert torch.equal(adjacency(edges, n_nodes), expected)
    assert torch.equal(upper_triangle(expected), edges)
    row, column = torch.triu_indices(n_nodes, n_nodes, offset=1)
    assert torch.equal(upper_triangle(expected), expected[:, row, column])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_and_any_memory_layout(dtype):
    edges = drawn(3, 5, dtype=dtype)
    assert torch.equal(adjacency(edges), matrices(edges, 5)) and adjacency(edges).dtype == dtype
    assert torch.equal(adjacency(edges.T.contiguous().T), matrices(edges, 5))
    assert torch.equal(upper_triangle(matrices(edges, 5).mT), edges)
    assert torch.equal(adjacency((edges > 0).to(dtype)), matrices((edges > 0).to(dtype), 5))


def test_the_gradient_of_an_edge_is_that_of_both_its_entries():
    edges = drawn(3, 5).requires_grad_()
    raw = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)).double()
    (found,) = torch.autograd.grad((adjacency(edges) * raw).sum(), edges)
    assert not torch.allclose(raw, raw.mT)
    assert torch.allclose(found, upper_triangle(raw + raw.mT), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(adjacency, edges)
    assert torch.autograd.gradgradcheck(lambda e: adjacency(e).pow(3), edges)
    matrix = matrices(edges.detach(), 5).requires_grad_()
    (back,) = torch.autograd.grad((upper_triangle(matrix) * edges.detach()).sum(), matrix)
    assert torch.equal(back, matrices(edges.detach(), 5).triu())


def test_functional_transforms():
    edges = drawn(4, 5)
    each = torch.func.vmap(lambda e: adjacency(e[None])[0])(edges)
    assert torch.equal(each, adjacency(edges))
    _, tangent = torch.func.jvp(adjacency, (edges,), (edges + 1,))
    assert torch.equal(tangent, adjacency(edges + 1))


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 1), (4, 4), (2, 3, 4, 4)])
def test_matrices_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"(N, n, n) with n > 1, got {shape}")):
        upper_triangle(torch.zeros(shape))


def test_directed_graphs_are_refused_and_rounding_is_not():
    matrix = matrices(drawn(2, 4), 4)
    matrix[1, 0, 2] += 1e-3
    with pytest.raises(ValueError, match="adjacency must hold symmetric matrices, got"):
        upper_triangle(matrix)
    matrix[1, 0, 2] -= 1e-3 - 1e-9
    assert upper_triangle(matrix).shape == (2, 6)
    matrix[0, 1, 2] = matrix[0, 2, 1] = float("nan")
    assert upper_triangle(matrix).isnan().sum() == 1


@pytest.mark.parametrize(
    ("shape", "n_nodes", "message"),
    [
        ((2, 4), None, "edges must have n (n - 1) / 2 columns for n nodes, such as 1, 3, 6 or 10"),
        ((2, 0), None, "got 0"),
        ((2, 6), 5, "edges must have shape (N, 10), got (2, 6)"),
        ((6,), None, "edges must have shape (N, n (n - 1) / 2), got (6,)"),
        ((2, 3, 3), 3, "edges must have shape (N, 3), got (2, 3, 3)"),
    ],
)
def test_edges_of_no_graph_are_refused(shape, n_nodes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        adjacency(torch.zeros(shape), n_nodes)
