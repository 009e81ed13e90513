"""The receptive field of a node, and the undirected edge of each directed one."""

import torch
from torch import Tensor

__all__ = ["receptive_field", "undirected_edge_groups"]


def undirected_edge_groups(edge_index: Tensor) -> Tensor:
    r"""Return the undirected edge of each edge, as a ``feature_mask`` for edge masks.

    PyTorch Geometric stores an undirected edge as two edges, which take two of the top k places if
    they are ranked separately. Both directions, and all copies of an edge, get the same id.

    Args:
        edge_index (Tensor): edges, shape (2, E).

    Returns:
        - **groups** (*Tensor*): ids 0 … m − 1 in the order of the pairs (lower node, higher node),
          shape (E,); a self-loop is a separate group.

    Examples::

        >>> edge_index = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
        >>> undirected_edge_groups(edge_index)
        tensor([0, 0, 1, 1])
        >>> from captum_robust.ranking import flatten_attributions
        >>> edge_mask = torch.tensor([[1.0, 3.0, 0.5, 0.5]])
        >>> flatten_attributions(edge_mask, undirected_edge_groups(edge_index)[None])
        tensor([[4., 1.]])
    """
    if edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise ValueError(f"edge_index must have shape (2, E), got {tuple(edge_index.shape)}")
    ordered = edge_index.sort(dim=0).values
    groups: Tensor = torch.unique(ordered, dim=1, return_inverse=True)[1]
    return groups


def receptive_field(
    edge_index: Tensor, index: int, n_hops: int, n_nodes: int, flow: str = "source_to_target"
) -> tuple[Tensor, Tensor]:
    r"""Return the nodes and edges on which a node can depend after some rounds of messages.

    Args:
        edge_index (Tensor): edges, shape (2, E).
        index (int): the node.
        n_hops (int): number of rounds of messages, one per layer.
        n_nodes (int): number of nodes V.
        flow (str, optional): direction of the messages, as in ``MessagePassing``.

    Returns:
        - **nodes** (*Tensor*): nodes at most ``n_hops`` away, shape (V,) bool.
        - **edges** (*Tensor*): edges whose messages arrive, because their target is less than
          ``n_hops`` away; shape (E,) bool.

    Examples::

        >>> path = torch.tensor([[0, 1, 2], [1, 2, 3]])
        >>> nodes, edges = receptive_field(path, index=2, n_hops=1, n_nodes=4)
        >>> nodes, edges
        (tensor([False,  True,  True, False]), tensor([False,  True, False]))
    """
    source, sink = edge_index if flow == "source_to_target" else edge_index.flip(0)
    nodes = torch.zeros(n_nodes, dtype=torch.bool, device=edge_index.device)
    nodes[index] = True
    edges = torch.zeros_like(source, dtype=torch.bool)
    for _ in range(n_hops):
        edges = nodes[sink]
        nodes = nodes.clone()
        nodes[source[edges]] = True
    return nodes, edges
