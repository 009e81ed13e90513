"""The info of attacks, against runs with one step more and maps computed one by one."""

import math

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_robust.robust import ERAttack, ExplanationAttack, MSEAttack
from tests.robust.targets import TARGETS, linear, mlp, normal, ranked, relu_mlp, stock_scores

every_target = pytest.mark.parametrize("target", TARGETS, ids=str)


class Counting(Saliency):
    """A saliency that counts its maps."""

    calls = 0

    def attribute(self, *args, **kwargs):
        type(self).calls += 1
        return super().attribute(*args, **kwargs)


@every_target
def test_the_trace_holds_every_iterate_and_ends_alike_for_fewer_steps(target):
    _, long = target.perturb(step_num=4, n_restarts=2, return_info=True)
    _, short = target.perturb(step_num=2, n_restarts=2, return_info=True)
    assert long.trace.shape == (2, 5, 5) and short.trace.shape == (2, 3, 5)
    assert torch.equal(long.trace[:, :3], short.trace)
    assert torch.isfinite(long.trace).all()
    if not target.attack(target.network.build()).random_start:
        start = target.value(target.network.inputs)
        assert torch.allclose(long.trace[0, 0], start, atol=1e-12)


def iterates_of(attack, x, **arguments):
    """Every point of the search, the example first, as the projection sees them."""
    seen = [x.clone()]

    def remember(points):
        seen.append(points.clone())
        return points

    _, info = attack.perturb(x, project=remember, return_info=True, **arguments)
    return seen, info


ARGUMENTS = {"radius": 0.6, "step_size": 0.05, "step_num": 12, "target": 1}


@pytest.mark.parametrize("preserve", ["reject", "none", "early_stop"])
def test_first_change_step_is_the_first_iterate_whose_top_features_differ(preserve):
    model, x = mlp(), normal(30, 6)
    attack = ERAttack(Saliency(model), k=2, preserve_prediction=preserve)
    points, info = iterates_of(attack, x, **ARGUMENTS)
    assert len(points) == 13
    for i in range(len(x)):
        tops, labels = [], []
        for point in points:
            row = point[i : i + 1].clamp(x[i] - 0.6, x[i] + 0.6)
            tops.append(set(ranked(stock_scores(Saliency(model), row, 1)[0])[:2]))
            labels.append(int(model(row).argmax()))
        expected = -1
        for step, (top, label) in enumerate(zip(tops, labels, strict=True)):
            if preserve == "early_stop" and label != labels[0]:
                break
            allowed = preserve == "none" or label == labels[0]
            if allowed and top != tops[0]:
                expected = step
                break
        assert info.first_change_step[i] == expected, i
    assert len(info.first_change_step.unique()) > 4


def test_first_change_step_is_the_smallest_over_the_restarts():
    attack, x = ERAttack(Saliency(mlp()), k=2), normal(30, 6)
    arguments = {**ARGUMENTS, "step_num": 6, "seed": 0, "return_info": True}
    one = attack.perturb(x, n_restarts=1, **arguments)[1].first_change_step
    two = attack.perturb(x, n_restarts=2, **arguments)[1].first_change_step
    never = one < 0
    assert (two[~never] >= 0).all() and (two[~never] <= one[~never]).all()
    assert (two[never] >= 0).any() and (two[~never] < one[~never]).any()


def test_an_attack_reports_changes_of_the_k_of_its_objective():
    x, arguments = normal(5, 6), {**ARGUMENTS, "return_info": True, "seed": 0}
    _, without = MSEAttack(Saliency(mlp())).perturb(x, **arguments)
    _, with_k = MSEAttack(Saliency(mlp()), k=2).perturb(x, **arguments)
    assert without.first_change_step is None
    assert with_k.first_change_step.dtype == torch.int64 and (with_k.first_change_step >= 0).any()
    _, own = ExplanationAttack(Saliency(mlp()), lambda s, r: s[:, 0]).perturb(x, **arguments)
    assert own.first_change_step is None


QUERIES = {
    "own gradient": ({}, {}, 1 + 6),
    "random start": ({}, {"random_start": True}, 1 + 7),
    "restarts": ({}, {"n_restarts": 3}, 3 * 7),
    "smooth": ({"smooth_relu": 5.0}, {}, 7 + 6),
    "differences": ({"gradient": "finite_difference"}, {}, 7 + 6),
    "smooth differences": ({"gradient": "finite_difference", "smooth_relu": 5.0}, {}, 7 + 12),
    "probes": ({"gradient": "spsa", "n_directions": 3}, {}, 7 + 6 * 6),
    "path": ({"path_points": 4}, {}, 4 * 7),
    "no steps": ({}, {"step_num": 0}, 1),
    "chunks": ({}, {"max_examples_per_batch": 2}, 7),
}


