"""Rules on attributions whose top features are not unique, or that are constant."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_robust._utils.captum import as_tuple
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.loss_case import LossCase
from captum_robust.testing.metric_case import MapsCase, ModelCase
from captum_robust.testing.models import SmallModel
from captum_robust.testing.report import require, require_close

__all__ = [
    "check_constant_map_gives_nan",
    "check_constant_map_has_no_objective",
    "check_tied_maps_are_compared",
    "check_ties_are_flagged",
    "check_ties_give_a_finite_gradient",
]


class _Averaged(nn.Module):
    """A network that sees the mean of all features but the first ones, in place of each of them.

    The saliencies of these features are equal.
    """

    def __init__(self, network: nn.Module, n_own: int) -> None:
        super().__init__()
        self.network, self.n_own = network, n_own

    def forward(self, inputs: Tensor, *further: Any) -> Tensor:
        rows = inputs.flatten(1)
        own, others = rows[:, : self.n_own], rows[:, self.n_own :]
        mixed = torch.cat([own, others.mean(dim=1, keepdim=True).expand_as(others)], dim=1)
        outputs: Tensor = self.network(mixed.view_as(inputs), *further)
        return outputs


def averaged(model: SmallModel, n_own: int) -> SmallModel:
    """Return a model in whose saliency all features tie but the first ``n_own``."""
    return replace(model, build=lambda: _Averaged(model.build(), n_own).eval())


def check_ties_are_flagged(case: AttackCase) -> None:
    """The flag ``tied_reference`` counts the examples whose k-th feature ties with the next."""
    for model in (case.model, averaged(case.model, 1)):
        own = replace(case, model=model)
        _, info = own.perturb(return_info=True)
        maps = torch.cat([m.flatten(1) for m in as_tuple(own.maps(model.inputs))], dim=1)
        ordered = maps.sort(dim=1, descending=True).values
        tied = int((ordered[:, model.k - 1] == ordered[:, model.k]).sum())
        found = info.flags.get("tied_reference", 0)
        require(found == tied, f"tied_reference is {found}, and {tied} examples have a tie")


def check_constant_map_has_no_objective(case: AttackCase) -> None:
    """An example whose attribution is constant has an objective of NaN: it is not stable."""
    own = replace(case, model=averaged(case.model, 0))
    _, info = own.perturb(return_info=True)
    reported = getattr(info, case.traits.info or "")
    require(reported.isnan().all(), f"constant attributions have {reported.tolist()}")


def check_tied_maps_are_compared(case: MapsCase) -> None:
    """A map with ties is no broken map: its values are finite, and perfect beside itself."""
    tied = (case.maps * 2).round()
    tied[0] = torch.tensor([1.0, 0, 0, 0, 0, 0])
    for other in (case.reference, tied):
        value = case.value(tied, other)
        require(value.isfinite().all(), f"maps with ties give {value.tolist()}")
    if case.traits.perfect is not None:
        expected = torch.full_like(value, case.traits.perfect)
        require_close(value, expected, f"tied maps and themselves give {value.tolist()}", 1e-6)


def check_constant_map_gives_nan(case: ModelCase) -> None:
    """An explanation that is constant has no ranking: NaN, not a value of a stable one."""
    value = case.value(averaged(case.model, 0).build())
    require(value.isnan().all(), f"constant attributions give {value.tolist()}")


def check_ties_give_a_finite_gradient(case: LossCase) -> None:
    """Attributions with ties, and constant ones, give a finite loss with finite gradients."""
    for n_own, name in ((1, "tied"), (0, "constant")):
        network = averaged(case.model, n_own).build()
        loss = case.value(network)
        require(loss.isfinite().all(), f"{name} attributions give a loss of {loss.item()}")
        parameters = [p for p in network.parameters() if p.requires_grad]
        for gradient in torch.autograd.grad(loss, parameters, allow_unused=True):
            require(
                gradient is None or gradient.isfinite().all(),
                f"{name} attributions give gradients that are not finite",
            )
