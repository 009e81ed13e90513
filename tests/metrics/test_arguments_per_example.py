"""Bounds and radii per example in metrics, and examples that cannot move."""

import functools
import warnings

import pytest
import torch
from captum.attr import FeatureAblation, Saliency
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_robust.metrics import (
    certified_precision_at_k,
    certified_top_k_radius,
    pairwise_ranking_thickness,
    precision_at_k_min,
    ranking_thickness,
    thickness_bounds,
)
from captum_robust.robust import (
    FLAGS,
    AutoERAttack,
    ERAttack,
    ExplanationComparator,
    GaussianNoise,
    MinRadius,
    RandomSearchAttack,
    UniformNoise,
    UnmovedWarning,
)


def network(n_features=6, dtype=torch.float64):
    torch.manual_seed(0)
    layers = nn.Linear(n_features, 16), nn.Softplus(), nn.Linear(16, 2)
    return nn.Sequential(*layers).to(dtype).eval()


def pairwise(explain, inputs, k, **kwargs):
    return pairwise_ranking_thickness(explain, inputs, torch.tensor([[0, 1]]), **kwargs)[:, 0]


METRICS = {
    "thickness": functools.partial(ranking_thickness, n_perturb_samples=3, n_steps=2),
    "grid": functools.partial(
        ranking_thickness, n_perturb_samples=3, n_steps=2, sampling="grid", reduction="min"
    ),
    "pairs": functools.partial(pairwise, n_perturb_samples=3, n_steps=2),
    "precision": functools.partial(precision_at_k_min, n_perturb_samples=6),
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def explained_points(metric, x, noise, radius, chunk):
    """All points that the metric explains, in the order of their examples."""
    saliency, seen = Saliency(network(x.shape[1])), []

    def explain(points, **kwargs):
        seen.append(points.detach().clone())
        return saliency.attribute(points, **kwargs)

    metric(
        explain, x, 2, perturb_func=noise, perturb_radius=radius, target=1, seed=0,
        reference_attributions=saliency.attribute(x.clone().requires_grad_(), target=1),
        max_examples_per_batch=chunk,
    )  # fmt: skip
    return torch.cat(seen).view(len(x), -1, x.shape[1])


# As many examples as features, and as many as neighbours, which sizes could be mistaken for.
@every_metric
@pytest.mark.parametrize(
    "kind", [UniformNoise, GaussianNoise, functools.partial(UniformNoise, "L2")]
)
@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_bounds_follow_their_examples(metric, kind, n, chunk):
    x = torch.rand(n, 6, dtype=torch.float64) * torch.arange(1, n + 1).view(n, 1)
    width = 0.01 * torch.arange(1, n + 1).view(n, 1).double()
    noise = kind(lower_bound=x - width, upper_bound=x + width)
    move = (explained_points(metric, x, noise, 5.0, chunk) - x[:, None]).abs().amax(dim=(1, 2))
    assert (move <= width[:, 0] * (1 + 1e-12)).all()
    assert (move > 0.3 * width[:, 0]).all()


@every_metric
def test_a_bound_with_fewer_dimensions_than_the_inputs_is_shared(metric):
    x, upper = -torch.rand(6, 6).double(), 0.01 * torch.arange(1, 7).double()
    noise = UniformNoise(upper_bound=upper)
    points = explained_points(metric, x, noise, 5.0, 1000)
    assert (points <= upper).all() and (points.amax(dim=(0, 1)) > -0.5).all()


@every_metric
@pytest.mark.parametrize("n", [3, 6])
@pytest.mark.parametrize("chunk", [1, 4, 1000])
def test_radii_follow_their_examples(metric, n, chunk):
    x, radius = torch.randn(n, 6).double(), 0.1 * torch.arange(1, n + 1).double()
    points = explained_points(metric, x, UniformNoise(), radius, chunk)
    move = (points - x[:, None]).abs().amax(dim=(1, 2))
    assert (move <= radius * (1 + 1e-12)).all() and (move > 0.3 * radius).all()


@pytest.mark.parametrize("wrong", [torch.full((5,), 0.1), torch.full((6, 6), 0.1)])
def test_radii_of_another_shape_are_refused_by_name(wrong):
    x, net = torch.randn(6, 6).double(), network()
    explain = Saliency(net).attribute
    for name, metric in METRICS.items():
        with pytest.raises(ValueError, match="perturb_radius must be a number or a tensor"):
            metric(explain, x, 2, perturb_radius=wrong, target=1)
        assert name
    with pytest.raises(ValueError, match="radius must be a number or a tensor"):
        thickness_bounds(net, x, 2, wrong, target=1)
    for names in ({"radius": wrong, "sigma": 1.0}, {"radius": 1.0, "sigma": wrong}):
        with pytest.raises(ValueError, match="must be a number or a tensor"):
            certified_precision_at_k(explain, x, 2, n_samples=5, target=1, **names)
    with pytest.raises(ValueError, match="max_radius must be a number"):
        certified_top_k_radius(net, x, 2, 1, max_radius=wrong)
    with pytest.raises(ValueError, match="radius must be a number"):
        ExplanationComparator({"s": Saliency(net)}, {}, {}).evaluate(x, wrong, 1)


@pytest.mark.parametrize("wrong", [torch.zeros(5, 6), torch.zeros(5), torch.zeros(3, 6, 6)])
def test_bounds_of_another_shape_are_refused_by_name(wrong):
    x = torch.randn(6, 6).abs().double()
    for metric in METRICS.values():
        with pytest.raises(ValueError, match="lower_bound must have"):
            noise = UniformNoise(lower_bound=wrong)
            metric(Saliency(network()).attribute, x, 2, perturb_func=noise, target=1)


# --- the ball ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.sampled_from(["Linf", "L2"]),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    st.floats(0.6, 40.0),
    st.floats(-5, 5),
    st.integers(0, 99),
)
def test_noise_stays_in_the_ball_in_every_precision(norm, dtype, spacings, size, seed):
    generator = torch.Generator().manual_seed(seed)
    x = (2.0**size * (1 + torch.rand(6, 4, generator=generator))).to(dtype)
    radius = spacings * torch.finfo(dtype).eps * 2.0**size
    try:
        moved = UniformNoise(norm).perturb(x, radius, seed=seed)
    except ValueError as error:
        assert spacings < 1 and "spacing" in str(error)
        return
    order = float("inf") if norm == "Linf" else 2
    length = torch.linalg.vector_norm(moved.double() - x.double(), order, dim=1)
    rounding = 0 if norm == "Linf" else 1e-12
    wide = torch.promote_types(dtype, torch.float32)
    assert (length <= radius * (1 + rounding + 4 * torch.finfo(wide).eps)).all()


