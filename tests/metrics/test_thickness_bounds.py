"""The bounds against closed forms, torch's Hessians, the thickness itself and dense sampling."""

import itertools
import math
import random

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.attr import smooth_relu
from captum_robust.metrics import (
    pairwise_ranking_thickness,
    pairwise_thickness_bounds,
    ranking_gap,
    ranking_thickness,
    thickness_bounds,
)
from captum_robust.noise import UniformNoise
from tests.metrics.definitions import (
    Quadratic,
    mean,
    normal,
    softplus_conv_net,
    softplus_net,
    some,
    stable_top_k,
)

NAN, INF = float("nan"), float("inf")
NET = softplus_net(6)
PAIRS = torch.tensor([[0, 1], [5, 2], [3, 4], [4, 3]])
BOUNDS = {
    "top-k": lambda f, x, radius=0.1, **kwargs: thickness_bounds(f, x, 2, radius, **kwargs),
    "pairs": lambda f, x, radius=0.1, **kwargs: pairwise_thickness_bounds(
        f, x, PAIRS, radius, **kwargs
    ),
}
of_both = pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS)


def quadratic(n_features=6):
    root = normal(n_features, n_features, seed=8)
    return Quadratic(root + root.T, normal(n_features, seed=9))


def pairs_of(row, k):
    """All pairs of a top and a lower feature."""
    top = stable_top_k(row.tolist(), k)
    return list(itertools.product(top, set(range(len(row))) - top))


def gradient_and_hessian(score, x):
    """Of a score of vectors (n,), by torch."""
    gradient = torch.func.grad(score)
    return gradient(x).detach(), torch.func.jacrev(gradient)(x).detach()


# --- closed forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [True, False])
def test_bounds_of_a_quadratic(absolute):
    model, inputs, k, radius = quadratic(), normal(4, 6), 2, 0.3
    gradients = inputs @ model.curvature + model.slope
    lower, upper = thickness_bounds(model, inputs, k, radius, absolute=absolute)
    own = torch.tensor([[0, 1], [5, 2]])
    low, high = pairwise_thickness_bounds(model, inputs, own, radius, absolute=absolute)
    for row in range(4):
        signs = gradients[row].sign() if absolute else torch.ones(6).double()
        scores = signs * gradients[row]
        slopes = signs[:, None] * model.curvature  # of the i-th score: row i with its sign

        def of_pair(i, j, scores=scores, slopes=slopes):
            h = float(scores[i] - scores[j])
            fall = radius / 2 * float((slopes[i] - slopes[j]).norm())
            return h - fall, h + radius * float(slopes[i].norm() + slopes[j].norm())

        expected = [of_pair(i, j) for i, j in pairs_of(scores, k)]
        assert lower[row].item() == pytest.approx(mean(low for low, _ in expected))
        assert upper[row].item() == pytest.approx(mean(high for _, high in expected))
        for column, (i, j) in enumerate(own.tolist()):
            assert (low[row, column].item(), high[row, column].item()) == pytest.approx(
                of_pair(i, j)
            )


@pytest.mark.parametrize("absolute", [True, False])
def test_the_lower_bound_of_a_quadratic_is_reached_in_the_worst_direction(absolute):
    model, x, radius = quadratic(), normal(1, 6), 1e-3
    gradient = (x @ model.curvature + model.slope)[0]
    signs = gradient.sign() if absolute else torch.ones(6).double()
    lower, upper = pairwise_thickness_bounds(model, x, PAIRS, radius, absolute=absolute)
    for column, (i, j) in enumerate(PAIRS.tolist()):
        direction = signs[i] * model.curvature[i] - signs[j] * model.curvature[j]
        worst = x - radius * direction / direction.norm()
        found = pairwise_ranking_thickness(
            Saliency(model).attribute, x, PAIRS[column : column + 1], lambda x, r, w=worst: w,
            perturb_radius=radius, n_perturb_samples=1, surrogate="margin", abs=absolute,
        )  # fmt: skip
        assert found.item() == pytest.approx(lower[0, column].item(), abs=1e-12)
        assert found.item() < upper[0, column].item()


