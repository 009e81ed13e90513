"""Where an attack may go: the ball, the bounds, the mask, the prediction."""

from dataclasses import replace

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.report import require

__all__ = [
    "check_bounds",
    "check_mask",
    "check_prediction_is_kept",
    "check_radius_of_every_example",
    "check_stays_in_ball",
    "check_zero_radius_returns_the_input",
]

_ROUNDING = 1e-9  # the models are in float64


def check_stays_in_ball(case: AttackCase) -> None:
    """Every returned input lies within the radius, in the norm and the units of the inputs.

    A tuple has one ball around each of its tensors.
    """
    moved = case.perturb()
    length = _lengths(case, moved)
    require(
        (length <= case.model.radius + _ROUNDING).all(),
        f"moved by up to {float(length.max()):.6g} in the {case.norm} norm, "
        f"the radius is {case.model.radius}",
    )


def check_radius_of_every_example(case: AttackCase) -> None:
    """A radius of shape (N,) gives every example its own ball; radius 0 returns it as it is."""
    n_examples = len(case.model.labels)
    radius = case.model.radius * torch.arange(n_examples) / n_examples
    length = _lengths(case, case.perturb(radius=radius))
    require(
        (length <= radius.to(length) + _ROUNDING).all(),
        f"moved by {length.amax(dim=0).tolist()}, the radii are {radius.tolist()}",
    )


def check_zero_radius_returns_the_input(case: AttackCase) -> None:
    """Radius 0 returns the inputs, bit for bit."""
    moved = case.perturb(radius=0.0)
    require(
        all(map(torch.equal, as_tuple(moved), as_tuple(case.model.inputs))),
        "radius 0 changed the inputs",
    )


def check_bounds(case: AttackCase) -> None:
    """No returned value lies outside ``lower_bound`` … ``upper_bound``, the range of the data."""
    tensors = as_tuple(case.model.inputs)
    lower = min(float(t.min()) for t in tensors)
    upper = max(float(t.max()) for t in tensors)
    moved = case.perturb(case.attack(lower_bound=lower, upper_bound=upper))
    for t in as_tuple(moved):
        found = float(t.min()), float(t.max())
        require(
            lower <= found[0] and found[1] <= upper,
            f"returned values in [{found[0]:.6g}, {found[1]:.6g}], "
            f"the bounds are [{lower:.6g}, {upper:.6g}]",
        )


def check_mask(case: AttackCase) -> None:
    """Where ``mask`` is 0 the input is returned bit for bit."""
    inputs = case.model.inputs
    masks = tuple((torch.arange(t[0].numel()) % 2).view_as(t[:1]) for t in as_tuple(inputs))
    moved = case.perturb(mask=format_like(inputs, masks))
    for x, y, mask in zip(as_tuple(inputs), as_tuple(moved), masks, strict=True):
        frozen = (mask == 0).expand_as(x)
        require(torch.equal(x[frozen], y[frozen]), "changed features whose mask is 0")


def check_prediction_is_kept(case: AttackCase) -> None:
    """The model predicts for every returned input what it predicts for the example."""
    # So far that predictions do change on the way.
    case = replace(case, model=replace(case.model, radius=3 * case.model.radius))
    moved = case.perturb()
    changed = case.labels(moved) != case.labels(case.model.inputs)
    require(~changed.any(), f"the prediction of {int(changed.sum())} of {len(changed)} changed")


def _lengths(case: AttackCase, moved: Inputs) -> Tensor:
    """How far each tensor of each example moved: (number of tensors, N)."""
    order = float("inf") if case.norm == "Linf" else 2
    return torch.stack(
        [
            torch.linalg.vector_norm((y - x).flatten(1), order, dim=1)
            for x, y in zip(as_tuple(case.model.inputs), as_tuple(moved), strict=True)
        ]
    )