@pytest.mark.parametrize("noise", [UniformNoise(), UniformNoise("L2"), GaussianNoise()])
@pytest.mark.parametrize("shape", [(1,), (3,), (5, 7)])
@pytest.mark.parametrize("n_draws", [1, 16, 33, 129])
@pytest.mark.parametrize("most", [1, 16, 40])
def test_noise_in_blocks_is_the_same_noise(noise, shape, n_draws, most):
    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    example = torch.zeros(shape)
    whole = noise.directions(n_draws, example, first)
    sizes = noise.block_sizes(n_draws, most)
    assert sum(sizes) == n_draws
    assert torch.equal(torch.cat(list(noise.blocks(sizes, example, second))), whole)
    assert torch.equal(torch.rand(3, generator=first), torch.rand(3, generator=second))


@every_metric
@pytest.mark.parametrize("noise", [UniformNoise(), UniformNoise("L2"), GaussianNoise()])
def test_neighbours_drawn_in_blocks_are_the_same_neighbours(metric, noise, monkeypatch):
    x = torch.randn(3, 6).double()
    whole = explained_points(metric, x, noise, 0.5, 1000)
    monkeypatch.setattr("captum_robust.metrics._draws.bytes_per_call", lambda device: 1)
    assert torch.equal(explained_points(metric, x, noise, 0.5, 1), whole)


