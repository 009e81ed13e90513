"""The multi-objective attack: its direction, its steps and its end, against solvers and theory."""

import math
import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.attr import Attribution, Saliency
from scipy.optimize import linprog, minimize, nnls
from torch import nn

from captum_robust.attr import smooth_relu
from captum_robust.robust import ERAttack, ParetoERAttack, ParetoInfo
from captum_robust.robust._search.common_descent import ActiveConstraints, common_descent
from captum_robust.robust._search.pareto_descent import ParetoDescent
from tests.robust.targets import Quadratic, gaps, mlp, normal, relu_mlp, stock_scores

N, K = 6, 3


class QuadraticMaps(Attribution):
    """Maps of N features, x'A_i x/2 + b_i'x + c_i, so that every gap has a known curvature.

    The first K features curve upwards and the others downwards: gaps are convex and bounded below.
    """

    def __init__(self, curvature=1.0):
        super().__init__(lambda x: x.sum(dim=1))
        roots = normal(N, N, N, seed=7)
        signs = torch.tensor([1.0] * K + [-1.0] * (N - K)).double()
        self.A = curvature * signs[:, None, None] * (roots @ roots.mT / N)
        self.b, self.c = normal(N, N, seed=8), 6 * signs

    def attribute(self, inputs, target=None):
        x = inputs if isinstance(inputs, torch.Tensor) else inputs[0]
        return torch.einsum("ni,kij,nj->nk", x, self.A, x) / 2 + x @ self.b.T + self.c


@dataclass
class Step:
    """Record of one iteration of the search."""

    points: torch.Tensor
    direction: torch.Tensor
    ahead: torch.Tensor
    rate: torch.Tensor


@pytest.fixture
def steps(monkeypatch):
    """The iterations of all attacks of the test; examples that have ended are left out."""
    seen, search = [], ParetoDescent._line_search

    def watched(self, points, leaves, direction, *args):
        ahead, rate = search(self, points, leaves, direction, *args)
        flat = [torch.cat([t.flatten(1) for t in p], dim=1) for p in (points, ahead)]
        seen.append(Step(flat[0], direction, flat[1], rate))
        return ahead, rate

    monkeypatch.setattr(ParetoDescent, "_line_search", watched)
    return seen


def gap_vectors(attribution, x, reference, k, n_pairs, target=None, **kwargs):
    """The gaps of the pairs nearest to flipping, (N, n_pairs), by stock maps and loops."""
    rows = gaps(stock_scores(attribution, x, target, **kwargs), reference, k, "mm")
    return torch.stack([row[:n_pairs] for row in rows])


def gradients_of(attribution, x, reference, k, n_pairs):
    """Their gradients (n_pairs, N, n), for maps that are plain functions of the input."""
    leaf = x.clone().requires_grad_()
    rows = gaps(attribution.attribute(leaf), reference, k, "mm")
    values = torch.stack([row[:n_pairs] for row in rows])
    return torch.stack([torch.autograd.grad(v.sum(), leaf, retain_graph=True)[0] for v in values.T])


# --- the direction -------------------------------------------------------------------------------


