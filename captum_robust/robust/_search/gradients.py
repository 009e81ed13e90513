"""Gradients of functions of a map: by autograd, by two saliencies, or without derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from captum.attr import Attribution, Saliency
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust._utils.checks import check_choice, check_count
from captum_robust._utils.tensors import Points, flatten, gradient_or_zero, per_example, wide_dtype
from captum_robust.attr.check import require_differentiable
from captum_robust.robust._search.evaluator import Evaluator
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.slopes import Slope

__all__ = ["Gradient", "GradientMethod", "Here", "Measured", "gradient_method"]

Gradient = Literal["autograd", "finite_difference", "spsa"]


class Here(NamedTuple):
    """Points of a search, and the functions whose gradients are needed there.

    Attributes:
        points: leaves, in the precision of the inputs.
        region: the region in which they lie.
        guide: the attribution that is differentiated.
        scores: scores of the guide at the points of the path, if the evaluation of the points has
            computed them in the form that :attr:`~GradientMethod.keeps` names.
        values: the functions of these scores, if they are known already.
        slopes: the gradients of these functions, if they are known already.
        maps: signed maps of the guide, if they are known already, else empty.
        of_scores: Q functions of scores, (m,) each.
        guide_scores: computes the scores of the guide at any points, with their graph or without.
        of_results: computes results of the model at any points, with their graph or without, and
            E functions of them, (m,) each.
        generators: random generators of the examples, for methods that draw numbers.
        plain: whether the gradients fit the dtypes on the way without scaling.
        wants_values: whether the values at the points are used, besides the gradients.
    """

    points: Points
    region: Region
    guide: Evaluator
    scores: list[Tensor] | None
    values: list[Tensor] | None
    slopes: list[Slope] | None
    maps: Points
    of_scores: Callable[[list[Tensor]], list[Tensor]]
    guide_scores: Callable[[Points, bool], list[Tensor]]
    of_results: Callable[[Points, bool], tuple[list[Tensor], list[Tensor]]]
    generators: list[torch.Generator]
    plain: bool = False
    wants_values: bool = False


class Measured(NamedTuple):
    """Functions at some points and their gradients: those of the scores, then of the results."""

    values: list[Tensor]  #: Q values; empty where they are not used
    slopes: list[Slope]  #: Q gradients
    of_results: list[Tensor]  #: E values
    slopes_of_results: list[Slope]  #: E gradients; empty where they have no effect


class GradientMethod(ABC):
    """A method for gradients, by the points, of functions of scores and of results."""

    #: What :meth:`measure` uses of the evaluation of a point: a graph, signed maps, or nothing.
    keeps: ClassVar[Literal["graph", "maps", "nothing"]] = "nothing"
    #: True if the method differentiates the results of the model.
    differentiates: ClassVar[bool] = True
    #: True if the method draws random numbers.
    random: ClassVar[bool] = False

    @abstractmethod
    def check(self, guide: Attribution) -> None:
        """Raise an error unless the method can follow the attribution."""

    @abstractmethod
    def measure(self, here: Here) -> Measured:
        """Return the functions and their gradients at some points."""

    @property
    @abstractmethod
    def cost(self) -> int:
        """Number of attributions per step, besides the one that scores the point."""


@dataclass(frozen=True)
class Autograd(GradientMethod):
    """The derivative of the map itself."""

    keeps = "graph"

    def check(self, guide: Attribution) -> None:
        """Raise NotDifferentiableError for an attribution without a correct gradient."""
        require_differentiable(guide)

    def measure(self, here: Here) -> Measured:
        """Differentiate each function with one backward pass."""
        # The results come first, before a shared graph of the scores is freed.
        of_results, slopes_of_results = _of_results(here)
        if here.slopes is not None and here.values is not None:
            return Measured(here.values, here.slopes, of_results, slopes_of_results)
        scores = here.scores or here.guide_scores(here.points, True)
        values = here.of_scores(scores) if here.values is None else here.values
        between = None if here.plain else scores
        slopes = [
            autograd_slope(value, between, here.points, retain_graph=number + 1 < len(values))
            for number, value in enumerate(values)
        ]
        return Measured([v.detach() for v in values], slopes, of_results, slopes_of_results)

    @property
    def cost(self) -> int:
        """No further attribution: the one that scores the point has the graph."""
        return 0


@dataclass(frozen=True)
class FiniteDifference(GradientMethod):
    r"""The difference of two saliencies.

    With u the derivative of a function of the map by the signed gradient :math:`g = \nabla f`, its
    gradient is :math:`H u`, here :math:`(g(x + \rho u / \|u\|) - g(x)) \|u\| / \rho`. The length
    :math:`\rho` is ``probe`` times the radius (times :math:`\sqrt{n}` for the :math:`L_\infty`
    ball). A step of this length is not meant to estimate H: it crosses the kinks of ReLU and
    max-pooling. On trained perceptrons and convolutions twice the radius closes up to three times
    as much of the gap as half the radius, and about as much on their softplus versions.
    """

    probe: float
    keeps = "maps"

    def check(self, guide: Attribution) -> None:
        """Raise ValueError for anything but Saliency."""
        if type(guide) is not Saliency:
            raise ValueError(
                "gradient='finite_difference' needs Saliency, whose map is the gradient itself, "
                f"got {type(guide).__name__}; use gradient='autograd' or 'spsa'"
            )

    def measure(self, here: Here) -> Measured:
        """Difference one more saliency per function with that of the points."""
        of_results, slopes_of_results = _of_results(here)
        maps = here.maps or as_tuple(here.guide.maps(here.points, graph=False, abs=False))
        signed = tuple(m.detach().to(wide_dtype(m)).requires_grad_() for m in maps)
        scores = here.guide.scores_of_signed(signed)
        values = here.of_scores([scores])
        slopes = []
        for number, value in enumerate(values):
            more = number + 1 < len(values)
            ahead = autograd_slope(value, [scores], signed, retain_graph=more)
            slopes.append(self._difference(here, signed, ahead))
        return Measured([v.detach() for v in values], slopes, of_results, slopes_of_results)

    def _difference(self, here: Here, signed: Points, along: Slope) -> Slope:
        radius = here.region.radius
        n_features = sum(p[0].numel() for p in here.points)
        distance = self.probe * radius * (n_features**0.5 if here.region.norm == "Linf" else 1.0)
        length = flatten(along.direction).norm(dim=1)
        scale = distance / length.clamp_min(1e-30)
        moved = tuple(
            (p.detach() + (d * per_example(scale, d)).to(p)).requires_grad_()
            for p, d in zip(here.points, along.direction, strict=True)
        )
        ahead = as_tuple(here.guide.maps(moved, graph=False, abs=False))
        difference = tuple((a - m).detach() for a, m in zip(ahead, signed, strict=True))
        factor = length / distance.clamp_min(1e-30)
        return Slope(difference, factor if along.factor is None else along.factor * factor)

    @property
    def cost(self) -> int:
        """One saliency, at the other end of the difference."""
        return 1


@dataclass(frozen=True)
class SPSA(GradientMethod):
    r"""Simultaneous perturbation (Spall 1992), for maps without derivatives.

    The mean over random signs :math:`\Delta` of
    :math:`\frac{L(x + c\Delta) - L(x - c\Delta)}{2c} \Delta`, for all functions L from the same
    probes, with :math:`c\Delta` as long as the radius. Shorter probes miss the kinks of ReLU
    networks: probes of a tenth of the radius closed at most half as much of the gap there. Features
    that the mask excludes are not probed. One generator of signs per example; two attributions per
    direction.
    """

    n_directions: int
    differentiates = False
    random = True

    def check(self, guide: Attribution) -> None:
        """Accept any attribution."""

    def measure(self, here: Here) -> Measured:
        """Return the functions at the points, and their gradients from probes around the points."""
        values: list[Tensor] = []
        of_results = [v.detach() for v in here.of_results(here.points, False)[1]]
        if here.wants_values:
            scores = here.scores or here.guide_scores(here.points, False)
            values = [v.detach() for v in here.of_scores(scores)]
        slopes = self._slopes(here)
        n = len(slopes) - len(of_results)
        return Measured(values, slopes[:n], of_results, slopes[n:])

    def _slopes(self, here: Here) -> list[Slope]:
        masks = here.region.mask or (None,) * len(here.points)
        length = here.region.radius
        if here.region.norm == "L2":
            length = length / _n_free(here.points, masks).clamp_min(1).to(length).sqrt()
        totals: list[list[Tensor]] = []
        for _ in range(self.n_directions):
            signs = tuple(
                _signs(p, here.generators, mask) for p, mask in zip(here.points, masks, strict=True)
            )
            ends = []
            for sign in (1, -1):
                moved = tuple(
                    (p.detach() + sign * per_example(length.to(p), p) * s).requires_grad_()
                    for p, s in zip(here.points, signs, strict=True)
                )
                values = here.of_scores(here.guide_scores(moved, False))
                ends.append([v.detach() for v in values + here.of_results(moved, False)[1]])
            slopes = [ahead - behind for ahead, behind in zip(*ends, strict=True)]
            totals = totals or [
                [torch.zeros_like(p, dtype=wide_dtype(p)) for p in here.points] for _ in slopes
            ]
            for slope, total in zip(slopes, totals, strict=True):
                for part, s in zip(total, signs, strict=True):
                    part += per_example(slope.to(part), part) * s
        factor = 1 / (2 * self.n_directions * length.clamp_min(1e-30))
        return [Slope(tuple(total), factor) for total in totals]

    @property
    def cost(self) -> int:
        """Two attributions per direction, one at each end."""
        return 2 * self.n_directions


def gradient_method(name: Gradient, probe: float, n_directions: int) -> GradientMethod:
    """Return the method called ``name``; each method uses only some of the numbers.

    Raises:
        ValueError: for another name, or numbers outside their ranges.
    """
    check_choice("gradient", name, get_args(Gradient))
    if not 0 < probe < float("inf"):
        raise ValueError(f"probe must be positive and finite, got {probe}")
    check_count("n_directions", n_directions, 1)
    made: dict[str, GradientMethod] = {
        "autograd": Autograd(),
        "finite_difference": FiniteDifference(probe),
        "spsa": SPSA(n_directions),
    }
    return made[name]


def autograd_slope(
    values: Tensor, scores: list[Tensor] | None, points: Points, retain_graph: bool = False
) -> Slope:
    """Return the gradient of values (N,), through ``scores`` if given; zero outside the graph.

    Through the scores, the chain rule has two parts, and each example is scaled in between: the
    slope of a sum over many pairs may exceed the range of half precision.
    """
    keep = retain_graph or None
    if not values.requires_grad:
        return Slope(tuple(torch.zeros_like(p) for p in points), None)
    if scores is None:
        return Slope(gradient_or_zero([values.sum()], points, retain_graph=keep), None)
    slopes = gradient_or_zero([values.sum()], scores, retain_graph=keep)
    largest = torch.cat([s.abs().reshape(len(s), -1) for s in slopes], dim=1).amax(dim=1)
    unit = [s / per_example(largest.clamp_min(torch.finfo(s.dtype).tiny), s) for s in slopes]
    return Slope(gradient_or_zero(scores, points, unit, retain_graph=keep), largest)


def _of_results(here: Here) -> tuple[list[Tensor], list[Slope]]:
    """Return functions of the results and their gradients by autograd."""
    results, values = here.of_results(here.points, True)
    slopes = [
        autograd_slope(value, results, here.points, retain_graph=True)
        for value in values
        if results  # else the constraints have no effect
    ]
    return [v.detach() for v in values], slopes


def _signs(points: Tensor, generators: list[torch.Generator], mask: Tensor | None) -> Tensor:
    drawn = [torch.randint(0, 2, points.shape[1:], generator=g) for g in generators]
    signs = (2 * torch.stack(drawn) - 1).to(points)
    return signs if mask is None else signs * mask


def _n_free(points: Points, masks: tuple[Tensor | None, ...]) -> Tensor:
    """Number of features that may move, of all tensors; (N,)."""
    counts = [
        torch.full((len(p),), p[0].numel(), device=p.device)
        if mask is None
        else mask.flatten(1).sum(dim=1)
        for p, mask in zip(points, masks, strict=True)
    ]
    return torch.stack(counts).sum(dim=0)
