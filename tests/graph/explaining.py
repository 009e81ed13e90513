"""Small graphs and models of PyTorch Geometric, and their explainers."""

import torch
from torch_geometric.explain import CaptumExplainer, Explainer
from torch_geometric.nn import GCN

N_NODES, N_FEATURES, N_CLASSES = 20, 3, 3
EDGE = {"edge_mask_type": "object"}
NODE = {"node_mask_type": "attributes"}
BOTH = EDGE | NODE


def ring_with_chords(dtype=torch.float64):
    """Node features, and a ring of 20 nodes with three chords, both directions of each edge."""
    ring = torch.arange(N_NODES)
    edges = torch.cat([torch.stack([ring, ring.roll(-1)]), torch.tensor([[0, 2, 5], [6, 9, 8]])], 1)
    features = torch.randn(N_NODES, N_FEATURES, generator=torch.Generator().manual_seed(0))
    return features.to(dtype), torch.cat([edges, edges.flip(0)], dim=1)


def gcn(cls=GCN, out_channels=N_CLASSES, dtype=torch.float64, **options):
    torch.manual_seed(1)
    options = {"num_layers": 2, "act": "softplus", **options}
    model = cls(N_FEATURES, 6, out_channels=out_channels, **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that rankings do change
    return model


def explainer_of(
    model, algorithm="Saliency", masks=EDGE, mode="multiclass_classification", level="node",
    returns="raw", kind="model", threshold=None, **options,
):  # fmt: skip
    if isinstance(algorithm, str):
        algorithm = CaptumExplainer(algorithm, **options)
    config = {"mode": mode, "task_level": level, "return_type": returns}
    return Explainer(
        model, algorithm, kind, model_config=config, threshold_config=threshold, **masks
    )