@of_both
def test_the_bounds_of_a_linear_model_are_its_gaps(bounds):
    model, inputs = nn.Linear(6, 2).double(), normal(3, 6)
    lower, upper = bounds(model, inputs, radius=5.0, target=0)
    assert torch.equal(lower, upper)
    maps = Saliency(model).attribute(inputs.clone().requires_grad_(), target=0)
    if lower.dim() == 1:
        torch.testing.assert_close(lower, ranking_gap(maps, 2, "mean"))
    else:
        torch.testing.assert_close(lower, maps[:, PAIRS[:, 0]] - maps[:, PAIRS[:, 1]])


@of_both
def test_without_a_radius_the_bounds_are_the_gaps(bounds):
    lower, upper = bounds(NET, normal(3, 6), radius=0.0, target=0)
    assert torch.equal(lower, upper)


def test_a_relu_network_seems_rigid_until_it_is_smoothed():
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    lower, upper = thickness_bounds(net, normal(3, 6), 2, 1.0, target=0)
    assert torch.equal(lower, upper)
    with smooth_relu(beta=3.0):
        lower, upper = thickness_bounds(net, normal(3, 6), 2, 1.0, target=0)
    assert (lower < upper - 1e-3).all()


def test_a_derivative_of_zero_rises_whichever_way_the_input_moves():
    def model(x):  # I = (1, |3 x₂|), and at x₂ = 0 the gap 1 − 3 |δ₂| t
        return x[:, 0] + 1.5 * x[:, 1] ** 2

    x, pairs = torch.tensor([[0.5, 0.0]]).double(), torch.tensor([[0, 1], [1, 0]])
    lower, upper = pairwise_thickness_bounds(model, x, pairs, 0.2)
    torch.testing.assert_close(lower, torch.tensor([[1 - 0.3, -1.0]]).double())
    torch.testing.assert_close(upper, torch.tensor([[1 + 0.6, -1 + 0.6]]).double())
    for direction in (-0.2, 0.2):
        moved = x + torch.tensor([[0.0, direction]])
        found = pairwise_ranking_thickness(
            Saliency(model).attribute, x, pairs, lambda x, r, m=moved: m, surrogate="margin"
        )
        torch.testing.assert_close(found, torch.tensor([[0.7, -0.7]]).double())
    torch.testing.assert_close(thickness_bounds(model, x, 1, 0.2)[0], lower[:, 0])
    signed = pairwise_thickness_bounds(model, x, pairs, 0.2, absolute=False)[0]
    torch.testing.assert_close(signed, torch.tensor([[1 - 0.3, -1 - 0.3]]).double())


def test_groups_rise_with_each_of_their_zeros():
    def model(x):  # at 0, the derivatives are (4, 0, 0, 1)
        return 4 * x[:, 0] + x[:, 1] ** 2 + 1.5 * x[:, 2] ** 2 + x[:, 3]

    x, mask = torch.zeros(1, 4).double(), torch.tensor([[0, 1, 1, 1]])
    lower, upper = thickness_bounds(model, x, 1, 0.1, feature_mask=mask)
    torch.testing.assert_close(lower, torch.tensor([3 - 0.05 * (2 + 3)]).double())
    torch.testing.assert_close(upper, torch.tensor([3 + 0.1 * (2 + 3)]).double())


# --- beside torch's Hessians -------------------------------------------------------------------


