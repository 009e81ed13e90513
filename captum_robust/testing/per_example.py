"""Rules on arguments per example: they follow their examples through chunks and copies."""

import torch

from captum_robust._utils.captum import as_tuple
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.metric_case import ModelCase
from captum_robust.testing.models import N_EXAMPLES
from captum_robust.testing.report import require, require_close

__all__ = ["check_bounds_follow_their_examples", "check_radius_follows_its_example"]


def check_bounds_follow_their_examples(case: AttackCase) -> None:
    """Bounds with one row per example hold for that example, also in chunks."""
    (x,) = as_tuple(case.model.inputs)
    width = 0.02 * case.model.radius * torch.arange(1, len(x) + 1).to(x)
    width = width.view(-1, *(1,) * (x.dim() - 1))
    attack = case.attack(lower_bound=x - width, upper_bound=x + width)
    (moved,) = as_tuple(case.perturb(attack, max_examples_per_batch=2))
    outside = ((moved - x).abs() > width * (1 + 1e-9)).flatten(1).any(dim=1)
    require(~outside.any(), f"examples {outside.nonzero()[:, 0].tolist()} left their own bounds")


def check_radius_follows_its_example(case: ModelCase) -> None:
    """A radius of shape (N,) gives every example the value that it has alone with its radius."""
    name = str(case.traits.radius)
    step = 2 * case.model.radius / N_EXAMPLES
    radius = step * torch.arange(1, N_EXAMPLES + 1, dtype=torch.float64)
    together = case.value(**{name: radius})
    for row in range(N_EXAMPLES):
        inputs, arguments = case.model.rows([row])
        alone = case.value(inputs=inputs, **arguments, **{name: float(radius[row])})
        reason = f"example {row} has another value with its own radius"
        require_close(together[[row]], alone, reason, 1e-6)
