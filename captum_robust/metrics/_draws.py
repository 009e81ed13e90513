"""Neighbours of every example, drawn by noise or made by the caller's perturbation."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.random import example_generators
from captum_robust._utils.tensors import Points
from captum_robust.metrics._chunks import bytes_per_call
from captum_robust.metrics._explainer import Explainer
from captum_robust.metrics._perturb_func import perturb_once
from captum_robust.noise import Noise

__all__ = ["Draws", "Neighbours", "neighbours_of"]

#: Some neighbours of some examples, (G, D, ...), and the times at which they are explained,
#: (G, D, T); None for the neighbours themselves.
Draws = tuple[Points, Tensor | None]

#: From the examples start … stop, and a number of neighbours to make at once, to all neighbours.
Neighbours = Callable[[int, int, int], Iterator[Draws]]


def neighbours_of(
    explainer: Explainer,
    perturb_func: Callable[..., Any],
    radius: float | Tensor,
    n_draws: int,
    times: Tensor | None,
) -> Neighbours:
    """Return the function that makes the neighbours of some examples and their times.

    Args:
        explainer: the examples.
        perturb_func: where the neighbours come from.
        radius: one radius, or one per example, (N,).
        n_draws: number of neighbours per example.
        times: the t of every neighbour, (T,), or None for one stratified t per neighbour.
    """
    seed = explainer.seed
    # An end is reached without rounding.
    fixed = None if times is None or (bool((times == 1).all()) and len(times) == 1) else times
    if isinstance(perturb_func, Noise):
        noise = _RandomNeighbours(perturb_func, explainer.inputs, radius, n_draws, times is None)

        def draw(start: int, stop: int, most: int) -> Iterator[Draws]:
            generators = example_generators(tuple(t[start:stop] for t in explainer.inputs), seed)
            ends = noise.of(start, stop, most, generators)
            # Drawn after the directions; the neighbours of an antithetic pair share one.
            at = _stratified_times(n_draws, 2, generators) if times is None else None
            return _with_times(ends, fixed if at is None else at, start, stop)

        return draw
    copies = [
        perturb_once(perturb_func, explainer.given, radius, explainer.kwargs, seed + draw)
        for draw in range(n_draws)
    ]
    drawn = tuple(torch.stack(draws, dim=1) for draws in zip(*copies, strict=True))

    def select(start: int, stop: int, most: int) -> Iterator[Draws]:
        at = fixed
        if times is None:
            some = tuple(t[start:stop] for t in explainer.inputs)
            at = _stratified_times(n_draws, 1, example_generators(some, seed))
        blocks = zip(*(d[start:stop].split(most, dim=1) for d in drawn), strict=True)
        return _with_times(blocks, at, start, stop)

    return select


def _with_times(
    blocks: Iterator[Points], times: Tensor | None, start: int, stop: int
) -> Iterator[Draws]:
    """Yield blocks of neighbours with their times: (T,) for all, or (G, D, 1)."""
    first = 0
    for ends in blocks:
        n_ends = ends[0].shape[1]
        if times is None:
            yield ends, None
        elif times.dim() == 1:
            yield ends, times.expand(stop - start, n_ends, len(times))
        else:
            yield ends, times[:, first : first + n_ends]
        first += n_ends


class _RandomNeighbours:
    """Neighbours drawn by noise, which depend on the example and the seed only.

    Args:
        noise: the noise.
        inputs: all examples.
        radius: one radius, or one per example, (N,).
        n_draws: number of neighbours per example.
        antithetic: draw neighbours in pairs x + d, x − d.
    """

    def __init__(
        self, noise: Noise, inputs: Points, radius: float | Tensor, n_draws: int, antithetic: bool
    ) -> None:
        self.noise = noise
        self.inputs = inputs
        self.radius = radius
        self.n_draws = n_draws
        self.signs = 2 if antithetic else 1
        self.limits = [noise.limits(t, radius) if t.is_floating_point() else None for t in inputs]

    def of(
        self, start: int, stop: int, most: int, generators: list[torch.Generator]
    ) -> Iterator[Points]:
        """Return blocks of neighbours of the examples; the generators have drawn them all."""
        examples = tuple(t[start:stop] for t in self.inputs)
        row = sum(t[0].numel() * t.element_size() for t in examples)
        most = max(most, bytes_per_call(examples[0].device) // max(1, row))
        if len(generators) > 1 or self.n_draws <= most:
            drawn = [self._all_directions(t, generators) for t in examples]
            return iter([self._ends(drawn, start, stop)])
        begun = []
        for tensor in examples:  # drawn twice, since what follows needs the generator afterwards
            begun.append(_copy_of(generators[0]))
            for _ in self._blocks(tensor, generators[0], most):
                pass
        return self._in_blocks(examples, begun, start, most)

    def _in_blocks(
        self, examples: Points, generators: list[torch.Generator], start: int, most: int
    ) -> Iterator[Points]:
        """Yield blocks of neighbours of one example, with one generator per input tensor."""
        left = self.n_draws
        blocks = (self._blocks(t, g, most) for t, g in zip(examples, generators, strict=True))
        for drawn in zip(*blocks, strict=True):
            ends = tuple(e[:, :left] for e in self._ends(list(drawn), start, start + 1))
            left -= ends[0].shape[1]
            yield ends

    @property
    def _n_directions(self) -> int:
        return -(-self.n_draws // self.signs)

    def _all_directions(self, tensor: Tensor, generators: list[torch.Generator]) -> Tensor:
        """Return all directions of every example, (G, n_directions, ...)."""
        if not tensor.is_floating_point():
            return _still(tensor, self._n_directions)
        each = zip(tensor, generators, strict=True)
        return torch.stack([self.noise.directions(self._n_directions, x, g) for x, g in each])

    def _blocks(self, tensor: Tensor, generator: torch.Generator, most: int) -> Iterator[Tensor]:
        """Yield the directions of one example in blocks, (1, B, ...)."""
        sizes = self.noise.block_sizes(self._n_directions, max(1, most // self.signs))
        if not tensor.is_floating_point():
            yield from (_still(tensor, size) for size in sizes)
        else:
            for block in self.noise.blocks(sizes, tensor[0], generator):
                yield block[None]

    def _ends(self, directions: list[Tensor], start: int, stop: int) -> Points:
        """Return the neighbours in directions (G, B, ...) of each tensor; integers do not move."""
        radius = self.radius
        if isinstance(radius, Tensor):
            radius = radius[start:stop]
        ends = []
        for tensor, drawn, limits in zip(self.inputs, directions, self.limits, strict=True):
            some = tensor[start:stop]
            if self.signs == 2:
                drawn = torch.stack([drawn, -drawn], dim=2).flatten(1, 2)[:, : self.n_draws]
            if not tensor.is_floating_point():
                ends.append(some[:, None].expand(-1, drawn.shape[1], *tensor.shape[1:]))
                continue
            own = None if limits is None else (limits[0][start:stop], limits[1][start:stop])
            ends.append(self.noise.move(some, drawn.to(some.device), radius, own))
        return tuple(ends)


def _still(tensor: Tensor, n_directions: int) -> Tensor:
    """Return empty directions of integers, which do not move and draw no numbers."""
    return torch.empty(len(tensor), n_directions, *tensor.shape[1:], device="meta")


def _copy_of(generator: torch.Generator) -> torch.Generator:
    copy = torch.Generator()
    copy.set_state(generator.get_state())
    return copy


def _stratified_times(n_draws: int, n_shared: int, generators: list[torch.Generator]) -> Tensor:
    """Draw times of the neighbours, of which ``n_shared`` in a row share one; (G, D, 1).

    One time in each of the parts of [0, 1], as long as the draws that share it are many.
    """
    edges = torch.arange(0, n_draws + n_shared, n_shared).clamp(max=n_draws).double() / n_draws
    offsets = torch.empty(len(generators), len(edges) - 1, dtype=torch.float64)
    for row, generator in zip(offsets, generators, strict=True):
        row.uniform_(generator=generator)
    times = edges[:-1] + edges.diff() * offsets
    return times.repeat_interleave(n_shared, dim=1)[:, :n_draws, None]