class Watched(nn.Module):
    """A network that remembers the points it was given."""

    def __init__(self, net):
        super().__init__()
        self.net, self.points = net, []

    def forward(self, x):
        self.points.append(x.detach().clone())
        return self.net(x)


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 2, 2, 3]])
def test_bounds_of_a_network_from_its_hessians_at_the_points_it_saw(absolute, groups):
    inputs, k, radius, target = normal(3, 6), 2, 0.5, [0, 2, 1]
    mask = None if groups is None else torch.tensor([groups])
    columns = torch.eye(6).double() if groups is None else nn.functional.one_hot(mask[0]).double()
    watched = Watched(NET)
    lower, upper = thickness_bounds(
        watched, inputs, k, radius, target, n_samples=7, absolute=absolute, feature_mask=mask,
        max_examples_per_batch=3, seed=1,
    )  # fmt: skip
    del watched.points[1:3]  # which compare the second derivative with a difference
    assert len(watched.points) == 8 and torch.equal(watched.points[0], inputs)
    pairs = torch.tensor([[0, 1], [3, 2]])
    low, high = pairwise_thickness_bounds(
        watched, inputs, pairs, radius, target, n_samples=7, absolute=absolute, feature_mask=mask,
        max_examples_per_batch=3, seed=1,
    )  # fmt: skip
    for row in range(3):

        def scores_and_slopes(x, row=row):
            gradient, hessian = gradient_and_hessian(lambda v: NET(v[None])[0, target[row]], x)
            signs = gradient.sign() if absolute else torch.ones_like(gradient)
            return (signs * gradient) @ columns, columns.T @ (signs[:, None] * hessian)

        scores, slopes = scores_and_slopes(inputs[row])
        lipschitz = torch.stack(
            [scores_and_slopes(p[row])[1].norm(dim=1) for p in watched.points[:8]]
        ).amax(dim=0)

        def of_pair(i, j, scores=scores, slopes=slopes, lipschitz=lipschitz):
            h = float(scores[i] - scores[j])
            fall = radius / 2 * float((slopes[i] - slopes[j]).norm())
            return h - fall, h + radius * float(lipschitz[i] + lipschitz[j])

        expected = [of_pair(i, j) for i, j in pairs_of(scores, k)]
        assert lower[row].item() == pytest.approx(mean(low for low, _ in expected), rel=1e-9)
        assert upper[row].item() == pytest.approx(mean(high for _, high in expected), rel=1e-9)
        for column, (i, j) in enumerate(pairs.tolist()):
            found = low[row, column].item(), high[row, column].item()
            assert found == pytest.approx(of_pair(i, j), rel=1e-9)


def test_the_points_fill_the_ball():
    watched, inputs, radius = Watched(NET), normal(2, 6), 0.4
    thickness_bounds(watched, inputs, 2, radius, 0, n_samples=400, max_examples_per_batch=2, seed=0)
    points = torch.stack(watched.points[1:])
    distances = (points - inputs).norm(dim=2)
    assert distances.max() <= radius
    volume = (distances / radius) ** 6  # uniform in [0, 1] for a uniform ball
    assert (volume.mean(dim=0) - 0.5).abs().max() < 4 / math.sqrt(12 * 400)
    assert ((points - inputs).mean(dim=0).abs() < 4 * radius / 400**0.5).all()


def test_tuples_share_one_ball_and_one_ranking():
    inputs = normal(3, 6)

    def split(a, b, scale):
        return NET(torch.cat([a, b.flatten(1)], dim=1)) * scale[:, None]

    scale = torch.tensor([1.0, 2.0, 3.0]).double()
    parts = inputs[:, :2], inputs[:, 2:].view(3, 2, 2)
    seen = []

    def recorded(a, b, scale):
        seen.append(torch.cat([a, b.flatten(1)], dim=1).detach())
        return split(a, b, scale)

    joint = [
        thickness_bounds(
            lambda x, s: NET(x) * s[:, None], inputs, 2, 0.5, 0, scale, n_samples=60, seed=0
        ),
        thickness_bounds(recorded, parts, 2, 0.5, 0, scale, n_samples=60, seed=0),
    ]
    torch.testing.assert_close(joint[0][0], joint[1][0])
    torch.testing.assert_close(joint[0][1], joint[1][1], rtol=0.1, atol=0)  # other points
    distances = torch.stack([(p - inputs).norm(dim=1) for p in seen])
    assert distances.amax(dim=0).min() > 0.4 and distances.max() <= 0.5


