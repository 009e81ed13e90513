"""Random search against all corners of small balls, against noise, and on maps of any kind."""

import math
from itertools import product

import pytest
import torch
from captum.attr import (
    DeepLift,
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    Saliency,
)
from torch import nn

from captum_robust.metrics import precision_at_k
from captum_robust.robust import RandomSearchAttack, UniformNoise
from captum_robust.robust.objectives import RankingObjective
from tests.robust.targets import (
    Quadratic,
    TwoInputs,
    drawn,
    linear,
    mlp,
    normal,
    ranked,
    relu_mlp,
    stock_scores,
)

RADIUS = 0.6


def corners(n):
    return torch.tensor(list(product((-1.0, 1.0), repeat=n))).double()


def kept(scores, reference, k):
    """Number of top-k features of the reference that are among the top k of each row."""
    top = set(ranked(reference)[:k])
    return torch.tensor([len(top & set(ranked(row)[:k])) for row in scores])


# --- the worst case of small balls ----------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 8])
def test_the_sum_of_gaps_of_a_quadratic_model_ends_at_the_worst_of_all_corners(n):
    model, x = Quadratic(n), normal(4, n)
    attack = RandomSearchAttack(
        Saliency(model), 2, RankingObjective(2), keep="objective", preserve_prediction="none"
    )
    _, info = attack.perturb(x, RADIUS, seed=0, abs=False, return_info=True)
    for row, found in zip(x, info.objective, strict=True):
        maps = (row + RADIUS * corners(n)) @ model.A + model.b
        start = row @ model.A + model.b
        worst = linear(2)(maps, start.expand_as(maps)).min()
        assert found.item() == pytest.approx(worst.item(), abs=1e-9)


def test_the_precision_is_that_of_the_worst_of_all_corners():
    n, k = 8, 3
    model, x = Quadratic(n), normal(12, n)
    attack = RandomSearchAttack(Saliency(model), k, preserve_prediction="none")
    moved = attack.perturb(x, 0.15, seed=0, abs=False, n_restarts=2)
    fewest, left = [], []
    for row, end in zip(x, moved, strict=True):
        maps = torch.cat([row + 0.15 * corners(n), end[None]]) @ model.A + model.b
        counts = kept(maps, row @ model.A + model.b, k)
        fewest.append(counts[:-1].min())
        left.append(counts[-1])
    assert torch.stack(left).equal(torch.stack(fewest)) and 0 < sum(left) < 3 * len(x)


def test_it_comes_close_to_the_worst_point_of_the_sphere():
    n = 8
    model, x = Quadratic(n), normal(4, n)
    attack = RandomSearchAttack(
        Saliency(model), 2, RankingObjective(2), keep="objective", preserve_prediction="none"
    )
    moved, info = attack.perturb(x, RADIUS, norm="L2", seed=0, abs=False, return_info=True)
    assert torch.allclose((moved - x).norm(dim=1), torch.tensor(RADIUS).double())
    for row, found, start in zip(x, info.objective, info.trace[0, 0], strict=True):
        weights = torch.full((n,), -2.0).double()
        weights[ranked(row @ model.A + model.b)[:2]] = n - 2.0
        fall = RADIUS * (model.A @ weights).norm()
        assert start - fall - 1e-9 <= found <= start - 0.97 * fall


# --- against noise --------------------------------------------------------------------------------


def wide_mlp():
    return drawn(
        nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 3))
    )


def relu_convnet():
    return drawn(
        nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 2), nn.ReLU(),
            nn.Flatten(), nn.Linear(32, 3),
        )
    )  # fmt: skip


# In the L2 ball of a table, so many draws of noise find about as much.
@pytest.mark.parametrize(
    "build, shape, norm, radius",
    [
        (wide_mlp, (20,), "Linf", 0.1),
        (relu_convnet, (1, 8, 8), "Linf", 0.1),
        (relu_convnet, (1, 8, 8), "L2", 0.4),
    ],
)
def test_it_is_stronger_than_noise_with_as_many_queries(build, shape, norm, radius):
    model, x, n_queries = build(), normal(20, *shape), 200
    k, saliency = 4, Saliency(model)
    reference = stock_scores(saliency, x, 1)
    labels = model(x).argmax(dim=1)

    def precision(points):
        same = model(points).argmax(dim=1) == labels
        left = precision_at_k(stock_scores(saliency, points, 1), reference, k)
        return torch.where(same, left, 1.0)

    noise, worst = UniformNoise(norm), torch.ones(len(x)).double()
    for seed in range(n_queries):
        worst = worst.minimum(precision(noise.perturb(x, radius, seed=seed)))
    moved = RandomSearchAttack(saliency, k).perturb(
        x, radius, target=1, norm=norm, step_num=n_queries - 1, seed=0
    )
    assert precision(moved).mean() < worst.mean() - 0.03


