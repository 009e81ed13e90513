"""Soft constraints on the prediction, against the whole attack written out with raw autograd."""

import re

import pytest
import torch
from captum.attr import Attribution, InputXGradient, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Bernoulli, Categorical, kl_divergence

from captum_robust.robust import ERAttack, ExplanationAttack
from captum_robust.robust import constraints as soft
from captum_robust.robust._search.lagrangian import PREDICTION_MODES, Lagrangian
from captum_robust.robust._search.region import Region
from captum_robust.robust._search.slopes import Slope
from captum_robust.robust.constraints import lost_margin, violations_of
from tests.robust.targets import linear, mlp, normal, pairs_of, relu_mlp

RULES = ["fixed", "gda", "hedge", "qp"]
every_rule = pytest.mark.parametrize("rule", RULES)
many = settings(max_examples=40, deadline=None, derandomize=True)


# --- what is measured ----------------------------------------------------------------------------


def test_divergence_is_that_of_torch():
    after, before = normal(7, 3), normal(7, 3, seed=1)
    expected = kl_divergence(Categorical(logits=before), Categorical(logits=after))
    assert torch.allclose(soft.kl_divergence(after, before), expected[:, None], atol=1e-14)
    expected = kl_divergence(Bernoulli(logits=before[:, 0]), Bernoulli(logits=after[:, 0]))
    for shape in [(7,), (7, 1)]:
        found = soft.kl_divergence(after[:, 0].view(shape), before[:, 0].view(shape))
        assert torch.allclose(found, expected[:, None], atol=1e-14)
    single = soft.kl_divergence(after.float(), before.float())
    assert torch.allclose(single, soft.kl_divergence(after, before), atol=1e-6)


