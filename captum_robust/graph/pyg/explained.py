"""One explained output of a PyTorch Geometric model, in the shapes of Captum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.random import cuda_devices
from captum_robust.graph.pyg.black_box import AlgorithmAttribution
from captum_robust.graph.pyg.call import GraphCall
from captum_robust.graph.pyg.explanation import ExplanationWriter
from captum_robust.graph.pyg.masked import Handles, MaskedGraph
from captum_robust.graph.pyg.neighbourhood import undirected_edge_groups
from captum_robust.graph.pyg.reach import Reach, cut
from captum_robust.noise import UniformNoise

if TYPE_CHECKING:
    from torch_geometric.explain import Explainer, Explanation

__all__ = ["ExplainedGraph"]


class ExplainedGraph:
    r"""One output of a model that a ``torch_geometric.explain.Explainer`` explains.

    Metrics and attacks of this library take its :attr:`inputs`; call it as the explainer is called.
    The features that are ranked and perturbed are those that the mask types of the explainer name:
    the node features, the edge weights, or both, in this order. A weight multiplies the message of
    its edge, lies in [0, 1], and is 1 in the graph as it is given; ``edge_index`` never changes.
    The graph is one example: all tensors have N = 1 rows. Versions of the graph are explained one
    at a time, whatever the chunk size.

    Only the part of the graph on which the explained node can depend is an input: nodes and edges
    within as many hops as the model passes messages. With a Captum algorithm the model is called on
    that part of the graph and one hop more, if its output is the same there.

    Algorithms of PyTorch Geometric itself have no gradient. Metrics accept them without a change,
    and :class:`~captum_robust.robust.RandomSearchAttack` attacks them.

    Args:
        explainer (Explainer): with a ``CaptumExplainer`` or any other algorithm, trained if it
            needs training.
        x (Tensor): node features, shape (V, F).
        edge_index (Tensor): edges, shape (2, E).
        target (Tensor, optional): labels of all outputs, for ``explanation_type="phenomenon"``.
        index (int, optional): the explained output of the model, such as a node. None for a model
            with one output.
        undirected (bool, optional): both directions of an edge share one weight, which is one
            feature. Default: every direction is a separate feature.
        **kwargs: further arguments of the model, as for the explainer.

    Attributes:
        inputs (tuple[Tensor, ...]): node features (1, V', F), edge weights (1, E'), or both.
        model (MaskedGraph): the explained output of the model as a function of ``inputs``.
        attribution (Attribution): the attribution of the explainer on this model, for attacks.
        target (int, optional): the explained class; None for regression.
        arguments (dict): keyword arguments of ``perturb`` and ``MinRadius.evaluate``: the target,
            the arguments that the explainer gives its attribution, and the projection of weights
            onto [0, 1].
        noise (Callable): uniform noise with weights in [0, 1]: the ``perturb_func`` of metrics.
        nodes (Tensor): the V' nodes of the inputs, as indices of rows of ``x``.
        edges (Tensor): the edges of the inputs, as indices of columns of ``edge_index``.
        columns (Tensor): for each of these edges, its column in the weights.
        feature_mask (tuple[Tensor, ...]): groups in which both directions of an edge are one
            feature, to rank undirected edges whose directions have separate weights.

    Raises:
        ValueError: for graphs with several types of nodes, and an index that does not name one
            output.

    Examples::

        >>> from captum_robust.metrics import precision_at_k, ranking_thickness
        >>> from captum_robust.robust import ERAttack
        >>> from torch_geometric.explain import CaptumExplainer, Explainer
        >>> from torch_geometric.nn import GCN
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(6, 4)
        >>> edge_index = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 5, 3]])
        >>> model = GCN(4, 8, num_layers=2, out_channels=3, act="softplus")
        >>> explainer = Explainer(
        ...     model, CaptumExplainer("Saliency"), "model", edge_mask_type="object",
        ...     model_config=dict(
        ...         mode="multiclass_classification", task_level="node", return_type="raw"))
        >>> graph = ExplainedGraph(explainer, x, edge_index, index=3)
        >>> graph.inputs                            # three edges are within two hops of node 3
        (tensor([[1., 1., 1.]]),)
        >>> ranking_thickness(
        ...     graph.explanation_func, graph.inputs, k=2, perturb_func=graph.noise,
        ...     perturb_radius=0.3, n_perturb_samples=4, n_steps=8, seed=0).shape
        torch.Size([1])
        >>> moved = ERAttack(graph.attribution, k=2).perturb(graph.inputs, 0.3, **graph.arguments)
        >>> before, after = graph.explain(), graph.explain(moved)
        >>> bool(torch.allclose(before.edge_mask, explainer(x, edge_index, index=3).edge_mask))
        True
        >>> precision_at_k(after.edge_mask[None], before.edge_mask[None], k=2).shape
        torch.Size([1])
    """

    def __init__(
        self,
        explainer: Explainer,
        x: Tensor,
        edge_index: Tensor,
        *,
        target: Tensor | None = None,
        index: int | Tensor | None = None,
        undirected: bool = False,
        **kwargs: Any,
    ) -> None:
        self.explainer = explainer
        call = GraphCall.of(x, edge_index, kwargs, index)
        outputs, targets = _outputs_and_targets(explainer, call, target)
        mode, returns = explainer.model_config.mode.value, explainer.model_config.return_type.value
        self.target: int | None = None
        if mode != "regression":
            self.target = int(targets.reshape(-1)[call.index or 0])

        reach = Reach(explainer.model, call)
        self.nodes, self.edges = reach.nodes.nonzero()[:, 0], reach.edges.nonzero()[:, 0]
        groups = undirected_edge_groups(call.edge_index[:, self.edges])
        own = torch.arange(len(self.edges), device=groups.device)
        self.undirected = undirected
        self.columns = groups if undirected else own
        n_weights = int(groups.max()) + 1 if undirected and len(groups) else len(own)
        self._with_features = explainer.node_mask_type is not None
        self._with_weights = explainer.edge_mask_type is not None
        self.inputs: tuple[Tensor, ...] = ()
        self.feature_mask: tuple[Tensor, ...] = ()
        if self._with_features:
            self.inputs += (call.x[self.nodes][None],)
            self.feature_mask += (_number_features(self.inputs[0]),)
        if self._with_weights:
            self.inputs += (call.x.new_ones(1, n_weights),)
            pairs = own[:n_weights] if undirected else groups
            self.feature_mask += (pairs[None] + sum(m.numel() for m in self.feature_mask),)

        handles = Handles(
            self.nodes if self._with_features else None,
            self.edges if self._with_weights else None,
            self.columns,
        )
        two = mode == "binary_classification" and returns == "probs"
        whole = self.model = MaskedGraph(explainer.model, call, handles, two)
        self._writer = ExplanationWriter(explainer, whole, outputs, targets)
        self._own_arguments: dict[str, Any] = {}
        self.attribution: Attribution
        algorithm: Any = explainer.algorithm
        if _is_captum(algorithm):
            self.model = cut(whole, reach, self.inputs)
            self.attribution = algorithm.attribution_method_class(self.model)
            self._own_arguments = {n: self._part(value) for n, value in algorithm.kwargs.items()}
        else:
            self.attribution = AlgorithmAttribution(self.model, algorithm, targets)
        self.arguments = {"target": self.target, "project": self.project, **self._own_arguments}
        self.noise: Any = self._add_noise
        if not self._with_features:
            self.noise = UniformNoise(lower_bound=0.0, upper_bound=1.0)
        elif not self._with_weights:
            self.noise = UniformNoise()

    @classmethod
    def of(
        cls, explainer: Explainer, explanation: Explanation, undirected: bool = False
    ) -> ExplainedGraph:
        """Return the explained graph of an ``Explanation`` that this explainer returned."""
        labelled = explainer.explanation_type.value == "phenomenon"
        return cls(
            explainer, explanation.x, explanation.edge_index, index=explanation.get("index"),
            target=explanation.target if labelled else None, undirected=undirected,
            **{name: explanation[name] for name in explanation._model_args},
        )  # fmt: skip

    def explanation_func(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return the attributions of versions of the graph, computed one at a time; for metrics.

        All versions use the same random numbers, so that a random algorithm is a function of the
        graph.
        """
        rows = list(zip(*(_leaves(tensor) for tensor in as_tuple(inputs)), strict=True))
        maps = []
        for row in rows[:-1]:
            with torch.random.fork_rng(devices=cuda_devices()):
                maps.append(self._attribute(row))
        maps += [self._attribute(row) for row in rows[-1:]]
        return tuple(torch.cat(tensors) for tensors in zip(*maps, strict=True))

    def project(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Return the same node features, and the nearest edge weights in [0, 1]."""
        tensors = as_tuple(inputs)
        return (*tensors[:-1], tensors[-1].clamp(0, 1)) if self._with_weights else tensors

    def explain(self, inputs: Inputs | None = None) -> Explanation:
        """Return the ``Explanation`` of the graph, as the explainer does, or of a version of it.

        For a version, ``x`` and the attribute ``message_weight`` (E,) are those of the version;
        prediction and target are those of the given graph. With ``undirected=True`` the masks hold
        the attribution of an edge in the columns of both directions, as PyTorch Geometric stores
        edges: rank the maps of :meth:`explanation_func`, or the masks with the groups
        ``undirected_edge_groups(edge_index)`` as ``feature_mask``, in which an edge counts once.

        Args:
            inputs (tuple[Tensor, ...], optional): a version of the graph in the shapes of
                :attr:`inputs`, such as the result of an attack. Default: the given graph.
        """
        row = self._row(self.inputs if inputs is None else inputs)
        if isinstance(self.attribution, AlgorithmAttribution):
            explanation = self._writer.complete(self.attribution.explanation(row), row)
        else:
            maps = self.explanation_func(tuple(t[None] for t in row))
            explanation = self._writer.from_maps(maps, row)
        return explanation.threshold(self.explainer.threshold_config)

    def explanation_of(self, maps: Inputs) -> Explanation:
        """Return an ``Explanation`` with given masks, 0 where the output depends on nothing.

        Args:
            maps (tuple[Tensor, ...]): one row of attributions, as :meth:`explanation_func` returns.
        """
        return self._writer.from_maps(as_tuple(maps, "maps"), self._row(self.inputs))

    def _attribute(self, row: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = self.attribution.attribute(row, target=self.target, **self._own_arguments)
        return tuple(tensor.detach() for tensor in as_tuple(maps))

    def _part(self, value: Any) -> Any:
        """Return the part for the inputs of an argument for the whole graph, such as baselines."""
        if isinstance(value, tuple):
            return tuple(self._part(item) for item in value)
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        call = self._writer.masked.call
        if self._with_features and value.shape[1:] == call.x.shape:
            return value[:, self.nodes]
        if value.shape[1:] == call.edge_index.shape[1:] and not self.undirected:
            return value[:, self.edges]
        return value

    def _add_noise(self, inputs: Inputs, perturb_radius: float) -> tuple[Tensor, ...]:
        """Return uniform noise from torch's global generator, which the metrics seed."""
        moved = (t + perturb_radius * (2 * torch.rand_like(t) - 1) for t in as_tuple(inputs))
        return self.project(tuple(moved))

    def _row(self, inputs: Inputs) -> tuple[Tensor, ...]:
        shapes, expected = ([tuple(t.shape) for t in as_tuple(i)] for i in (inputs, self.inputs))
        if shapes != expected:
            raise ValueError(f"inputs must have the shapes {expected}, got {shapes}")
        return tuple(tensor[0].detach() for tensor in as_tuple(inputs))


def _outputs_and_targets(
    explainer: Explainer, call: GraphCall, target: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return all outputs of the model, and the targets of the explanation."""
    with torch.no_grad():
        outputs = call.outputs(explainer.model)
    call.select(outputs)  # raises for an index out of range
    kind = explainer.explanation_type.value
    if (target is None) != (kind == "model"):
        accepted = "None" if kind == "model" else "given"
        raise ValueError(f"target must be {accepted} for explanation_type={kind!r}")
    return outputs, explainer.get_target(outputs) if target is None else target


def _number_features(tensor: Tensor) -> Tensor:
    """Return an id for every feature, in the shape of the tensor."""
    return torch.arange(tensor.numel(), device=tensor.device).view_as(tensor)


def _leaves(tensor: Tensor) -> list[Tensor]:
    """Return the rows of a tensor as leaves with a row dimension, as Captum asks for."""
    return [row.detach().requires_grad_() for row in tensor.split(1)]


def _is_captum(algorithm: Any) -> bool:
    from torch_geometric.explain import CaptumExplainer

    return isinstance(algorithm, CaptumExplainer)
