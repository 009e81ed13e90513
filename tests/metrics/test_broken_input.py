"""Rows without a ranking give NaN, and only they do; wrong arguments are refused by name."""

import re

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn

from captum_robust.metrics import (
    attribution_mse,
    center_of_mass_shift,
    pairwise_ranking_thickness,
    pearson_correlation,
    precision_at_k,
    precision_at_k_min,
    ranking_gap,
    ranking_thickness,
    spearman_correlation,
)
from captum_robust.noise import GaussianNoise
from tests.metrics.definitions import normal, softplus_net

NAN, INF = float("nan"), float("inf")

OF_MAPS = {
    "precision": lambda a, b: precision_at_k(a, b, 2),
    "mse": attribution_mse,
    "pearson": pearson_correlation,
    "spearman": spearman_correlation,
    "centre of mass": center_of_mass_shift,
    "gap": lambda a, b: ranking_gap(a, 2, reference_attributions=b),
    "mean gap": lambda a, b: ranking_gap(a, 2, "mean", reference_attributions=b),
}
PAIRS = torch.tensor([[0, 1], [2, 3]])
OF_MODELS = {
    "stratified": lambda f, x, **kwargs: ranking_thickness(
        f, x, 2, **{"n_perturb_samples": 3, "n_steps": 2, **kwargs}
    ),
    "margin": lambda f, x, **kwargs: ranking_thickness(
        f, x, 2, surrogate="margin", **{"n_perturb_samples": 3, "n_steps": 2, **kwargs}
    ),
    "min": lambda f, x, **kwargs: ranking_thickness(
        f, x, 2, reduction="min", **{"n_perturb_samples": 3, "n_steps": 2, **kwargs}
    ),
    "pairs": lambda f, x, **kwargs: pairwise_ranking_thickness(
        f, x, PAIRS, **{"n_perturb_samples": 3, "n_steps": 2, **kwargs}
    ),
    "precision": lambda f, x, **kwargs: precision_at_k_min(
        f, x, 2, **{"n_perturb_samples": 6, **kwargs}
    ),
}
BROKEN = {
    "one NaN": [0.5, NAN, 1.0, 2.0],
    "one infinity": [0.5, INF, 1.0, 2.0],
    "one negative infinity": [0.5, -INF, 1.0, 2.0],
    "all NaN": [NAN] * 4,
    "infinities of both signs": [INF, -INF, INF, -INF],
    "constant": [0.3] * 4,
    "zero": [0.0] * 4,
    "zeros of both signs": [0.0, -0.0, 0.0, -0.0],
}
broken_rows = pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
of_maps = pytest.mark.parametrize("metric", OF_MAPS.values(), ids=OF_MAPS)
of_models = pytest.mark.parametrize("metric", OF_MODELS.values(), ids=OF_MODELS)


def only_row_one_is_nan(values):
    nan = values.isnan()
    nan = nan.view(len(values), -1)
    return bool(nan[1].all()) and not bool(nan[[0, 2]].any())


# --- metrics of maps ---------------------------------------------------------------------------


@of_maps
@broken_rows
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_broken_map_gives_one_nan(metric, broken, dtype):
    left, right = normal(3, 4).to(dtype), normal(3, 4, seed=1).to(dtype)
    whole = metric(left, right)
    assert whole.isfinite().all()
    spoilt = left.clone()
    spoilt[1] = torch.tensor(broken)
    for found in (metric(spoilt, right), metric(left, spoilt), metric(spoilt, spoilt)):
        assert only_row_one_is_nan(found)
    assert torch.equal(metric(spoilt, right)[[0, 2]], whole[[0, 2]])


def test_finite_maps_whose_sum_overflows_are_ranked():
    largest = torch.finfo(torch.float32).max
    left = torch.tensor([[largest, largest, 0.0], [1.0, 2.0, 1.0], [2.0, 2.0, 2.0]])
    found = precision_at_k(left, left, 1)
    assert found[:2].tolist() == [1.0, 1.0] and bool(found[2].isnan())


@pytest.mark.parametrize("row", BROKEN.values(), ids=BROKEN)
def test_a_broken_map_alone_gives_nan(row):
    other = torch.tensor([[0.5, 0.25, 1.0, 0.5]])  # its first and last scores are equal
    assert precision_at_k(torch.tensor([row]), other, 2).isnan().all()
    assert precision_at_k(other, other, 2).tolist() == [1.0]


