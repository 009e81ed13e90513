"""One forward pass of a batch for the loss of its labels and all derivatives by the inputs."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple, format_like, run_forward
from captum_robust._utils.derivatives import check_second_derivative
from captum_robust._utils.precision import in_single_precision, is_coarse, single_precision
from captum_robust.attr._normalisation import composed_normalisation
from captum_robust.attr.differentiable import differentiable_attribution
from captum_robust.curvature import (
    exact_norm,
    exact_spectral_norm,
    finite_difference_norm,
    hessian_vector_norm,
)
from captum_robust.loss._gaps import gap_weights
from captum_robust.loss._repeat import Repeat
from captum_robust.loss._score import Explain, LabelledOutputs, attribute_label, input_gradient
from captum_robust.ranking import flatten_attributions, pair_features

__all__ = ["Examples", "FusedForward", "Hessian", "order_of"]

Hessian = Literal["finite_difference", "hvp", "exact", "spectral"]


def order_of(hessian: Hessian) -> int:
    """Return how many times the outputs of a loss with this norm are differentiated."""
    return 2 if hessian == "finite_difference" else 3


class Examples(NamedTuple):
    """The arguments of a call, and the groups of the features.

    The maps of ``reference_attributions``, if any, define the ranking.
    """

    inputs: Inputs
    target: Tensor
    additional_forward_args: Any = None
    reference_attributions: Inputs | None = None
    feature_mask: Inputs | None = None

    @property
    def n_examples(self) -> int:
        """The number of examples."""
        return len(as_tuple(self.inputs)[0])


class FusedForward:
    """The outputs of a batch and, on demand, the saliency of its labels and its Hessian's norm.

    Create and use it where gradients are enabled. Only the finite difference and an attribution
    call the model again.

    Args:
        forward_func: the model.
        examples: the batch.
        explain: the explained score.
        order: number of times that the outputs will be differentiated, the gradient by the
            parameters included; 2 or 3.
    """

    # Computed in another way by a compiled forward pass.
    repeat = Repeat
    gap_weights = staticmethod(gap_weights)
    pair_features = staticmethod(pair_features)

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        examples: Examples,
        explain: Explain,
        order: int = 2,
    ) -> None:
        self.forward_func = forward_func
        self.examples = examples
        self.explain = explain
        self.points = as_tuple(examples.inputs)
        self.leaves = _differentiable(self.points)
        self._normalisation = composed_normalisation() if order > 2 else None
        self._repeat = self.repeat(forward_func)
        self.outputs = self._outputs_at(self.leaves)
        self.labelled = LabelledOutputs(self.outputs, examples.target)
        if self.outputs.dim() > 0 and len(self.outputs) != len(self.points[0]):
            raise ValueError(
                "inputs must have one example per output of forward_func along dimension 0, got "
                f"{len(self.points[0])} for {len(self.outputs)} outputs; node features of a batch "
                "of graphs need captum_robust.graph.PaddedGraphs"
            )

    @cached_property
    def gradients(self) -> tuple[Tensor, ...]:
        """The gradient of each example's score, with its graph."""
        return self._gradient_of(self.labelled, self.leaves)

    def gradient_at(self, moved: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the gradient at other points, by a forward pass with other inputs only."""
        leaves = _differentiable(moved)
        with self._repeat.again():
            outputs = self._outputs_at(leaves)
        labels = self.labelled.labels.to(outputs)
        labelled = LabelledOutputs(outputs, self.examples.target, labels)
        return self._gradient_of(labelled, leaves)

    def check_derivatives(self, twice: bool) -> None:
        """Raise NotDifferentiableError unless the gradient has a derivative itself.

        Args:
            twice: whether the gradient is differentiated by the inputs too; otherwise only by the
                parameters, for which a part that is detached is a constant.
        """
        check_second_derivative(
            self.gradient_at,
            self.leaves,
            self.gradients,
            self.outputs,
            "pathless" if twice else "custom",
        )

    def scores(
        self,
        attribution: Attribution | None,
        feature_mask: Inputs | None,
        normalize: bool,
        absolute: bool = False,
    ) -> Tensor:
        """Return the scores to rank, (N, n): gradient magnitudes, or the maps of an attribution.

        With ``absolute`` the magnitudes of the maps.
        """
        if attribution is None:
            maps: Inputs = tuple(g.abs() for g in self.gradients)
        else:
            with self._normalisation or nullcontext():
                maps = attribute_label(
                    attribution,
                    format_like(self.examples.inputs, self.leaves),
                    self.outputs,
                    self.examples.target,
                    self.examples.additional_forward_args,
                )
        scores = flatten_attributions(maps, feature_mask, absolute)
        if normalize:
            total = scores.abs().sum(dim=1, keepdim=True)
            scores = scores / total.where(total > 0, 1)
        return scores

    def hessian_norm(self, hessian: Hessian, kappa: float) -> Tensor:
        """Return the norm of the input Hessian of each example's score, with its graph; (N,)."""
        if hessian == "finite_difference" and is_coarse((*self.points, self.outputs)):
            return self._norm_in_single_precision(kappa)
        if hessian == "finite_difference":
            # From the points, which may have a graph, not from leaves, which would cut it off.
            return finite_difference_norm(self.gradient_at, self.points, self.gradients, kappa)
        if hessian == "hvp":
            return hessian_vector_norm(self.leaves, self.gradients)
        norm = exact_norm if hessian == "exact" else exact_spectral_norm
        interact = self._normalisation is not None and self._normalisation.couples_examples
        return norm(self.leaves, self.gradients, interact)

    def _norm_in_single_precision(self, kappa: float) -> Tensor:
        """Return the finite difference of gradients in single precision, by two more passes.

        In half precision, rounding changes a gradient more than the step does.
        """
        wide = copy(self)
        if isinstance(self.forward_func, nn.Module):
            wide.forward_func = in_single_precision(self.forward_func)
        extra = single_precision(self.examples.additional_forward_args)
        wide.examples = self.examples._replace(additional_forward_args=extra)
        points = single_precision(self.points)
        with torch.autocast(points[0].device.type, enabled=False):
            gradients = wide.gradient_at(points)
            return finite_difference_norm(wide.gradient_at, points, gradients, kappa)

    def _outputs_at(self, leaves: tuple[Tensor, ...]) -> Tensor:
        # Fused attention has no second derivative; fused normalisation has a wrong third one.
        with self._normalisation or nullcontext(), differentiable_attribution():
            return run_forward(self.forward_func, leaves, self.examples.additional_forward_args)

    def _gradient_of(
        self, labelled: LabelledOutputs, leaves: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        weights = labelled.score_gradient(self.explain)
        return input_gradient(labelled.outputs, leaves, weights)


def _differentiable(points: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return views of the points that require gradients, and leaves with the values of the others.

    A view has a gradient of its own if one tensor is given twice, or computed from another.
    """
    for number, point in enumerate(points):
        if not point.is_floating_point():
            raise ValueError(
                f"inputs[{number}] must be floating point to be differentiated, got {point.dtype}: "
                "give embeddings instead of token ids, with a model that takes them; pass masks "
                "and indices in additional_forward_args"
            )
    return tuple(p.view_as(p) if p.requires_grad else p.detach().requires_grad_() for p in points)
