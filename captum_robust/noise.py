"""Random neighbours of an input: the uniform ball and the Gaussian."""

import math
from abc import abstractmethod
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
from captum_robust._utils.checks import check_norm, check_not_nan, check_radius
from captum_robust._utils.random import example_generators

__all__ = [
    "GaussianNoise",
    "Noise",
    "Norm",
    "UniformNoise",
]

Norm = Literal["Linf", "L2"]


class Noise(Perturbation):
    r"""Base class of random perturbations that are symmetric around the input.

    A subclass implements :meth:`directions`. The noise of an example depends on the seed and on its
    own values only, never on the other examples of the batch or on chunks. With a seed, equal
    examples therefore get equal noise; without one, each example gets its own.

    Args:
        lower_bound (float or Tensor, optional): smallest value of a perturbed input.
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

    def move(self, inputs: Tensor, directions: Tensor, radius: float | Tensor) -> Tensor:
        """Return ``inputs`` moved by ``radius`` times ``directions``, within the bounds."""
        if isinstance(radius, Tensor):
            moved = inputs + radius * directions
        else:
            moved = torch.add(inputs, directions, alpha=radius)
        bounds = (self.lower_bound, self.upper_bound)
        if not any(isinstance(b, Tensor) for b in bounds) and bounds == (-math.inf, math.inf):
            return moved
        lower = torch.as_tensor(self.lower_bound, dtype=moved.dtype, device=moved.device)
        upper = torch.as_tensor(self.upper_bound, dtype=moved.dtype, device=moved.device)
        return moved.clamp(lower, upper)

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
            ValueError: for a negative radius, one of another shape, and for inputs that are not
                floating point.
        """
        check_radius(radius)
        tensors = as_tuple(inputs)
        shape = tuple(radius.shape) if isinstance(radius, Tensor) else ()
        if shape not in ((), (1,), (len(tensors[0]),)):
            raise ValueError(
                f"radius must be a number or of shape ({len(tensors[0])},), got shape {shape}"
            )
        if not all(tensor.is_floating_point() for tensor in tensors):
            dtypes = [tensor.dtype for tensor in tensors]
            raise ValueError(f"inputs must be floating point to be perturbed, got {dtypes}")
        generators = example_generators(tensors, seed)
        moved = tuple(
            self.move(tensor, _one_each(self, tensor, generators), _spread(radius, tensor))
            for tensor in (t.detach() for t in tensors)
        )
        perturbed: TensorOrTupleOfTensorsGeneric = format_like(inputs, moved)
        return perturbed


def _one_each(noise: Noise, tensor: Tensor, generators: list[torch.Generator]) -> Tensor:
    drawn = [noise.directions(1, e, g) for e, g in zip(tensor, generators, strict=True)]
    return torch.cat(drawn).to(tensor) if drawn else torch.zeros_like(tensor)


def _spread(radius: float | Tensor, tensor: Tensor) -> float | Tensor:
    """Return one radius per example, shaped to broadcast over its features."""
    if not isinstance(radius, Tensor):
        return radius
    return radius.to(tensor).reshape(-1, *(1,) * (tensor.dim() - 1))


class UniformNoise(Noise):
    r"""Uniform noise in a ball: the :math:`U(x, \epsilon)` of the thickness (paper, section 3).

    Args:
        norm (str, optional): ``"Linf"``, every feature uniform in [−radius, radius]; or ``"L2"``,
            uniform in the Euclidean ball of each input tensor.
        lower_bound (float or Tensor, optional): smallest value of a perturbed input.
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
        sphere = normalize(drawn.normal_(generator=generator).view(n_draws, -1), dim=1)
        volume = torch.rand(n_draws, 1, dtype=drawn.dtype, generator=generator)
        return (sphere * volume ** (1 / sphere.shape[1])).view_as(drawn)


class GaussianNoise(Noise):
    r"""Gaussian noise :math:`N(x, \sigma^2 I)`, with the radius as :math:`\sigma`.

    Examples::

        >>> x = torch.zeros(1, 10_000)
        >>> round(float(GaussianNoise().perturb(x, radius=0.5, seed=0).std()), 1)
        0.5
    """

    def directions(self, n_draws: int, example: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        return _blank(n_draws, example).normal_(generator=generator)


def _blank(n_draws: int, example: Tensor) -> Tensor:
    dtype = torch.float64 if example.dtype == torch.float64 else torch.float32
    return torch.empty((n_draws, *example.shape), dtype=dtype)