def direction_by_slsqp(gradients, below=None, above=None, normals=()):
    """Equation (7) with its τ, within the tangent cone of the region."""
    gradients = gradients.numpy()
    n = gradients.shape[1]
    no = np.zeros(n, dtype=bool)
    below, above = (no if w is None else w.numpy() for w in (below, above))
    bounds = [(0 if b else None, 0 if a else None) for b, a in zip(below, above, strict=True)]
    constraints = [
        {
            "type": "ineq",
            "fun": lambda z, g=g: z[-1] - g @ z[:-1],
            "jac": lambda z, g=g: np.append(-g, 1),
        }
        for g in gradients
    ] + [
        {"type": "ineq", "fun": lambda z, v=v: -v @ z[:-1], "jac": lambda z, v=v: np.append(-v, 0)}
        for v in normals
    ]
    found = minimize(
        lambda z: z[-1] + z[:-1] @ z[:-1] / 2,
        np.zeros(n + 1),
        jac=lambda z: np.append(z[:-1], 1),
        bounds=[*bounds, (None, None)],
        constraints=constraints,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    return torch.from_numpy(found.x[:-1])


def walls(below, above, normals):
    return ActiveConstraints(torch.zeros_like(below), below, above, normals)


@pytest.mark.parametrize("m", [1, 2, 4])
@pytest.mark.parametrize("kind", ["free", "box", "sphere", "box and sphere"])
def test_the_direction_solves_equation_7_within_the_walls(m, kind):
    gradients = normal(25, m, 7) + 0.7 * normal(25, 1, 7, seed=1)
    none = torch.zeros(25, 7, dtype=torch.bool)
    below, above, normals = none, none, torch.zeros(25, 1, 7).double()
    if "box" in kind:
        below, above = normal(25, 7, seed=2) > 0.3, normal(25, 7, seed=3) > 0.8
    if "sphere" in kind:
        normals = normal(25, 1, 7, seed=4)
        normals = normals / normals.norm(dim=2, keepdim=True)
    found = common_descent(gradients, walls(below, above, normals))
    exact = 0
    for row, g, b, a, v in zip(found, gradients, below, above, normals, strict=True):
        best = direction_by_slsqp(g, b, a, [v[0].numpy()] if "sphere" in kind else [])
        # Every objective falls by ‖d‖², and nothing leaves.
        assert (g @ row).max() <= -row.square().sum() + 1e-10
        assert not (b & (row < -1e-12)).any() and not (a & (row > 1e-12)).any()
        exact += torch.allclose(row, best, rtol=0, atol=2e-5)
    assert exact >= (25 if kind != "box and sphere" else 22)


def test_a_gradient_that_is_left_out_has_no_say():
    gradients = normal(9, 3, 5)
    out = torch.tensor([[False, False, True]]).expand(9, 3)
    none = torch.zeros(9, 5, dtype=torch.bool)
    free = walls(none, none, torch.zeros(9, 1, 5).double())
    found = common_descent(gradients, free, out)
    assert torch.allclose(found, common_descent(gradients[:, :2], free), atol=1e-12)
    assert not torch.allclose(found, common_descent(gradients, free), atol=1e-3)


def test_every_step_goes_along_the_direction_of_the_maps(steps):
    maps, x = QuadraticMaps(), 0.5 * normal(6, N)
    reference = maps.attribute(x)
    ParetoERAttack(maps, k=K).perturb(x, 100.0, step_num=4, norm="L2")
    for step in steps:
        assert len(step.points) == 6
        gradients = gradients_of(maps, step.points, reference, K, K)
        for i in range(6):
            expected = direction_by_slsqp(gradients[:, i])
            assert torch.allclose(step.direction[i], expected, rtol=0, atol=1e-4)
        moved = step.points + step.rate[:, None] * step.direction
        assert torch.allclose(step.ahead, moved, rtol=0, atol=1e-12)


# --- the steps -----------------------------------------------------------------------------------


def lipschitz(maps, reference):
    """The largest curvature of a gap; one value per example."""
    each = []
    for row in reference:
        order = row.argsort(descending=True)
        pairs = zip(order[:K].flip(0), order[K:], strict=True)
        each.append(max(torch.linalg.matrix_norm(maps.A[i] - maps.A[j], ord=2) for i, j in pairs))
    return torch.stack(each)


def lowest_gap(maps, reference):
    """The smallest value that any gap can take."""
    each = []
    for row in reference:
        order = row.argsort(descending=True)
        values = []
        for i, j in zip(order[:K].flip(0), order[K:], strict=True):
            A, b, c = (t[i] - t[j] for t in (maps.A, maps.b, maps.c))
            values.append(c - b @ torch.linalg.solve(A, b) / 2)
        each.append(min(values))
    return torch.stack(each)


@pytest.mark.parametrize("armijo", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("curvature", [0.1, 1.0, 30.0])
def test_step_lengths_and_rate_of_the_theorem(steps, armijo, curvature):
    maps, x, size = QuadraticMaps(curvature), 0.5 * normal(5, N), 3.0
    reference = maps.attribute(x)
    L, lowest = lipschitz(maps, reference), lowest_gap(maps, reference)
    highest = gap_vectors(maps, x, reference, K, K).amax(dim=1)
    attack = ParetoERAttack(maps, k=K, armijo=armijo, preserve_prediction="none")
    _, info = attack.perturb(x, 1e3, size, step_num=25, norm="L2", return_info=True)
    assert (info.n_iterations > 4).all()
    shortest = torch.full((5,), math.inf).double()
    eta_min = torch.full((5,), math.inf).double()
    rows = torch.arange(5)
    for t, step in enumerate(steps, start=1):
        rows = rows[torch.isin(rows, info.direction_lengths[0, t - 1].isfinite().nonzero()[:, 0])]
        length = info.direction_lengths[0, t - 1, rows].double()
        found = step.rate
        walked = found > 0  # a critical point needs no step
        first = size / step.direction.norm(dim=1)
        floor = torch.minimum((1 - armijo) / L[rows], first)
        eta_min[rows] = torch.minimum(eta_min[rows], floor)
        assert (found[walked] >= eta_min[rows][walked] * (1 - 1e-6)).all()
        shortest[rows] = torch.minimum(shortest[rows], length)
        bound = ((highest - lowest) / (armijo * eta_min * t)).sqrt()
        assert (shortest[rows] <= bound[rows] * (1 + 1e-6)).all()
        rows = rows[walked]
        if len(rows) == 0:
            break
        # Armijo's rule, for every gap.
        before, after = (
            gap_vectors(maps, p[walked], reference[rows], K, K) for p in (step.points, step.ahead)
        )
        gradients = gradients_of(maps, step.points[walked], reference[rows], K, K)
        slopes = (gradients * step.direction[walked]).sum(dim=2).T
        assert (after - before <= armijo * found[walked][:, None] * slopes + 1e-9).all()
        assert (slopes <= -step.direction[walked].square().sum(dim=1, keepdim=True) + 1e-9).all()
    assert len(steps) > 4


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient": "spsa", "n_directions": 4},
        {"gradient": "finite_difference", "probe": 0.1},
    ],
    ids=["autograd", "spsa", "differences"],
)
def test_no_gap_ever_widens(steps, norm, options):
    model, x = mlp(), normal(12, 6)
    saliency = Saliency(model)
    reference = stock_scores(saliency, x, 1)
    attack = ParetoERAttack(saliency, k=2, **options)
    moved, info = attack.perturb(x, 0.8, target=1, norm=norm, step_num=8, seed=0, return_info=True)
    rows = torch.arange(12)
    for step, later in pairwise(steps):
        before = gap_vectors(saliency, step.points, reference[rows], 2, 2, 1)
        after = gap_vectors(saliency, step.ahead, reference[rows], 2, 2, 1)
        went = step.rate > 0
        assert (after[went] < before[went] + 1e-12).all()
        assert torch.equal(step.points[~went], step.ahead[~went])
        stays = (step.ahead[:, None] == later.points[None]).all(dim=2).any(dim=1)
        rows = rows[stays]
    start, end = (gap_vectors(saliency, p, reference, 2, 2, 1) for p in (x, moved))
    assert (end <= start).all() and (end < start - 1e-2).all(dim=1).sum() > 6
    assert (info.trace[0].diff(dim=0).nan_to_num() <= 1e-12).all()  # it may stay, but for rounding
    # The sum of the gaps alone would trade one for another.
    summed = ERAttack(saliency, k=2, pairs="mm").perturb(x, 0.8, target=1, norm=norm)
    assert (gap_vectors(saliency, summed, reference, 2, 2, 1) > start + 1e-3).any()


