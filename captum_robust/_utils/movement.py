"""A warning about examples that a perturbation cannot move."""

import warnings

from torch import Tensor

__all__ = ["UnmovedWarning", "check_moved"]


class UnmovedWarning(UserWarning):
    """Warning of examples that a perturbation cannot move: nothing is known about them."""


def check_moved(stays: Tensor, name: str = "perturb_radius") -> None:
    """Warn of the examples that stay where they are, (N,) bool.

    Raises:
        ValueError: if all stay.
    """
    count = int(stays.sum())
    if count == 0:
        return
    reason = (
        f"{name} above 0 moves {count} of {len(stays)} examples nowhere: it is below the spacing "
        "of the floating point numbers, or bounds, mask or the perturbation itself leave no other "
        "point; an explanation that cannot change would look stable"
    )
    if count == len(stays):
        raise ValueError(reason)
    warnings.warn(f"{reason}; their values are NaN", UnmovedWarning, stacklevel=3)
