"""Random neighbours of an input: the uniform ball and the Gaussian."""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from captum_robust._utils.captum import (
    Perturbation,
    TensorOrTupleOfTensorsGeneric,
    as_tuple,
    format_like,
    log_usage,
)
from captum_robust._utils.checks import (
    check_norm,
    check_not_nan,
    radius_of_examples,
    valid_bounds,
)
from captum_robust._utils.checks import check_radius as check_radius  # part of the reference
from captum_robust._utils.movement import check_moved
from captum_robust._utils.random import example_generators
from captum_robust._utils.rounding import edge, not_beyond, rows_that_stay
from captum_robust._utils.tensors import per_example

__all__ = [
    "GaussianNoise",
    "Noise",
    "Norm",
    "UniformNoise",
]

Norm = Literal["Linf", "L2"]

#: torch makes normal numbers in groups of this size, and draws the last of them again if some are
#: left over: blocks that are multiples give the same numbers as one block.
_GROUP = 16

#: Smallest and largest values of the features of every example, (N, ...) each.
Limits = tuple[Tensor, Tensor]


class Noise(Perturbation):
    r"""Base class of random perturbations that are symmetric around the input.

    A subclass implements :meth:`directions`. The noise of an example depends on the seed and on its
    own values only, never on the other examples of the batch or on chunks. With a seed, equal
    examples therefore get equal noise; without one, each example gets its own.

    Args:
        lower_bound (float or Tensor, optional): smallest value of a perturbed input. A tensor with
            the dimensions of the inputs, (N, ...), has one row per example (or one for all); a
            tensor with fewer dimensions is shared by all examples.
        upper_bound (float or Tensor, optional): largest value of a perturbed input.

    Raises:
        ValueError: for NaN in a bound.
    """

    def __init__(
        self,
        lower_bound: float | Tensor = float("-inf"),
        upper_bound: float | Tensor = float("inf"),
    ) -> None:
        check_not_nan("lower_bound", lower_bound)
        check_not_nan("upper_bound", upper_bound)
        self.lower_bound = lower_bound
        self.upper_bound = upper_bound

    @abstractmethod
    def directions(self, n_draws: int, example: Tensor, generator: torch.Generator) -> Tensor:
        """Draw noise of radius 1 for one example of shape (...): (n_draws, ...), on the CPU."""

    def block_sizes(self, n_draws: int, most: int) -> list[int]:
        """Return sizes of blocks, of about ``most`` draws, in which :meth:`blocks` can draw."""
        return [n_draws]

    def blocks(
        self, sizes: list[int], example: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Draw the numbers of :meth:`directions` for all sizes together, block by block."""
        for size in sizes:
            yield self.directions(size, example, generator)

    def limits(self, inputs: Tensor, radius: float | Tensor) -> Limits | None:
        """Return the smallest and the largest value of every neighbour of each example.

        Args:
            inputs: examples, (N, ...).
            radius: one radius, or one per example, (N,).

        Returns:
            Two tensors of the shape of ``inputs``, or None for no limits.

        Raises:
            ValueError: for bounds that do not fit the inputs, and inputs outside of them.
        """
        bounds = (self.lower_bound, self.upper_bound)
        if not any(isinstance(b, Tensor) for b in bounds) and bounds == (-math.inf, math.inf):
            return None
        (lower,), (upper,) = valid_bounds(*bounds, (inputs,))
        return lower, upper

    def move(
        self, inputs: Tensor, directions: Tensor, radius: float | Tensor, limits: Limits | None
    ) -> Tensor:
        """Return the neighbours (N, D, ...) of examples (N, ...), within their limits.

        Args:
            inputs: examples, (N, ...).
            directions: D directions per example, (N, D, ...), in at least single precision.
            radius: one radius, or one per example, (N,).
            limits: those of :meth:`limits`.
        """
        centre = inputs[:, None].to(directions)
        if isinstance(radius, Tensor):
            moved = torch.addcmul(centre, per_example(radius.to(centre), centre), directions)
        else:
            moved = torch.add(centre, directions, alpha=radius)
        moved = moved.to(inputs)
        if limits is None:
            return moved
        return moved.clamp(limits[0][:, None], limits[1][:, None])

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def perturb(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        radius: float | Tensor,
        seed: int | None = None,
    ) -> TensorOrTupleOfTensorsGeneric:
        r"""Draw one random neighbour of every example.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): examples along dimension 0.
            radius (float or Tensor): scale of the noise in units of the inputs, not negative; one
                for all examples or one per example, shape (N,).
            seed (int, optional): None draws fresh entropy. The global generators are not used.
                Leave it None where the batch repeats an example to sample its neighbourhood, as in
                ``captum.metrics.sensitivity_max``: equal examples would get equal noise.

        Returns:
            - **perturbed** (*Tensor* or *tuple[Tensor, ...]*): as ``inputs``.

        Raises:
            ValueError: for a negative radius, one of another shape, inputs that are not floating
                point, bounds whose shape does not fit the inputs, inputs outside the bounds, and a
                radius above 0 that is below the spacing of all values.
        """
        tensors = tuple(t.detach() for t in as_tuple(inputs))
        if not all(tensor.is_floating_point() for tensor in tensors):
            dtypes = [tensor.dtype for tensor in tensors]
            raise ValueError(f"inputs must be floating point to be perturbed, got {dtypes}")
        radius = radius_of_examples("radius", radius, len(tensors[0]))
        radii = torch.as_tensor(radius, dtype=torch.float64, device=tensors[0].device)
        stays = rows_that_stay(tensors, radii.expand(len(tensors[0])))
        if len(stays) and bool(stays.all()):
            check_moved(stays, "radius")
        generators = example_generators(tensors, seed)
        moved = tuple(
            self.move(
                tensor, _one_each(self, tensor, generators), radius, self.limits(tensor, radius)
            )[:, 0]
            for tensor in tensors
        )
        perturbed: TensorOrTupleOfTensorsGeneric = format_like(inputs, moved)
        return perturbed


def _one_each(noise: Noise, tensor: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Draw one direction per example, (N, 1, ...)."""
    drawn = [noise.directions(1, e, g) for e, g in zip(tensor, generators, strict=True)]
    none = torch.zeros(0, 1, *tensor.shape[1:])
    return (torch.stack(drawn) if drawn else none).to(tensor.device)


