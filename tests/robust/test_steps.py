"""Steps that halve against Auto-PGD written out for one example."""

import math

import pytest
import torch

from captum_robust.robust._search.region import Region
from captum_robust.robust._search.steps import ConstantSteps, HalvingSteps
from tests.robust.targets import normal

N, D, RADIUS, N_STEPS = 6, 4, 0.8, 40


def region_of(centre):
    whole = torch.full_like(centre, math.inf)
    radius = torch.full((len(centre),), RADIUS, dtype=centre.dtype)
    return Region(centre, (centre,), radius, "L2", (-whole,), (whole,), None, None)


def ripples(x):
    """Many minima: a curved valley with waves on it; (n, d) -> (n,)."""
    return (x[:, 0] + x[:, 1] ** 2 + 0.4 * torch.sin(9 * x).sum(dim=1)).double()


def gradient(x):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(ripples(leaf).sum(), leaf)[0]


def into_ball(x, centre):
    way = x - centre
    return centre + way * min(1.0, RADIUS / float(way.norm()))


def auto_pgd(centre, allowed):
    """Croce and Hein 2020, Algorithm 1, for a loss to be minimised, one example (d,)."""
    fractions = [0.0, 0.22]
    while fractions[-1] < 1:
        fractions.append(fractions[-1] + max(fractions[-1] - fractions[-2] - 0.03, 0.06))
    checkpoints = [math.ceil(f * N_STEPS) for f in fractions[1:] if f < 1]
    size, x, previous = 2 * RADIUS, centre.clone(), None
    best, best_gradient, best_loss = x, gradient(x[None])[0], float(ripples(x[None]))
    losses, points, last_check, falls = [], [x], 0, 0
    loss_then, halved = best_loss, True
    for step in range(N_STEPS):
        loss, slope = float(ripples(x[None])), gradient(x[None])[0]
        if allowed(step) and loss < best_loss:
            best, best_gradient, best_loss = x, slope, loss
        falls += bool(losses) and loss < losses[-1]
        losses.append(loss)
        if step in checkpoints:
            if falls < 0.75 * (step - last_check) or (not halved and best_loss >= loss_then):
                size, halved, previous = size / 2, True, None
                x, slope = best, best_gradient
            else:
                halved = False
            loss_then, last_check, falls = best_loss, step, 0
        target = into_ball(x - size * slope / slope.norm(), centre)
        ahead = target
        if previous is not None:
            ahead = into_ball(x + 0.75 * (target - x) + 0.25 * (x - previous), centre)
        previous, x = x, ahead
        points.append(x)
    return torch.stack(points)


def run(centre, allowed):
    region, x = region_of(centre), centre
    steps = HalvingSteps(2 * region.radius, N_STEPS)
    points = [x]
    for step in range(N_STEPS):
        ok = torch.full((len(x),), allowed(step))
        (x,) = steps.next(region, (x,), (gradient(x),), ripples(x), ok)
        points.append(x)
    return torch.stack(points), steps


@pytest.mark.parametrize("allowed", [lambda step: True, lambda step: step % 3 == 0])
def test_halving_steps_are_auto_pgd(allowed):
    centre = normal(N, D)
    points, steps = run(centre, allowed)
    expected = torch.stack([auto_pgd(c, allowed) for c in centre], dim=1)
    assert torch.allclose(points, expected, atol=1e-9)
    assert (steps.size < 2 * RADIUS).all(), "progress must have ended somewhere"


def test_halving_steps_of_some_examples_go_on_as_before():
    centre, rows = normal(N, D), torch.tensor([4, 1])
    region, x = region_of(centre), centre
    steps = HalvingSteps(2 * region.radius, N_STEPS)
    everything = torch.ones(N, dtype=torch.bool)
    for _ in range(15):
        (x,) = steps.next(region, (x,), (gradient(x),), ripples(x), everything)
    part, y = steps.of(rows), x[rows]
    for _ in range(20):
        (x,) = steps.next(region, (x,), (gradient(x),), ripples(x), everything)
        (y,) = part.next(region.of(rows), (y,), (gradient(y),), ripples(y), everything[rows])
    assert torch.allclose(x[rows], y, atol=1e-12)
    assert torch.equal(part.size, steps.size[rows])


def test_constant_steps_have_their_length_until_the_ball_ends():
    centre = normal(N, D)
    steps = ConstantSteps(torch.full((N,), 0.1).double(), N_STEPS)
    (ahead,) = steps.next(region_of(centre), (centre,), (gradient(centre),), None, None)
    unit = gradient(centre) / gradient(centre).norm(dim=1, keepdim=True)
    assert torch.allclose(ahead, centre - 0.1 * unit, atol=1e-12)
    assert steps.of(torch.tensor([0, 2])).size.shape == (2,)
