"""Scores of an attribution and the prediction of its model, with the fewest forwards."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from captum.attr import (
    Attribution,
    GradientShap,
    InputXGradient,
    KernelShap,
    LayerGradientShap,
    Lime,
    NeuronGradientShap,
    NoiseTunnel,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor

from captum_robust._utils.batch import feature_mask_of_examples
from captum_robust._utils.captum import Inputs, as_tuple, like, run_forward
from captum_robust._utils.graphs import one_graph_at_a_time
from captum_robust._utils.random import reseed
from captum_robust.attr.differentiable import differentiable_attribution, summed_gradients
from captum_robust.attr.smooth import smooth_relu
from captum_robust.ranking import flatten_attributions
from captum_robust.robust.flags import in_training_mode

__all__ = ["Explanation", "Predictions"]

#: From inputs and additional arguments to the results of a model, one tensor of logits each.
Predictions = Callable[..., Inputs]

# These draw random numbers for the whole batch.
_STOCHASTIC = (
    GradientShap, KernelShap, LayerGradientShap, Lime, NeuronGradientShap, NoiseTunnel,
    ShapleyValueSampling,
)  # fmt: skip

# These call the model once, on the inputs themselves, so that its output is the prediction.
_FORWARD_AT_INPUTS = (Saliency, InputXGradient)


class Explanation:
    """An attribution of some examples, evaluated at perturbed inputs.

    Counts its evaluations. Every evaluation sees the same random numbers, so that a stochastic
    attribution is one function of the inputs. ``rows`` are the indices of these examples in a batch
    of ``n_examples``, where they are only a part of it.
    """

    def __init__(
        self,
        attribution: Attribution,
        given: Inputs,
        arguments: dict[str, Any],
        absolute: bool,
        feature_mask: Inputs | None,
        seed: int,
        smooth_beta: float | None = None,
        rows: Tensor | None = None,
        n_examples: int = 0,
    ) -> None:
        self.given = given
        self.arguments = arguments
        self.absolute = absolute
        self.feature_mask = feature_mask
        self.seed = seed
        self.smooth_beta = smooth_beta
        self.rows = rows
        self.n_examples = n_examples
        self.n_queries = 0
        self._graph = False
        self.map_dtype = torch.float32  # of the map, once one was made
        self.map_shapes: tuple[tuple[int, ...], ...] = ()  # of one example, once one was explained
        self.forward_func = getattr(attribution, "attribution_method", attribution).forward_func
        self._recorder = _Recorder(self.forward_func)
        self.attribution = _own(attribution)
        if type(attribution) in _FORWARD_AT_INPUTS:
            self.attribution.forward_func = self._recorder

    def maps(self, points: tuple[Tensor, ...], graph: bool, **changed: Any) -> Inputs:
        """The attributions at ``points``, with their graph or without."""
        self.n_queries += 1
        self._graph = graph
        self._recorder.watch(points)
        reseed(self.seed)
        with ExitStack() as modes:
            modes.enter_context(one_graph_at_a_time())
            modes.enter_context(differentiable_attribution() if graph else summed_gradients())
            if self.smooth_beta is not None:
                modes.enter_context(smooth_relu(self.smooth_beta))
            maps: Inputs = _own(self.attribution).attribute(
                like(self.given, points), **{**self.arguments, **changed}
            )
        return maps

    def scores(self, points: tuple[Tensor, ...], graph: bool) -> Tensor:
        """The scores (N, n) at ``points``, in at least single precision."""
        return self.as_scores(self.maps(points, graph))

    def as_scores(self, maps: Inputs) -> Tensor:
        """The scores of maps of the attribution, whose form is noted."""
        self.map_dtype = as_tuple(maps, "attributions")[0].dtype
        self.map_shapes = tuple(tuple(m.shape[1:]) for m in as_tuple(maps, "attributions"))
        return self.flattened(maps)

    def flattened(self, maps: Inputs) -> Tensor:
        """Flattened, joined and grouped maps of these examples."""
        scores = flatten_attributions(maps, self._groups(maps), self.absolute)
        return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores

    def _groups(self, maps: Inputs) -> Inputs | None:
        """The feature mask of these examples."""
        if self.feature_mask is None or self.rows is None:
            return self.feature_mask
        n_dims = [m.dim() for m in as_tuple(maps, "attributions")]
        return feature_mask_of_examples(self.feature_mask, self.rows, self.n_examples, n_dims)

    def scores_of_signed(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """The scores of a Saliency, from its gradients with their sign."""
        magnitudes = self.arguments.get("abs", True)
        return self.as_scores(tuple(g.abs() for g in gradients) if magnitudes else gradients)

    @property
    def depends_on_the_batch(self) -> bool:
        """Whether leaving out some examples would change the maps of the others."""
        return isinstance(self.attribution, _STOCHASTIC) or in_training_mode(self.forward_func)

    def outputs(self, points: tuple[Tensor, ...], graph: bool = False) -> Tensor:
        """The output of the model at ``points``, from the attribution's own forward if it can.

        With its graph, unless that of the maps is there, it takes a forward of its own.
        """
        seen = self._recorder.output
        lost = graph and not self._graph
        if lost or seen is None or not self._recorder.watches(points):
            with torch.set_grad_enabled(graph):
                reseed(self.seed)
                arguments = self.arguments.get("additional_forward_args")
                seen = run_forward(self.forward_func, points, arguments)
        return seen if graph else seen.detach()

    def results(
        self, points: tuple[Tensor, ...], predictions: Predictions | None, graph: bool = False
    ) -> tuple[Tensor, ...]:
        """What must be predicted as before, one tensor of logits a result: by default the output.

        Further results of the model take a forward of their own.
        """
        if predictions is None:
            return (self.outputs(points, graph),)
        with torch.set_grad_enabled(graph):
            reseed(self.seed)
            arguments = self.arguments.get("additional_forward_args")
            found = as_tuple(run_forward(predictions, points, arguments), "predictions")
        if len(found[0]) != len(points[0]):
            raise ValueError(
                f"predictions must return tensors with one row an example, {len(points[0])}, "
                f"got {len(found[0])}"
            )
        return found


def _own(attribution: Attribution) -> Attribution:
    """A copy for one call: Captum keeps flags and hook handles, and DeepLift all handles ever."""
    own = copy.copy(attribution)
    for name, value in vars(attribution).items():
        if isinstance(value, Attribution):
            own.__dict__[name] = _own(value)
        elif isinstance(value, list | dict):
            own.__dict__[name] = copy.copy(value)
    return own


class _Recorder:
    """A forward function that remembers the output at the watched inputs."""

    def __init__(self, forward_func: Callable[..., Tensor]) -> None:
        self.forward_func = forward_func
        self.output: Tensor | None = None
        self._points: tuple[Tensor, ...] = ()

    def __call__(self, *args: Any) -> Tensor:
        output = self.forward_func(*args)
        if self.watches(args[: len(self._points)]):
            self.output = output
        return output

    def watch(self, points: tuple[Tensor, ...]) -> None:
        self._points, self.output = points, None

    def watches(self, points: tuple[Any, ...]) -> bool:
        return len(points) == len(self._points) and all(
            p is q for p, q in zip(points, self._points, strict=True)
        )
