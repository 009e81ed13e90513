"""Composed normalisation is torch's own: values, statistics, types and errors."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_robust.attr import differentiable_attribution, smooth_relu
from captum_robust.attr._normalisation import composed_normalisation
from tests.attr.oracles import drawn, normal

SHAPES = {1: (5, 3, 4), 2: (5, 3, 4, 2), 3: (5, 3, 2, 2, 2)}
BATCH = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
OPTIONS = {
    "affine": {},
    "not affine": {"affine": False},
    "cumulative": {"momentum": None},
    "no statistics": {"track_running_stats": False},
    "eps": {"eps": 0.1, "momentum": 0.7},
}


def spread(*shape):
    """Numbers far from zero mean and unit variance, another mean for each channel."""
    x = normal(*shape)
    return 3 * x + torch.arange(shape[1]).view(-1, *(1,) * (len(shape) - 2)) + 10


def with_parameters(layer):
    return drawn(layer).train()


def assert_same_twice(layer, x):
    """Two calls give what torch's own give, and leave the same buffers."""
    own, composed = layer, copy.deepcopy(layer)
    for factor in (1.0, -2.0):
        expected = own(factor * x)
        with composed_normalisation():
            found = composed(factor * x)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        assert type(found.grad_fn) is not type(expected.grad_fn), "it was not composed"
        for buffer, other in zip(composed.buffers(), own.buffers(), strict=True):
            assert torch.equal(buffer, other)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("n_dims", BATCH)
def test_batch_norm(n_dims, options):
    x = spread(*SHAPES.get(n_dims, (5, 3))).requires_grad_()
    assert_same_twice(with_parameters(BATCH[n_dims](3, **options)), x)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("n_dims", INSTANCE)
def test_instance_norm(n_dims, options):
    x = spread(*SHAPES[n_dims]).requires_grad_()
    given = {"affine": True, **options}
    if given.get("momentum", 0.0) is not None:
        given = {"track_running_stats": True, **given}
    layer = with_parameters(INSTANCE[n_dims](3, **given))
    assert_same_twice(layer, x)
    if not layer.track_running_stats:
        assert_same_twice(layer.eval(), x)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize(
    "options", [{}, {"bias": False}, {"elementwise_affine": False, "eps": 0.1}]
)
def test_layer_norm(options, shape):
    x = spread(5, 3, 4).requires_grad_()
    layer = with_parameters(nn.LayerNorm(shape, **options))
    assert_same_twice(layer, x)
    assert_same_twice(layer.eval(), x)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_in_evaluation_mode_batch_norm_is_torch_s(momentum):
    layer = with_parameters(nn.BatchNorm1d(3, momentum=momentum))
    layer(spread(5, 3))
    layer.eval()
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    with composed_normalisation() as mode:
        found = layer(spread(5, 3))
    assert torch.equal(found, layer(spread(5, 3)))
    assert all(torch.equal(buffer, before[name]) for name, buffer in layer.named_buffers())
    assert not mode.couples_examples


def test_in_evaluation_mode_instance_norm_with_statistics_is_torch_s():
    layer = nn.InstanceNorm1d(3, affine=True, track_running_stats=True)
    layer = with_parameters(layer)
    layer(spread(5, 3, 4))
    layer.eval()
    with composed_normalisation():
        found = layer(spread(5, 3, 4))
    assert torch.equal(found, layer(spread(5, 3, 4)))


@pytest.mark.parametrize(
    ("layer", "shape", "couples"),
    [
        (nn.BatchNorm1d(3), (5, 3), True),
        (nn.BatchNorm1d(3).eval(), (5, 3), False),
        (nn.BatchNorm1d(3, track_running_stats=False).eval(), (5, 3), True),
        (nn.InstanceNorm1d(3), (5, 3, 4), False),
        (nn.LayerNorm(3), (5, 3), False),
    ],
)
def test_it_sees_whether_examples_interact(layer, shape, couples):
    with composed_normalisation() as mode:
        layer.double()(normal(*shape))
    assert mode.couples_examples is couples


