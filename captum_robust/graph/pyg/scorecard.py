"""Metrics of faithfulness by PyTorch Geometric beside metrics of stability, per explainer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_robust._utils.random import seeded
from captum_robust.attr import is_differentiable
from captum_robust.graph.pyg.black_box import copy_model
from captum_robust.graph.pyg.explained import ExplainedGraph
from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.ranking import (
    check_k,
    flatten_attributions,
    invalid_rows,
    top_k_mask,
)
from captum_robust.robust import AutoERAttack, RandomSearchAttack

if TYPE_CHECKING:
    from torch_geometric.explain import Explainer, Explanation

__all__ = ["compare_explainers", "top_k_explanation"]


def top_k_explanation(graph: ExplainedGraph, k: int) -> Explanation:
    """Return an ``Explanation`` with masks of 1 on the k most important features, 0 elsewhere.

    ``fidelity`` and ``unfaithfulness`` of ``torch_geometric.explain`` multiply the graph by a mask
    and by 1 − mask, which removes features only if the mask lies in [0, 1]; attributions have no
    such range. Node features and edges are ranked jointly, as in
    :func:`~captum_robust.metrics.precision_at_k`; undirected edges as the graph has them.

    Args:
        graph (ExplainedGraph): the explained output.
        k (int): number of features, 1 <= k < n.

    Raises:
        ValueError: for k out of range, and for an attribution that is constant or not finite.
    """
    maps = graph.explanation_func(graph.inputs)
    scores = flatten_attributions(maps)
    check_k(k, scores.shape[1])
    if bool(invalid_rows(scores)):
        raise ValueError("graph must have a ranking, got a constant or non-finite attribution")
    places = top_k_mask(scores, k)[0].to(scores.dtype).split([m[0].numel() for m in maps])
    return graph.explanation_of(tuple(top.view_as(m) for top, m in zip(places, maps, strict=True)))


def compare_explainers(
    explainers: Mapping[str, Explainer],
    x: Tensor,
    edge_index: Tensor,
    indices: Sequence[int | None],
    k: int,
    radius: float,
    undirected: bool = False,
    n_perturb_samples: int = 10,
    n_steps: int = 8,
    budget: int = 200,
    seed: int = 0,
    **kwargs: Any,
) -> dict[str, dict[str, float]]:
    r"""Return a table of faithfulness and stability of the top k features, per explainer.

    Columns, as means over the explained outputs, each with its own :class:`ExplainedGraph`:

    - ``"fidelity+"`` and ``"fidelity-"`` of ``torch_geometric.explain.metric.fidelity``: the
      fraction of outputs whose prediction changes without the top k features (higher is better),
      and with only these features (lower is better).
    - ``"unfaithfulness"`` of the same module: :math:`1 - e^{-KL(\hat y || y)}` of the prediction
      with only the top k features, in [0, 1], lower is better. The order of the divergence is that
      of the code of PyTorch Geometric; its documentation states the reverse order.
    - ``"thickness"``: :func:`~captum_robust.metrics.ranking_thickness` under noise.
    - ``"P@k noise"``: :func:`~captum_robust.metrics.precision_at_k_min` over the same number of
      draws.
    - ``"P@k attack"``: precision at k under :class:`~captum_robust.robust.AutoERAttack`, or
      :class:`~captum_robust.robust.RandomSearchAttack` for explainers without a gradient, with the
      same number of attributions for every explainer and the prediction kept.

    Args:
        explainers (Mapping[str, Explainer]): by name.
        x (Tensor): node features, shape (V, F).
        edge_index (Tensor): edges, shape (2, E).
        indices (Sequence[int]): the explained outputs; ``[None]`` for a model with one output.
        k (int): number of features.
        radius (float): radius of noise and attack, in units of the inputs.
        undirected (bool, optional): both directions of an edge are one feature.
        n_perturb_samples (int, optional): neighbours of each graph. Default: 10.
        n_steps (int, optional): points on the segment to each neighbour, for the thickness.
            Default: 8.
        budget (int, optional): largest number of attributions that the attack may compute, at
            least 2; below 100, AutoERAttack leaves out most of its members. Default: 200.
        seed (int, optional): seed of all random numbers.
        **kwargs: further arguments of the model.

    Returns:
        - **table** (*dict[str, dict[str, float]]*): means by explainer and column;
          ``pandas.DataFrame(table).T`` shows it.
    """
    if budget < 2:
        raise ValueError(f"budget must be at least 2, got {budget}")
    return {
        name: _mean(
            [
                _scores(
                    ExplainedGraph(
                        explainer, x, edge_index, index=index, undirected=undirected, **kwargs
                    ),
                    k, radius, n_perturb_samples, n_steps, budget, seed,
                )
                for index in indices
            ]
        )
        for name, explainer in explainers.items()
    }  # fmt: skip


def _scores(
    graph: ExplainedGraph,
    k: int,
    radius: float,
    n_perturb_samples: int,
    n_steps: int,
    budget: int,
    seed: int,
) -> dict[str, float]:
    from torch_geometric.explain.metric import fidelity, unfaithfulness

    with seeded(seed):
        top = top_k_explanation(graph, k)
    # These metrics put masks into the layers, and all modules into one mode.
    judge = copy.copy(graph.explainer)
    judge.model = copy_model(graph.explainer.model).eval()
    without, alone = fidelity(judge, top)
    call: dict[str, Any] = {
        "perturb_func": graph.noise, "perturb_radius": radius,
        "n_perturb_samples": n_perturb_samples, "seed": seed,
    }  # fmt: skip
    # The members of the ensemble without a gradient cost hundreds of attributions.
    attack: Any = AutoERAttack(graph.attribution, k)
    limit = {"budget": budget}
    if not is_differentiable(graph.attribution):
        attack, limit = RandomSearchAttack(graph.attribution, k), {"step_num": budget - 1}
    _, info = attack.perturb(
        graph.inputs, radius, seed=seed, return_info=True, **limit, **graph.arguments
    )
    thickness = ranking_thickness(graph.explanation_func, graph.inputs, k, n_steps=n_steps, **call)
    return {
        "fidelity+": without,
        "fidelity-": alone,
        "unfaithfulness": unfaithfulness(judge, top),
        "thickness": float(thickness),
        "P@k noise": float(precision_at_k_min(graph.explanation_func, graph.inputs, k, **call)),
        "P@k attack": float(info.precision),
    }


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {
        column: float(torch.tensor([row[column] for row in rows], dtype=torch.float64).nanmean())
        for column in rows[0]
    }
