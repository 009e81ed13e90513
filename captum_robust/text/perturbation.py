"""Which tokens may move, and how far: masks, balls and noise of embeddings."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, Perturbation, as_tuple, format_like, log_usage
from captum_robust._utils.checks import check_radius, matching, one_each
from captum_robust._utils.random import example_generators
from captum_robust._utils.tensors import per_example
from captum_robust.noise import Norm, UniformNoise
from captum_robust.robust._search.region import in_sphere, not_beyond

__all__ = ["TokenNoise", "token_ball", "token_mask"]


def token_mask(
    ids: Tensor, attention_mask: Tensor | None = None, special_ids: Iterable[int] = ()
) -> Tensor:
    """Mask of the tokens that an attack may move: no padding and no special tokens.

    Args:
        ids (Tensor): integer token ids, shape (N, L).
        attention_mask (Tensor, optional): 0 at padding, shape (N, L). Default: no padding.
        special_ids (Iterable[int], optional): ids that must not move, such as
            ``tokenizer.all_special_ids``.

    Returns:
        - **mask** (*Tensor*): bool, shape (N, L, 1), which broadcasts over the embedding.

    Raises:
        ValueError: for an attention mask of another shape.

    Examples::

        >>> token_mask(torch.tensor([[1, 7, 8, 2, 0]]), special_ids=(0, 1, 2)).int().flatten()
        tensor([0, 1, 1, 0, 0], dtype=torch.int32)
    """
    special = torch.tensor(sorted(special_ids), dtype=ids.dtype, device=ids.device)
    movable = ~torch.isin(ids, special)
    if attention_mask is not None:
        if attention_mask.shape != ids.shape:
            raise ValueError(
                f"attention_mask must have the shape of ids, {tuple(ids.shape)}, got "
                f"{tuple(attention_mask.shape)}"
            )
        movable = movable & (attention_mask != 0)
    return movable.unsqueeze(-1)


def token_ball(points: Inputs, centre: Inputs, radius: Tensor) -> Inputs:
    r"""Projection that lets every token move by at most ``radius`` in Euclidean length.

    To be given to an attack with ``norm="Linf"``, whose radius becomes that of each token: the
    ball of :math:`L_\infty` contains the product of the balls of the tokens.

    .. code-block:: python

        attack.perturb(embeddings, radius=0.3, norm="Linf", project=token_ball)

    A step of size s moves a token of D numbers by :math:`s \sqrt{D}`: on some models an attack
    finds more with a smaller ``step_size`` than the default.

    Args:
        points (Tensor or tuple[Tensor, ...]): perturbed embeddings, shape (N, L, D).
        centre (Tensor or tuple[Tensor, ...]): unperturbed embeddings.
        radius (Tensor): radius of the tokens of every example, shape (N,).

    Returns:
        - **points** (*Tensor* or *tuple[Tensor, ...]*): the nearest points at which no token has
          moved further.

    Examples::

        >>> moved = token_ball(torch.ones(1, 2, 4), torch.zeros(1, 2, 4), torch.tensor([1.0]))
        >>> moved.norm(dim=-1).round(decimals=4)
        tensor([[1., 1.]])
    """
    pairs = zip(as_tuple(points, "points"), as_tuple(centre, "centre"), strict=True)
    nearest = tuple(_in_balls(point, middle, radius) for point, middle in pairs)
    result: Inputs = format_like(points, nearest)
    return result


def _in_balls(points: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    """Return the nearest points with every token in its ball, in the precision of the centre."""
    radii = per_example(radius, points[..., 0]).expand(points.shape[:-1]).reshape(-1)
    middle = centre.flatten(0, -2)
    inside = in_sphere(points.flatten(0, -2), middle, radii, None)
    return not_beyond(inside.to(middle), middle, inside - middle).view_as(points)


class TokenNoise(Perturbation):
    r"""Uniform noise in a ball around every token that may move.

    For the metrics that take a ``perturb_func``. The noise of an example depends on the seed and on
    its embeddings only.

    Args:
        mask (Tensor, optional): 0 at the tokens that do not move, broadcastable to the embeddings
            (:func:`token_mask`). Default: all move.
        norm (str, optional): ``"L2"``: every token is uniform in a Euclidean ball, as in
            :func:`token_ball`; ``"Linf"``: every number is uniform in [−radius, radius].

    Raises:
        ValueError: for another norm, and for a mask of another shape.

    Examples::

        >>> mask = torch.tensor([[[True], [False]]])
        >>> moved = TokenNoise(mask).perturb(torch.zeros(1, 2, 8), radius=0.1, seed=0)
        >>> bool((moved.norm(dim=-1) <= 0.1).all()), bool((moved[:, 1] == 0).all())
        (True, True)
    """

    def __init__(self, mask: Tensor | None = None, norm: Norm = "L2") -> None:
        self.mask = mask
        self._noise = UniformNoise(norm)

    @log_usage(part_of_slo=False)  # type: ignore[untyped-decorator]
    def perturb(self, inputs: Tensor, radius: float | Tensor, seed: int | None = None) -> Tensor:
        """Draw one random neighbour of every example.

        Args:
            inputs (Tensor): embeddings, shape (N, L, D).
            radius (float or Tensor): radius of the ball of a token, not negative; one for all
                examples or one per example, shape (N,).
            seed (int, optional): None draws fresh entropy.

        Returns:
            - **perturbed** (*Tensor*): shape (N, L, D).
        """
        check_radius(radius)
        centre = inputs.detach()
        directions = torch.stack(
            [
                self._noise.directions(len(example), example[0], generator)
                for example, generator in zip(
                    centre, example_generators((centre,), seed), strict=True
                )
            ]
        )
        radii = per_example(one_each("radius", radius, len(centre), centre), centre)
        step = radii * directions.to(radii)
        if self.mask is not None:
            step = step * matching("mask", self.mask, (step,), broadcast=True)[0]
        return (centre + step).to(centre)
