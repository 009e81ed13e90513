"""One explained output of a PyTorch Geometric model, in the shapes of Captum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.random import cuda_devices
from captum_robust.graph.black_box import AlgorithmAttribution
from captum_robust.graph.call import GraphCall
from captum_robust.graph.masked import Handles, MaskedGraph
from captum_robust.graph.neighbourhood import undirected_edge_groups
from captum_robust.graph.reach import Reach, cut
from captum_robust.noise import UniformNoise

if TYPE_CHECKING:
    from torch_geometric.explain import Explainer, Explanation

__all__ = ["ExplainedGraph"]


class ExplainedGraph:
    r"""What a ``torch_geometric.explain.Explainer`` explains, for our metrics and attacks.

    Called as the explainer is. The features that are ranked and perturbed are those that its mask
    types name: the node features, the weights of the edges, or both, in this order. A weight
    multiplies the message of its edge, lies in [0, 1], and is 1 in the graph as it is;
    ``edge_index`` never changes. The graph is one example: everything has N = 1 rows, and versions
    of the graph are explained one at a time, whatever the chunks.

    Of the graph around a node, only what can matter is an input: nodes and edges within as many
    hops as the model passes messages. With a Captum algorithm the model is called on that part of
    the graph and one hop more, if its output is the same there.

    Algorithms of PyTorch Geometric itself have no gradient: metrics take them as they are, and
    :class:`~captum_robust.robust.RandomSearchAttack` attacks them.

    Args:
        explainer (Explainer): with a ``CaptumExplainer``, or any other algorithm, trained where it
            has to be.
        x (Tensor): node features, shape (V, F).
        edge_index (Tensor): edges, shape (2, E).
        target (Tensor, optional): labels of all outputs, for ``explanation_type="phenomenon"``.
        index (int, optional): which output of the model is explained: the node, say. None for a
            model with one output.
        undirected (bool, optional): both directions of an edge share one weight, which is one
            feature. Default: every direction is a feature of its own.
        **kwargs: further arguments of the model, as for the explainer.

    Attributes:
        inputs (tuple[Tensor, ...]): node features (1, V', F), edge weights (1, E'), or both.
        model (MaskedGraph): the explained output of the model as a function of ``inputs``.
        attribution (Attribution): that of the explainer, on this model; for attacks.
        target (int, optional): the explained class; None for regression.
        arguments (dict): keyword arguments of ``perturb`` and ``MinRadius.evaluate``: the target,
            what the explainer gives its attribution, and the projection that keeps weights in
            [0, 1].
        noise (Callable): uniform noise that keeps them there too: the ``perturb_func`` of metrics.
        nodes (Tensor): the V' nodes of the inputs, indices of rows of ``x``.
        edges (Tensor): the edges of the inputs, indices of columns of ``edge_index``.
        columns (Tensor): for each of these edges, its column in the weights.
        feature_mask (tuple[Tensor, ...]): groups in which both directions of an edge are one
            feature: a ranking of undirected edges whose directions have their own weights.

    Raises:
        ValueError: for graphs of several types of nodes, and an index that names no single output.

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
        self._call = call = GraphCall.of(x, edge_index, kwargs, index)
        self._with_features = explainer.node_mask_type is not None
        self._with_weights = explainer.edge_mask_type is not None
        self._outputs, self._targets = self._look(target)
        mode, returns = explainer.model_config.mode.value, explainer.model_config.return_type.value
        self.target: int | None = None
        if mode != "regression":
            self.target = int(self._targets.reshape(-1)[call.index or 0])

        reach = Reach(explainer.model, call)
        self.nodes, self.edges = reach.nodes.nonzero()[:, 0], reach.edges.nonzero()[:, 0]
        groups = undirected_edge_groups(call.edge_index[:, self.edges])
        own = torch.arange(len(self.edges), device=groups.device)
        self.undirected = undirected
        self.columns = groups if undirected else own
        n_weights = int(groups.max()) + 1 if undirected and len(groups) else len(own)
        self.inputs: tuple[Tensor, ...] = ()
        self.feature_mask: tuple[Tensor, ...] = ()
        if self._with_features:
            self.inputs += (call.x[self.nodes][None],)
            self.feature_mask += (_numbered(self.inputs[0]),)
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
        self._whole = self.model = MaskedGraph(explainer.model, call, handles, two)
        self._own_arguments: dict[str, Any] = {}
        self.attribution: Attribution
        algorithm: Any = explainer.algorithm
        if _is_captum(algorithm):
            self.model = cut(self._whole, reach, self.inputs)
            self.attribution = algorithm.attribution_method_class(self.model)
            self._own_arguments = {n: self._part(value) for n, value in algorithm.kwargs.items()}
        else:
            self.attribution = AlgorithmAttribution(self.model, algorithm, self._targets)
        self.arguments = {"target": self.target, "project": self.project, **self._own_arguments}
        self.noise: Any = self._noisy
        if not self._with_features:
            self.noise = UniformNoise(lower_bound=0.0, upper_bound=1.0)
        elif not self._with_weights:
            self.noise = UniformNoise()

    @classmethod
    def of(
        cls, explainer: Explainer, explanation: Explanation, undirected: bool = False
    ) -> ExplainedGraph:
        """The graph of an ``Explanation`` that this explainer returned."""
        labelled = explainer.explanation_type.value == "phenomenon"
        return cls(
            explainer, explanation.x, explanation.edge_index, index=explanation.get("index"),
            target=explanation.target if labelled else None, undirected=undirected,
            **{name: explanation[name] for name in explanation._model_args},
        )  # fmt: skip

    def explanation_func(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """The maps of versions of the graph, given as ``inputs``, one at a time; for metrics.

        All versions see the same random numbers, so that a random algorithm is one function of the
        graph.
        """
        rows = list(zip(*(_leaves(tensor) for tensor in as_tuple(inputs)), strict=True))
        maps = []
        for row in rows[:-1]:
            with torch.random.fork_rng(devices=cuda_devices()):
                maps.append(self._maps(row))
        maps += [self._maps(row) for row in rows[-1:]]
        return tuple(torch.cat(tensors) for tensors in zip(*maps, strict=True))

    def project(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """The same node features, and the nearest edge weights in [0, 1]."""
        tensors = as_tuple(inputs)
        return (*tensors[:-1], tensors[-1].clamp(0, 1)) if self._with_weights else tensors

    def explain(self, inputs: Inputs | None = None) -> Explanation:
        """The ``Explanation`` of the graph, as the explainer returns it, or of a version of it.

        Of a version, ``x`` and the attribute ``message_weight`` (E,) are those of the version, and
        prediction and target those of the graph as it is.

        Args:
            inputs (tuple[Tensor, ...], optional): in the shapes of :attr:`inputs`, what an attack
                returned. Default: the graph as it is.
        """
        row = self._row(self.inputs if inputs is None else inputs)
        if isinstance(self.attribution, AlgorithmAttribution):
            explanation = self._annotated(self.attribution.explanation(row), row)
        else:
            maps = self.explanation_func(tuple(t[None] for t in row))
            explanation = self._annotated(self._spread(maps), row)
        return explanation.threshold(self.explainer.threshold_config)

    def explanation_of(self, maps: Inputs) -> Explanation:
        """An ``Explanation`` of the graph with masks of your own, 0 where nothing can matter.

        Args:
            maps (tuple[Tensor, ...]): maps as :meth:`explanation_func` returns them, of one row.
        """
        return self._annotated(self._spread(as_tuple(maps, "maps")), self._row(self.inputs))

    def _maps(self, row: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        maps = self.attribution.attribute(row, target=self.target, **self._own_arguments)
        return tuple(tensor.detach() for tensor in as_tuple(maps))

    def _look(self, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """The outputs of the model, all of them, and the targets of the explanation."""
        explainer = self.explainer
        with torch.no_grad():
            outputs = self._call.outputs(explainer.model)
        self._call.meant(outputs)
        kind = explainer.explanation_type.value
        if (target is None) != (kind == "model"):
            accepted = "None" if kind == "model" else "given"
            raise ValueError(f"target must be {accepted} for explanation_type={kind!r}")
        return outputs, explainer.get_target(outputs) if target is None else target

    def _part(self, value: Any) -> Any:
        """What a user gave for the whole graph, baselines for one, for the inputs."""
        if isinstance(value, tuple):
            return tuple(self._part(item) for item in value)
        if not isinstance(value, Tensor) or value.dim() < 2:
            return value
        if self._with_features and value.shape[1:] == self._call.x.shape:
            return value[:, self.nodes]
        if value.shape[1:] == self._call.edge_index.shape[1:] and not self.undirected:
            return value[:, self.edges]
        return value

    def _noisy(self, inputs: Inputs, perturb_radius: float) -> tuple[Tensor, ...]:
        """Uniform noise from torch's global generator, which the metrics seed."""
        moved = (t + perturb_radius * (2 * torch.rand_like(t) - 1) for t in as_tuple(inputs))
        return self.project(tuple(moved))

    def _row(self, inputs: Inputs) -> tuple[Tensor, ...]:
        shapes, expected = ([tuple(t.shape) for t in as_tuple(i)] for i in (inputs, self.inputs))
        if shapes != expected:
            raise ValueError(f"inputs must have the shapes {expected}, got {shapes}")
        return tuple(tensor[0].detach() for tensor in as_tuple(inputs))

    def _spread(self, maps: tuple[Tensor, ...]) -> Explanation:
        """The masks of one row of maps, with zeros for all that is not among the inputs."""
        from torch_geometric.explain import Explanation

        explanation = Explanation()
        rows = [tensor[0].detach() for tensor in maps]
        if self._with_features:
            mask = rows[0]  # one for all nodes, or one a node
            if len(mask) == len(self.nodes):
                mask = mask.new_zeros(len(self._call.x), mask.shape[1]).index_copy(
                    0, self.nodes, mask
                )
            explanation.node_mask = mask
        if self._with_weights:
            mask = rows[-1].new_zeros(self._call.edge_index.shape[1])
            explanation.edge_mask = mask.index_copy(0, self.edges, rows[-1][self.columns])
        return explanation

    def _annotated(self, explanation: Explanation, row: tuple[Tensor, ...]) -> Explanation:
        """With what an explainer adds: the graph, the model's arguments, outputs and targets."""
        call = self._call
        x, weights = self._whole.version(row)
        explanation._model_config = self.explainer.model_config
        explanation._model_args = list(call.arguments)
        labelled = self.explainer.explanation_type.value == "phenomenon"
        explanation.prediction = None if labelled else self._outputs
        explanation.target = self._targets
        explanation.index = None if call.index is None else torch.tensor([call.index])
        explanation.x = call.x if x is None else x
        explanation.edge_index = call.edge_index
        if weights is not None:
            explanation.message_weight = weights
        for name, value in call.arguments.items():
            explanation[name] = value
        explanation.validate_masks()
        return explanation


def _numbered(tensor: Tensor) -> Tensor:
    """An id for every feature, in the shape of the tensor."""
    return torch.arange(tensor.numel(), device=tensor.device).view_as(tensor)


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The rows of a tensor, each with its dimension, ready to be explained without a warning."""
    return [row.detach().requires_grad_() for row in tensor.split(1)]


def _is_captum(algorithm: Any) -> bool:
    from torch_geometric.explain import CaptumExplainer

    return isinstance(algorithm, CaptumExplainer)