def test_lost_margin_by_hand():
    before = torch.tensor([[4.0, 0.0, 1.0], [0.0, 2.0, 1.0], [5.0, 1.0, 0.0], [1.0, 3.0, 0.0]])
    after = torch.tensor([[3.0, 0.0, 1.5], [0.0, 1.0, 2.0], [9.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
    # margins before 3, 1, 4, 2 and after 1.5, −1, 8, 1
    expected = torch.tensor([[0.5], [2.0], [0.0], [0.5]]).double()
    assert torch.equal(lost_margin(after, before), expected)
    logits = torch.tensor([2.0, -4.0, 1.0]), torch.tensor([1.0, -3.0, -1.0])
    assert torch.equal(
        lost_margin(logits[1], logits[0]), torch.tensor([[0.5], [0.25], [2.0]]).double()
    )


def test_several_predictions_have_a_constraint_each():
    after, before = normal(5, 3, 2), normal(5, 3, 2, seed=1)
    for measure in (soft.kl_divergence, lost_margin):
        each = [measure(after[..., p], before[..., p]) for p in (0, 1)]
        assert torch.allclose(measure(after, before), torch.cat(each, dim=1), atol=1e-14)


# --- the attack written out ----------------------------------------------------------------------


def gradient_of(function, x):
    leaf = x.clone().requires_grad_()
    value = function(leaf)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def written_out(model, x, k, radius, size, n_steps, norm, rule, rate, measure):
    """The iterates and the weights of each step, example by example."""
    points, weights = [], []
    for row in x:
        row, way, lam = row[None], [], [0.5, 0.5]
        leaf = row.clone().requires_grad_()
        start = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)[0].abs()
        pairs, before = pairs_of(start[0], k), model(row).detach()

        def gaps(leaf, pairs=pairs):
            maps = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf, create_graph=True)[0].abs()
            return sum(maps[:, i] - maps[:, j] for i, j in pairs)

        def change(leaf, before=before):
            return measure(model(leaf), before)

        point, fall, first = row.clone(), 0.0, None
        for _ in range(n_steps):
            g0, d0 = gradient_of(gaps, point)
            g1, d1 = gradient_of(change, point)
            first = g0 if first is None else first
            fall = max(fall, radius * float(d0.norm(p=1 if norm == "Linf" else 2)))
            u0 = d0 / fall
            if rule == "qp":  # the nearest point of a segment between unit vectors is its middle
                share = float(1 / d1.norm()) if float(g1) > 1e-5 else 0.0
                lam = [float(1 / u0.norm()), share]
                lam = [v / sum(lam) for v in lam]
            way_down = lam[0] * u0 + lam[1] * d1
            weights.append(lam)
            if rule == "gda":
                lam = [lam[0], lam[1] + rate * float(g1)]
            if rule == "hedge":
                exponents = torch.tensor([rate * float(g0 - first) / fall, rate * float(g1)])
                lam = [v * float(e) for v, e in zip(lam, exponents.double().exp(), strict=True)]
            lam = [v / sum(lam) for v in lam]
            if norm == "Linf":
                point = row + (point - size * way_down.sign() - row).clamp(-radius, radius)
            else:
                move = point - size * way_down / way_down.norm() - row
                point = row + move * min(1.0, radius / float(move.norm()))
            way.append(point)
        points.append(torch.cat(way))
    return torch.stack(points, dim=1), torch.tensor(weights).view(len(x), n_steps, 2)


@every_rule
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["kl", "label"])
def test_every_iterate_is_that_of_the_attack_written_out(rule, norm, name):
    model, x = mlp(), normal(6, 6)
    seen = []
    attack = ERAttack(
        Saliency(model), k=2, preserve_prediction=rule, constraint=name, constraint_rate=2.0
    )
    attack.perturb(
        x, 0.8, 0.15, step_num=7, target=1, norm=norm, project=lambda p: seen.append(p) or p
    )

    def divergence(outputs, before):
        return (before.softmax(1) * (before.log_softmax(1) - outputs.log_softmax(1))).sum(1)

    def lost(outputs, before):
        label = int(before.argmax())
        others = [c for c in range(3) if c != label]
        after, start = (o[:, label] - o[:, others].amax(dim=1) for o in (outputs, before))
        return (1 - after / start).clamp_min(0)

    measure = divergence if name == "kl" else lost
    expected, _ = written_out(model, x, 2, 0.8, 0.15, 7, norm, rule, 2.0, measure)
    # What the caller's projection sees are the points before they are cut to the ball.
    found = torch.stack([p.clamp(x - 0.8, x + 0.8) if norm == "Linf" else cut(p, x) for p in seen])
    assert torch.allclose(found, expected, rtol=0, atol=1e-7)


def cut(points, x, radius=0.8):
    move = points - x
    return (x + move * (radius / move.norm(dim=1, keepdim=True)).clamp(max=1)).detach()


def test_the_rules_differ_from_each_other_and_from_no_constraint():
    model, x = mlp(), normal(6, 6)
    ends = [
        ERAttack(Saliency(model), k=2, preserve_prediction=rule).perturb(x, 2.0, target=1)
        for rule in ["reject", *RULES]
    ]
    for number, end in enumerate(ends):
        assert all(not torch.allclose(end, other, atol=1e-3) for other in ends[:number])


# --- the gradient of the constraint reaches the attack -------------------------------------------

# The code of the papers evaluates the constraint on another tensor than it differentiates, so that
# all its constrained attacks are the unconstrained one (arXiv 2212.14106, official code).


@pytest.mark.filterwarnings("ignore::captum_robust.robust.ZeroGradientWarning")
@pytest.mark.parametrize("rule", ["fixed", "gda", "hedge"])
@pytest.mark.parametrize("gradient", ["autograd", "finite_difference", "spsa"])
@pytest.mark.parametrize("name", ["kl", "label"])
def test_where_the_objective_is_flat_only_the_constraint_moves_the_attack(rule, gradient, name):
    model, x = mlp(), normal(12, 6)
    start = x + 0.7 * normal(12, 6, seed=1).sign()

    def flat(scores, reference):
        return 0 * scores.sum(dim=1)

    attack = ExplanationAttack(
        Saliency(model), flat, preserve_prediction=rule, constraint=name, gradient=gradient,
        n_directions=4,
    )  # fmt: skip
    seen = []
    attack.perturb(
        x, 0.8, target=1, start=start, norm="L2", seed=0, step_num=12,
        project=lambda p: seen.append(p.clone()) or p,
    )  # fmt: skip
    measure = soft.kl_divergence if name == "kl" else lost_margin
    first, last = (measure(model(cut(p, x)), model(x))[:, 0] for p in (seen[0], seen[-1]))
    moved = first > 0.01
    assert moved.sum() > 4 and (last[moved] < 0.5 * first[moved]).all()


