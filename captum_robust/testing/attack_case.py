"""An attack on a small model: what is declared of it, and what the checks ask of it."""

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

# What an attack minimises: the maps at a point and at the example, to one value an example.
Judge = Callable[[Inputs, Inputs], Tensor]


def steps_of_one_size(n_steps: int, radius: float) -> dict[str, Any]:
    """Arguments of ``perturb`` for so many steps, which overshoot and do not shrink."""
    return {"step_num": n_steps, "step_size": 0.7 * radius}


@dataclass(frozen=True)
class AttackTraits:
    """What an attack claims to do; it must pass all checks of what it claims.

    The defaults claim everything that the attacks of this library do. What an attack does not
    claim is declared, and the checks of it are left out for that reason only.

    Attributes:
        norms (tuple[str, ...]): values of the argument ``norm``.
        effort (Callable): ``effort(n_steps, radius)``, the arguments of ``perturb`` for so much
            work, such that more steps continue fewer.
        objective (Callable, optional): what the attack minimises, ``objective(maps,
            reference_maps)`` of shape (N,), in the call shape of a metric. Default: the attribute
            ``objective`` of the attack, a function of flattened maps (N, n); without one, the share
            of the top k that is left.
        objective_of_maps (bool): what it minimises is a function of the maps alone; otherwise its
            strength cannot be told from outside, and the rules that compare it are left out.
        keeps_prediction (bool): returned inputs are predicted as the examples are.
        keeps_best (bool): ``effort(n + m, radius)`` never finds less than ``effort(n, radius)``,
            for every example; otherwise no worse on the mean.
        restarts (bool): takes ``n_restarts`` and keeps the best for each example.
        warm_start (bool): takes ``start`` and never makes it worse; otherwise a larger radius must
            be no weaker on the mean.
        bounds (bool): the factory takes ``lower_bound`` and ``upper_bound``.
        mask (bool): takes ``mask``.
        radius_per_example (bool): takes a radius of shape (N,).
        info (str, optional): takes ``return_info``; the info says what the objective is, (N,), in
            this attribute. None: there is no info.
        beats_noise (bool): finds more than random draws do, which is no more than a claim of
            robustness needs; otherwise it must find anything at all, or warn.
        aims_at_top_k (bool): what it looks for is another top k.
    """

    norms: tuple[str, ...] = ("Linf", "L2")
    effort: Callable[[int, float], Mapping[str, Any]] = steps_of_one_size
    objective: Judge | None = None
    objective_of_maps: bool = True
    keeps_prediction: bool = True
    keeps_best: bool = True
    restarts: bool = True
    warm_start: bool = True
    bounds: bool = True
    mask: bool = True
    radius_per_example: bool = True
    info: str | None = "objective"
    beats_noise: bool = True
    aims_at_top_k: bool = True


@dataclass(frozen=True)
class AttackCase:
    """An attack, one small model and one norm."""

    factory: Callable[..., Any]
    model: SmallModel = field(default_factory=lambda: small_models()[0])
    norm: str = "Linf"
    traits: AttackTraits = field(default_factory=AttackTraits)

    def attack(self, network: nn.Module | None = None, **options: Any) -> Any:
        """The attack on the saliency of the model."""
        return self.factory(Saliency(network or self.model.build()), self.model.k, **options)

    def effort(self, n_steps: int) -> dict[str, Any]:
        """The arguments of so many steps."""
        return dict(self.traits.effort(n_steps, self.model.radius))

    def perturb(self, attack: Any = None, **changed: Any) -> Any:
        """Call the attack with a few steps and a seed, unless told otherwise; warnings are dropped.

        What is None is not passed on.
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
        """The saliency at ``points`` by Captum itself."""
        leaves = tuple(p.detach().clone().requires_grad_() for p in as_tuple(points))
        saliency = Saliency(self.model.build())
        maps: Inputs = saliency.attribute(format_like(points, leaves), **self.model.arguments)
        return format_like(points, tuple(m.detach() for m in as_tuple(maps)))  # type: ignore[no-any-return]

    def objective(self, moved: Inputs) -> Tensor:
        """What the attack minimises, at the returned inputs, on the real model; (N,)."""
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
        """The predictions of the model; (N,)."""
        arguments = self.model.draw_arguments() or None
        with torch.no_grad():
            outputs = run_forward(self.model.build(), as_tuple(points), arguments)
        return predicted_labels(outputs)

    def random_points(self, n_draws: int, seed: int = 0, on_boundary: bool = False) -> list[Inputs]:
        """Uniform draws from the ball; or from the corners (Linf) or the sphere (L2) around it."""
        generator = torch.Generator().manual_seed(seed)

        def drawn(x: Tensor) -> Tensor:
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
        return [format_like(inputs, tuple(map(drawn, as_tuple(inputs)))) for _ in range(n_draws)]
