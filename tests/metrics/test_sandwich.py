"""Certified ≤ true ≤ attacked: nothing inside a certified radius changes the top-k set."""

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.metrics import certified_top_k_radius
from captum_robust.ranking import top_k_mask
from captum_robust.robust import ERAttack
from tests.certify.networks import ACTIVATIONS, gradients, points_of_balls, random_network
from tests.metrics.definitions import normal

N, N_FEATURES, N_POINTS, MAX_RADIUS = 60, 6, 80, 2.0
HIDDEN = {"shallow": [8], "deep": [6, 5]}
RULES = [(1, True), (2, False), (3, True)]  # k, absolute
OBJECTIVES = [{"pairs": "mm", "gap": "exp"}, {"pairs": "all"}, {"pairs": "mm", "k_prime": 1}]


class Case:
    """The examples of one network, and who changes their top-k within a radius."""

    def __init__(self, network, norm, k, absolute):
        self.network, self.norm, self.k, self.absolute = network, norm, k, absolute
        self.inputs = normal(N, N_FEATURES)
        self.radius = certified_top_k_radius(network, self.inputs, k, 1, norm, MAX_RADIUS, absolute)
        self.ranked = ~self.radius.isnan()
        self.top = self.tops(self.inputs)

    def tops(self, points):
        maps = gradients(self.network, points, 1)
        return top_k_mask(maps.abs() if self.absolute else maps, self.k)

    def changed_by_points(self, radius):
        points = points_of_balls(self.inputs, radius, self.norm, N_POINTS)
        tops = self.tops(points.flatten(0, 1)).view(N, N_POINTS, N_FEATURES)
        return (tops != self.top[:, None]).any(dim=2).any(dim=1)

    def changed_by_attacks(self, radius, smooth_relu):
        changed = torch.zeros(N, dtype=torch.bool)
        for objective in OBJECTIVES:
            attack = ERAttack(
                Saliency(self.network), self.k, smooth_relu=smooth_relu,
                preserve_prediction="none", **objective,
            )  # fmt: skip
            moved = attack.perturb(
                self.inputs, radius, step_num=8, target=1, norm=self.norm, abs=self.absolute,
                random_start=True, seed=0,
            )  # fmt: skip
            changed |= (self.tops(moved) != self.top).any(dim=1)
        return changed


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name != "low threshold"])
def test_nothing_within_the_certified_radius_changes_the_top(name, hidden, norm):
    network = random_network([N_FEATURES, *HIDDEN[hidden], 2], ACTIVATIONS[name], 1, gain=1.5)
    smooth_relu = 8.0 if "relu" in name else None
    certified, attacked = [], []
    for k, absolute in RULES:
        case = Case(network, norm, k, absolute)
        inside = 0.999 * case.radius.nan_to_num(0)
        changed = case.changed_by_points(inside) | case.changed_by_attacks(inside, smooth_relu)
        assert not changed[case.ranked].any()
        beyond = 2 * case.radius.nan_to_num(0)
        changed = case.changed_by_points(beyond) | case.changed_by_attacks(beyond, smooth_relu)
        certified.append(case.radius[case.ranked] > 1e-4)
        attacked.append(changed[case.ranked & (case.radius < MAX_RADIUS)])
    # The radius is neither zero nor far from what an attack needs.
    assert torch.cat(certified).double().mean() > 0.95
    assert torch.cat(attacked).double().mean() > 0.7
    assert len(torch.cat(attacked)) > 0.8 * len(RULES) * N


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_linear_network_is_certified_as_far_as_asked(norm):
    case = Case(random_network([N_FEATURES, 4, 2], nn.Identity(), 1), norm, 2, True)
    assert (case.radius == MAX_RADIUS).all()
    assert not case.changed_by_points(case.radius).any()