def test_one_gap_is_steepest_descent(steps):
    maps, x = QuadraticMaps(), 0.5 * normal(4, N)
    reference = maps.attribute(x)
    attack = ParetoERAttack(maps, k=K, k_prime=1, armijo=0.3, preserve_prediction="none")
    attack.perturb(x, 1e3, 2.0, step_num=6, norm="L2")
    point, rate = x.clone(), torch.full((4,), math.inf).double()
    for step in steps:
        gradient = gradients_of(maps, point, reference, K, 1)[0]
        value = gap_vectors(maps, point, reference, K, 1)[:, 0]
        assert torch.allclose(step.direction, -gradient, atol=1e-12)
        for i in range(4):
            eta, slope = (
                min(float(2 / gradient[i].norm()), 2 * float(rate[i])),
                gradient[i].square().sum(),
            )
            while True:
                ahead = point[i] - eta * gradient[i]
                now = gap_vectors(maps, ahead[None], reference[i : i + 1], K, 1)[0, 0]
                if now - value[i] <= -0.3 * eta * slope:
                    break
                eta /= 2
            point[i], rate[i] = ahead, eta
        assert torch.allclose(step.ahead, point, rtol=0, atol=1e-10)
    assert len(steps) == 6


# --- the end -------------------------------------------------------------------------------------


