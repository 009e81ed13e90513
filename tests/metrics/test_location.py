"""The shift of the centre of mass against SciPy."""

import math

import pytest
import torch
from scipy import ndimage

from captum_robust.metrics import center_of_mass_shift
from tests.metrics.definitions import normal


def centre(mass):
    """The centre of mass of one map without its batch dimension, channels summed."""
    mass = mass.abs().double()
    return ndimage.center_of_mass((mass.sum(dim=0) if mass.dim() == 3 else mass).numpy())


def shifts(left, right):
    return [math.dist(centre(a), centre(b)) for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("shape", [(7,), (4, 6), (1, 4, 6), (3, 5, 5), (1, 7), (1, 1, 7)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_shift_is_that_of_scipy(shape, dtype):
    left, right = normal(3, *shape).to(dtype), normal(3, *shape, seed=1).to(dtype)
    found = center_of_mass_shift(left, right)
    assert found.shape == (3,)
    rtol = 1e-12 if dtype == torch.float64 else 1e-5
    expected = torch.tensor(shifts(left, right), dtype=found.dtype)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("scale", [1e-34, 1e37])
def test_huge_and_tiny_masses_have_a_centre(scale):
    left, right = normal(2, 20, 20), normal(2, 20, 20, seed=1)
    found = center_of_mass_shift((left * scale).float(), (right * scale).float())
    expected = torch.tensor(shifts(left, right)).float()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_point_that_moves_three_down_and_four_right_moves_by_five():
    before, after = torch.zeros(1, 2, 6, 6), torch.zeros(1, 2, 6, 6)
    before[0, 0, 1, 1], after[0, 1, 4, 5] = 2.0, -7.0
    assert center_of_mass_shift(after, before).tolist() == [5.0]
    assert center_of_mass_shift(after, after).tolist() == [0.0]


def test_a_tuple_of_maps_is_compared_as_one_long_vector():
    left = normal(3, 7), normal(3, 4, 5)
    right = normal(3, 7, seed=1), normal(3, 4, 5, seed=1)
    parts = zip(*(shifts(a, b) for a, b in zip(left, right, strict=True)), strict=True)
    expected = torch.tensor([math.hypot(*of_maps) for of_maps in parts])
    torch.testing.assert_close(center_of_mass_shift(left, right).float(), expected)


def test_the_shift_forgets_scale_and_sign():
    left, right = normal(3, 4, 6), normal(3, 4, 6, seed=1)
    found = center_of_mass_shift(left, right)
    torch.testing.assert_close(center_of_mass_shift(-3 * left, right), found)
    torch.testing.assert_close(center_of_mass_shift(right, left), found)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 2, 2, 2)])
def test_maps_without_positions_are_refused(shape):
    maps = torch.arange(math.prod(shape)).float().view(shape)
    if len(shape) == 1:
        maps = (maps, normal(3, 4))
        with pytest.raises(ValueError, match=r"attributions must have shape .* got \(3,\)"):
            center_of_mass_shift(maps, maps)
    else:
        with pytest.raises(ValueError, match=r"attributions must have shape .* got \(3, 1, 2"):
            center_of_mass_shift(maps, maps)