def test_images_with_channels_summed_to_pixels():
    net, inputs = softplus_conv_net(), normal(2, 2, 4, 4)
    mask = torch.arange(16).view(1, 1, 4, 4)
    lower, upper = thickness_bounds(net, inputs, 3, 1e-9, 1, feature_mask=mask)
    maps = Saliency(net).attribute(inputs.clone().requires_grad_(), target=1)
    expected = ranking_gap(maps, 3, "mean", feature_mask=mask)
    torch.testing.assert_close(lower, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(upper, expected, rtol=1e-6, atol=0)


def test_masks_of_each_example():
    inputs = normal(5, 6)
    masks = torch.stack([torch.arange(6).roll(i) // 2 for i in range(5)])
    alone = [
        thickness_bounds(NET, x[None], 1, 0.2, 0, feature_mask=m[None], seed=0)
        for x, m in zip(inputs, masks, strict=True)
    ]
    for size in (None, 2):
        found = thickness_bounds(
            NET, inputs, 1, 0.2, 0, feature_mask=masks, max_examples_per_batch=size, seed=0
        )
        for bound, parts in zip(found, zip(*alone, strict=True), strict=True):
            torch.testing.assert_close(bound, torch.cat(parts))


# --- beside the thickness ----------------------------------------------------------------------


@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("radius", [0.01, 0.05])
def test_the_thickness_lies_between_its_bounds(radius, absolute):
    inputs, k = normal(40, 6), 2
    saliency = Saliency(NET).attribute
    lower, upper = thickness_bounds(NET, inputs, k, radius, 1, absolute=absolute, seed=0)
    found = ranking_thickness(
        saliency, inputs, k, UniformNoise("L2"), radius, 40, surrogate="margin", seed=1, target=1,
        abs=absolute,
    )  # fmt: skip
    assert (lower <= found).all() and (found <= upper).all()
    low, high = pairwise_thickness_bounds(NET, inputs, PAIRS, radius, 1, absolute=absolute, seed=0)
    found = pairwise_ranking_thickness(
        saliency, inputs, PAIRS, UniformNoise("L2"), radius, 40, surrogate="margin", seed=1,
        target=1, abs=absolute,
    )  # fmt: skip
    assert (low <= found).all() and (found <= high).all()
    assert ((high - low) < 0.5 * (1 + found.abs())).all()


def test_every_segment_lies_between_the_bounds():
    """The bounds hold for any distribution on the ball, so for every single end on the sphere."""
    inputs, radius = normal(10, 6), 0.02
    low, high = pairwise_thickness_bounds(NET, inputs, PAIRS, radius, 1, seed=0)
    ends = nn.functional.normalize(normal(10, 200, 6, seed=3), dim=2) * radius
    times = (torch.arange(8).double() + 0.5) / 8
    points = inputs[:, None, None] + times[:, None] * ends[:, :, None]
    leaves = points.reshape(-1, 6).requires_grad_()
    maps = torch.autograd.grad(NET(leaves)[:, 1].sum(), leaves)[0].abs().view(10, 200, 8, 6)
    held = (maps[..., PAIRS[:, 0]] - maps[..., PAIRS[:, 1]]).mean(dim=2)
    slack = 1e-2 * (high - low)[:, None]  # of the first order: second-order terms remain
    assert (held >= low[:, None] - slack).all() and (held <= high[:, None]).all()
    middle = (low + high) / 2
    assert (held.amin(dim=1) < middle).all()  # and they are not far from the lower bound
    assert ((held.amin(dim=1) - low) < 0.3 * (high - low)).all()


@some
@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0, 3))
def test_wider_balls_have_wider_bounds(seed, k, radius):
    inputs = normal(2, 6, seed=seed)
    lower, upper = thickness_bounds(NET, inputs, k, radius, 0, seed=0)
    wider_lower, _ = thickness_bounds(NET, inputs, k, radius + 0.1, 0, seed=0)
    gap, _ = thickness_bounds(NET, inputs, k, 0, 0)
    assert (wider_lower < lower).all() and (lower <= gap).all() and (gap <= upper).all()


# --- chunks, seeds, types ----------------------------------------------------------------------


@of_both
def test_chunks_and_order_change_nothing(bounds):
    inputs, target = normal(11, 6), torch.arange(11) % 3
    whole = bounds(NET, inputs, target=target, max_examples_per_batch=11, seed=5)
    for size in (None, 1, 4, 200):
        found = bounds(NET, inputs, target=target, max_examples_per_batch=size, seed=5)
        torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    found = bounds(NET, inputs[order], target=target[order], seed=5)
    torch.testing.assert_close(found, tuple(b[order] for b in whole), rtol=1e-9, atol=1e-12)


@of_both
def test_seeds_move_the_upper_bound_only(bounds):
    inputs = normal(3, 6)
    one, same, other, fresh = (
        bounds(NET, inputs, radius=0.5, target=0, seed=s) for s in (0, 0, 1, None)
    )
    assert torch.equal(one[0], other[0]) and torch.equal(one[0], fresh[0])
    assert torch.equal(one[1], same[1])
    assert not torch.equal(one[1], other[1]) and not torch.equal(one[1], fresh[1])


def test_pairs_of_each_example():
    inputs = normal(5, 6)
    pairs = torch.stack([torch.randperm(6)[:4].view(2, 2) for _ in range(5)])
    for size in (None, 2):
        found = pairwise_thickness_bounds(
            NET, inputs, pairs, 0.2, 0, max_examples_per_batch=size, seed=0
        )
        for row in range(5):
            alone = pairwise_thickness_bounds(
                NET, inputs[row : row + 1], pairs[row], 0.2, 0, seed=0
            )
            for bound, expected in zip(found, alone, strict=True):
                torch.testing.assert_close(bound[row : row + 1], expected)


@of_both
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float16, 0.02)]
)
def test_lower_precision_gives_single_precision(bounds, dtype, tolerance):
    inputs = normal(3, 6)
    found = bounds(softplus_net(6).to(dtype), inputs.to(dtype), target=0, seed=0)
    expected = bounds(softplus_net(6), inputs, target=0, seed=0)
    for bound in found:
        assert bound.dtype == torch.float32 and not bound.requires_grad
    torch.testing.assert_close(found[0].double(), expected[0], rtol=0, atol=tolerance)
    # The points follow from the bytes of the example.
    torch.testing.assert_close(found[1].double(), expected[1], rtol=0, atol=0.02 + tolerance)


