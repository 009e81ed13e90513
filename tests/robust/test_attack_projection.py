"""The caller's projection is told which examples it gets, wherever an attack calls it."""

from __future__ import annotations

import functools

import pytest
import torch
from captum.attr import Saliency

from captum_robust.robust import (
    AutoERAttack,
    ERAttack,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
)
from tests.robust.targets import TwoInputs, mlp, normal

RADII = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5])


class Remembering:
    """Keeps what it is told, and returns the points."""

    def __init__(self) -> None:
        self.told = []

    def __call__(self, points, rows, centre, radius):
        self.told.append((rows, centre, radius))
        return points


def check(told, inputs):
    seen = set()
    for rows, centre, radius in told:
        assert rows.dtype == torch.int64 and rows.device.type == "cpu"
        assert torch.equal(centre, inputs[rows]) and torch.equal(radius, RADII.to(radius)[rows])
        seen |= set(rows.tolist())
    assert seen == set(range(len(inputs)))


@pytest.mark.parametrize("chunk", [None, 1, 2])
@pytest.mark.parametrize("kind", [ERAttack, MSEAttack, RandomSearchAttack, ParetoERAttack])
def test_rows_centre_and_radius_are_those_of_the_points(kind, chunk):
    inputs, project = normal(5, 6), Remembering()
    arguments = (Saliency(mlp()),) if kind is MSEAttack else (Saliency(mlp()), 2)
    kind(*arguments).perturb(
        inputs, RADII, target=0, step_num=4, n_restarts=2, seed=0, project=project,
        max_examples_per_batch=chunk,
    )  # fmt: skip
    check(project.told, inputs)


@pytest.mark.parametrize("chunk", [None, 2])
def test_members_of_the_ensemble_tell_it_too(chunk):
    inputs, project = normal(5, 6), Remembering()
    AutoERAttack(Saliency(mlp()), 2).perturb(
        inputs, RADII, target=0, seed=0, project=project, budget=200, max_examples_per_batch=chunk
    )
    # A last check of the ensemble searches a ball ten times as large.
    own = [(r, c, e) for r, c, e in project.told if torch.allclose(e, RADII.to(e)[r])]
    far = [(r, e) for r, _, e in project.told if not torch.allclose(e, RADII.to(e)[r])]
    check(own, inputs)
    assert all(torch.allclose(e, 10 * RADII.to(e)[r]) for r, e in far)


def test_data_of_every_example_can_be_indexed():
    inputs = normal(5, 6)
    ceiling = inputs + torch.linspace(0, 0.4, 5, dtype=inputs.dtype)[:, None]

    def project(points, rows):
        return points.minimum(ceiling[rows])

    attack = ERAttack(Saliency(mlp()), 2)
    call = {"radius": 0.5, "target": 0, "project": project}
    moved = attack.perturb(inputs, max_examples_per_batch=2, **call)
    assert (moved <= ceiling).all() and (moved > inputs).any()
    assert torch.allclose(moved, attack.perturb(inputs, **call), atol=1e-9)


def test_tuples_are_told_in_their_form():
    pair = normal(4, 3), normal(4, 1, 2)
    told = []

    def project(points, centre):
        told.append(centre)
        return points

    ERAttack(Saliency(TwoInputs().double()), 2).perturb(pair, 0.1, target=0, project=project)
    assert told and all(isinstance(c, tuple) for c in told)
    assert all(torch.equal(c, p) for c, p in zip(told[0], pair, strict=True))


def test_defaults_of_the_caller_are_never_replaced():
    inputs = normal(4, 6)

    def project(points, radius=7.0, rows="mine"):
        assert (radius, rows) == (7.0, "mine")
        return points

    attack = ERAttack(Saliency(mlp()), 2)
    attack.perturb(inputs, 0.1, target=0, project=project)

    def shifted(points, shift, rows):
        assert shift == 3 and len(rows) == len(points)
        return points

    attack.perturb(inputs, 0.1, target=0, project=functools.partial(shifted, shift=3))
    attack.perturb(inputs, 0.1, target=0, project=torch.clone)  # has no signature
