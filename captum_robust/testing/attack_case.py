"""An attack on a small model, its declared properties, and the values that checks need."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust._utils.captum import Inputs, as_tuple, format_like, run_forward
from captum_robust._utils.prediction import predicted_labels
from captum_robust.metrics import precision_at_k
from captum_robust.testing.models import SmallModel, small_models

__all__ = ["AttackCase", "AttackTraits", "Judge", "steps_of_one_size"]

# A function that an attack minimises: maps at a point and at the example to one value per example.
Judge = Callable[[Inputs, Inputs], Tensor]


def steps_of_one_size(n_steps: int, radius: float) -> dict[str, Any]:
    """Return arguments of ``perturb`` for ``n_steps`` steps of constant length."""
    return {"step_num": n_steps, "step_size": 0.7 * radius}


@dataclass(frozen=True)
class AttackTraits:
    """Declared properties of an attack, which decide which checks apply.

    The defaults are the properties of the attacks of this library. Checks are left out only for
    properties that are declared as absent.

    Attributes:
        norms (tuple[str, ...]): values of the argument ``norm``.
        effort (Callable): ``effort(n_steps, radius)``, the arguments of ``perturb`` for a number of
            steps, such that more steps continue fewer steps.
        objective (Callable, optional): function that the attack minimises, ``objective(maps,
            reference_maps)`` of shape (N,), in the call shape of a metric. Default: the attribute
            ``objective`` of the attack, a function of flattened maps (N, n); without one, precision
            at k.
        objective_of_maps (bool): the objective depends only on the maps; otherwise its value is
            not known outside the attack, and the rules that compare it are left out.
        keeps_prediction (bool): the prediction of returned inputs is that of the examples.
        keeps_best (bool): ``effort(n + m, radius)`` is never weaker than ``effort(n, radius)`` for
            any example; otherwise not weaker in the mean.
        tolerance (bool): the factory takes ``tolerance``, the largest change of an output.
        restarts (bool): takes ``n_restarts`` and keeps the best for each example.
        warm_start (bool): takes ``start`` and never makes it worse; otherwise a larger radius must
            not be weaker in the mean.
        bounds (bool): the factory takes ``lower_bound`` and ``upper_bound``.
        mask (bool): takes ``mask``.
        radius_per_example (bool): takes a radius of shape (N,).
        info (str, optional): takes ``return_info``; attribute of the info with the objective, (N,).
            None: there is no info.
        beats_noise (bool): is stronger than random draws, as every claim of robustness requires;
            otherwise it must find any change, or warn.
        aims_at_top_k (bool): searches for another top k.
        budget (bool): takes ``budget``, the largest number of attributions per example.
    """

    norms: tuple[str, ...] = ("Linf", "L2")
    effort: Callable[[int, float], Mapping[str, Any]] = steps_of_one_size
    objective: Judge | None = None
    objective_of_maps: bool = True
    keeps_prediction: bool = True
    tolerance: bool = True
    keeps_best: bool = True
    restarts: bool = True
    warm_start: bool = True
    bounds: bool = True
    mask: bool = True
    radius_per_example: bool = True
    info: str | None = "objective"
    beats_noise: bool = True
    aims_at_top_k: bool = True
    budget: bool = False


@dataclass(frozen=True)
class AttackCase:
    """An attack, one small model and one norm."""

    factory: Callable[..., Any]
    model: SmallModel = field(default_factory=lambda: small_models()[0])
    norm: str = "Linf"
    traits: AttackTraits = field(default_factory=AttackTraits)

    def attack(self, network: nn.Module | None = None, **options: Any) -> Any:
        """Return the attack on the saliency of the model."""
        return self.factory(Saliency(network or self.model.build()), self.model.k, **options)

    def effort(self, n_steps: int) -> dict[str, Any]:
        """Return the arguments for ``n_steps`` steps."""
        return dict(self.traits.effort(n_steps, self.model.radius))

    def perturb(self, attack: Any = None, **changed: Any) -> Any:
        """Call the attack with a few steps and a seed, and with ``changed`` arguments.

        Warnings are ignored, and arguments that are None are left out.
        """
        given = {
            "inputs": self.model.inputs,
            "radius": self.model.radius,
            "norm": self.norm,
            "seed": 0,
            **self.effort(4),
            **self.model.arguments,
            **changed,
        }
        given = {name: value for name, value in given.items() if value is not None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (attack or self.attack()).perturb(given.pop("inputs"), **given)

    def maps(self, points: Inputs) -> Inputs:
        """Return the saliency at ``points`` by Captum itself."""
        leaves = tuple(p.detach().clone().requires_grad_() for p in as_tuple(points))
        saliency = Saliency(self.model.build())
        maps: Inputs = saliency.attribute(format_like(points, leaves), **self.model.arguments)
        return format_like(points, tuple(m.detach() for m in as_tuple(maps)))  # type: ignore[no-any-return]

    def objective(self, moved: Inputs) -> Tensor:
        """Return the objective of the attack at the returned inputs on the real model; (N,)."""
        found, reference = self.maps(moved), self.maps(self.model.inputs)
        if self.traits.objective is not None:
            return self.traits.objective(found, reference)
        judge = getattr(self.attack(), "objective", None)
        if judge is None:
            return precision_at_k(found, reference, self.model.k)
        rows = (torch.cat([m.flatten(1) for m in as_tuple(maps)], 1) for maps in (found, reference))
        value: Tensor = judge(*rows).detach()
        return value

    def labels(self, points: Inputs) -> Tensor:
        """Return the predictions of the model; (N,)."""
        arguments = self.model.draw_arguments() or None
        with torch.no_grad():
            outputs = run_forward(self.model.build(), as_tuple(points), arguments)
        return predicted_labels(outputs)

    def random_points(self, n_draws: int, seed: int = 0, on_boundary: bool = False) -> list[Inputs]:
        """Return uniform draws from the ball, or from its corners (Linf) or its sphere (L2)."""
        generator = torch.Generator().manual_seed(seed)

        def draw(x: Tensor) -> Tensor:
            shape = (len(x), x[0].numel())
            if self.norm == "Linf":
                noise = 2 * torch.rand(shape, generator=generator, dtype=x.dtype) - 1
                noise = noise.sign() if on_boundary else noise
            else:
                noise = torch.randn(shape, generator=generator, dtype=x.dtype)
                noise = noise / noise.norm(dim=1, keepdim=True)
                if not on_boundary:
                    size = torch.rand(len(x), 1, generator=generator, dtype=x.dtype)
                    noise = noise * size ** (1 / shape[1])
            return x + self.model.radius * noise.view_as(x).to(x)

        inputs = self.model.inputs
        return [format_like(inputs, tuple(map(draw, as_tuple(inputs)))) for _ in range(n_draws)]

    def best_of_noise(self, n_draws: int) -> Tensor:
        """Return the best objective over random draws that the attack may return; (N,)."""
        best, expected = self.objective(self.model.inputs), self.labels(self.model.inputs)
        for point in self.random_points(n_draws):
            found = self.objective(point)
            if self.traits.keeps_prediction:
                found = found.where(self.labels(point) == expected, float("inf"))
            best = torch.minimum(best, found)
        return best
