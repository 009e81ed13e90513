"""A metric, its call shape and declared properties, and the values that checks need."""

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
    """Declared properties of a metric, which decide which checks apply.

    Attributes:
        call (str): ``"maps"``: ``metric(attributions, reference_attributions)``, as
            :func:`~captum_robust.metrics.precision_at_k`. ``"explanation"``:
            ``metric(explanation_func, inputs, **kwargs)``, as
            :func:`~captum_robust.metrics.ranking_thickness`. ``"model"``: ``metric(forward_func,
            inputs, **kwargs)``, as :func:`~captum_robust.metrics.hessian_norm`. Bind the other
            arguments of the metric with functools.partial.
        lowest (float): smallest possible value.
        highest (float): largest possible value.
        perfect (float, optional): value of an explanation that does not change: of two equal maps,
            and of a linear model. None: there is no such value.
        symmetric (bool): both maps may be exchanged.
        ranks (bool): requires a ranking: a constant map gives NaN.
        seed (bool): takes ``seed``; for metrics of models.
        chunks (bool): takes ``max_examples_per_batch``; for metrics of models.
        tuples (bool): takes a tuple of inputs; for metrics of models.
        calls_model (bool): calls the model instead of reading its weights; for metrics of models.
        moves_inputs (bool): judges the explanation by those of other inputs nearby; for metrics of
            models.
        half_precision (bool): works in bfloat16 and float16.
        k (str, optional): name of the argument k, which must lie in 1 … n − 1.
        radius (str, optional): name of the argument for the radius, which must not be negative.
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
    moves_inputs: bool = True
    half_precision: bool = True
    k: str | None = None
    radius: str | None = None


@dataclass(frozen=True)
class MapsCase:
    """A metric of two maps, one row per example."""

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
        """Return the metric of two maps. Default: those of the case."""
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
        """Call the metric with a seed and with ``changed`` arguments.

        Warnings are ignored, and arguments that are None are left out.
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
