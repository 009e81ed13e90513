"""The attack without a gradient: blocks of features jump to the edge of the ball, at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust.robust._search.region import per_example
from captum_robust.robust._search.search import Keep, Look, Points, Search, better
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import Objective
from captum_robust.robust.swaps import SwapCountObjective

__all__ = ["RandomSearch", "RandomSearchAttack"]

_OF_GRADIENTS = (
    "gradient", "smooth_relu", "surrogate", "n_directions", "probe", "step_rule", "constraint",
    "constraint_rate",
)  # fmt: skip


class RandomSearch(Search):
    """Proposes one random change of every example a step, and keeps those that are no worse.

    Nor better either, on purpose: the map of a ReLU network is constant on whole pieces, and a
    search that stood still there would see nothing beyond.
    """

    def _descend(self, points: Points, restart: int, progress: Callable[[], Any]) -> None:
        generators = self.region.generators(self.seed, 1 + restart)
        look = self._consider(0, self.region.as_inputs(points), graph=False)
        alive, merits = look.alive, self._merits_of(look)
        for step in range(1, self.step_num + 1):
            on = alive & ~self.done[self.rows]
            if not bool(on.any()):
                break
            if not (bool(on.all()) or self.scored.depends_on_the_batch):
                points, alive, merits = tuple(p[on] for p in points), alive[on], merits[on]
                generators = [generators[i] for i in on.nonzero()[:, 0]]
                self._focus(self.rows[on])
            ahead = self.region.nearest(self._proposals(points, _share(step), generators))
            look = self._consider(step, self.region.as_inputs(ahead), graph=False, alive=alive)
            alive, found = look.alive, self._merits_of(look)
            no_worse = better(found, merits) | (found == merits).all(dim=1)
            taken = look.allowed & no_worse
            merits = torch.where(taken[:, None], found, merits)
            points = tuple(
                torch.where(per_example(taken, p), a, p) for p, a in zip(points, ahead, strict=True)
            )
            progress()

    def _merits_of(self, look: Look) -> Tensor:
        return self._merits(look.loss.detach(), look.overlap, look.allowed)

    def _proposals(self, points: Points, share: float, generators: list[torch.Generator]) -> Points:
        """Points that differ in one block of one tensor, drawn in proportion to its features."""
        sizes = [p[0].numel() for p in points]
        n_numbers = 2 + sum(sizes) + 2 * len(sizes)
        numbers = torch.stack([torch.rand(n_numbers, generator=g) for g in generators])
        numbers = numbers.to(self.region.radius)
        feature, stretch = numbers[:, 0] * sum(sizes), numbers[:, 1]
        proposals, first, used = [], 0, 2
        for p, c, size in zip(points, self.region.centre, sizes, strict=True):
            corner, own = numbers[:, used : used + 2], numbers[:, used + 2 : used + 2 + size]
            chosen = (feature >= first) & (feature < first + size)
            first, used = first + size, used + 2 + size
            signed = (2 * own - 1).view_as(p)
            block = _window(p, corner, share) if p.dim() > 2 else _subset(signed.abs(), share)
            block = block & per_example(chosen, p)
            move = self._to_corner if self.region.norm == "Linf" else self._along_sphere
            moved = move(p - c, block, signed.sign(), stretch)
            proposals.append(torch.where(per_example(chosen, p), c + moved, p))
        return tuple(proposals)

    def _to_corner(self, way: Tensor, block: Tensor, signs: Tensor, _stretch: Tensor) -> Tensor:
        """The block at a corner of the cube, and never at the one where it is."""
        stays = ((way.sign() == signs) | ~block).flatten(1).all(dim=1)
        signs = torch.where(per_example(stays, way), -signs, signs)
        return torch.where(block, per_example(self.region.radius, way) * signs, way)

    def _along_sphere(self, way: Tensor, block: Tensor, signs: Tensor, stretch: Tensor) -> Tensor:
        """The block at up to twice the mean size of an entry, the whole as long as the radius."""
        radius = self.region.radius
        entry = 2 * stretch * radius / math.sqrt(way[0].numel())
        way = torch.where(block, per_example(entry, way) * signs, way)
        length = way.flatten(1).norm(dim=1).clamp_min(1e-30)
        return way * per_example(radius / length, way)


def _share(step: int) -> float:
    """The share of the features that a block takes: 0.76 in the first step, 0.08 in the 1000th."""
    return 0.8 / math.sqrt(1 + step / 10)


def _window(image: Tensor, corner: Tensor, share: float) -> Tensor:
    """A square of pixels, in all channels, that goes on at the opposite border."""
    height, width = image.shape[-2:]
    side = max(1, round(math.sqrt(share * height * width)))
    inside = [
        (torch.arange(n).to(corner) - (u * n).floor()[:, None]) % n < side
        for n, u in zip((height, width), corner.T, strict=True)
    ]
    square: Tensor = inside[0][:, :, None] & inside[1][:, None, :]
    return square.view(-1, *(1,) * (image.dim() - 3), height, width).expand_as(image)


def _subset(numbers: Tensor, share: float) -> Tensor:
    """Every column with probability ``share``, and one in any case; numbers are uniform."""
    chosen: Tensor = (numbers < share) | (numbers == numbers.amin(dim=1, keepdim=True))
    return chosen


class RandomSearchAttack(ExplanationAttack):
    r"""Search the ball at random for the input that loses the most of the top k features.

    Every step proposes to set a random block of features to random corners of the ball, and goes
    there unless precision at k, or among equals a smooth count of the features kept, rises.
    In images, tensors of at least three dimensions, a block is a square of pixels in all
    channels; in tables it is any set of features. Its share of all features falls from 76 % to 8 %
    at step 1000. In the :math:`L_2` ball the block gets entries of random signs and one
    random size, and the whole the length of the radius; in tables that finds about as much as so
    many draws of noise.

    It sees scores only: no gradient can be hidden from it, and it attacks any attribution, DeepLift
    or ablation as well. One step is one attribution. Where it finds more than an attack that
    follows a gradient, that gradient is not to be trusted. Source: Square Attack (Andriushchenko,
    Croce, Flammarion, Hein 2020, arXiv 1912.00049), for the block, the corners and the schedule;
    here every feature of a block has a sign of its own, and a change that makes nothing better or
    worse is kept, which on ReLU networks finds more.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int): size of the top set, 1 <= k < n.
        objective (Callable, optional): what decides among points of equal precision, as in
            :class:`ExplanationAttack`. Default: :class:`SwapCountObjective`.
        keep (str, optional): ``"precision"``: precision at k counts first; examples that can lose
            no more cost no further queries. ``"objective"``: the objective alone.
        **options: as in :class:`ExplanationAttack`, without those of gradients and soft
            constraints. ``perturb`` makes ten steps a feature unless told otherwise, at least 200
            and at most 1000, and has no use for a ``step_size``.

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
        # Of all ways to a gradient, the one that asks nothing of the attribution.
        options["gradient"] = "spsa"
        super().__init__(attribution, objective or SwapCountObjective(k), keep=keep, **options)

    def default_step_num(self, inputs: tuple[Tensor, ...]) -> int:
        """Ten steps a feature, at least 200 and at most 1000."""
        return min(1000, max(200, 10 * sum(t[0].numel() for t in inputs)))