def test_the_pieces_of_a_relu_network_do_not_stop_it():
    model, x = relu_mlp(), normal(20, 6)
    reference = stock_scores(Saliency(model), x, 1)
    moved = RandomSearchAttack(Saliency(model), 2).perturb(x, 0.5, target=1, seed=0)
    assert precision_at_k(stock_scores(Saliency(model), moved, 1), reference, 2).mean() < 0.7


# --- maps of any kind -----------------------------------------------------------------------------


def round_model(x):
    """No gradient at all, not even of the model."""
    with torch.no_grad():
        return torch.stack([(2 * x).round().prod(dim=1), (x.round() ** 2).sum(dim=1)], dim=1)


MAPS = {
    "DeepLift": lambda: DeepLift(relu_mlp()),
    "ablation": lambda: FeatureAblation(mlp()),
    "ablation of a step function": lambda: FeatureAblation(round_model),
    "IntegratedGradients": lambda: IntegratedGradients(mlp()),
}


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")  # Captum's own
@pytest.mark.parametrize("chunk", [None, 2])
@pytest.mark.parametrize("make", MAPS.values(), ids=MAPS)
def test_any_attribution(make, chunk):
    x, attribution = normal(5, 6), make()
    moved, info = RandomSearchAttack(attribution, 2, RankingObjective(2)).perturb(
        x, 0.9, target=1, step_num=60, seed=0, return_info=True, max_examples_per_batch=chunk
    )
    end, start = (stock_scores(attribution, p, 1) for p in (moved, x))
    fine = ~info.objective.isnan()
    assert torch.allclose(info.objective[fine], linear(2)(end, start)[fine], atol=1e-9)
    assert (precision_at_k(end, start, 2)[fine] < 1).any()


def test_layers():
    model, x = relu_convnet(), normal(6, 1, 8, 8)
    attribution = LayerGradCam(model, model[0])
    moved = RandomSearchAttack(attribution, 3).perturb(x, 0.5, target=1, step_num=80, seed=0)
    end, start = (attribution.attribute(p, target=1).detach() for p in (moved, x))
    assert precision_at_k(end, start, 3).mean() < 0.6


# --- what a step costs, and how many there are ----------------------------------------------------


class Counting(Saliency):
    calls: list[int] = []  # noqa: RUF012

    def attribute(self, inputs, *args, **kwargs):
        self.calls.append(len(inputs))
        return super().attribute(inputs, *args, **kwargs)


def test_every_step_is_one_query_and_finished_examples_cost_no_more():
    model, x, k = mlp(), normal(30, 6), 2
    Counting.calls.clear()
    moved, info = RandomSearchAttack(Counting(model), k).perturb(
        x, 0.5, target=1, step_num=50, seed=0, return_info=True
    )
    assert info.n_queries.sum() == sum(Counting.calls) and info.n_queries.max() == 51
    end, start = (stock_scores(Saliency(model), p, 1) for p in (moved, x))
    done = torch.tensor([int(kept(a[None], b, k)) == 0 for a, b in zip(end, start, strict=True)])
    assert done.any() and not done.all()
    assert (info.n_queries[~done] == 51).all() and info.n_queries[done].double().mean() < 35
    _, all_of_them = RandomSearchAttack(Saliency(model), k, keep="objective").perturb(
        x, 0.5, target=1, step_num=50, seed=0, return_info=True
    )
    assert (all_of_them.n_queries == 51).all()


@pytest.mark.parametrize("chunk", [1, 4])
def test_examples_that_are_left_out_take_no_random_numbers_of_others_along(chunk):
    model, x = mlp(), normal(10, 6)
    run = {"target": 1, "step_num": 25, "seed": 0, "n_restarts": 2, "return_info": True}
    attack = RandomSearchAttack(Saliency(model), 2)
    whole, info = attack.perturb(x, 0.5, **run)
    parts, other = attack.perturb(x, 0.5, max_examples_per_batch=chunk, **run)
    assert torch.allclose(whole, parts, rtol=0, atol=1e-9)
    assert torch.equal(info.n_queries, other.n_queries) and len(info.n_queries.unique()) > 2


def test_wider_inputs_get_more_steps():
    attack = RandomSearchAttack(Saliency(mlp()), 1, keep="objective")
    _, info = attack.perturb(normal(1, 6), 0.1, target=0, seed=0, return_info=True)
    assert info.trace.shape == (1, 201, 1)
    pair = normal(2, 30), normal(2, 1, 4, 5)
    assert attack.default_step_num(pair[:1]) == 300 and attack.default_step_num(pair) == 500
    assert attack.default_step_num((normal(2, 3, 32, 32),)) == 1000