def test_objective_and_constraint_share_the_tensor_that_is_differentiated():
    model, x, seen = mlp(), normal(4, 6), []

    def watch(outputs, reference):
        seen.append((outputs, reference))
        return (outputs - reference).square().sum(dim=1)

    ERAttack(Saliency(model), k=2, preserve_prediction="fixed", constraint=watch).perturb(
        x, 0.5, step_num=3, target=1
    )
    graphs = [o for o, _ in seen if o.requires_grad]
    assert len(graphs) == 3
    assert all(torch.equal(reference, model(x)) for _, reference in seen)
    assert torch.equal(graphs[0], model(x)) and not torch.equal(graphs[1], model(x))


# --- every way to the gradient -------------------------------------------------------------------


def directions(rule, gradient, n_directions=1):
    """The first L2 step from beside the example, where a divergence has a gradient."""
    seen, x = [], normal(8, 6)
    attack = ERAttack(
        Saliency(mlp()), k=2, preserve_prediction=rule, gradient=gradient, probe=1e-3,
        n_directions=n_directions,
        constraint=lambda o, r: 1e5 * soft.kl_divergence(o, r),  # matters in a tiny ball
    )  # fmt: skip
    start = x + 0.004 * normal(8, 6, seed=3).sign()
    attack.perturb(
        x, 0.01, 1e-4, step_num=1, target=1, norm="L2", seed=0, start=start,
        project=lambda p: seen.append(p.clone()) or p,
    )  # fmt: skip
    return seen[-1] - start


def cosines(a, b):
    return torch.nn.functional.cosine_similarity(a, b)


@every_rule
def test_other_ways_to_the_gradient_step_along_that_of_autograd(rule):
    exact, free = directions(rule, "autograd"), directions("reject", "autograd")
    assert cosines(exact, free).min() < 0.7, "the constraint must matter"
    assert cosines(exact, directions(rule, "finite_difference")).min() > 0.9999
    probed = directions(rule, "spsa", n_directions=300)
    assert cosines(exact, probed).mean() > 0.9
    assert cosines(exact, probed).mean() > cosines(free, probed).mean() + 0.05


OPTIONS = {
    "plain": {},
    "halving": {"step_rule": "halving"},
    "differences": {"gradient": "finite_difference"},
    "probes": {"gradient": "spsa", "n_directions": 2},
    "smooth": {"smooth_relu": 5.0},
    "growing": {"smooth_relu": (2.0, 20.0)},
    "path": {"path_points": 2},
    "precision": {"keep": "precision"},
    "precision of probes": {"keep": "precision", "gradient": "spsa", "n_directions": 2},
    "label": {"constraint": "label"},
    "surrogate": {"surrogate": True},
}


