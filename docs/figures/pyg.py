"""Tables of docs/pyg.md: `python docs/figures/pyg.py`."""

from __future__ import annotations

import time
import warnings

import torch
import torch_geometric
from torch.nn.functional import cross_entropy
from torch_geometric.data import Data
from torch_geometric.explain import CaptumExplainer, Explainer, GNNExplainer
from torch_geometric.nn import GCN

from captum_robust._utils.tables import Table, markdown
from captum_robust.datasets import synthetic_citation_graph
from captum_robust.graph import ExplainedGraph, compare_explainers
from captum_robust.metrics import ranking_thickness
from captum_robust.robust import AutoERAttack

SEED, K = 0, 5
N_NODES, N_COMPARED = 10, 3
CONFIG = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}


def train(data: Data) -> GCN:
    """Train the usual network of two layers for 100 epochs on 140 papers."""
    torch.manual_seed(SEED)
    model = GCN(data.num_features, 16, num_layers=2, out_channels=7, dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
    for _ in range(100):
        optimizer.zero_grad()
        outputs = model(data.x, data.edge_index)
        cross_entropy(outputs[data.train_mask], data.y[data.train_mask]).backward()
        optimizer.step()
    return model.eval()


def edge_explainer(algorithm: object, model: GCN) -> Explainer:
    """Return an explainer of edges."""
    return Explainer(model, algorithm, "model", edge_mask_type="object", model_config=CONFIG)


def edges_under_attack(model: GCN, data: Data, nodes: list[int]) -> None:
    """Print the precision of the top citations by radius."""
    rows = []
    for radius in (0.1, 0.3, 0.5):
        thickness, precision, seconds = [], [], time.process_time()
        for node in nodes:
            explainer = edge_explainer(CaptumExplainer("Saliency"), model)
            graph = ExplainedGraph(explainer, data.x, data.edge_index, index=node, undirected=True)
            thickness.append(
                ranking_thickness(
                    graph.explanation_func, graph.inputs, K, graph.noise, radius,
                    n_perturb_samples=4, n_steps=8, seed=SEED,
                )
            )  # fmt: skip
            _, info = AutoERAttack(graph.attribution, K).perturb(
                graph.inputs, radius, seed=SEED, budget=300, return_info=True, **graph.arguments
            )
            precision.append(info.precision)
        seconds = (time.process_time() - seconds) / len(nodes)
        means = (float(torch.cat(values).mean()) for values in (thickness, precision))
        rows.append([f"{radius}", *(f"{mean:.3f}" for mean in means), f"{seconds:.1f}"])
    header = ["radius", "thickness", "P@5 attack", "CPU seconds per paper"]
    print(markdown(Table(header, rows)), "\n")


def compare(model: GCN, data: Data, nodes: list[int]) -> None:
    """Print the metrics of PyTorch Geometric and ours."""
    explainers = {
        name: edge_explainer(algorithm, model)
        for name, algorithm in {
            "Saliency": CaptumExplainer("Saliency"),
            "InputXGradient": CaptumExplainer("InputXGradient"),
            "IntegratedGradients": CaptumExplainer("IntegratedGradients", n_steps=10),
            "GNNExplainer": GNNExplainer(epochs=30),
        }.items()
    }
    table = compare_explainers(
        explainers, data.x, data.edge_index, nodes, K, radius=0.3, undirected=True,
        n_perturb_samples=4, n_steps=2, budget=100, seed=SEED,
    )  # fmt: skip
    header = ["explainer", *next(iter(table.values()))]
    rows = [[name, *(f"{v:.3f}" for v in row.values())] for name, row in table.items()]
    print(markdown(Table(header, rows)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Converting a tensor with requires_grad", UserWarning)
    data = synthetic_citation_graph(seed=SEED)
    model = train(data)
    print(f"torch {torch.__version__}, torch_geometric {torch_geometric.__version__}")
    with torch.no_grad():
        labels = model(data.x, data.edge_index).argmax(dim=1)
    right = labels == data.y
    print(f"accuracy on 1,000 test papers: {right[data.test_mask].float().mean():.3f}\n")
    degree = data.edge_index[0].bincount(minlength=data.num_nodes)
    nodes = (data.test_mask & right & (degree >= 5)).nonzero()[:, 0].tolist()
    edges_under_attack(model, data, nodes[:N_NODES])
    compare(model, data, nodes[:N_COMPARED])
