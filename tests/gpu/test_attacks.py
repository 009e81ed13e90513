"""Every attack finds on the device what it finds on the CPU with the same seed.

The noise is drawn on the CPU, and the networks are smooth, so the points agree: rounding could only
turn the sign of a gradient of 1e-16, or exchange two proposals that are equal to as many digits.
"""

import pytest
import torch
from captum.attr import Saliency

from captum_robust import metrics
from captum_robust.robust import AutoERAttack, GaussianNoise, MinRadius, UniformNoise
from captum_robust.robust.er import ERAttack
from captum_robust.testing.snapshot import changes, random_state
from tests.gpu.device import DEVICE, assert_same, moved
from tests.robust.targets import (
    TARGETS,
    Target,
    as_tuple,
    convnet,
    mlp,
    normal,
    relu_mlp,
    stock_scores,
)

RADIUS, K = 0.5, 2


def on_device(target: Target, model=None, **arguments):
    network = target.network
    return target.perturb(
        model or moved(network.build()),
        inputs=moved(network.inputs), target=moved(network.target), **arguments,
    )  # fmt: skip


def check_what_is_asked(target, model, result):
    origin, result = as_tuple(moved(target.network.inputs)), as_tuple(result)
    assert all(r.device == DEVICE for r in result)
    order = {"Linf": float("inf"), "L2": 2}[target.norm]
    moves = [(r - o).flatten(1).norm(order, dim=1) for r, o in zip(result, origin, strict=True)]
    assert all((move <= target.network.radius * (1 + 1e-9)).all() for move in moves)
    assert any(move.any() for move in moves)
    assert torch.equal(model(*result).argmax(1), model(*origin).argmax(1))


# The step of Pareto is the vertex of a small program; rounding can turn one into another.
@pytest.mark.parametrize("target", [t for t in TARGETS if not t.name.startswith("par")], ids=str)
def test_the_same_points(target):
    model = moved(target.network.build())
    before = random_state()
    found, info = on_device(target, model, return_info=True)
    assert not changes(before, random_state())
    check_what_is_asked(target, model, found)
    expected, told = target.perturb(return_info=True)
    # Five steps of a search: what rounding adds to one is carried on by the next.
    assert_same(found, expected, rtol=1e-7, atol=1e-8)
    assert_same(info.objective, told.objective, rtol=1e-7, atol=1e-8)
    for name in ("prediction_kept", "first_change_step"):
        assert_same(getattr(info, name), getattr(told, name))


@pytest.mark.parametrize("target", [t for t in TARGETS if t.name.startswith("par")], ids=str)
def test_pareto_finds_as_much(target):
    """The objective that it reports is that of the CPU at its points, and below the start's."""
    model = moved(target.network.build())
    found, info = on_device(target, model, return_info=True)
    check_what_is_asked(target, model, found)
    value = target.value(moved(found, "cpu"))
    torch.testing.assert_close(info.objective.cpu(), value, rtol=1e-9, atol=1e-9)
    start = target.value(target.network.inputs)
    assert (value <= start).all() and (value < start).any()


@pytest.mark.parametrize("target", TARGETS[::5], ids=str)
def test_chunks(target):
    whole = on_device(target)
    torch.testing.assert_close(on_device(target, max_examples_per_batch=2), whole)


@pytest.mark.parametrize("build", [mlp, relu_mlp])
def test_ensemble(build):
    """Precision, not points: on a ReLU network rounding decides on which side of a kink one is."""
    x, target = normal(5, 6), torch.arange(5) % 3
    reports = []
    for device in (DEVICE, "cpu"):
        model, inputs = moved(build(), device), x.to(device)
        attack = AutoERAttack(Saliency(model), K)
        found, info = attack.perturb(
            inputs, RADIUS, target=target.to(device), seed=0, budget=60, return_info=True
        )
        classes = target.to(device)
        maps = [stock_scores(Saliency(model), points, classes) for points in (found, inputs)]
        assert torch.equal(metrics.precision_at_k(*maps, K), info.precision)
        assert torch.equal(model(found).argmax(1), model(inputs).argmax(1))
        reports.append(info)
    assert_same(reports[0].precision, reports[1].precision)
    assert reports[1].precision.mean() < 1


def test_smallest_radius():
    x, target = normal(5, 6), torch.arange(5) % 3
    radii = []
    for device in (DEVICE, "cpu"):
        attack = ERAttack(Saliency(moved(mlp(), device)), K)
        changed = lambda maps, reference: metrics.precision_at_k(maps, reference, K) < 1  # noqa: E731
        search = MinRadius(attack, changed, upper=1.0)
        radii.append(search.evaluate(x.to(device), target=target.to(device), step_num=4, seed=0))
    # Bisection: a radius is one of a grid.
    assert_same(radii[0], radii[1])
    assert radii[1].isfinite().any()


@pytest.mark.parametrize("noise", [UniformNoise(), UniformNoise("L2"), GaussianNoise()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_same_noise_on_every_device(noise, dtype):
    x = normal(4, 2, 3).to(dtype)
    found = noise.perturb(moved(x), 0.3, seed=5)
    # One rounding of the sum, which a GPU may do in another precision than the CPU.
    slack = {} if dtype == torch.float64 else {"rtol": torch.finfo(dtype).eps, "atol": 0.0}
    assert_same(found, noise.perturb(x, 0.3, seed=5), **slack)
    radius = torch.linspace(0, 1, 4)
    assert_same(
        noise.perturb(moved(x), moved(radius), seed=5), noise.perturb(x, radius, seed=5), **slack
    )


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_bounds_and_masks_of_either_device(norm):
    x, target = normal(5, 1, 4, 4), torch.arange(5) % 3
    mask = torch.ones(1, 1, 4, 4)
    mask[..., :2] = 0
    lower, upper = x.amin(dim=0) - 0.1, x.amax() + 0.1
    expected = ERAttack(Saliency(convnet()), K, lower_bound=lower, upper_bound=upper).perturb(
        x, RADIUS, target=target, norm=norm, mask=mask, seed=0, step_num=3
    )
    model = moved(convnet())
    for device in (DEVICE, "cpu"):
        bounds = {"lower_bound": lower.to(device), "upper_bound": upper.to(device)}
        found = ERAttack(Saliency(model), K, **bounds).perturb(
            moved(x), RADIUS, target=moved(target), norm=norm, mask=mask.to(device), seed=0,
            step_num=3,
        )  # fmt: skip
        assert_same(found, expected, rtol=1e-7, atol=1e-8)