@every_rule
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_follow_their_examples_and_no_flip_is_returned(rule, options):
    model, x = relu_mlp() if "smooth_relu" in options else mlp(), normal(9, 6)
    if "surrogate" in options:
        options = {"surrogate": InputXGradient(model)}
    attack = ERAttack(Saliency(model), k=2, preserve_prediction=rule, **options)
    arguments = {"radius": 1.5, "step_num": 4, "n_restarts": 2, "target": 1, "seed": 0}
    whole, info = attack.perturb(x, return_info=True, **arguments)
    assert torch.equal(model(whole).argmax(dim=1), model(x).argmax(dim=1))
    assert info.prediction_kept.all() and (info.objective < info.trace[0, 0]).any()
    parts, other = attack.perturb(x, return_info=True, max_examples_per_batch=4, **arguments)
    assert torch.allclose(whole, parts, rtol=0, atol=1e-8)
    assert torch.equal(info.n_queries, other.n_queries)
    order = torch.tensor([4, 2, 8, 0, 1, 7, 3, 6, 5])
    turned = attack.perturb(x[order], **arguments)
    assert torch.allclose(whole[order], turned, rtol=0, atol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@every_rule
def test_other_precisions(rule, dtype):
    model, x = mlp().to(dtype), normal(8, 6).to(dtype)
    attack = ERAttack(Saliency(model), k=2, preserve_prediction=rule)
    moved, info = attack.perturb(x, 1.0, target=1, return_info=True)
    assert moved.dtype == dtype and (info.objective < info.trace[0, 0]).sum() >= 7


# --- what they are for ---------------------------------------------------------------------------


def along(model, x, rule, **options):
    """Return divergences of the result and of the last iterate, and the fraction of flips."""
    seen = []
    attack = ERAttack(Saliency(model), k=2, preserve_prediction=rule, **options)
    moved, info = attack.perturb(
        x, 2.0, target=1, norm="L2", step_num=20, return_info=True,
        project=lambda p: seen.append(cut(p, x, 2.0)) or p,
    )  # fmt: skip
    outputs = [model(p) for p in (moved, seen[-1])]
    changes = [soft.kl_divergence(o, model(x)).mean() for o in outputs]
    flips = [model(p).argmax(dim=1) != model(x).argmax(dim=1) for p in seen]
    return *changes, torch.stack(flips).double().mean(), info


@pytest.mark.parametrize("network", [mlp, relu_mlp])
def test_predictions_change_less_than_without(network):
    model, x = network(), normal(60, 6)
    options = {"smooth_relu": 5.0} if network is relu_mlp else {}
    free_returned, free_last, free_flips, free = along(model, x, "none", **options)
    assert free_flips > 0.05, "the unconstrained attack must flip labels"
    assert not free.prediction_kept.all()
    fall = (free.trace[0, 0] - free.objective).mean()
    for rule in RULES:
        for name in ("kl", "label"):
            returned, last, flips, info = along(model, x, rule, constraint=name, **options)
            most = 0.7 if name == "kl" else 0.9  # the margin is not the divergence
            assert returned < most * free_returned and last < most * free_last, (rule, name)
            assert flips < 0.7 * free_flips, (rule, name)
            assert info.prediction_kept.all()
            assert (info.trace[0, 0] - info.objective).mean() > 0.3 * fall > 0, (rule, name)


def test_constraints_can_find_what_rejection_alone_does_not():
    # Iterates that have crossed the boundary are lost; those that are kept back go on.
    x = normal(60, 6)
    ends = {
        rule: ERAttack(Saliency(mlp()), k=2, preserve_prediction=rule)
        .perturb(x, 1.0, target=1, return_info=True)[1]
        .objective.mean()
        for rule in ("reject", "fixed", "gda")
    }
    assert ends["fixed"] < ends["reject"] and ends["gda"] < ends["reject"]


@every_rule
def test_the_unit_of_the_map_does_not_matter(rule):
    class Scaled(Saliency):
        def attribute(self, *args, **kwargs):
            return 1e6 * super().attribute(*args, **kwargs)

    model, x = mlp(), normal(6, 6)
    plain, scaled = (
        ERAttack(kind(model), k=2, preserve_prediction=rule).perturb(x, 0.8, target=1, norm="L2")
        for kind in (Saliency, Scaled)
    )
    assert torch.allclose(plain, scaled, rtol=0, atol=1e-6)


# --- the weights ---------------------------------------------------------------------------------


def free_region(n, radius=1.0):
    x = torch.zeros(n, 5).double()
    infinite = torch.full_like(x, float("inf"))
    radii = torch.full((n,), radius).double()
    return Region(x, (x,), radii, "L2", (-infinite,), (infinite,), None, None)


@many
@given(
    st.sampled_from(RULES), st.integers(1, 4), st.integers(0, 999), st.floats(-8, 8),
    st.floats(0, 50),
)  # fmt: skip
def test_weights_stay_on_the_simplex(rule, n_constraints, seed, exponent, rate):
    lagrangian = Lagrangian.equal(
        PREDICTION_MODES[rule].weights, rate, n_constraints, torch.zeros(3)
    )
    for step in range(4):
        drawn = normal(3, 1 + n_constraints, 5, seed=seed + step)
        slopes = [
            Slope((10.0**exponent * drawn[:, q],), torch.ones(3).double())
            for q in range(1 + n_constraints)
        ]
        values = 10.0**exponent * normal(3, 1 + n_constraints, seed=seed - step - 1)
        violations = values[:, 1:].clamp_min(0)
        ahead = lagrangian.gradient(free_region(3), values[:, 0], violations, slopes)
        assert torch.isfinite(ahead[0]).all()
        assert (lagrangian.weights >= 0).all()
        assert torch.allclose(lagrangian.weights.sum(dim=1), torch.ones(3).double(), atol=1e-12)
        if rule == "qp":
            # All that are not left out fall at one rate, or at a higher one.
            unit = drawn / drawn.norm(dim=2, keepdim=True)
            rates = (unit @ ahead[0][:, :, None])[:, :, 0]
            lowest = rates.masked_fill(
                torch.nn.functional.pad(violations <= 1e-5, (1, 0)), float("inf")
            ).amin(dim=1)
            assert (lowest >= -1e-9).all()


def test_constraints_that_hold_leave_the_objective_alone():
    slopes = [Slope((normal(3, 5, seed=s),), torch.ones(3).double()) for s in range(3)]
    lagrangian = Lagrangian.equal(PREDICTION_MODES["qp"].weights, 1.0, 2, torch.zeros(3))
    ahead = lagrangian.gradient(
        free_region(3), torch.zeros(3).double(), torch.zeros(3, 2).double(), slopes
    )
    assert torch.allclose(lagrangian.weights[:, 0], torch.ones(3).double(), atol=1e-12)
    unit = slopes[0].direction[0] / slopes[0].direction[0].norm(dim=1, keepdim=True)
    assert torch.allclose(ahead[0], unit)


# --- several predictions, and what cannot be ------------------------------------------------------


class Pair(nn.Module):
    """Three results of a pair, each a single logit: (N, 6) -> (N, 3)."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return self.inner(x) - 1.0


def three_divergences(outputs, reference):
    return torch.cat([soft.kl_divergence(outputs[:, p], reference[:, p]) for p in range(3)], dim=1)


@every_rule
def test_a_prediction_of_three_results_is_kept_in_all_of_them(rule):
    model, x = Pair(), normal(30, 6)

    def signs(outputs):
        return outputs > 0

    options = {"decision_func": signs, "constraint": three_divergences}
    attack = ERAttack(Saliency(model), k=2, preserve_prediction=rule, **options)
    moved = attack.perturb(x, 1.5, target=0)
    assert torch.equal(signs(model(moved)), signs(model(x)))
    free = ERAttack(Saliency(model), k=2, preserve_prediction="none").perturb(x, 1.5, target=0)
    changes, free_changes = (
        three_divergences(model(p), model(x)).mean(dim=0) for p in (moved, free)
    )
    assert (changes < 0.7 * free_changes).all()


@pytest.mark.parametrize(
    "options, forwards",
    [({}, 10), ({"smooth_relu": 5.0}, 10 + 2 * 7), ({"gradient": "spsa"}, 10 + 7 * 4)],
)
def test_no_more_forwards_than_it_takes_and_no_more_maps(options, forwards):
    calls = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = mlp()

        def forward(self, x):
            calls.append(len(x))
            return self.inner(x)

    attack = ERAttack(
        Saliency(Counted()), k=2, preserve_prediction="gda", n_directions=2, **options
    )
    _, info = attack.perturb(normal(5, 6), 0.3, step_num=7, target=1, return_info=True)
    free = ERAttack(Saliency(mlp()), k=2, n_directions=2, **options)
    _, other = free.perturb(normal(5, 6), 0.3, step_num=7, target=1, return_info=True)
    assert len(calls) == forwards and torch.equal(info.n_queries, other.n_queries)


def test_what_cannot_be_constrained_says_so():
    saliency, x = Saliency(mlp()), normal(4, 6)
    with pytest.raises(
        ValueError, match=re.escape("constraint must be one of ('kl', 'label', 'boundary')")
    ):
        ERAttack(saliency, k=2, constraint="l2")
    with pytest.raises(ValueError, match="constraint_rate must be finite and not negative, got -1"):
        ERAttack(saliency, k=2, constraint_rate=-1.0)
    attack = ERAttack(saliency, k=2, preserve_prediction="gda", constraint=lambda o, r: o.mean())
    with pytest.raises(ValueError, match=r"constraint must return .*shape \(4, K\) or \(4,\)"):
        attack.perturb(x, 0.5, target=1)
    cut_off = ERAttack(
        saliency, k=2, preserve_prediction="gda", constraint=lambda o, r: (o - r).detach()
    )
    with pytest.raises(ValueError, match=r"preserve_prediction='gda' needs .* gradient='spsa'"):
        cut_off.perturb(x, 0.5, target=1)


def test_the_gaps_reported_are_those_of_the_map():
    model, x = mlp(), normal(6, 6)
    moved, info = ERAttack(Saliency(model), k=2, preserve_prediction="qp").perturb(
        x, 0.8, target=1, return_info=True
    )
    maps = [gradient_of(lambda p: model(p)[:, 1], p)[1].abs() for p in (moved, x)]
    assert torch.allclose(info.objective, linear(2)(*maps), atol=1e-9)


# --- sliding along the boundary -------------------------------------------------------------------


def test_the_boundary_binds_only_where_it_is_near():
    before = torch.tensor([[4.0, 0.0]] * 4).double()
    after = torch.tensor([[4, 0], [2.1, 1.9], [2.05, 1.95], [1, 3]], dtype=torch.float64)
    lost = [0, 0.95, 0.975, 1.5]
    expected = torch.tensor([[max(0, share - 0.95)] for share in lost]).double()
    assert torch.allclose(violations_of("boundary", before)(after), expected, atol=1e-12)


class Wall(nn.Module):
    """(N, 3) -> (N, 2): the label changes at x0 = 1; the map falls along x0 and, slower, x1."""

    def forward(self, x):
        logit = 1 - x[:, 0]
        return torch.stack([logit, -logit], dim=1)


class Rising(Attribution):
    """Scores (0, x0 + x1 / 2 - 3, -5): the gap of the top feature closes along (1, 1/2)."""

    def attribute(self, inputs, target=None):
        level = inputs[:, 0] + inputs[:, 1] / 2 - 3
        return torch.stack([0 * level, level, 0 * level - 5], dim=1)


def test_an_attack_slides_along_the_boundary_to_what_lies_beyond_the_corner():
    x, attribution = torch.zeros(1, 3).double(), Rising(Wall())
    gaps = {}
    for how in ("reject", "qp"):
        attack = ERAttack(
            attribution, k=1, pairs="mm", k_prime=1, preserve_prediction=how, constraint="boundary",
            step_rule="halving",
        )  # fmt: skip
        moved, info = attack.perturb(x, 3.0, norm="L2", step_num=60, return_info=True)
        assert info.prediction_kept.all() and moved[0, 0] <= 1
        gaps[how] = info.objective.item()
    # The best point with the label is (1, sqrt(8)); along the gradient one gets to (1, 1/2).
    best = 3 - 1 - 8**0.5 / 2
    assert gaps["qp"] == pytest.approx(best, abs=0.1)
    assert gaps["reject"] > gaps["qp"] + 0.2