def test_a_critical_point_inside_the_ball_has_weights_that_cancel_the_gradients():
    maps, x = QuadraticMaps(), 0.5 * normal(8, N)
    reference = maps.attribute(x)
    attack = ParetoERAttack(maps, k=K, preserve_prediction="none", tolerance=1e-5)
    moved, info = attack.perturb(x, 1e3, 2.0, step_num=400, norm="L2", return_info=True)
    assert info.critical.all()
    assert ((moved - x).norm(dim=1) < 100).all()
    gradients = gradients_of(maps, moved, reference, K, K).transpose(0, 1).numpy()
    for g in gradients:
        longest = np.linalg.norm(g, axis=1).max()
        system = np.vstack([g.T / longest, np.ones((1, K))])
        weights, _ = nnls(system, np.eye(N + 1)[-1])
        assert np.linalg.norm(weights / weights.sum() @ g) <= 2e-5 * longest
    ends = info.n_iterations[0]
    for i, n in enumerate(ends.tolist()):
        lengths = info.direction_lengths[0, :, i]
        assert torch.isfinite(lengths[:n]).all() and lengths[n:].isnan().all()
        assert lengths[n - 1] == lengths[:n].min()
        assert (
            torch.isfinite(info.trace[0, : n - 1, i]).all()
            and info.trace[0, n + 1 :, i].isnan().all()
        )


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_at_the_walls_a_linear_program_finds_no_common_descent_either(norm):
    model, x, radius = Quadratic(N), normal(10, N), 0.7  # gaps are linear
    reference = x @ model.A + model.b
    attack = ParetoERAttack(
        Saliency(model), k=2, preserve_prediction="none", lower_bound=-1.5, upper_bound=2.0
    )
    x = x.clamp(-1.5, 2.0)
    reference = x @ model.A + model.b
    moved, info = attack.perturb(x, radius, norm=norm, abs=False, step_num=100, return_info=True)
    assert info.critical.all()
    start, end = (torch.stack(gaps(p @ model.A + model.b, reference, 2, "mm")) for p in (x, moved))
    assert (end <= start).all() and (end < start - 0.1).all(dim=1).any()
    for origin, point, row in zip(x, moved, reference, strict=True):
        order = row.argsort(descending=True)
        g = torch.stack(
            [model.A[order[1]] - model.A[order[2]], model.A[order[0]] - model.A[order[3]]]
        )
        low, high = torch.full((N,), -1.5).double(), torch.full((N,), 2.0).double()
        if norm == "Linf":
            low, high = torch.maximum(low, origin - radius), torch.minimum(high, origin + radius)
        limits = [
            (0 if p - a < 1e-4 else -1, 0 if b - p < 1e-4 else 1)
            for p, a, b in zip(point, low, high, strict=True)
        ]
        rows, right = [np.append(v.numpy(), 1.0) for v in g], [0.0, 0.0]
        if norm == "L2" and (point - origin).norm() > radius * (1 - 1e-4):
            rows.append(np.append((point - origin).numpy(), 0.0))
            right.append(0.0)
        # The largest s with g_q'd ≤ −s for directions d that stay inside.
        best = linprog(
            np.append(np.zeros(N), -1.0), np.array(rows), right, bounds=[*limits, (0, None)]
        )
        assert best.x[-1] < 1e-3 * float(g.norm(dim=1).max())


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_one_linear_gap_reaches_the_worst_point_of_the_ball_and_says_so(norm):
    model, x = Quadratic(N), normal(5, N)
    reference = x @ model.A + model.b
    attack = ParetoERAttack(Saliency(model), k=2, k_prime=1, preserve_prediction="none")
    moved, info = attack.perturb(x, 0.7, norm=norm, abs=False, step_num=80, return_info=True)
    order = reference.argsort(dim=1, descending=True)
    gradient = model.A[order[:, 1]] - model.A[order[:, 2]]
    way = gradient.sign() if norm == "Linf" else gradient / gradient.norm(dim=1, keepdim=True)
    assert torch.allclose(moved, x - 0.7 * way, rtol=0, atol=1e-4)
    assert info.critical.all()


def test_a_mask_is_a_wall():
    model, x = Quadratic(N), normal(5, N)
    mask = torch.tensor([1, 1, 0, 1, 0, 1])
    attack = ParetoERAttack(Saliency(model), k=2, preserve_prediction="none")
    moved = attack.perturb(x, 0.7, mask=mask, abs=False, step_num=60)
    assert torch.equal(moved[:, mask == 0], x[:, mask == 0]) and not torch.equal(moved, x)
    with pytest.raises(ValueError, match="moves 5 of 5 examples nowhere"):
        attack.perturb(x, 0.7, mask=0 * mask, abs=False)