# --- nothing that cannot move --------------------------------------------------------------------


def swallows(inputs, radius):
    return inputs.clone()


COARSE = {
    "float16": (torch.float16, 1000.0, 0.1),
    "bfloat16": (torch.bfloat16, 100.0, 0.4),
    "float32": (torch.float32, 1e7, 0.1),
    "float64": (torch.float64, 1e17, 0.1),
}


@every_metric
@pytest.mark.parametrize("case", COARSE.values(), ids=COARSE)
@pytest.mark.parametrize("kind", [UniformNoise, GaussianNoise])
def test_a_radius_below_the_spacing_of_the_numbers(metric, case, kind):
    dtype, size, radius = case
    explain, x = Saliency(nn.Linear(6, 2, dtype=dtype)).attribute, torch.rand(4, 6)
    far = (size * (1 + 0.5 * x)).to(dtype)
    given = {"target": 1, "seed": 0, "perturb_func": kind()}
    with pytest.raises(ValueError, match="perturb_radius above 0 moves 4 of 4 examples nowhere"):
        metric(explain, far, 2, perturb_radius=radius / 20, **given)
    some = torch.cat([far[:2], x[:2].to(dtype)])
    with pytest.warns(UnmovedWarning, match="moves 2 of 4"):
        value = metric(explain, some, 2, perturb_radius=radius / 20, **given)
    assert value.isnan().tolist() == [True, True, False, False]
    unmoved = metric(explain, far, 2, perturb_radius=0.0, **given)
    assert metric is METRICS["pairs"] or unmoved.tolist() == [1] * 4


@every_metric
def test_a_perturbation_that_returns_the_inputs(metric):
    x, explain = torch.randn(4, 6).double(), Saliency(network()).attribute
    with pytest.raises(ValueError, match="moves 4 of 4 examples nowhere"):
        metric(explain, x, 2, perturb_func=swallows, perturb_radius=0.1, target=1)
    value = metric(explain, x, 2, perturb_func=swallows, perturb_radius=0.0, target=1)
    assert metric is METRICS["pairs"] or value.tolist() == [1] * 4


@every_metric
def test_an_attack_that_finds_nothing_has_moved(metric):
    """The explanation of a linear model is constant: that the attack stays is the truth."""
    x, saliency = torch.randn(4, 6).double(), Saliency(nn.Linear(6, 2).double())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = metric(
            saliency.attribute, x, 2, perturb_func=ERAttack(saliency, 2), perturb_radius=0.1,
            target=1,
        )  # fmt: skip
    assert value.isfinite().all()


def test_certificates_need_noise_that_moves_every_feature():
    x, explain = torch.rand(3, 6), Saliency(nn.Linear(6, 2)).attribute
    x[0, 0] = 1e9  # where the noise vanishes, and the proof with it
    given = {"radius": 0.01, "sigma": 0.1, "n_samples": 50, "target": 1, "seed": 0}
    with pytest.warns(UnmovedWarning, match="sigma"):
        value = certified_precision_at_k(explain, x, 2, **given)
    assert value.isnan().tolist() == [True, False, False]
    with pytest.raises(ValueError, match="sigma above 0 moves 3 of 3 examples nowhere"):
        certified_precision_at_k(explain, x + 1e9, 2, **given)
    net = nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 2)).double()
    far = torch.cat([x[1:], x[:1] + 1e18]).double()
    with pytest.warns(UnmovedWarning, match="max_radius"):
        assert certified_top_k_radius(net, far, 2, 1).isnan().tolist()[-1]
    with pytest.raises(ValueError, match="max_radius"):
        certified_top_k_radius(net, far[2:], 2, 1)


ATTACKS = {"er": ERAttack, "random": RandomSearchAttack, "auto": AutoERAttack}


