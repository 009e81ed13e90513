"""A metric in one of its call shapes: what is declared of it, and what the checks ask of it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from captum.attr import Saliency
from torch import Tensor

from captum_robust.testing.models import SmallModel, normal, small_models

__all__ = ["CallShape", "MapsCase", "MetricTraits", "ModelCase"]

CallShape = Literal["maps", "explanation", "model"]


@dataclass(frozen=True)
class MetricTraits:
    """What a metric claims to be; it must pass all checks of what it claims.

    Attributes:
        call (str): ``"maps"``: ``metric(attributions, reference_attributions)``, as
            :func:`~captum_robust.metrics.precision_at_k`. ``"explanation"``:
            ``metric(explanation_func, inputs, **kwargs)``, as
            :func:`~captum_robust.metrics.ranking_thickness`. ``"model"``: ``metric(forward_func,
            inputs, **kwargs)``, as :func:`~captum_robust.metrics.hessian_norm`. The metric is
            given with its other arguments bound (functools.partial).
        lowest (float): the smallest value that it can take.
        highest (float): the largest.
        perfect (float, optional): the value of an explanation that does not change: of a map and
            itself, and of a linear model. None where there is no such value.
        symmetric (bool): of maps: the two may be exchanged.
        ranks (bool): needs a ranking: a constant map gives NaN.
        seed (bool): of models: takes ``seed``.
        chunks (bool): of models: takes ``max_examples_per_batch``.
        tuples (bool): of models: takes a tuple of inputs.
        calls_model (bool): of models: calls the model, rather than to read its weights.
        half_precision (bool): works in bfloat16 and float16.
        k (str, optional): name of its argument k, which must lie in 1 … n − 1.
        radius (str, optional): name of its argument for the radius, which must not be negative.
    """

    call: CallShape = "maps"
    lowest: float = float("-inf")
    highest: float = float("inf")
    perfect: float | None = None
    symmetric: bool = False
    ranks: bool = True
    seed: bool = True
    chunks: bool = True
    tuples: bool = True
    calls_model: bool = True
    half_precision: bool = True
    k: str | None = None
    radius: str | None = None


@dataclass(frozen=True)
class MapsCase:
    """A metric of two maps, one row an example."""

    metric: Callable[..., Any]
    traits: MetricTraits = field(default_factory=MetricTraits)

    @property
    def maps(self) -> Tensor:
        """Five maps of six features without ties."""
        return normal(5, 6)

    @property
    def reference(self) -> Tensor:
        """Five other maps."""
        return normal(5, 6, seed=1)

    def value(self, maps: Any = None, reference: Any = None, **more: Any) -> Any:
        """The metric of two maps; those of the case unless told otherwise."""
        return self.metric(
            self.maps if maps is None else maps,
            self.reference if reference is None else reference,
            **more,
        )


@dataclass(frozen=True)
class ModelCase:
    """A metric of an explanation or of a model, on one small model."""

    metric: Callable[..., Any]
    traits: MetricTraits
    model: SmallModel = field(default_factory=lambda: small_models()[0])

    def value(self, network: Any = None, **changed: Any) -> Any:
        """Call the metric with a seed, unless told otherwise; warnings are dropped.

        What is None is not passed on.
        """
        network = network or self.model.build()
        given: dict[str, Any] = {"inputs": self.model.inputs, **self.model.arguments}
        if self.traits.seed:
            given["seed"] = 0
        given = {name: v for name, v in {**given, **changed}.items() if v is not None}
        subject = network if self.traits.call == "model" else Saliency(network).attribute
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.metric(subject, given.pop("inputs"), **given)