# --- the proposals --------------------------------------------------------------------------------


def proposals(model, x, norm="Linf", k=1, **arguments):
    """The points that are proposed, as the caller's projection sees them."""
    seen = []

    def remember(points):
        seen.append(
            tuple(p.clone() for p in points) if isinstance(points, tuple) else points.clone()
        )
        return points

    RandomSearchAttack(Saliency(model), k, preserve_prediction="none", keep="objective").perturb(
        x, RADIUS, target=0, norm=norm, seed=0, project=remember, **arguments
    )
    return seen


def moved_between(points, others):
    """Beyond the rounding of the projection."""
    return (points - others).abs() > 1e-9


class Plane(nn.Module):
    """A map that is the same everywhere, so that every change is as good as none."""

    def forward(self, *inputs):
        flat = torch.cat([x.flatten(1) for x in inputs], dim=1)
        weights = torch.arange(1.0, flat.shape[1] + 1).to(flat)
        return (flat * weights).sum(dim=1, keepdim=True)


def test_blocks_of_an_image_are_squares_that_shrink_and_go_to_the_corners():
    x, areas = normal(3, 2, 6, 7), []
    before = x
    for point in proposals(Plane(), x, step_num=300):
        assert torch.allclose((point - x).abs()[point != x], torch.tensor(RADIUS).double())
        for now, then in zip(point, before, strict=True):
            changed = moved_between(now, then).any(dim=0)
            rows, columns = (changed.any(dim=d) for d in (1, 0))
            side = round(math.sqrt(0.8 / math.sqrt(1 + (len(areas) // 3 + 1) / 10) * 42))
            assert 1 <= rows.sum() <= min(side, 6) and 1 <= columns.sum() <= min(side, 7)
            areas.append(int(changed.sum()))
        before = point  # every change is as good as none, so it is kept
    assert sum(areas[:60]) > 4 * sum(areas[-60:])
    assert (before != x).all(), "some pixels were never reached"


def test_blocks_of_a_table_are_any_features_and_never_empty():
    x, counts = normal(4, 12), []
    before, first = x, []
    for point in proposals(Plane(), x, step_num=400):
        changed = moved_between(point, before)
        assert changed.any(dim=1).all()
        counts.append(changed.double().mean())
        first.append(changed.double())
        before = point
    assert torch.stack(counts[:10]).mean() > 0.25 > 0.15 > torch.stack(counts[-100:]).mean()
    reached = torch.stack(first).mean(dim=(0, 1))  # of 1600 changes each; all are as likely
    assert reached.max() < 2 * reached.min()


def test_only_one_tensor_of_a_tuple_changes_and_the_large_one_more_often():
    pair, moves = (normal(5, 9), normal(5, 1, 1, 3, seed=1)), [0, 0]
    before = pair
    for points in proposals(Plane(), pair, step_num=200):
        changed = torch.stack(
            [moved_between(p, b).flatten(1).any(dim=1) for p, b in zip(points, before, strict=True)]
        )
        assert (changed.sum(dim=0) == 1).all()
        moves = [m + int(c.sum()) for m, c in zip(moves, changed, strict=True)]
        before = points
    assert sum(moves) == 1000 and 0.7 < moves[0] / 1000 < 0.8


def test_proposals_of_the_sphere_lie_on_it():
    x = normal(4, 2, 3, 3)
    for point in proposals(Plane(), x, norm="L2", step_num=50):
        lengths = (point - x).flatten(1).norm(dim=1)
        assert torch.allclose(lengths, torch.tensor(RADIUS).double())


def test_a_change_for_the_worse_is_not_kept():
    model, x = mlp(), normal(5, 6)
    points = proposals(model, x, k=2, step_num=40)
    reference = stock_scores(Saliency(model), x, 0)
    value = [linear(2)(stock_scores(Saliency(model), p, 0), reference) for p in points]
    best, lowest = x.clone(), linear(2)(reference, reference)
    for point, now in zip(points, value, strict=True):
        # A proposal keeps most of the best point so far, or replaces a block of it.
        at_best, elsewhere = (
            (point == best) | (point == x),
            (point - x).abs().isclose(torch.tensor(RADIUS).double()),
        )
        assert (at_best | elsewhere).all()
        better = now <= lowest
        best = torch.where(better[:, None], point, best)
        lowest = torch.minimum(lowest, now)
    late = torch.stack([(p != best).sum(dim=1) for p in points[-8:]]).double()
    assert late.mean() < 4


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_masks_bounds_and_projections_hold(norm):
    def symmetric(x):
        return (x + x.mT) / 2

    model, x = relu_convnet(), symmetric(normal(4, 1, 8, 8)).clamp(-1, 1)
    mask = symmetric((normal(8, 8) > 0).double()).ceil()
    attack = RandomSearchAttack(Saliency(model), 3, lower_bound=-1.0, upper_bound=1.0)
    moved = attack.perturb(
        x, 0.4, target=1, norm=norm, mask=mask, project=symmetric, step_num=60, seed=0
    )
    assert moved.abs().max() <= 1 and torch.equal(moved, moved.mT) and not torch.equal(moved, x)
    assert torch.equal(moved.masked_fill(mask.bool(), 0), x.masked_fill(mask.bool(), 0))


def test_a_start_is_never_made_worse_and_restarts_are_chosen_for_each_example():
    model, x = relu_mlp(), normal(20, 6)
    attack = RandomSearchAttack(Saliency(model), 2)
    reference = stock_scores(Saliency(model), x, 1)

    def precision(points):
        return precision_at_k(stock_scores(Saliency(model), points, 1), reference, 2)

    run = {"radius": 0.3, "target": 1, "seed": 0}
    one = attack.perturb(x, step_num=30, **run)
    again = attack.perturb(x, step_num=5, start=one, **run)
    more = attack.perturb(x, step_num=30, n_restarts=4, **run)
    assert (precision(again) <= precision(one)).all()
    assert (precision(more) <= precision(one)).all() and precision(more).mean() < precision(
        one
    ).mean()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_lower_precision(norm, dtype):
    model, x = mlp().to(dtype), normal(5, 6).to(dtype)
    moved, info = RandomSearchAttack(Saliency(model), 2).perturb(
        x, 0.5, target=1, norm=norm, step_num=60, seed=0, return_info=True
    )
    assert moved.dtype == dtype and info.objective.dtype == torch.float32
    order = float("inf") if norm == "Linf" else 2
    lengths = torch.linalg.vector_norm(moved.double() - x.double(), ord=order, dim=1)
    assert (lengths <= 0.5 * (1 + 1e-6)).all() and (lengths > 0.3).any()


def test_rows_without_a_ranking_harm_no_other():
    model, x = mlp(), normal(4, 6)
    x[1, 2] = math.nan
    arguments = {"radius": 0.3, "target": 1, "step_num": 30, "seed": 0, "return_info": True}
    moved, info = RandomSearchAttack(Saliency(model), 2).perturb(x, **arguments)
    assert info.objective.isnan().tolist() == [False, True, False, False]
    alone = RandomSearchAttack(Saliency(model), 2).perturb(x[[0, 2, 3]], **arguments)[0]
    assert torch.allclose(moved[[0, 2, 3]], alone, rtol=0, atol=1e-9)
    assert torch.equal(moved[1].nan_to_num(), x[1].nan_to_num())


def test_magnitudes_and_groups():
    model, x = mlp(), normal(5, 6)
    groups = torch.tensor([[0, 0, 1, 1, 2, 2]])
    attack = RandomSearchAttack(
        InputXGradient(model),
        1,
        RankingObjective(1),
        keep="objective",
        absolute=True,
        feature_mask=groups,
    )
    moved, info = attack.perturb(x, 0.4, target=1, step_num=60, seed=0, return_info=True)
    end, start = (
        stock_scores(InputXGradient(model), p, 1).abs().view(5, 3, 2).sum(dim=2) for p in (moved, x)
    )
    assert torch.allclose(info.objective, linear(1)(end, start), atol=1e-9)


@pytest.mark.parametrize(
    "option", [{"gradient": "autograd"}, {"smooth_relu": 5.0}, {"step_rule": "halving"}]
)
def test_options_of_gradients_are_refused(option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} has no meaning"):
        RandomSearchAttack(Saliency(mlp()), 2, **option)


def test_k_is_checked():
    with pytest.raises(ValueError, match="k must be an int"):
        RandomSearchAttack(Saliency(mlp()), 6).perturb(normal(2, 6), 0.1, target=0)


def test_two_inputs():
    model, pair = TwoInputs(), (normal(5, 3), normal(5, 1, 2, seed=1))
    reference = stock_scores(Saliency(model), pair, 1)
    moved = RandomSearchAttack(Saliency(model), 2).perturb(pair, 0.8, target=1, seed=0)
    assert isinstance(moved, tuple)
    assert precision_at_k(stock_scores(Saliency(model), moved, 1), reference, 2).mean() < 1
