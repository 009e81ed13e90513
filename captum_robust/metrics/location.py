"""Centre of mass of an attribution."""

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust.metrics._scores import nan_where, paired_scores

__all__ = ["center_of_mass", "center_of_mass_shift"]


def center_of_mass_shift(attributions: Inputs, reference_attributions: Inputs) -> Tensor:
    r"""Distance between the centres of mass of two attributions, in pixels or features.

    The mass is :math:`|I|`, summed over channels; the centre is the mean position weighted by the
    mass. Lower is more stable. Source: Ghorbani, Abid, Zou 2019 (arXiv 1710.10547), section 2.

    Args:
        attributions (Tensor or tuple[Tensor, ...]): attributions of shape (N, F), (N, H, W) or
            (N, C, H, W). The centres of a tuple are compared as one long vector.
        reference_attributions (Tensor or tuple[Tensor, ...]): attributions of the same shape.

    Returns:
        - **shift** (*Tensor*): Euclidean distance, shape (N,). NaN where the attributions of an
          example are not finite or are all equal.

    Raises:
        ValueError: for attributions of different shapes, or of other dimensions.

    Examples::

        >>> before, after = torch.zeros(1, 5, 5), torch.zeros(1, 5, 5)
        >>> before[0, 0, 0], after[0, 3, 4] = 1.0, 1.0
        >>> center_of_mass_shift(after, before)
        tensor([5.])
    """
    *_, broken = paired_scores(attributions, reference_attributions)
    centres, references = (
        torch.cat([center_of_mass(m.detach()) for m in as_tuple(maps, "attributions")], dim=1)
        for maps in (attributions, reference_attributions)
    )
    return nan_where(broken, (centres - references).norm(dim=1))


def center_of_mass(attributions: Tensor) -> Tensor:
    """Centre of mass of each example, in positions along its axes, differentiable; (N, n_axes).

    Attributions as in :func:`center_of_mass_shift`. NaN where all attributions are zero.

        >>> center_of_mass(torch.tensor([[0., -1., 3.]]))
        tensor([[1.7500]])
    """
    if not 2 <= attributions.dim() <= 4:
        raise ValueError(
            "attributions must have shape (N, F), (N, H, W) or (N, C, H, W), "
            f"got {tuple(attributions.shape)}"
        )
    mass = attributions.abs()
    mass = mass if mass.dtype in (torch.float32, torch.float64) else mass.float()
    # Scaled first: the sum of huge gradients would overflow.
    largest = mass.detach().flatten(1).amax(dim=1)
    mass = mass / largest.view(-1, *(1,) * (mass.dim() - 1))
    if mass.dim() == 4:
        mass = mass.sum(dim=1)
    profiles = [mass] if mass.dim() == 2 else [mass.sum(dim=2), mass.sum(dim=1)]
    centres = [
        p @ torch.arange(p.shape[1], dtype=p.dtype, device=p.device) / p.sum(dim=1)
        for p in profiles
    ]
    return torch.stack(centres, dim=1)
