"""Rules on random attributions, which are functions of one example and a seed.

The map of an example is what Captum returns for this example alone after the generators were set
to the seed of the call.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust._utils.random import seeded
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.metric_case import ModelCase
from captum_robust.testing.models import N_EXAMPLES, SmallModel
from captum_robust.testing.report import require, require_close

__all__ = [
    "check_random_map_at_radius_zero_is_perfect",
    "check_random_map_has_no_neighbours",
    "check_random_map_is_scored_as_by_captum",
    "check_random_map_is_the_same_in_every_batch",
]

_SEED = 0  # of every call of the cases


class NoisyModel(nn.Module):
    """A model whose inputs are multiplied by uniform noise from torch's global generator.

    Its saliency is random, also where that of the model is constant.
    """

    def __init__(self, model: SmallModel) -> None:
        super().__init__()
        self.model = model.build()
        self.n_inputs = len(as_tuple(model.inputs))

    def forward(self, *arguments: Any) -> Any:
        """Return the output of the model at noisy inputs."""
        inputs, further = arguments[: self.n_inputs], arguments[self.n_inputs :]
        return self.model(*(x * (0.5 + torch.rand_like(x)) for x in inputs), *further)


class _NoisyCase(AttackCase):
    """The case with noise in the model."""

    def attack(self, network: nn.Module | None = None, **options: Any) -> Any:
        return super().attack(network or NoisyModel(self.model), **options)

    def maps(self, points: Inputs) -> Inputs:
        """Return the saliency by Captum itself, of every example alone with the seed."""
        saliency = Saliency(NoisyModel(self.model))
        rows: list[tuple[Tensor, ...]] = []
        for row in range(N_EXAMPLES):
            leaves = tuple(p.detach()[row : row + 1].requires_grad_() for p in as_tuple(points))
            arguments = self.model.rows([row])[1]
            with seeded(_SEED):
                found = saliency.attribute(format_like(points, leaves), **arguments)
            rows.append(tuple(m.detach() for m in as_tuple(found)))
        joined = tuple(torch.cat(tensors) for tensors in zip(*rows, strict=True))
        maps: Inputs = format_like(points, joined)
        return maps


def _noisy(case: AttackCase) -> _NoisyCase:
    return _NoisyCase(case.factory, case.model, case.norm, case.traits)


def check_random_map_is_scored_as_by_captum(case: AttackCase) -> None:
    """The objective reported for a random map is that of stock Captum for each example and seed."""
    noisy = _noisy(case)
    moved, info = noisy.perturb(return_info=True)
    value, reported = noisy.objective(moved), getattr(info, case.traits.info or "")
    require_close(
        reported.to(value),
        value,
        f"reports {reported.tolist()}, the returned inputs have {value.tolist()}",
        1e-6,
    )


def check_random_map_is_the_same_in_every_batch(case: AttackCase) -> None:
    """The result for an example with a random map is the same in every chunk, order, and alone."""
    noisy = _noisy(case)
    whole = as_tuple(noisy.perturb())
    chunked = as_tuple(noisy.perturb(max_examples_per_batch=2))
    require_close(chunked, whole, "max_examples_per_batch=2 changed the result", 1e-6)
    for order in ([3, 1, 4, 0, 2], [2]):
        inputs, arguments = case.model.rows(order)
        moved = as_tuple(noisy.perturb(inputs=inputs, **arguments))
        expected = tuple(t[order] for t in whole)
        require_close(moved, expected, f"rows {order} have other results", 1e-6)


def _values(case: ModelCase) -> Iterator[tuple[str, Callable[..., Tensor]]]:
    """Yield the metric as a function of its arguments, on random maps and models."""
    noisy = NoisyModel(case.model)
    yield "a model with noise", lambda **changed: case.value(noisy, **changed)
    if case.traits.call == "explanation":
        tunnel = NoiseTunnel(Saliency(case.model.build()))
        draws = {"nt_samples": 3, "stdevs": 0.5}
        inner = ModelCase(
            lambda _, inputs, **kwargs: case.metric(tunnel.attribute, inputs, **draws, **kwargs),
            case.traits,
            case.model,
        )
        yield "NoiseTunnel", inner.value


def check_random_map_at_radius_zero_is_perfect(case: ModelCase) -> None:
    """At radius 0 nothing moves, so a random map has exactly the declared perfect value."""
    for name, value_of in _values(case):
        value = value_of(**{case.traits.radius or "": 0.0})
        require(
            torch.eq(value, case.traits.perfect or 0.0).all(),
            f"{name} at radius 0: {value.tolist()}",
        )


def check_random_map_has_no_neighbours(case: ModelCase) -> None:
    """The value of an example with a random map is the same in every chunk, order, and alone."""
    for name, value_of in _values(case):
        whole = value_of()
        if case.traits.chunks:
            value = value_of(max_examples_per_batch=3)
            require_close(value, whole, f"{name}: max_examples_per_batch=3 changed values", 1e-6)
        for order in ([3, 1, 4, 0, 2], [2]):
            inputs, arguments = case.model.rows(order)
            value = value_of(inputs=inputs, **arguments)
            require_close(value, whole[order], f"{name}: rows {order} have other values", 1e-6)