# --- broken input ------------------------------------------------------------------------------


@of_both
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("model", [NET, nn.Linear(6, 2).double()], ids=["curved", "linear"])
def test_a_broken_input_gives_nan_in_its_row_only(bounds, value, model):
    inputs = normal(3, 6)
    inputs[1, 2] = value
    for bound in bounds(model, inputs, target=0):
        assert bound.view(3, -1).isnan().tolist() == [
            [row == 1] * bound.view(3, -1).shape[1] for row in range(3)
        ]


@of_both
def test_without_a_ranking_there_are_no_bounds(bounds):
    model, inputs = quadratic(), normal(3, 6)
    inputs[1], model.slope = 0, torch.full((6,), 0.3).double()
    for bound in bounds(model, inputs):
        assert bound.view(3, -1).isnan().all(dim=1).tolist() == [False, True, False]
        assert bound.view(3, -1).isnan().any(dim=1).tolist() == [False, True, False]


@of_both
def test_a_neighbour_that_is_not_finite_gives_nan(bounds):
    def model(x):  # the root of a negative number
        return (x + 1).sqrt().sum(dim=1) + x.pow(3).sum(dim=1)

    inputs = normal(2, 6).abs()
    inputs[1, 0] = -0.99
    for bound in bounds(model, inputs, radius=0.2, n_samples=50):
        assert bound.view(2, -1).isnan().all(dim=1).tolist() == [False, True]
    for bound in bounds(model, inputs, radius=0.001):
        assert bound.isfinite().all()