@pytest.mark.parametrize("kind", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_attacks_say_which_examples_cannot_move(kind, norm):
    net, x = network(), torch.randn(4, 6).double()
    attack = kind(Saliency(net), 2)
    mask = torch.ones(4, 6)
    mask[1] = 0
    given = {"target": 1, "norm": norm, "seed": 0, "return_info": True}
    with pytest.warns(UnmovedWarning, match="moves 1 of 4"):
        moved, info = attack.perturb(x, 0.3, mask=mask, **given)
    assert info.precision.isnan().tolist() == [False, True, False, False]
    assert torch.equal(moved[1], x[1]) and info.flags["unmovable"] == 1
    assert FLAGS["unmovable"].decisive
    with pytest.raises(ValueError, match="moves 4 of 4"):
        attack.perturb(x, 0.3, mask=torch.zeros(6), **given)
    with pytest.raises(ValueError, match="moves 4 of 4"):
        attack.perturb(x + 1e18, 0.3, **given)
    bounded = kind(Saliency(net), 2, lower_bound=x, upper_bound=x)
    with pytest.raises(ValueError, match="moves 4 of 4"):
        bounded.perturb(x, 0.3, **given)
    _, info = attack.perturb(x, torch.tensor([0.0, 0.0, 0.0, 0.0]), **given)
    assert info.precision.tolist() == [1] * 4 and "unmovable" not in info.flags


def test_smallest_radii_of_examples_that_cannot_move():
    x, mask = torch.randn(3, 6).double(), torch.ones(3, 6)
    mask[2] = 0
    search = MinRadius(ERAttack(Saliency(network()), 2), upper=4.0, n_bisections=2)
    with pytest.warns(UnmovedWarning, match="upper above 0 moves 1 of 3"):
        assert search.evaluate(x, 1, seed=0, mask=mask).isnan().tolist() == [False, False, True]
    with pytest.raises(ValueError, match="upper above 0 moves 3 of 3"):
        search.evaluate(x + 1e18, 1, seed=0)


def test_small_radii_of_a_search_may_be_below_the_spacing():
    net, x = network(dtype=torch.bfloat16), (1 + torch.rand(4, 6)).bfloat16()
    radius = MinRadius(ERAttack(Saliency(net), 2), upper=2.0).evaluate(x, 1, seed=0)
    assert (radius > 0).all()


def test_the_comparator_has_no_value_for_examples_that_cannot_move():
    net, x = network(), torch.randn(3, 6).double()
    x[0] += 1e18
    table = ExplanationComparator(
        {"s": Saliency(net)},
        {"er": functools.partial(ERAttack, k=2)},
        {"one": lambda maps, reference: torch.ones(len(maps))},
    ).evaluate(x, 0.3, 1, seed=0)
    for attack in ("noise", "er"):
        assert table["s", attack].values["one"].isnan().tolist() == [True, False, False]
        assert table["s", attack].flags["unmoved"] >= 1
    assert table["s", "er"].flags["unmovable"] == 1


# --- memory --------------------------------------------------------------------------------------


def test_a_map_without_gradients_is_explained_in_bounded_chunks():
    """Autograd saves nothing of it: the rows of a call follow the memory of its tensors."""
    net = nn.Sequential(nn.Linear(8, 100_000), nn.ReLU(), nn.Linear(100_000, 2)).eval()
    ablation, sizes = FeatureAblation(net), []

    def explain(points, **kwargs):
        sizes.append(len(points))
        return ablation.attribute(points, **kwargs)

    ranking_thickness(
        explain, torch.randn(2, 8), 2, target=1, seed=0, n_perturb_samples=4, n_steps=64,
        feature_mask=torch.arange(8)[None] // 2, perturb_radius=0.1,
    )  # fmt: skip
    assert max(sizes[2:]) <= 30_000_000 / (100_000 * 4) + 1


def test_the_first_call_takes_few_large_inputs():
    sizes = []

    def explain(points, **kwargs):
        sizes.append(len(points))
        return points.flatten(1)[:, :4]

    ranking_thickness(explain, torch.randn(3, 3, 200, 200), 2, perturb_radius=0.1, seed=0)
    assert sizes[0] == 1
    sizes.clear()
    ranking_thickness(explain, torch.randn(100, 4), 2, perturb_radius=0.1, seed=0)
    assert sizes[0] == 64
