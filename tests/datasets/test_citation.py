from pathlib import Path

import pytest
import torch
import torch_geometric.datasets
from torch_geometric.nn import GCN

from captum_robust.datasets import load_cora, synthetic_citation_graph


@pytest.fixture(scope="module")
def data():
    return synthetic_citation_graph(seed=3)


def test_every_edge_is_there_once_in_both_directions(data):
    assert data.is_undirected() and not data.has_self_loops()
    matrix = torch.zeros(2708, 2708, dtype=torch.bool)
    matrix[data.edge_index[0], data.edge_index[1]] = True
    assert int(matrix.sum()) == data.num_edges == 2 * 5278


def test_topics_and_words_are_as_in_cora(data):
    assert sorted(data.y.bincount().tolist()) == [180, 217, 298, 351, 418, 426, 818]
    first, second = data.y[data.edge_index]
    assert (first == second).double().mean() == pytest.approx(0.81, abs=0.02)
    assert data.x.unique().tolist() == [0, 1]
    assert data.x.sum(dim=1).mean() == pytest.approx(18, abs=0.5)
    # A fifth of the words beyond chance are from the seventh of the vocabulary of the topic.
    own = torch.arange(1433) * 7 // 1433 == data.y[:, None]
    assert data.x[own].sum() / data.x.sum() == pytest.approx(0.2 + 0.8 / 7, abs=0.01)


def test_few_papers_are_cited_often(data):
    degree = data.edge_index[0].bincount(minlength=data.num_nodes).double()
    assert degree.var() > 3 * degree.mean()  # of equally famous ones: about the mean


def test_the_split(data):
    masks = torch.stack([data.train_mask, data.val_mask, data.test_mask])
    assert masks.sum(dim=1).tolist() == [140, 500, 1000]
    assert int(masks.sum(dim=0).max()) == 1
    assert data.y[data.train_mask].bincount().tolist() == [20] * 7


def test_a_network_learns_the_topics(data):
    torch.manual_seed(0)
    model = GCN(data.num_features, 16, num_layers=2, out_channels=7)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02, weight_decay=5e-4)
    for _ in range(20):
        outputs = model(data.x, data.edge_index)
        loss = torch.nn.functional.cross_entropy(outputs[data.train_mask], data.y[data.train_mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    labels = model(data.x, data.edge_index).argmax(dim=1)
    assert (labels == data.y)[data.test_mask].double().mean() > 0.7


def small(seed):
    return synthetic_citation_graph((10, 6, 8), n_edges=20, n_features=30, seed=seed)


def test_the_seed_is_all_that_counts():
    state = torch.random.get_rng_state()
    one, same, other = small(0), small(0), small(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name in ("x", "edge_index", "y", "train_mask", "test_mask"):
        assert torch.equal(one[name], same[name])
    assert not torch.equal(one.edge_index, other.edge_index)
    assert one.num_edges == 40 and one.num_nodes == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topic_sizes": (10,)}, "topic_sizes must be two topics or more"),
        ({"topic_sizes": (10, 1)}, "topic_sizes must be two topics or more"),
        ({"n_features": 2}, "n_features at least one per topic"),
        (
            {"n_edges": 0},
            "pairs on one topic, got 0",
        ),
        (
            {"n_edges": 10**5},
            "pairs on one topic, got 100000",
        ),
    ],
)
def test_refusals(arguments, message):
    given = {"topic_sizes": (10, 6, 8), "n_edges": 20, "n_features": 30, **arguments}
    with pytest.raises(ValueError, match=message):
        synthetic_citation_graph(**given)


def test_cora_is_planetoids(monkeypatch):
    calls = []

    def planetoid(root, name):
        calls.append((root, name))
        return ["the graph"]

    monkeypatch.setattr(torch_geometric.datasets, "Planetoid", planetoid)
    assert load_cora(Path("papers")) == "the graph"
    assert calls == [("papers", "Cora")]
