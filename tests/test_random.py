"""Seeds that leak nothing, and generators that belong to an example."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_robust._utils.random import example_generators, reseed, resolve_seed, seeded

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]


def global_states():
    numpy_state = np.random.get_state(legacy=False)  # noqa: NPY002
    return torch.get_rng_state().tolist(), str(numpy_state), random.getstate()


def global_draws():
    """Some numbers from each global generator."""
    return torch.rand(3).tolist(), np.random.normal(size=3).tolist(), random.random()  # noqa: NPY002


def draws(generators):
    return [torch.rand(4, generator=generator).tolist() for generator in generators]


def batch(n_examples=5, shape=(2, 3)):
    """Examples that all differ."""
    return torch.arange(1.0, 1 + n_examples * 6).view(n_examples, *shape)


# --- the global generators ---------------------------------------------------------------------


def test_seeded_restores_the_three_global_generators():
    global_draws()  # a cached Gaussian in NumPy's state, too
    before = global_states()
    with seeded(7):
        global_draws()
        assert all(a != b for a, b in zip(global_states(), before, strict=True))
    assert global_states() == before


def test_seeded_restores_them_after_an_exception():
    before = global_states()
    with pytest.raises(KeyError), seeded(7):
        global_draws()
        raise KeyError
    assert global_states() == before


def test_seeded_blocks_nest():
    with seeded(7):
        expected = global_draws(), global_draws()
    with seeded(7):
        first = global_draws()
        with seeded(8):
            global_draws()
        assert (first, global_draws()) == expected


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**62))
def test_equal_seeds_draw_equal_numbers_from_all_three(seed):
    with seeded(seed):
        first = global_draws()
    random.random(), torch.rand(1)
    with seeded(seed):
        assert global_draws() == first
    with seeded(seed + 1):
        assert all(a != b for a, b in zip(global_draws(), first, strict=True))


def test_reseed_starts_the_block_again():
    with seeded(7):
        first = global_draws()
        reseed(7)
        assert global_draws() == first
        reseed(8)
        assert all(a != b for a, b in zip(global_draws(), first, strict=True))


def test_seeded_leaves_no_seed_behind_for_a_gpu_that_is_not_in_use(monkeypatch):
    left = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", left.append)
    monkeypatch.setattr(torch.cuda, "manual_seed", left.append)
    with seeded(7):
        torch.rand(1)
    assert left == []


# --- the seed ----------------------------------------------------------------------------------


def test_a_seed_is_kept_and_none_is_fresh_entropy():
    assert [resolve_seed(seed) for seed in (0, 7, 2**62)] == [0, 7, 2**62]
    before = global_states()
    fresh = {resolve_seed(None) for _ in range(50)}
    assert len(fresh) == 50 and all(0 <= seed < 2**62 for seed in fresh)
    assert global_states() == before


# --- a generator an example --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_examples_draw_equal_numbers(dtype):
    inputs = torch.tensor([[0, 1, 1], [1, 0, 1], [0, 1, 1]]).to(dtype)
    first, second, again = draws(example_generators((inputs,), seed=7))
    assert first == again != second


def test_the_draws_of_an_example_do_not_depend_on_the_batch():
    inputs = batch(), batch(shape=(6,))
    together = draws(example_generators(inputs, seed=7))
    assert len({tuple(numbers) for numbers in together}) == len(together)
    for rows in ([3], [4, 1, 0], [2, 2, 3], [4, 3, 2, 1, 0]):
        some = draws(example_generators(tuple(t[rows] for t in inputs), seed=7))
        assert some == [together[row] for row in rows]


def test_the_key_holds_the_seed_the_stream_and_every_tensor():
    one, other = batch(1), -batch(1)
    keys = [((one, one), 7, 0), ((one, one), 8, 0), ((one, one), 7, 1), ((one, one), 0, 7)]
    keys += [((one, other), 7, 0), ((other, one), 7, 0), ((one,), 7, 0)]
    drawn = [tuple(draws(example_generators(*key))[0]) for key in keys]
    assert len(set(drawn)) == len(keys)


def test_layout_and_gradients_of_the_inputs_do_not_matter():
    expected = draws(example_generators((batch(),), seed=7))
    transposed = batch().transpose(0, 2).contiguous().transpose(0, 2)
    for inputs in (transposed, batch().requires_grad_(), batch().flatten(1)):
        assert draws(example_generators((inputs,), seed=7)) == expected


def test_a_number_an_example_is_an_example():
    inputs = torch.tensor([1.0, 2.0, 1.0])
    first, second, again = draws(example_generators((inputs,), seed=7))
    assert first == again != second


@pytest.mark.parametrize("seed", [7, None])
def test_no_examples_no_generators(seed):
    assert example_generators((torch.zeros(0, 3),), seed) == []


def test_without_a_seed_equal_examples_draw_unlike_numbers():
    inputs = (torch.zeros(20, 3),)
    drawn = draws(example_generators(inputs, None)) + draws(example_generators(inputs, None))
    assert len({tuple(numbers) for numbers in drawn}) == 40


def test_generators_neither_use_nor_move_the_global_ones():
    before = global_states()
    first = draws(example_generators((batch(),), seed=7))
    assert global_states() == before
    with seeded(8):
        assert draws(example_generators((batch(),), seed=7)) == first