# --- constraints ---------------------------------------------------------------------------------


def test_no_iterate_has_another_label(steps):
    model, x = mlp(), normal(40, 6)
    ParetoERAttack(Saliency(model), k=2).perturb(x, 2.0, target=1, step_num=15)
    labels = [model(s.ahead).argmax(dim=1) for s in steps]
    assert torch.equal(labels[0], model(x).argmax(dim=1))
    for step, label in zip(steps, labels, strict=True):
        assert torch.equal(model(step.points).argmax(dim=1), label)
    steps.clear()
    attack = ParetoERAttack(Saliency(model), k=2, preserve_prediction="none")
    attack.perturb(x, 2.0, target=1, step_num=15)
    assert any((model(s.points).argmax(1) != model(s.ahead).argmax(1)).any() for s in steps)


def change(model, points, x):
    return (model(points).softmax(dim=1) - model(x).softmax(dim=1)).norm(dim=1)


@pytest.mark.parametrize(
    "options, step_num, share",
    [({}, 30, 0.6), ({"gradient": "spsa", "n_directions": 2}, 10, 0.2)],
    ids=["autograd", "spsa"],
)
def test_outputs_stay_within_their_tolerance_and_the_gaps_go_on_falling(options, step_num, share):
    # Without the outputs among the objectives, searches end at the tolerance with a fall of 0.3.
    model, x, most = mlp(), normal(30, 6), 0.02
    ends = {
        tolerance: ParetoERAttack(
            Saliency(model), k=2, output_tolerance=tolerance, **options
        ).perturb(x, 1.0, target=1, norm="L2", step_num=step_num, seed=0, return_info=True)
        for tolerance in (None, most)
    }
    assert (change(model, ends[None][0], x) > most).double().mean() > 0.5
    assert (change(model, ends[most][0], x) <= most + 1e-12).all()
    falls = {t: (info.trace[0, 0] - info.objective).mean() for t, (_, info) in ends.items()}
    assert falls[most] > share * falls[None] > 0


def test_a_start_beyond_the_tolerance_comes_back(steps):
    model, x, most = mlp(), normal(30, 6), 0.02
    attack = ParetoERAttack(Saliency(model), k=2, output_tolerance=most, preserve_prediction="none")
    attack.perturb(x, 1.5, target=1, norm="L2", step_num=1, start=x + 0.5 * normal(30, 6, seed=1))
    first = change(model, steps[0].points, x)
    beyond = first > 2 * most
    assert beyond.sum() > 5
    after, went = change(model, steps[0].ahead, x), steps[0].rate > 0
    assert went[beyond].all() and (after[beyond] < first[beyond]).all()
    assert (after[~beyond] <= first[~beyond].clamp_min(most) + 1e-12).all()


# --- surrogate gradients, scores of the model -----------------------------------------------------


def test_the_gaps_of_the_smoothed_network_fall_and_the_real_ones_are_reported(steps):
    model, x = relu_mlp(), normal(10, 6)
    saliency = Saliency(model)
    reference = stock_scores(saliency, x, 1)
    attack = ParetoERAttack(saliency, k=2, smooth_relu=5.0)
    moved, info = attack.perturb(x, 0.8, target=1, step_num=6, return_info=True)
    with smooth_relu(5.0):
        for step in steps[:1]:
            before, after = (
                gap_vectors(saliency, p, reference, 2, 2, 1) for p in (step.points, step.ahead)
            )
            assert (after[step.rate > 0] < before[step.rate > 0]).all() and (step.rate > 0).any()
    real = gap_vectors(saliency, moved, reference, 2, 2, 1).sum(dim=1)
    assert torch.allclose(info.objective, real, atol=1e-12)
    assert (info.objective < info.trace[0, 0] - 1e-2).sum() > 5


def test_every_step_lowers_the_gaps_of_its_own_smoothness(steps):
    model, x = relu_mlp(), normal(10, 6)
    saliency = Saliency(model)
    reference = stock_scores(saliency, x, 1)
    attack = ParetoERAttack(saliency, k=2, smooth_relu=(1.0, 30.0))
    _, info = attack.perturb(x, 0.8, target=1, step_num=6, return_info=True)
    assert (info.objective < info.trace[0, 0]).any()
    whole = [step for step in steps if len(step.points) == 10]
    assert len(whole) > 2
    for number, step in enumerate(whole):
        with smooth_relu(30.0 ** (number / 5)):
            before, after = (
                gap_vectors(saliency, p, reference, 2, 2, 1) for p in (step.points, step.ahead)
            )
        assert (after[step.rate > 0] < before[step.rate > 0]).all() and (step.rate > 0).any()