def test_functions_called_by_position():
    x = spread(5, 3, 4)
    calls = (
        lambda: F.batch_norm(x, None, None, x[0, :, 0], x[1, :, 0], True, 0.1, 0.2),
        lambda: F.instance_norm(x, None, None, x[0, :, 0], x[1, :, 0], True, 0.1, 0.2),
        lambda: F.layer_norm(x, (4,), x[0, 0], x[1, 0], 0.2),
        lambda: F.group_norm(x, 3, x[0, :, 0], x[1, :, 0], 0.2),
    )
    for call in calls:
        with composed_normalisation():
            found = call()
        torch.testing.assert_close(found, call(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (64, 3)),
        (nn.BatchNorm2d(3), (5, 3, 4, 2)),
        (nn.InstanceNorm1d(3, affine=True), (5, 3, 40)),
        (nn.LayerNorm(3), (64, 3)),
    ],
)
def test_types(layer, shape, dtype):
    """As near to float64 as one rounding of the inputs and one of the result allow."""
    x = spread(*shape).to(dtype)
    layer = with_parameters(layer)
    with composed_normalisation():
        exact = layer.double()(x.double())
        found = copy.deepcopy(layer).to(dtype)(x)
    assert found.dtype == dtype
    room = 30 * torch.finfo(dtype).eps
    torch.testing.assert_close(found.double(), exact, rtol=room, atol=room)


def test_sums_of_half_precision_are_taken_in_float32():
    x = 200 + normal(4096, 2).half()  # squares and sums overflow in float16
    with composed_normalisation():
        found = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(found, F.batch_norm(x.double(), None, None, training=True).half())


def test_parameters_of_a_wider_type_and_autocast():
    x, layer = spread(5, 4).bfloat16(), nn.LayerNorm(4)
    with composed_normalisation():
        assert layer(x).dtype == torch.bfloat16
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.LayerNorm(4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = model(x.float())
        with composed_normalisation():
            found = model(x.float())
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)


def test_errors_are_torch_s():
    with composed_normalisation():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            nn.BatchNorm1d(3)(torch.ones(1, 3))
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            nn.InstanceNorm1d(3)(torch.ones(2, 3, 1))
        with pytest.raises(RuntimeError, match="normalized_shape"):
            nn.LayerNorm(3)(torch.ones(2, 4))


def test_a_constant_channel_has_finite_derivatives():
    x = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    with composed_normalisation():
        y = F.batch_norm(x, None, None, training=True)
    assert torch.equal(y, torch.zeros_like(y))
    (gradient,) = torch.autograd.grad(y.square().sum() + y[0].sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert gradient.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize("inside", [differentiable_attribution, smooth_relu])
def test_beside_other_modes(inside):
    model = with_parameters(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()))
    x = spread(5, 4)
    results = []
    for modes in ((composed_normalisation, inside), (inside, composed_normalisation), (inside,)):
        twin = copy.deepcopy(model)
        first, *rest = modes
        with first():
            if rest:
                with rest[0]():
                    found = twin(x)
            else:
                found = twin(x)
        results.append((found, twin[1].running_var))
    for found in results[:2]:
        torch.testing.assert_close(found, results[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.BatchNorm1d(3), (4, 3)),
        (nn.BatchNorm2d(2), (3, 2, 2, 1)),
        (nn.InstanceNorm1d(2, affine=True), (2, 2, 3)),
        (nn.LayerNorm(3), (2, 3)),
    ],
)
def test_third_derivatives(layer, shape):
    """The gradient of the square of a second derivative, beside central differences of it."""
    layer = with_parameters(layer)
    along = normal(*shape, seed=1)

    def value(x):
        with composed_normalisation():
            score = layer(x).exp().sum()
        (first,) = torch.autograd.grad(score, x, create_graph=True)
        (second,) = torch.autograd.grad(first, x, along, create_graph=True)
        return second.square().sum()

    x = normal(*shape).requires_grad_()
    assert torch.autograd.gradcheck(value, (x,))