@pytest.mark.parametrize("options, arguments, expected", QUERIES.values(), ids=QUERIES)
def test_n_queries_counts_the_maps_of_an_example(options, arguments, expected):
    Counting.calls = 0
    # Counting is a subclass of Saliency, for which finite differences are refused.
    kind = Saliency if "gradient" in options and options["gradient"] != "spsa" else Counting
    _, info = ERAttack(kind(mlp()), k=2, **options).perturb(
        normal(5, 6), 0.3, target=1, return_info=True, seed=0, **{"step_num": 6, **arguments}
    )
    assert (info.n_queries == expected).all()
    if kind is Counting:
        assert Counting.calls == expected * (3 if "max_examples_per_batch" in arguments else 1)


def test_a_stand_in_counts_as_well():
    model = mlp()
    _, info = ERAttack(Saliency(model), k=2, surrogate=InputXGradient(model)).perturb(
        normal(5, 6), 0.3, step_num=6, target=1, return_info=True
    )
    assert (info.n_queries == 7 + 6).all()


def test_gradient_found_for_each_example():
    x = torch.cat([normal(3, 6), torch.full((1, 6), math.nan).double()])
    _, info = ERAttack(Saliency(mlp()), k=2).perturb(x, 0.3, target=1, return_info=True)
    assert info.gradient_found.tolist() == [True, True, True, False]


# --- examples without a ranking ------------------------------------------------------------------


class Dead(nn.Module):
    """A map of equal entries for examples whose first feature is large, a usual one for others."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        flat = x.sum(dim=1, keepdim=True).expand(-1, 3)
        return torch.where(x[:, :1] > 5, flat, self.inner(x))


def nan_entry(x):
    x[1, 2] = math.nan


def nan_row(x):
    x[1] = math.nan


def ties_among_nan(x):
    x[1, :2] = math.nan
    x[1, 2:] = 0.0


def infinite_entry(x):
    x[1, 0] = math.inf


def constant_map(x):
    x[1, 0] = 10.0


NOT_FINITE = [nan_entry, nan_row, ties_among_nan, infinite_entry]
SPOILED = [(Saliency, constant_map)]  # x times equal gradients would be a ranking
SPOILED += [
    (attribution, spoil) for attribution in (Saliency, InputXGradient) for spoil in NOT_FINITE
]


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("attribution, spoil", SPOILED)
def test_an_example_without_a_ranking_is_left_alone_and_harms_no_other(attribution, spoil, norm):
    model, x = Dead(), normal(4, 6)
    good = x.clone()
    spoil(x)
    attack = ERAttack(attribution(model), k=4)
    arguments = {"radius": 0.3, "target": 1, "norm": norm, "return_info": True, "seed": 0}
    moved, info = attack.perturb(x, n_restarts=2, **arguments)
    assert info.objective.isnan().tolist() == [False, True, False, False]
    assert torch.equal(moved[1].nan_to_num(), x[1].nan_to_num())
    assert info.first_change_step[1] == -1
    others = [0, 2, 3]
    expected, own = attack.perturb(good[others], n_restarts=2, **arguments)
    assert torch.allclose(moved[others], expected, rtol=0, atol=1e-9)
    assert torch.allclose(info.objective[others], own.objective, rtol=0, atol=1e-9)


def test_a_point_without_a_ranking_is_never_returned():
    class Hole(nn.Module):
        """A map that is lost, with every gap, where the first feature is below 0.9."""

        def forward(self, x):
            curved = (x**3).sum(dim=1, keepdim=True)
            alive = torch.where(x[:, :1] > 0.9, curved, torch.zeros_like(curved))
            return torch.cat([alive, alive.detach() - 1], dim=1)

    x = torch.tensor([[1.0, 0.5, 0.2]]).double()
    moved, info = ERAttack(Saliency(Hole()), k=1).perturb(
        x, 0.5, 0.02, step_num=25, target=0, return_info=True
    )
    assert (info.trace == 0).any(), "the hole must be reached"
    scores = stock_scores(Saliency(Hole()), moved, 0)
    assert scores.max() > scores.min()
    start = stock_scores(Saliency(Hole()), x, 0)
    assert 0 < info.objective.item() < linear(1)(start, start).item()


def test_info_of_an_attribution_that_needs_more_than_one_forward():
    model, x = relu_mlp(), normal(4, 6)
    moved, info = ERAttack(IntegratedGradients(model), k=2).perturb(
        x, 0.4, step_num=5, target=1, return_info=True, n_steps=7
    )
    start, end = (stock_scores(IntegratedGradients(model), p, 1, n_steps=7) for p in (x, moved))
    assert torch.allclose(info.objective, linear(2)(end, start), atol=1e-9)
    assert (info.n_queries == 6).all()
    assert torch.equal(info.prediction_kept, model(moved).argmax(1) == model(x).argmax(1))
