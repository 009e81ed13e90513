"""The gradient-free attack: random blocks of features move to the boundary of the ball."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.tensors import Points, choose, per_example
from captum_robust.robust._search.best import better
from captum_robust.robust._search.search import Evaluation, Search
from captum_robust.robust._search.settings import Keep
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import Objective
from captum_robust.robust.swaps import SwapCountObjective

__all__ = ["RandomSearch", "RandomSearchAttack"]

_OF_GRADIENTS = (
    "compile", "gradient", "smooth_relu", "surrogate", "n_directions", "probe", "step_rule",
    "constraint", "constraint_rate",
)  # fmt: skip


_MOST_STEPS_DRAWN = 25  # at a time
_MOST_DRAWN = 100_000  # numbers per example at a time


class RandomSearch(Search):
    """Propose one random change per example and step, and keep the changes that are no worse.

    Changes that are neither better nor worse are kept too: the map of a ReLU network is constant on
    whole regions, which a search for improvements alone would never leave.
    """

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        draws = _Draws(self.region.generators(self.seed, 1 + restart), points)
        here = self._consider(0, self.region.as_inputs(points), graph=False)
        alive, merits = here.alive, self._merits_of(here)
        for step in range(1, self.step_num + 1):
            on = alive & ~self.done[self.rows]
            if self.limit.ends(step - 1) or not bool(on.any()):
                break
            if not (bool(on.all()) or self.scored.depends_on_the_batch):
                points, alive, merits = tuple(p[on] for p in points), alive[on], merits[on]
                draws.leave_out(~on)
                self._focus(self.rows[on])
            ahead = self.region.nearest(self._proposals(points, _fraction(step), draws.next()))
            here = self._consider(step, self.region.as_inputs(ahead), graph=False, alive=alive)
            alive, found = here.alive, self._merits_of(here)
            no_worse = better(found, merits) | (found == merits).all(dim=1)
            taken = here.allowed & no_worse
            merits = torch.where(taken[:, None], found, merits)
            points = choose(taken, ahead, points)
            progress()

    def _merits_of(self, here: Evaluation) -> Tensor:
        return self._merits(here.loss.detach(), here.overlap, here.allowed)

    def _proposals(self, points: Points, fraction: float, numbers: Tensor) -> Points:
        """Return points that differ in one block of one tensor, drawn in proportion to sizes."""
        sizes = [p[0].numel() for p in points]
        numbers = numbers.to(self.region.radius)
        feature, stretch = numbers[:, 0] * sum(sizes), numbers[:, 1]
        proposals, first, used = [], 0, 2
        for number, (p, c) in enumerate(zip(points, self.region.centre, strict=True)):
            size = sizes[number]
            corner, own = numbers[:, used : used + 2], numbers[:, used + 2 : used + 2 + size]
            chosen = (feature >= first) & (feature < first + size)
            first, used = first + size, used + 2 + size
            signed = (2 * own - 1).view_as(p)
            block = _window(p, corner, fraction) if p.dim() > 2 else _subset(signed.abs(), fraction)
            block = block & per_example(chosen, p)
            if self.region.mask is not None:  # excluded features would use up the radius
                block = block & self.region.mask[number]
            move = self._to_corner if self.region.norm == "Linf" else self._along_sphere
            moved = move(p - c, block, signed.sign(), stretch)
            proposals.append(torch.where(per_example(chosen, p), c + moved, p))
        return tuple(proposals)

    def _to_corner(self, way: Tensor, block: Tensor, signs: Tensor, _stretch: Tensor) -> Tensor:
        """Move the block to a random corner of the cube other than its present corner."""
        stays = ((way.sign() == signs) | ~block).flatten(1).all(dim=1)
        signs = torch.where(per_example(stays, way), -signs, signs)
        return torch.where(block, per_example(self.region.radius, way) * signs, way)

    def _along_sphere(self, way: Tensor, block: Tensor, signs: Tensor, stretch: Tensor) -> Tensor:
        """Set the block to entries of one random size, and scale the whole to the radius."""
        radius = self.region.radius
        entry = 2 * stretch * radius / math.sqrt(way[0].numel())
        way = torch.where(block, per_example(entry, way) * signs, way)
        length = way.flatten(1).norm(dim=1).clamp_min(1e-30)
        return way * per_example(radius / length, way)


class _Draws:
    """Uniform numbers for the proposals of every step, of one generator per example.

    The numbers of several steps are drawn at once, because a draw has a fixed cost.
    """

    def __init__(self, generators: list[torch.Generator], points: Points) -> None:
        sizes = [p[0].numel() for p in points]
        self._generators = generators
        self._n_numbers = 2 + sum(sizes) + 2 * len(sizes)
        self._n_steps = max(1, min(_MOST_STEPS_DRAWN, _MOST_DRAWN // self._n_numbers))
        self._ahead: list[Tensor] = []

    def next(self) -> Tensor:
        """Return the numbers of one step; (m, numbers)."""
        if not self._ahead:
            shape = (self._n_steps, self._n_numbers)
            drawn = [torch.rand(shape, generator=g) for g in self._generators]
            self._ahead = list(torch.stack(drawn, dim=1).unbind(dim=0))
        return self._ahead.pop(0)

    def leave_out(self, out: Tensor) -> None:
        """Draw no more for the examples where ``out`` (m,) is true."""
        on = (~out).cpu()
        self._generators = [self._generators[i] for i in on.nonzero()[:, 0].tolist()]
        self._ahead = [numbers[on] for numbers in self._ahead]


def _fraction(step: int) -> float:
    """Return the fraction of features in a block: 0.76 in the first step, 0.08 in the 1000th."""
    return 0.8 / math.sqrt(1 + step / 10)


def _window(image: Tensor, corner: Tensor, fraction: float) -> Tensor:
    """Return a square of pixels in all channels, which wraps around the borders."""
    height, width = image.shape[-2:]
    side = max(1, round(math.sqrt(fraction * height * width)))
    inside = [
        (torch.arange(n).to(corner) - (u * n).floor()[:, None]) % n < side
        for n, u in zip((height, width), corner.T, strict=True)
    ]
    square: Tensor = inside[0][:, :, None] & inside[1][:, None, :]
    return square.view(-1, *(1,) * (image.dim() - 3), height, width).expand_as(image)


def _subset(numbers: Tensor, fraction: float) -> Tensor:
    """Choose every column with probability ``fraction``, and at least one; numbers are uniform."""
    chosen: Tensor = (numbers < fraction) | (numbers == numbers.amin(dim=1, keepdim=True))
    return chosen


class RandomSearchAttack(ExplanationAttack):
    r"""Search the ball at random for the input that loses the most of the top k features.

    Every step proposes to move a random block of features to random corners of the ball. The
    proposal is accepted unless precision at k rises or, at equal precision, a smooth count of the
    top-k features that remain. In images, tensors of at least three dimensions, a block is a square
    of pixels in all channels; in tables it is any set of features. A block has 76 % of all features
    at first, and 8 % at step 1000. In the :math:`L_2` ball the block gets entries of random signs
    and one random size, and the perturbation is scaled to the radius; on tables this finds about as
    much as the same number of draws of noise.

    The attack uses scores only. A misleading gradient cannot weaken it, and it works with any
    attribution, such as DeepLift or feature ablation. One step is one attribution. Where it finds
    more than an attack that follows a gradient, the gradient is masked. Source: Square Attack
    (Andriushchenko, Croce, Flammarion, Hein 2020, arXiv 1912.00049), for the block, the corners and
    the schedule. Unlike there, every feature of a block has a sign of its own, and changes that are
    neither better nor worse are accepted, which finds more on ReLU networks.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int): size of the top set, 1 <= k < n.
        objective (Callable, optional): objective that decides among points of equal precision, as
            in :class:`ExplanationAttack`. Default: a smooth count of the top-k features that
            remain.
        keep (str, optional): ``"precision"``: precision at k counts first; examples that cannot
            lose another feature cost no further queries. ``"objective"``: the objective alone.
        **options: as in :class:`ExplanationAttack`, without those of gradients and soft
            constraints. By default ``perturb`` takes ten steps per feature, at least 200 and at
            most 1000; ``step_size`` is ignored.

    Examples::

        >>> from captum.attr import FeatureAblation
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> x, attack = torch.randn(4, 9), RandomSearchAttack(FeatureAblation(model), k=3)
        >>> _, info = attack.perturb(x, 0.5, target=1, step_num=50, seed=0, return_info=True)
        >>> bool((info.objective < info.trace[0, 0]).all())
        True
    """

    searcher = RandomSearch

    def __init__(
        self,
        attribution: Attribution,
        k: int,
        objective: Objective | None = None,
        keep: Keep = "precision",
        **options: Any,
    ) -> None:
        unused = [name for name in _OF_GRADIENTS if name in options]
        if unused:
            raise ValueError(f"{unused[0]} has no meaning for a search without gradients")
        # The gradient method that every attribution supports.
        options["gradient"] = "spsa"
        super().__init__(attribution, objective or SwapCountObjective(k), keep=keep, **options)

    def default_step_num(self, inputs: tuple[Tensor, ...]) -> int:
        """Return ten steps per feature, at least 200 and at most 1000."""
        return min(1000, max(200, 10 * sum(t[0].numel() for t in inputs)))
