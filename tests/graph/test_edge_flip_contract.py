"""The rules of every attack, kept by flips: of corners of a ball, each of which is an edge."""

from typing import Any

import pytest
from captum.attr import Saliency
from torch import Tensor, nn

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust._utils.checks import one_each
from captum_robust.graph import EdgeFlipAttack
from captum_robust.metrics import precision_at_k
from captum_robust.testing import attack_checks
from tests.testing.subjects import one_of_each


class FromCorners(nn.Module):
    """A model as a function of which features are a radius above their example's, 1, or not, 0."""

    def __init__(self, model: nn.Module, n_inputs: int) -> None:
        super().__init__()
        self.model, self.n_inputs = model, n_inputs

    def forward(self, *inputs: Any) -> Tensor:
        n = self.n_inputs
        flips, centre, radius, others = (
            inputs[:n],
            inputs[n : 2 * n],
            inputs[2 * n],
            inputs[2 * n + 1 :],
        )
        moved = (moved_by(f, c, radius) for f, c in zip(flips, centre, strict=True))
        return self.model(*moved, *others)  # type: ignore[no-any-return]


def moved_by(flips: Tensor, centre: Tensor, radius: Tensor) -> Tensor:
    return centre + radius.to(centre).view(-1, *(1,) * (centre.dim() - 1)) * flips


class FlipsOfCorners:
    """EdgeFlipAttack on a model of continuous inputs, in the shape of the other attacks."""

    def __init__(self, attribution: Saliency, k: int) -> None:
        self.model, self.k = attribution.forward_func, k

    def perturb(
        self,
        inputs: Any,
        radius: Any,
        step_num: int = 4,
        norm: str = "Linf",
        additional_forward_args: Any = (),
        **arguments: Any,
    ) -> Any:
        centre = tuple(t.detach() for t in as_tuple(inputs))
        # Broken features are broken edges.
        flips = tuple((c - c).contiguous() for c in centre)
        radii = one_each("radius", radius, len(centre[0]), centre[0])
        attack = EdgeFlipAttack(Saliency(FromCorners(self.model, len(centre))), self.k, 4)
        result = attack.perturb(
            format_like(inputs, flips), 0 if not bool(radii.any()) else step_num,
            additional_forward_args=(*centre, radii, *additional_forward_args), **arguments,
        )  # fmt: skip
        found, *info = result if arguments.get("return_info") else (result,)
        moved = tuple(moved_by(f, c, radii) for f, c in zip(as_tuple(found), centre, strict=True))
        return (format_like(inputs, moved), *info) if info else format_like(inputs, moved)


CHECKS = one_of_each(
    attack_checks(
        norms=("Linf",), bounds=False, restarts=False, warm_start=False, beats_noise=False,
        tolerance=False,
        effort=lambda n_steps, radius: {"step_num": n_steps}, info="precision",
        objective=lambda maps, reference: precision_at_k(maps, reference, 2),
    ),
    turn=0,
)  # fmt: skip


# The errors have tests of their own: a budget has no norm.
@pytest.mark.parametrize(
    "name, check", [c for c in CHECKS if not c[0].startswith("check_errors_name")]
)
def test_the_rules_of_every_attack_are_kept(name, check):
    check(FlipsOfCorners)