@of_maps
def test_all_rows_may_be_broken(metric):
    assert metric(torch.zeros(3, 4), normal(3, 4).float()).isnan().all()


@of_maps
def test_an_empty_batch_gives_an_empty_result(metric):
    assert metric(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


@of_maps
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_widened_first(metric, dtype):
    left, right = normal(3, 4).to(dtype), normal(3, 4, seed=1).to(dtype)
    found = metric(left, right)
    assert found.dtype == torch.float32
    assert torch.equal(found, metric(left.float(), right.float()))
    wide = metric(left.double(), right.double())
    assert wide.dtype == torch.float64
    torch.testing.assert_close(found, wide.float())


@of_maps
def test_integers_are_widened_first(metric):
    left, right = torch.tensor([[3, 1, 0, 7]]), torch.tensor([[1, 2, 9, 3]])
    assert torch.equal(metric(left, right), metric(left.float(), right.float()))


@of_maps
def test_layouts_do_not_matter(metric):
    left, right = normal(3, 4), normal(3, 4, seed=1)
    expected = metric(left, right)
    transposed = left.t().contiguous().t()
    strided = torch.stack([left, left], dim=-1)[..., 0]
    for other in (transposed, strided):
        assert not other.is_contiguous()
        torch.testing.assert_close(metric(other, right), expected)
        of_both = metric(other, torch.stack([right, right], -1)[..., 0])
        torch.testing.assert_close(of_both, expected)


@of_maps
def test_channels_last_images_do_not_matter(metric):
    left, right = normal(3, 2, 4, 4), normal(3, 2, 4, 4, seed=1)
    last = left.contiguous(memory_format=torch.channels_last)
    assert not last.is_contiguous()
    torch.testing.assert_close(metric(last, right), metric(left, right))
    torch.testing.assert_close(metric(right, last), metric(right, left))


@of_maps
def test_no_model_is_called_and_no_graph_is_kept(metric, monkeypatch):
    net = softplus_net(4)
    x = normal(3, 4).requires_grad_()
    maps = torch.autograd.grad(net(x)[:, 0].sum(), x, create_graph=True)[0]
    assert maps.requires_grad

    def fail(*args, **kwargs):
        raise AssertionError("a model was called")

    monkeypatch.setattr(nn.Module, "__call__", fail)
    monkeypatch.setattr(torch.autograd, "grad", fail)
    assert not metric(maps, normal(3, 4, seed=1)).requires_grad


@of_maps
def test_maps_are_left_as_found(metric):
    left, right = normal(3, 4), normal(3, 4, seed=1)
    left[1, 1] = NAN
    before = left.clone(), right.clone()
    metric(left, right)
    torch.testing.assert_close((left, right), before, rtol=0, atol=0, equal_nan=True)


@of_maps
@pytest.mark.parametrize("other", [(3, 5), (2, 4), (3, 2, 2), (3, 1, 4)])
def test_maps_of_other_shapes_are_refused(metric, other):
    message = re.escape(f"must have the same shape, got [(3, 4)] and [{other}]")
    with pytest.raises(ValueError, match="attributions and reference_attributions " + message):
        metric(normal(3, 4), normal(*other))
    with pytest.raises(ValueError, match="attributions and reference_attributions must have"):
        metric((normal(3, 4),), (normal(3, 4), normal(3, 4)))


@of_maps
def test_maps_that_are_no_tensors_are_refused(metric):
    with pytest.raises(ValueError, match=r"attributions must be a Tensor or a tuple .* got list"):
        metric([normal(3, 4)], normal(3, 4))
    with pytest.raises(ValueError, match=r"reference_attributions must be a Tensor .* got list"):
        metric(normal(3, 4), [normal(3, 4)])


# --- metrics of models -------------------------------------------------------------------------


def map_that_is(broken, where):
    """The square, but ``broken`` for the examples, whose last feature tells, at some points."""

    def explain(x):
        x = x.detach()
        spoilt = (x[:, 3] > 50) & where(x)
        return torch.where(spoilt[:, None], torch.tensor(broken, dtype=x.dtype), x**2)

    return explain


def three_examples():
    inputs = normal(3, 4)
    inputs[1, 3] = 100.0
    return inputs


@of_models
@broken_rows
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_broken_map_gives_one_nan_thickness(metric, broken, chunk):
    inputs = three_examples()
    kwargs = {"perturb_radius": 0.1, "seed": 0, "max_examples_per_batch": chunk}
    calm = metric(lambda x: x**2, inputs, **kwargs)
    assert calm.isfinite().all()
    found = metric(map_that_is(broken, lambda x: torch.ones(len(x)).bool()), inputs, **kwargs)
    assert only_row_one_is_nan(found)
    assert torch.equal(found[[0, 2]], calm[[0, 2]])


@of_models
@broken_rows
@pytest.mark.parametrize("chunk", [None, 1, 2])
def test_a_map_that_breaks_at_a_perturbed_point_gives_one_nan(metric, broken, chunk):
    inputs = three_examples()
    explain = map_that_is(broken, lambda x: x[:, 3] > 100)
    found = metric(explain, inputs, perturb_radius=0.1, seed=0, max_examples_per_batch=chunk)
    assert only_row_one_is_nan(found)
    # At the very point itself, nothing is broken.
    assert explain(inputs)[1].tolist() == (inputs[1] ** 2).tolist()


@of_models
@broken_rows
def test_a_broken_reference_gives_one_nan(metric, broken):
    maps = normal(3, 4)
    maps[1] = torch.tensor(broken)
    assert only_row_one_is_nan(metric(lambda x: x**2, normal(3, 4), reference_attributions=maps))


@of_models
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("given", [False, True])
def test_a_broken_input_gives_one_nan_even_where_its_map_is_finite(metric, value, given):
    model = nn.Linear(4, 2).double()
    inputs = normal(3, 4)
    inputs[1, 2] = value
    kwargs = {"reference_attributions": normal(3, 4, seed=2)} if given else {}
    assert only_row_one_is_nan(metric(Saliency(model).attribute, inputs, target=0, **kwargs))


@of_models
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_broken_neighbour_gives_one_nan(metric, value):
    def spoil(x):
        x = x + 0.1
        x[1, 0] = value
        return x

    model = nn.Linear(4, 2).double()
    found = metric(Saliency(model).attribute, normal(3, 4), perturb_func=spoil, target=0)
    assert only_row_one_is_nan(found)


@of_models
def test_a_map_of_zeros_is_never_robust(metric):
    dead = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    dead[0].bias.data.fill_(-1e6)
    for method in (Saliency, InputXGradient):
        assert metric(method(dead).attribute, normal(3, 4), target=0).isnan().all()


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 4, 5, 2.0, True, "2", None])
@pytest.mark.parametrize(
    "call",
    [
        lambda k: precision_at_k(normal(3, 4), normal(3, 4), k),
        lambda k: ranking_gap(normal(3, 4), k),
        lambda k: ranking_gap(normal(3, 4), k, "mean"),
        lambda k: ranking_thickness(lambda x: x, normal(3, 4), k),
        lambda k: precision_at_k_min(lambda x: x, normal(3, 4), k),
        lambda k: ranking_thickness(
            lambda x: x, normal(3, 8), k, feature_mask=torch.arange(8)[None] // 2
        ),
    ],
)
def test_other_k_are_refused(call, k):
    message = re.escape(f"1 <= k < 4, the number of ranked features; got {k!r}")
    with pytest.raises(ValueError, match="k must be an int with " + message):
        call(k)


