"""The region of attacks: the ball, the bounds, the mask, the caller's projection."""

import math
import warnings

import pytest
import torch
from captum.attr import Attribution, Saliency
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from captum_robust.robust import (
    ERAttack,
    MSEAttack,
    RandomSearchAttack,
    TopKAttack,
    UnmovedWarning,
)
from captum_robust.robust._search.region import Region, steepest_ascent
from tests.robust.targets import TARGETS, as_tuple, convnet, drawn, mlp, normal

many = settings(max_examples=60, deadline=None, derandomize=True)
every_target = pytest.mark.parametrize("target", TARGETS, ids=str)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
shapes = (
    st.lists(st.integers(1, 4), min_size=1, max_size=3)
    .map(tuple)
    .filter(lambda shape: math.prod(shape) > 1)
)
norms = st.sampled_from(["Linf", "L2"])
radii = st.floats(0, 8, allow_subnormal=False)


class Waves(nn.Module):
    """Any shape (N, ...) -> (N, 2), with a curved saliency."""

    def forward(self, x):
        flat = x.flatten(1)
        weights = torch.linspace(1, 2, flat.shape[1], dtype=x.dtype)
        return torch.stack(
            [(weights * torch.sin(2 * flat)).sum(dim=1), (flat * flat.roll(1, 1)).sum(dim=1)], dim=1
        )


def lengths(steps, norm):
    order = float("inf") if norm == "Linf" else 2
    return torch.linalg.vector_norm(steps.double().flatten(1), ord=order, dim=1)


def excess(moved, inputs, radius, norm):
    """Distance outside the ball, relative to the radius, in double precision."""
    return (lengths(moved.double() - inputs.double(), norm) - radius).max() / max(radius, 1e-300)


# float32 is the nearest that a radius of less than double precision can be to the one given.
def slack(dtype):
    return 1e-15 if dtype == torch.float64 else 2.0**-24


# --- the ball ------------------------------------------------------------------------------------


def can_move(inputs, radius, norm, bounds, mask):
    """Whether every example has another point, or a radius of 0."""
    return radius == 0 or not Region.around(inputs, radius, bounds, norm, mask).pinned.any()


@many
@given(st.data(), norms, shapes, radii, st.sampled_from(DTYPES), st.integers(0, 99))
def test_no_point_leaves_ball_bounds_and_mask(data, norm, shape, radius, dtype, seed):
    inputs = normal(3, *shape, seed=seed).to(dtype)
    mask = (normal(*shape, seed=seed + 1) > -0.5) if data.draw(st.booleans()) else None
    low, high = data.draw(st.sampled_from([(-math.inf, math.inf), (-0.5, 0.75), (0.0, math.inf)]))
    inputs = inputs.clamp(low, high)
    attack = ERAttack(
        Saliency(Waves()), k=1, lower_bound=low, upper_bound=high, preserve_prediction="none"
    )
    assume(can_move(inputs, radius, norm, (low, high), mask))
    moved = attack.perturb(
        inputs, radius, step_num=3, target=0, norm=norm, mask=mask, seed=seed,
        step_size=data.draw(st.sampled_from([None, 2 * radius])),
        random_start=data.draw(st.booleans()), n_restarts=data.draw(st.integers(1, 2)),
    )  # fmt: skip
    assert moved.dtype == dtype and moved.shape == inputs.shape
    assert excess(moved, inputs, radius, norm) <= slack(dtype)
    assert (moved >= low).all() and (moved <= high).all()
    if mask is not None:
        assert torch.equal(moved.masked_fill(mask, 0), inputs.masked_fill(mask, 0))


@every_target
def test_every_tensor_stays_in_its_own_ball_and_uses_it(target):
    inputs, radius = as_tuple(target.network.inputs), 0.3
    moved = as_tuple(target.perturb(radius=radius, step_size=radius / 2))
    for x, y in zip(inputs, moved, strict=True):
        assert excess(y, x, radius, target.norm) <= slack(x.dtype)
        assert (lengths(y - x, target.norm) > radius / 2).any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_half_precision_moves_although_a_step_is_smaller_than_its_spacing(norm, dtype):
    inputs = 1 + normal(4, 6).abs().to(dtype)
    radius = 0.05 if norm == "Linf" else 0.1
    step = radius / 100  # bfloat16 numbers above 1 are 1/128 apart
    moved, info = ERAttack(Saliency(Waves()), k=2, preserve_prediction="none").perturb(
        inputs, radius, step_size=step, step_num=120, target=0, norm=norm, return_info=True
    )
    assert (info.objective < info.trace[0, 0]).all()
    assert excess(moved, inputs, radius, norm) <= slack(dtype)