# --- what is reported ----------------------------------------------------------------------------


def test_the_report_has_a_row_a_restart_and_does_not_depend_on_chunks():
    x, attack = normal(7, 6), ParetoERAttack(Saliency(mlp()), k=2, tolerance=1e-2)
    arguments = {"radius": 0.5, "target": 1, "step_num": 12, "n_restarts": 2, "seed": 0}
    moved, info = attack.perturb(x, return_info=True, **arguments)
    assert isinstance(info, ParetoInfo)
    assert info.critical.shape == info.n_iterations.shape == (2, 7)
    assert info.direction_lengths.shape == (2, 12, 7)
    assert info.critical.any() and not info.critical.all()
    parts, other = attack.perturb(x, return_info=True, max_examples_per_batch=2, **arguments)
    assert torch.allclose(moved, parts, atol=1e-9)
    assert torch.equal(info.critical, other.critical)
    assert torch.equal(info.n_iterations, other.n_iterations)
    assert torch.equal(info.n_queries, other.n_queries)
    assert torch.allclose(
        info.direction_lengths, other.direction_lengths, equal_nan=True, atol=1e-6
    )
    empty, info = attack.perturb(x[:0], return_info=True, **arguments)
    assert empty.shape == (0, 6) and info.direction_lengths.shape == (2, 12, 0)
    assert info.critical.shape == info.n_iterations.shape == (2, 0)


def test_queries_are_the_maps_of_the_iterates_and_of_the_trials():
    class Counting(Saliency):
        rows = 0

        def attribute(self, inputs, *args, **kwargs):
            type(self).rows += len(inputs)
            return super().attribute(inputs, *args, **kwargs)

    attack = ParetoERAttack(Counting(mlp()), k=2)
    _, info = attack.perturb(normal(9, 6), 0.5, target=1, step_num=12, return_info=True)
    assert Counting.rows == info.n_queries.sum() > 9 * 13


def test_a_batch_that_must_stay_whole_is_evaluated_whole():
    sizes = []

    class Normalised(nn.Module):
        """The statistics are those of the whole batch."""

        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(
                nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Linear(8, 3)
            )
            self.double()

        def forward(self, x):
            sizes.append(len(x))
            return self.inner(x)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Normalised().train()
    attack = ParetoERAttack(Saliency(model), k=2)
    _, info = attack.perturb(normal(6, 6), 0.5, target=1, step_num=6, seed=0, return_info=True)
    assert set(sizes) == {6} and (info.objective < info.trace[0, 0]).any()


def test_an_example_without_a_ranking_is_left_alone():
    x = normal(4, 6)
    x[1, 0] = math.nan
    moved, info = ParetoERAttack(Saliency(mlp()), k=2).perturb(x, 0.5, target=1, return_info=True)
    assert info.objective.isnan().tolist() == [False, True, False, False]
    assert torch.equal(moved[1].nan_to_num(), x[1].nan_to_num())
    assert info.n_iterations[0].tolist()[1] == 0 and not info.critical[0, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    model, x = mlp().to(dtype), normal(8, 6).to(dtype)
    moved, info = ParetoERAttack(Saliency(model), k=2).perturb(x, 1.0, target=1, return_info=True)
    assert moved.dtype == dtype and (info.objective < info.trace[0, 0]).sum() >= 6


def test_the_pairs_are_as_many_as_asked_for_and_four_by_default():
    saliency = Saliency(mlp())
    chosen = [ParetoERAttack(saliency, k=k).objective.k_prime for k in (1, 3, 50)]
    assert chosen == [1, 3, 4] and ParetoERAttack(saliency, k=9, k_prime=7).objective.k_prime == 7


@pytest.mark.parametrize(
    "options, message",
    [
        ({"armijo": 1.0}, "armijo must lie between 0 and 1, got 1.0"),
        ({"tolerance": -1.0}, "tolerance must lie between 0 and 1, got -1.0"),
        ({"output_tolerance": 0.0}, "output_tolerance must be positive, finite, or None, got 0.0"),
        ({"k_prime": 3}, "k_prime must be an int in 1 … k = 2, got 3"),
        (
            {"preserve_prediction": "gda"},
            "preserve_prediction must be one of ('reject', 'early_stop'",
        ),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ParetoERAttack(Saliency(mlp()), k=2, **options)