@of_models
@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("perturb_radius", -0.1, "perturb_radius must be finite and not negative, got -0.1"),
        ("perturb_radius", NAN, "perturb_radius must be finite and not negative, got nan"),
        ("perturb_radius", INF, "perturb_radius must be finite and not negative, got inf"),
        ("n_perturb_samples", 0, "n_perturb_samples must be an integer of at least 1, got 0"),
        ("n_perturb_samples", 2.5, "n_perturb_samples must be an integer of at least 1, got 2.5"),
        ("n_perturb_samples", -3, "n_perturb_samples must be an integer of at least 1, got -3"),
        (
            "max_examples_per_batch",
            0,
            "max_examples_per_batch must be an integer .* got 0",
        ),
        (
            "max_examples_per_batch",
            -1,
            "max_examples_per_batch must be an integer .* got -1",
        ),
        (
            "reference_attributions",
            normal(2, 4),
            "reference_attributions must hold 3 examples as inputs do, got 2",
        ),
        (
            "reference_attributions",
            normal(3, 5),
            "reference_attributions must hold 4 scores per example .* got 5",
        ),
        (
            "reference_attributions",
            [normal(3, 4)],
            "reference_attributions must be a Tensor or a tuple of Tensors, got list",
        ),
        (
            "feature_mask",
            torch.zeros(3, 3).long(),
            r"feature_mask\[0\] must be broadcastable to \(3, 4\), got \(3, 3\)",
        ),
        *(
            (
                "feature_mask",
                torch.arange(4).expand(n_rows, 4),
                rf"feature_mask\[0\] must have one row .* per example \(3\), got {n_rows}",
            )
            for n_rows in (0, 2, 4)
        ),
        (
            "feature_mask",
            (torch.arange(4)[None], torch.arange(4)[None]),
            "feature_mask must hold one mask per tensor",
        ),
    ],
)
def test_other_values_are_refused(metric, argument, value, message):
    with pytest.raises(ValueError, match=message):
        metric(lambda x: x, normal(3, 4), **{argument: value})