@many
@given(
    st.sampled_from([torch.bfloat16, torch.float16]),
    norms,
    st.floats(0.5, 3.0),
    st.floats(-6, 6),
    st.sampled_from([ERAttack, TopKAttack, RandomSearchAttack]),
    st.integers(0, 99),
)
def test_rounding_to_half_precision_never_leaves_the_ball(dtype, norm, share, size, kind, seed):
    """A radius near the spacing of the numbers, where rounding could."""
    inputs = (2.0**size * (1 + normal(6, 4, seed=seed).abs().clamp(max=0.9))).to(dtype)
    radius = share * torch.finfo(dtype).eps * 2.0**size
    attack = kind(Saliency(Waves()), k=2, preserve_prediction="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnmovedWarning)
        try:
            moved = attack.perturb(inputs, radius, step_num=4, target=0, norm=norm, seed=seed)
        except ValueError as error:
            assert share <= 1 and "spacing" in str(error)
            return
    assert excess(moved, inputs, radius, norm) <= slack(dtype)


class Part(nn.Module):
    """The free features of a network, the others being arguments."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, free, others):
        return self.network(torch.cat([free, others], dim=1))


class WholeMap(Attribution):
    """The saliency of all features, as a function of the free ones."""

    def attribute(self, free, target, additional_forward_args):
        whole = torch.cat([free, additional_forward_args], dim=1)
        total = self.forward_func.network(whole)[:, target].sum()
        return torch.autograd.grad(total, whole, create_graph=True)[0].abs()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("start", [False, True])
def test_a_mask_leaves_the_free_features_the_whole_ball(norm, start):
    network = drawn(nn.Sequential(nn.Linear(40, 16), nn.Softplus(), nn.Linear(16, 2)))
    x = normal(5, 40)
    mask = (torch.arange(40) < 4)[None]
    run = {"radius": 1.5, "target": 1, "norm": norm, "random_start": start, "step_num": 12}
    masked, alone = Saliency(network), WholeMap(Part(network))
    moved = ERAttack(masked, 3).perturb(x, mask=mask, seed=1, **run)
    free = ERAttack(alone, 3).perturb(x[:, :4], additional_forward_args=x[:, 4:], seed=1, **run)
    assert torch.equal(moved[:, 4:], x[:, 4:])
    used, whole = (lengths(m - x[:, :4], norm) for m in (moved[:, :4], free))
    if not start:  # random starts are drawn of other numbers
        assert torch.allclose(moved[:, :4], free, rtol=0, atol=1e-9)
    assert (used > 0.9 * whole.min()).all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("way", [{"gradient": "spsa"}, {"smooth_relu": 5.0}])
def test_every_way_to_a_gradient_uses_the_ball_under_a_mask(norm, way):
    x, mask = normal(5, 40), (torch.arange(40) < 4)[None]
    network = drawn(nn.Sequential(nn.Linear(40, 16), nn.ReLU(), nn.Linear(16, 2)))
    attack = ERAttack(Saliency(network), 3, preserve_prediction="none", **way)
    moved = attack.perturb(x, 1.5, target=1, norm=norm, mask=mask, seed=0)
    assert (lengths(moved - x, norm) > 0.6 * 1.5).any()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_gradient_that_is_not_finite_leaves_the_other_features_moving(norm):
    direction = steepest_ascent(torch.tensor([[math.nan, 3.0, 4.0], [math.inf, 0.0, 1.0]]), norm)
    expected = [[0, 1, 1], [1, 0, 1]] if norm == "Linf" else [[0, 0.6, 0.8], [0, 0, 1]]
    assert torch.allclose(direction, torch.tensor(expected).to(direction))


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_a_radius_for_each_example(norm):
    inputs, radius = normal(4, 6), torch.tensor([0.0, 0.1, 0.2, 0.4], dtype=torch.float64)
    moved = ERAttack(Saliency(mlp()), k=2).perturb(
        inputs, radius, step_size=radius / 4, target=0, norm=norm
    )
    moves = lengths(moved - inputs, norm)
    assert (moves <= radius * (1 + 1e-15)).all() and (moves[1:] > radius[1:] / 5).all()
    alone = ERAttack(Saliency(mlp()), k=2).perturb(
        inputs[2:3], 0.2, step_size=0.05, target=0, norm=norm
    )
    assert torch.allclose(moved[2:3], alone, rtol=0, atol=1e-12)


@every_target
def test_radius_zero_returns_the_input_in_a_new_tensor(target):
    moved, info = target.perturb(radius=0.0, n_restarts=2, return_info=True)
    for x, y in zip(as_tuple(target.network.inputs), as_tuple(moved), strict=True):
        assert torch.equal(x, y) and x.data_ptr() != y.data_ptr()
    assert torch.allclose(info.objective, target.value(moved), rtol=0, atol=1e-12)
    assert info.prediction_kept.all()


@every_target
def test_no_steps_return_the_input_in_a_new_tensor(target):
    inputs = as_tuple(target.network.inputs)
    moved = as_tuple(target.perturb(step_num=0, random_start=False))
    for x, y in zip(inputs, moved, strict=True):
        assert torch.equal(x, y) and x.data_ptr() != y.data_ptr()


# --- the projection ------------------------------------------------------------------------------


def into_ball(moved, centre, radius, norm):
    """The nearest point of an unbounded ball."""
    free = torch.full_like(centre, math.inf)
    radii = torch.full((len(centre),), radius, dtype=centre.dtype)
    region = Region(centre, (centre,), radii, norm, (-free,), (free,), None, None)
    return region.nearest((moved,))[0]


@many
@given(norms, shapes, st.floats(1e-3, 8), st.sampled_from(DTYPES[:2]), st.integers(0, 999))
def test_points_of_the_region_are_kept_to_the_last_bit(norm, shape, radius, dtype, seed):
    centre = normal(3, *shape, seed=seed).to(dtype)
    size = torch.full((3, *(1,) * len(shape)), radius, dtype=dtype)
    inside = centre + size * normal(3, *shape, seed=seed + 1).to(dtype) / 9 / math.prod(shape)
    assume(lengths(inside - centre, norm).max() < radius)
    assert torch.equal(into_ball(inside, centre, radius, norm), inside)
    far = centre + 100 * size * normal(3, *shape, seed=seed + 2).to(dtype)
    once = into_ball(far, centre, radius, norm)
    assert torch.equal(into_ball(once, centre, radius, norm), once)
    # The sum is rounded to the places of its size, and then moved inwards by one.
    rounding = 2 * torch.finfo(dtype).eps * far.abs().max() * math.prod(shape) ** 0.5
    assert (lengths(once - centre, norm) >= radius * (1 - 1e-5) - rounding).all()


def test_the_nearest_point_of_the_ball():
    centre = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double()
    moved = torch.tensor([[1.0, 11.0], [6.0, 8.0]]).double()
    box, ball = (into_ball(moved, centre, 5.0, norm) for norm in ("Linf", "L2"))
    assert torch.equal(box, torch.tensor([[1.0, 6.0], [5.0, 5.0]]).double())
    assert torch.allclose(ball, torch.tensor([[1.0, 6.0], [3.0, 4.0]]).double(), atol=1e-12)


# --- bounds --------------------------------------------------------------------------------------


def test_bounds_for_each_feature_and_for_each_example():
    inputs = normal(4, 6).clamp(-0.2, 0.2)
    attack, arguments = Saliency(mlp()), {"target": 0, "step_size": 0.3}
    free = ERAttack(attack, k=2).perturb(inputs, 1.0, **arguments)
    assert (free.abs() > 0.5).any()
    lower, upper = torch.full((6,), -0.25).double(), torch.linspace(0.2, 0.4, 6).double()
    moved = ERAttack(attack, k=2, lower_bound=lower, upper_bound=upper).perturb(
        inputs, 1.0, **arguments
    )
    assert (moved >= lower).all() and (moved <= upper).all()
    assert ((moved == lower) | (moved == upper)).any()
    rows = torch.linspace(0.2, 0.4, 4).double()[:, None]
    moved = ERAttack(attack, k=2, lower_bound=-rows, upper_bound=rows).perturb(
        inputs, 1.0, max_examples_per_batch=3, **arguments
    )
    assert (moved.abs() <= rows).all() and (moved.abs() == rows).any(dim=1).all()


def test_as_many_examples_as_features_do_not_turn_bounds_and_masks_around():
    inputs, upper = normal(6, 6).clamp(max=0.1), torch.linspace(0.1, 0.6, 6).double()
    mask = torch.tensor([1, 1, 0, 1, 1, 1])
    attack = ERAttack(Saliency(mlp()), k=2, upper_bound=upper)
    whole, parts = (
        attack.perturb(inputs, 1.0, target=0, mask=mask, max_examples_per_batch=n)
        for n in (None, 2)
    )
    assert torch.allclose(whole, parts, rtol=0, atol=1e-9)
    assert (parts <= upper).all() and torch.equal(parts[:, 2], inputs[:, 2])


def test_inputs_that_exceed_a_bound_by_rounding_are_accepted():
    inputs = torch.rand(3, 6).double()
    inputs[0, 0] = 1 + 1e-9
    moved = ERAttack(Saliency(mlp()), k=2, lower_bound=0.0, upper_bound=1.0).perturb(
        inputs, 0.5, target=0
    )
    assert moved.max() <= 1 + 1e-9


# --- masks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_masks_of_a_tuple_hold_each_tensor(norm):
    target = next(t for t in TARGETS if t.name == f"er-two-{norm}")
    a, b = target.network.inputs
    masks = (torch.tensor([1.0, 0.0, 1.0]), torch.zeros(1, 1, 2))
    moved_a, moved_b = target.perturb(mask=masks)
    assert torch.equal(moved_a[:, 1], a[:, 1]) and torch.equal(moved_b, b)
    assert not torch.equal(moved_a, a)


def test_one_mask_for_a_tuple_of_two_is_refused():
    # Captum's FGSM pairs them up, and returns one tensor for two (captum 0.9.0).
    target = next(t for t in TARGETS if t.name == "er-two-Linf")
    with pytest.raises(ValueError, match="mask must have shapes that broadcast"):
        target.perturb(mask=torch.ones(5, 3))


# --- the caller's projection ---------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_symmetric_matrices_stay_symmetric(norm):
    inputs = normal(3, 1, 4, 4)
    inputs = (inputs + inputs.mT) / 2

    def symmetric(x):
        assert x.shape == inputs.shape
        return (x + x.mT) / 2

    attack = ERAttack(Saliency(convnet()), k=2, lower_bound=-3.0, upper_bound=3.0)
    arguments = {"radius": 0.5, "target": 0, "norm": norm, "random_start": True, "seed": 0}
    moved = attack.perturb(inputs, project=symmetric, **arguments)
    assert torch.equal(moved, moved.mT) and not torch.equal(moved, inputs)
    free = attack.perturb(inputs, **arguments)
    assert not torch.allclose(free, free.mT, atol=1e-3)


def test_a_projection_sees_what_was_given_and_must_keep_the_shapes():
    target = next(t for t in TARGETS if t.name == "er-two-Linf")
    seen = []

    def keep(pair):
        seen.append(pair)
        return pair

    target.perturb(project=keep)
    assert all(isinstance(p, tuple) and p[0].shape == (5, 3) for p in seen) and len(seen) > 3
    with pytest.raises(ValueError, match="result of project must have the shapes"):
        target.perturb(project=lambda pair: (pair[0], pair[1][:, 0]))


# --- random starts -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 6), (6, 6), (5, 6), (3, 1, 4, 4), (4, 1, 4, 4), (1, 1, 4, 4)]
)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_random_starts_are_right_for_every_batch_size_and_shape(norm, shape):
    # Captum's PGD scales columns in place of examples, and takes few shapes (captum 0.9.0).
    inputs, radius = normal(*shape), 0.5
    model = convnet() if len(shape) == 4 else mlp()
    starts = []

    def remember(x):
        starts.append(x.clone())
        return x

    MSEAttack(Saliency(model)).perturb(
        inputs, radius, step_num=0, target=0, norm=norm, project=remember, seed=0, n_restarts=200
    )
    assert len(starts) == 200
    moves = torch.stack([lengths(start - inputs, norm) for start in starts]) / radius
    assert (moves <= 1 + 1e-12).all()
    # The length of a uniform point of a ball of n dimensions is U^(1/n), which has mean n/(n+1);
    # the standard error of 200 draws is below 0.01 for n = 6 in either norm.
    n_features = inputs[0].numel()
    assert (moves.mean(dim=0) - n_features / (n_features + 1)).abs().max() < 0.04
    drawn = torch.stack(starts) - inputs
    assert drawn.mean(dim=0).abs().max() < 5 * radius / math.sqrt(3 * 200)