class UniformNoise(Noise):
    r"""Uniform noise in a ball: the :math:`U(x, \epsilon)` of the thickness (paper, section 3).

    Args:
        norm (str, optional): ``"Linf"``, every feature uniform in [−radius, radius]; or ``"L2"``,
            uniform in the Euclidean ball of each input tensor.
        lower_bound (float or Tensor, optional): smallest value of a perturbed input. A tensor with
            the dimensions of the inputs, (N, ...), has one row per example (or one for all); a
            tensor with fewer dimensions is shared by all examples.
        upper_bound (float or Tensor, optional): largest value of a perturbed input.

    Raises:
        ValueError: for another norm.

    Examples::

        >>> x = torch.zeros(2, 3)
        >>> bool((UniformNoise().perturb(x, radius=0.1, seed=0).abs() <= 0.1).all())
        True
        >>> bool((UniformNoise("L2").perturb(x, radius=0.1, seed=0).norm(dim=1) <= 0.1).all())
        True
    """

    def __init__(
        self,
        norm: Norm = "Linf",
        lower_bound: float | Tensor = float("-inf"),
        upper_bound: float | Tensor = float("inf"),
    ) -> None:
        super().__init__(lower_bound, upper_bound)
        check_norm(norm)
        self.norm = norm

    def directions(self, n_draws: int, example: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        drawn = _blank(n_draws, example)
        if self.norm == "Linf":
            return drawn.uniform_(-1, 1, generator=generator)
        drawn.normal_(generator=generator)
        return _in_ball(drawn, _lengths(n_draws, drawn, generator))

    def block_sizes(self, n_draws: int, most: int) -> list[int]:  # noqa: D102
        return _sizes(n_draws, most, 1 if self.norm == "Linf" else _GROUP)

    def blocks(  # noqa: D102
        self, sizes: list[int], example: Tensor, generator: torch.Generator
    ) -> Iterator[Tensor]:
        if self.norm == "Linf" or len(sizes) == 1:
            yield from super().blocks(sizes, example, generator)
            return
        again = torch.Generator()  # the lengths are drawn after all directions
        again.set_state(generator.get_state())
        for size in sizes:
            drawn = _blank(size, example).normal_(generator=generator)
        lengths = _lengths(sum(sizes), drawn, generator)
        for size, own in zip(sizes, lengths.split(sizes), strict=True):
            yield _in_ball(_blank(size, example).normal_(generator=again), own)

    def limits(self, inputs: Tensor, radius: float | Tensor) -> Limits | None:  # noqa: D102
        bounds = super().limits(inputs, radius)
        if self.norm == "L2":
            return bounds
        given = torch.as_tensor(radius, dtype=torch.float64, device=inputs.device)
        step = per_example(given.reshape(-1), inputs)
        low, high = (edge(inputs, way, inputs.dtype) for way in (-step, step))
        if bounds is None:
            return low, high
        return torch.maximum(low, bounds[0]), torch.minimum(high, bounds[1])

    def move(  # noqa: D102
        self, inputs: Tensor, directions: Tensor, radius: float | Tensor, limits: Limits | None
    ) -> Tensor:
        moved = super().move(inputs, directions, radius, limits)
        if self.norm == "Linf":
            return moved
        centre = inputs[:, None].to(directions)
        way = moved.to(centre) - centre
        given = torch.as_tensor(radius, dtype=way.dtype, device=way.device)
        longest = per_example(given.reshape(-1), way)
        lengths = way.reshape(*way.shape[:2], math.prod(way.shape[2:])).norm(dim=2)
        long = lengths.view(*way.shape[:2], *longest.shape[2:]) > longest
        if not bool(long.any()):
            return moved
        return torch.where(long, not_beyond(moved, centre, longest * directions), moved)


class GaussianNoise(Noise):
    r"""Gaussian noise :math:`N(x, \sigma^2 I)`, with the radius as :math:`\sigma`.

    Examples::

        >>> x = torch.zeros(1, 10_000)
        >>> round(float(GaussianNoise().perturb(x, radius=0.5, seed=0).std()), 1)
        0.5
    """

    def directions(self, n_draws: int, example: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        return _blank(n_draws, example).normal_(generator=generator)

    def block_sizes(self, n_draws: int, most: int) -> list[int]:  # noqa: D102
        return _sizes(n_draws, most, _GROUP)


def _blank(n_draws: int, example: Tensor) -> Tensor:
    dtype = torch.float64 if example.dtype == torch.float64 else torch.float32
    return torch.empty((n_draws, *example.shape), dtype=dtype)


def _lengths(n_draws: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draw the distances from the centre of points uniform in the unit ball, (n_draws, 1)."""
    volumes = torch.rand(n_draws, 1, dtype=like.dtype, generator=generator)
    return volumes ** (1 / max(1, like[0].numel()))


def _in_ball(normal: Tensor, lengths: Tensor) -> Tensor:
    """Return normal draws (D, ...) at other distances from the centre, (D, 1)."""
    return (normalize(normal.view(len(normal), -1), dim=1) * lengths).view_as(normal)


def _sizes(n_draws: int, most: int, multiple: int) -> list[int]:
    """Split ``n_draws`` into multiples of about ``most`` draws, and a last part that is no less."""
    size = max(1, most // multiple) * multiple
    n_blocks = max(1, n_draws // size)
    return [size] * (n_blocks - 1) + [n_draws - size * (n_blocks - 1)]