@of_models
@pytest.mark.parametrize("chunk", [1, 2, 3])
@pytest.mark.parametrize("n_rows", [2, 4])
def test_a_mask_with_too_few_or_too_many_rows_is_refused_in_chunks(metric, chunk, n_rows):
    mask = torch.arange(4).expand(n_rows, 4)
    with pytest.raises(ValueError, match=rf"feature_mask\[0\] must have one row .* got {n_rows}"):
        metric(lambda x: x, normal(3, 4), feature_mask=mask, max_examples_per_batch=chunk)


@pytest.mark.parametrize("noise", [GaussianNoise(), lambda x, r: x])
def test_radius_zero_is_accepted(noise):
    found = ranking_thickness(lambda x: x, normal(3, 4), 2, noise, perturb_radius=0)
    assert found.tolist() == [1.0] * 3


@of_models
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([normal(3, 4)], "inputs must be a Tensor or a tuple of Tensors, got list"),
        ((), "inputs must hold tensors whose first dimension counts the examples"),
        (torch.tensor(1.0), "inputs must hold tensors whose first dimension counts the examples"),
        (
            (normal(3, 4), normal(2, 4)),
            r"inputs must have the same number of examples in each tensor, got \[3, 2\]",
        ),
        (normal(0, 4), "inputs must hold at least one example, got none"),
    ],
)
def test_other_inputs_are_refused(metric, inputs, message):
    with pytest.raises(ValueError, match=message):
        metric(lambda x: x, inputs)


@of_models
def test_explanations_of_too_few_maps_are_refused(metric):
    with pytest.raises(ValueError, match=r"explanation_func must return one map per example \(3\)"):
        metric(lambda x: x.sum(dim=0, keepdim=True), normal(3, 4))


@of_models
def test_explanations_that_are_no_tensors_are_refused(metric):
    message = "the result of explanation_func must be a Tensor or a tuple of Tensors, got list"
    with pytest.raises(ValueError, match=message):
        metric(lambda x: [x], normal(3, 4))


@pytest.mark.parametrize("metric", [ranking_thickness, pairwise_ranking_thickness])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_steps": 0}, "n_steps must be an integer of at least 1, got 0"),
        ({"n_steps": 2.5}, "n_steps must be an integer of at least 1, got 2.5"),
        ({"n_steps": -1}, "n_steps must be an integer of at least 1, got -1"),
        ({"surrogate": "gap"}, r"surrogate must be one of \('indicator', 'margin'\), got 'gap'"),
        ({"reduction": "max"}, r"reduction must be one of \('mean', 'min'\), got 'max'"),
        (
            {"sampling": "sobol"},
            r"sampling must be one of .*'grid'\), got 'sobol'",
        ),
        ({"reduction": "min", "sampling": "stratified"}, "reduction='min' needs sampling='grid'"),
    ],
)
def test_other_choices_are_refused_before_anything_is_explained(metric, arguments, message):
    def fail(x):
        raise AssertionError("explained")

    second = 2 if metric is ranking_thickness else PAIRS
    with pytest.raises(ValueError, match=message):
        metric(fail, normal(3, 4), second, **arguments)