# --- what is left ------------------------------------------------------------------------------


@of_both
def test_nothing_is_left_behind(bounds):
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.1), nn.Linear(8, 2)
    ).double()
    inputs = normal(6, 6).requires_grad_()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random_states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    with pytest.raises(ValueError, match="forward_func must give every example an output that"):
        bounds(net, inputs, target=0, seed=0)
    net[1].eval()
    first = bounds(net, inputs, target=0, seed=0)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(p.grad is None for p in net.parameters()) and inputs.grad is None
    assert net.training and not net[1].training and inputs.requires_grad
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert random_states[1:] == (str(np.random.get_state()), random.getstate())  # noqa: NPY002
    with torch.no_grad():
        torch.testing.assert_close(bounds(net, inputs, target=0, seed=0), first, rtol=0, atol=0)


# --- refusals ----------------------------------------------------------------------------------


@of_both
@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("n_rows", [2, 4])
def test_a_mask_with_too_few_or_too_many_rows_is_refused(bounds, n_rows, chunk):
    mask = torch.arange(6).expand(n_rows, 6)
    with pytest.raises(ValueError, match=rf"feature_mask\[0\] must have one row .* got {n_rows}"):
        bounds(NET, normal(3, 6), target=0, feature_mask=mask, max_examples_per_batch=chunk)


@of_both
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"radius": -0.1}, "radius must be finite and not negative, got -0.1"),
        ({"radius": INF}, "radius must be finite and not negative, got inf"),
        ({"n_samples": 0}, "n_samples must be an integer of at least 1, got 0"),
        (
            {"max_examples_per_batch": 0},
            "max_examples_per_batch must be an integer .* got 0",
        ),
        ({"target": None}, "target must select one output per example"),
        (
            {"feature_mask": torch.zeros(3, 3).long()},
            r"feature_mask\[0\] must be broadcastable to \(3, 6\), got \(3, 3\)",
        ),
        (
            {"feature_mask": (torch.arange(6)[None],) * 2},
            "feature_mask must hold one mask per tensor",
        ),
    ],
)
def test_other_values_are_refused(bounds, arguments, message):
    with pytest.raises(ValueError, match=message):
        bounds(NET, normal(3, 6), **{"target": 0, **arguments})


@pytest.mark.parametrize("k", [0, 6, -1, 2.0, True])
def test_other_k_are_refused(k):
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 6"):
        thickness_bounds(NET, normal(3, 6), k, 0.1, 0)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (torch.tensor([[0.0, 1.0]]), "pairs must hold integers, got torch.float32"),
        (torch.tensor([0, 1]), r"pairs must have shape \(P, 2\) or \(3, P, 2\), got \(2,\)"),
        (torch.tensor([[0, 1, 2]]), r"pairs must have shape .* got \(1, 3\)"),
        (torch.zeros(2, 4, 2).long(), r"pairs must have shape .* got \(2, 4, 2\)"),
        (torch.tensor([[0, 6]]), r"pairs must hold indices in 0 … 5, got 0 … 6"),
        (torch.tensor([[-1, 0]]), r"pairs must hold indices in 0 … 5, got -1 … 0"),
    ],
)
def test_other_pairs_are_refused(pairs, message):
    with pytest.raises(ValueError, match=message):
        pairwise_thickness_bounds(NET, normal(3, 6), pairs, 0.1, 0)


def test_no_pairs_have_no_bounds():
    none = torch.zeros(0, 2, dtype=torch.int64)
    for bound in pairwise_thickness_bounds(NET, normal(3, 6), none, 0.1, 0):
        assert bound.shape == (3, 0)
