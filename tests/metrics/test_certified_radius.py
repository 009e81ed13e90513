"""Certified radii against radii known in closed form or by brute force, and their rules."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from captum_robust.metrics import certified_top_k_radius
from captum_robust.models import TabularMLP
from captum_robust.ranking import top_k_mask
from tests.certify.networks import ACTIVATIONS, gradients, points_of_balls, random_network
from tests.metrics.definitions import normal

NORMS = ["Linf", "L2"]
every_norm = pytest.mark.parametrize("norm", NORMS)


def unit_wise(weights, activation, bias=None):
    """f(x) = Σ w_m σ(x_m + b_m), whose gradient is w_m σ'(x_m + b_m)."""
    n = len(weights)
    model = nn.Sequential(nn.Linear(n, n), activation, nn.Linear(n, 1)).double()
    model[0].weight.data = torch.eye(n, dtype=torch.float64)
    model[0].bias.data = torch.zeros(n, dtype=torch.float64) if bias is None else bias
    model[2].weight.data = torch.tensor([weights], dtype=torch.float64)
    return model


def row(*values):
    return torch.tensor([values], dtype=torch.float64)


# --- radii in closed form ------------------------------------------------------------------------


@every_norm
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("bound", [0.3, 1.0, 1e6])
def test_a_linear_model_keeps_its_top_everywhere(norm, absolute, bound):
    model, inputs = nn.Linear(6, 3).double(), normal(4, 6)
    found = certified_top_k_radius(
        model, inputs, 2, [0, 1, 2, 1], norm, max_radius=bound, absolute=absolute
    )
    assert found.tolist() == [bound] * 4


@every_norm
def test_a_relu_keeps_its_top_until_its_kink(norm):
    model, x = unit_wise([3.0, 2.0, 1.0], nn.ReLU()), row(1.0, 0.5, 2.0)
    # The top feature loses its slope where its unit dies, one away; the second half as far.
    for k, radius in ((1, 1.0), (2, 0.5)):
        found = certified_top_k_radius(model, x, k, norm=norm, max_radius=4.0)
        assert found.item() <= radius and found.item() == pytest.approx(radius, abs=1e-8)


@every_norm
@pytest.mark.parametrize("slope, radius", [(0.25, 1.0), (0.4, 0.5)])
def test_a_leaky_relu_keeps_its_top_while_its_smaller_slope_suffices(norm, slope, radius):
    model, x = unit_wise([4.0, 1.4, 1.1], nn.LeakyReLU(slope)), row(1.0, 0.5, 2.0)
    # Of the first unit 0.25 · 4 < 1.1 is left, or 0.4 · 4 > 1.4; of the second 0.56 < 1.1.
    for k, expected in ((1, math.inf if slope == 0.4 else radius), (2, 0.5)):
        found = certified_top_k_radius(model, x, k, norm=norm, max_radius=4.0)
        assert found.item() == pytest.approx(min(expected, 4.0), abs=1e-8)


@pytest.mark.parametrize("gap", [1e-4, 1e-2, 0.1])
@pytest.mark.parametrize(
    "activation, derivative",
    [
        (nn.Softplus(), lambda t: 1 / (1 + np.exp(-t))),
        (nn.Sigmoid(), lambda t: 1 / (2 + np.exp(t) + np.exp(-t))),
        (nn.Tanh(), lambda t: 1 / np.cosh(t) ** 2),
    ],
    ids=["softplus", "sigmoid", "tanh"],
)
def test_two_units_meet_at_the_root_of_an_equation(activation, derivative, gap):
    # Both derivatives are monotone up to there: one at its end of the interval meets the other.
    away = np.sign(derivative(0.6) - derivative(0.5))
    model, x = unit_wise([1 + gap, 1.0], activation), row(0.5, 0.5)
    true = brentq(
        lambda r: (1 + gap) * derivative(0.5 - away * r) - derivative(0.5 + away * r), 0, 0.5,
        xtol=1e-14,
    )  # fmt: skip
    found = certified_top_k_radius(model, x, 1).item()
    assert 0.9 * true <= found <= true
    assert found >= (1 - 5 * true) * true - 1e-8  # exact to first order


@every_norm
def test_the_gap_of_two_units_that_move_together_is_bounded_jointly(norm):
    # Both slopes are those of the same unit: their order never changes, whatever they are.
    model = nn.Sequential(nn.Linear(2, 1), nn.Softplus(), nn.Linear(1, 1)).double()
    model[0].weight.data = row(2.0, 1.9)
    found = certified_top_k_radius(model, normal(5, 2), 1, norm=norm, max_radius=0.2)
    assert found.tolist() == [0.2] * 5


def test_a_map_that_changes_sign_keeps_its_order_by_value_and_not_by_magnitude():
    model, x = unit_wise([-3.0, 1.0], nn.ReLU()), row(1.0, 0.25)
    signed = certified_top_k_radius(model, x, 1, absolute=False, max_radius=4.0)
    absolute = certified_top_k_radius(model, x, 1, max_radius=4.0)
    assert signed.item() == pytest.approx(1.0, abs=1e-8)  # both dead: the tie at 0
    assert absolute.item() == pytest.approx(1.0, abs=1e-8)
    crossing = unit_wise([1.0, 1.0, -1.5], nn.Softplus(), torch.tensor([0.0, -0.2, 0.0]).double())
    for mode in (True, False):
        found = certified_top_k_radius(crossing, row(0, 0, 0), 1, absolute=mode)
        assert 0 < found.item() < 1
        sample = points_of_balls(row(0, 0, 0), found * 1.2, "Linf", 4000)[0]
        maps = gradients(crossing, sample)
        top = top_k_mask(maps.abs() if mode else maps, 1)
        assert len(top.unique(dim=0)) > 1  # a little further, it does change


# --- radii by brute force ------------------------------------------------------------------------


def brute_radii(model, inputs, norm, absolute, n_points=61):
    """The smallest radius at which a dense grid (2 features) holds another first feature."""
    t = torch.linspace(-1, 1, n_points, dtype=torch.float64)
    offsets = 2 * torch.cartesian_prod(t.abs() * t, t.abs() * t)  # denser near the centre
    maps = gradients(model, (inputs[:, None] + offsets).flatten(0, 1))
    tops = top_k_mask(maps.abs() if absolute else maps, 1).view(len(inputs), len(offsets), 2)
    centre = len(offsets) // 2
    changed = (tops != tops[:, centre : centre + 1]).any(dim=2)
    lengths = offsets.norm(dim=1) if norm == "L2" else offsets.abs().amax(dim=1)
    return torch.where(changed, lengths, 1.0).amin(dim=1)


def check_shares(name, absolute, norm, hidden, seeds, n_examples):
    shares = []
    for seed in seeds:
        model = random_network([2, *hidden, 1], ACTIVATIONS[name], seed, gain=1.5)
        inputs = normal(n_examples, 2, seed=seed)
        true = brute_radii(model, inputs, norm, absolute)
        found = certified_top_k_radius(model, inputs, 1, None, norm, 1.0, absolute)
        alive = ~found.isnan()
        assert (found <= true)[alive].all()
        shares += (found / true)[alive].tolist()
    assert np.median(shares) > (0.6 if len(hidden) == 1 else 0.4)
    assert np.mean(np.array(shares) > 0) > 0.9


@every_norm
@pytest.mark.parametrize("name, absolute", [("softplus", True), ("tanh", False), ("relu", True)])
@pytest.mark.parametrize("hidden", [[6], [5, 5]])
def test_the_certified_radius_is_close_below_the_true_one(name, absolute, norm, hidden):
    check_shares(name, absolute, norm, hidden, [0], 12)


@pytest.mark.slow
@every_norm
@pytest.mark.parametrize("absolute", [True, False])
@pytest.mark.parametrize("name", ["softplus", "sigmoid", "tanh", "relu", "leaky relu"])
@pytest.mark.parametrize("hidden", [[6], [5, 5]])
def test_the_certified_radius_of_more_is_close_below_the_true_one(name, absolute, norm, hidden):
    check_shares(name, absolute, norm, hidden, range(1, 7), 20)


# --- properties ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sharp softplus", "tanh", "leaky relu"])
def test_other_units_of_the_inputs_are_other_units_of_the_radius(name):
    model, inputs = random_network([5, 6, 2], ACTIVATIONS[name], 1), normal(20, 5)
    found = certified_top_k_radius(model, inputs, 2, 1, max_radius=1.0)
    model[0].weight.data /= 4
    scaled = certified_top_k_radius(model, 4 * inputs, 2, 1, max_radius=4.0)
    torch.testing.assert_close(scaled, 4 * found, rtol=1e-6, atol=1e-9, equal_nan=True)


@every_norm
@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_features_may_be_listed_in_any_order(name, norm):
    model, inputs = random_network([5, 6, 2], ACTIVATIONS[name], 1), normal(20, 5)
    order = [3, 0, 4, 2, 1]
    found = certified_top_k_radius(model, inputs, 2, 1, norm)
    model[0].weight.data = model[0].weight.data[:, order]
    shuffled = certified_top_k_radius(model, inputs[:, order], 2, 1, norm)
    torch.testing.assert_close(shuffled, found, rtol=1e-6, atol=1e-9, equal_nan=True)


@every_norm
def test_a_wider_gap_is_certified_further(norm):
    radii = []
    for gap in (0.01, 0.05, 0.2, 0.5):
        model = unit_wise([1 + gap, 1.0, 0.3], nn.Softplus())
        radii.append(certified_top_k_radius(model, row(0.1, 0.1, -0.3), 1, norm=norm).item())
    assert radii == sorted(radii) and len(set(radii)) == 4


def test_the_euclidean_ball_lies_between_two_cubes():
    model, inputs = random_network([5, 8, 1], nn.Softplus(), 1, gain=1.5), normal(20, 5)
    cube, ball = (
        certified_top_k_radius(model, inputs, 2, norm=norm, max_radius=8.0) for norm in NORMS
    )
    assert (cube < ball).all() and (ball < 5**0.5 * cube).all() and (ball < 8).all()


def test_a_positive_factor_changes_nothing():
    model, inputs = random_network([5, 8, 1], nn.Softplus(), 1), normal(6, 5)
    found = certified_top_k_radius(model, inputs, 2)
    topped = nn.Sequential(model, nn.Sigmoid())
    assert torch.equal(certified_top_k_radius(topped, inputs, 2), found)
    model[2].weight.data *= 8
    torch.testing.assert_close(certified_top_k_radius(model, inputs, 2), found)


def test_images_and_the_mlp_for_tables():
    model, inputs = random_network([12, 8, 2], nn.Tanh(), 1), normal(6, 12)
    found = certified_top_k_radius(model, inputs, 3, 1)
    images = inputs.view(6, 1, 3, 4)
    flattened = nn.Sequential(nn.Flatten(), nn.Dropout(), model).eval()
    assert torch.equal(certified_top_k_radius(flattened, images, 3, 1), found)
    tabular = TabularMLP(12, hidden=8, activation=nn.Tanh).double()
    layers = nn.Sequential(tabular.hidden, tabular.activation, tabular.output)
    assert torch.equal(
        certified_top_k_radius(tabular, inputs, 3), certified_top_k_radius(layers, inputs, 3)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_models_and_inputs_are_widened_first(dtype):
    model, inputs = random_network([5, 8, 2], nn.Tanh(), 1).to(dtype), normal(6, 5).to(dtype)
    found = certified_top_k_radius(model, inputs, 2, 0)
    assert found.dtype == torch.float64
    assert torch.equal(found, certified_top_k_radius(model.double(), inputs.double(), 2, 0))


def test_targets_are_those_of_captum():
    model, inputs = random_network([5, 8, 3], nn.Tanh(), 1), normal(4, 5)
    of_all = [certified_top_k_radius(model, inputs, 2, t) for t in range(3)]
    target = [2, 0, 1, 2]
    expected = torch.stack([of_all[t][i] for i, t in enumerate(target)])
    for given_ in (target, torch.tensor(target)):
        torch.testing.assert_close(certified_top_k_radius(model, inputs, 2, given_), expected)
    assert torch.equal(certified_top_k_radius(model, inputs, 2, torch.tensor(1)), of_all[1])
    assert not torch.equal(of_all[0], of_all[1])


class LargestTensor(TorchDispatchMode):
    """Counts the numbers of the largest tensor that any operation returns."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        self.size = max([self.size, *(t.numel() for t in tensors)])
        return result


def test_chunks_change_nothing_but_rounding():
    model, inputs = random_network([100, 60, 2], nn.Tanh(), 1), normal(18, 100)
    target = torch.arange(18) % 2
    with LargestTensor() as of_all:
        whole = certified_top_k_radius(model, inputs, 2, target)
    with LargestTensor() as of_few:
        found = certified_top_k_radius(model, inputs[15:], 2, target[15:])
    assert of_all.size < 6 * of_few.size, "the chunks must split what is compared"
    torch.testing.assert_close(found, whole[15:], rtol=1e-9, atol=1e-11)


def test_large_examples_are_taken_one_by_one():
    model, inputs = random_network([300, 200, 1], nn.Tanh(), 1), normal(2, 300)
    with LargestTensor() as of_one:
        certified_top_k_radius(model, inputs[:1], 2)
    with LargestTensor() as of_two:
        certified_top_k_radius(model, inputs, 2)
    assert of_two.size == of_one.size


# --- what can go wrong ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tanh", "relu", "leaky relu", "linear"])
def test_examples_without_a_ranking_give_nan_and_only_they(name):
    hidden = [] if name == "linear" else [8]
    model = random_network([4, *hidden, 1], ACTIVATIONS.get(name, nn.Identity()), 1)
    inputs = normal(5, 4)
    whole = certified_top_k_radius(model, inputs, 2)
    inputs[1, 2], inputs[3, 0] = math.nan, math.inf
    found = certified_top_k_radius(model, inputs, 2)
    assert found.isnan().tolist() == [False, True, False, True, False]
    assert torch.equal(found[::2], whole[::2])


def test_a_constant_map_gives_nan():
    flat, dead = nn.Linear(4, 1).double(), random_network([4, 8, 1], nn.ReLU(), 1)
    flat.weight.data.fill_(0.3)
    dead[0].bias.data.fill_(-100.0)
    broken = random_network([4, 8, 1], nn.Tanh(), 1)
    broken[0].weight.data[0, 0] = math.nan
    for model in (flat, dead, broken):
        assert certified_top_k_radius(model, normal(3, 4), 2).isnan().all()
    # All units at their kink, where PyTorch takes the left slope: its map is zero, not that of
    # the mean slopes.
    kink = random_network([4, 8, 1], nn.ReLU(), 1)
    kink[0].bias.data.zero_()
    assert certified_top_k_radius(kink, torch.zeros(3, 4), 2).isnan().all()


@every_norm
def test_scales_that_under_or_overflow_certify_no_more(norm):
    usual = None
    for scale in (1.0, 1e-100, 1e-160, 1e-200, 1e100, 1e160):
        model, inputs = random_network([5, 8, 1], nn.Softplus(), 1, gain=1.5), normal(10, 5)
        model[2].weight.data *= scale
        found = certified_top_k_radius(model, inputs, 2, norm=norm, max_radius=4.0)
        usual = found if usual is None else usual
        assert (usual < 4).all() and (found <= usual * (1 + 1e-6)).all()
        if 1e-120 < scale < 1e120:
            torch.testing.assert_close(found, usual)


def test_a_softplus_that_overflows_is_not_certified():
    model = unit_wise([2.0, 1.0], nn.Softplus(threshold=1e9))
    x = row(690.0, 3.0)
    assert gradients(model, row(720.0, 3.0)).isnan().any()
    assert certified_top_k_radius(model, x, 1, max_radius=100.0).item() <= 20


def test_a_tie_at_the_boundary_certifies_nothing():
    model = nn.Linear(4, 1).double()
    model.weight.data = row(1.0, 3.0, 1.0, 0.5)
    assert certified_top_k_radius(model, normal(3, 4), 2).tolist() == [0.0] * 3
    assert certified_top_k_radius(model, normal(3, 4), 1).tolist() == [1.0] * 3
    model.weight.data = row(1.0, 3.0, -1.0, 0.5)
    assert certified_top_k_radius(model, normal(3, 4), 2).tolist() == [0.0] * 3
    assert certified_top_k_radius(model, normal(3, 4), 2, absolute=False).tolist() == [1.0] * 3
    # A gap that rounding could close is a tie, too.
    model.weight.data = row(1.0, 3.0, 1.0 - 2**-53, 0.5)
    assert certified_top_k_radius(model, normal(3, 4), 2).tolist() == [0.0] * 3


def test_a_kink_at_the_example_certifies_nothing_that_it_changes():
    model = unit_wise([3.0, 2.0, 1.0], nn.ReLU())
    x = row(0.0, 1.0, 1.0)  # PyTorch's slope at the kink is 0, but 3 on one side
    for k in (1, 2):
        assert certified_top_k_radius(model, x, k).item() == 0
    x = row(1.0, 1.0, 0.0)  # the third is below the second on both sides
    assert certified_top_k_radius(model, x, 2).item() == pytest.approx(1.0)


def test_the_jump_of_softplus_counts():
    # Its slope jumps from σ(1) to 1: σ(1) = 0.73 < 0.75 < 1.
    model = unit_wise([1.0, 0.75 / 0.5], nn.Softplus(threshold=1.0))
    x = row(0.9, 0.0)  # slopes 0.71 and 0.75
    found = certified_top_k_radius(model, x, 1)
    assert found.item() <= 0.1
    maps = gradients(model, row(1.01, 0.0))
    assert maps.argmax() != gradients(model, x).argmax()


@pytest.mark.parametrize("name", ["softplus", "tanh", "leaky relu"])
def test_what_overflows_is_not_certified(name):
    model = random_network([4, 8, 1], ACTIVATIONS[name], 1)
    model[0].weight.data *= 100
    found = certified_top_k_radius(model, 1e307 * normal(5, 4), 2, max_radius=1e300)
    assert (found.isnan() | (found == 0)).all()


@pytest.mark.parametrize("radius", [1e300, 1e9])
def test_absurd_radii_certify_no_more(radius):
    model, inputs = random_network([5, 8, 1], nn.Softplus(), 1, gain=1.5), normal(6, 5)
    usual = certified_top_k_radius(model, inputs, 2)
    found = certified_top_k_radius(model, inputs, 2, max_radius=radius)
    assert (found <= usual + radius * 2.0**-30).all()


def test_the_model_and_the_inputs_are_left_as_found():
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).train()
    model[0].weight.requires_grad_(False)
    inputs = normal(4, 5).float().requires_grad_()
    state = {name: p.clone() for name, p in model.state_dict().items()}
    before, random = inputs.detach().clone(), torch.get_rng_state()
    found = certified_top_k_radius(model, inputs, 2, 1)
    assert not found.requires_grad and inputs.grad is None and inputs.requires_grad
    assert torch.equal(inputs, before) and torch.equal(torch.get_rng_state(), random)
    assert model.training and [p.requires_grad for p in model.parameters()][:2] == [False, True]
    assert all(torch.equal(p, state[name]) for name, p in model.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in model.parameters())


def test_no_examples_give_no_radii():
    found = certified_top_k_radius(nn.Linear(4, 1), torch.zeros(0, 4), 2)
    assert found.shape == (0,) and found.dtype == torch.float64


MODEL, INPUTS = random_network([4, 6, 3], nn.Tanh(), 1), normal(2, 4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"k": 0}, "k must be an int with 1 <= k < 4"),
        ({"k": 4}, "k must be an int with 1 <= k < 4"),
        ({"norm": "L1"}, "norm must be 'Linf' or 'L2', got 'L1'"),
        ({"max_radius": 0.0}, "max_radius must be positive and finite, got 0.0"),
        ({"max_radius": math.inf}, "max_radius must be positive and finite, got inf"),
        ({"max_radius": math.nan}, "max_radius must be positive and finite, got nan"),
        ({"target": None}, "target must be an int in 0 … 2, .*got None"),
        ({"target": 3}, "target must be an int in 0 … 2, .*got 3"),
        ({"target": -1}, "target must be an int in 0 … 2, .*got -1"),
        ({"target": 0.5}, "target must be an int in 0 … 2, .*got 0.5"),
        ({"target": [0, 1, 2]}, r"one for each of 2 examples; got \[0, 1, 2\]"),
        ({"target": [(0,), (1, 2)]}, "target must be an int in 0 … 2"),
        ({"inputs": torch.zeros(2, 5)}, r"inputs must be .* 4 features.*\(2, 5\)"),
        ({"inputs": torch.zeros(4)}, r"inputs must be .* 4 features.*\(4,\)"),
        ({"inputs": torch.zeros(2, 4).long()}, "inputs must be .*, got torch.int64"),
        ({"inputs": (INPUTS,)}, "inputs must be .*, got tuple"),
        ({"model": nn.Conv2d(1, 1, 1)}, "model must be .*, got Conv2d; accepted: nn.Sequential"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, message):
    usual = {"model": MODEL, "inputs": INPUTS, "k": 2, "target": 1}
    with pytest.raises(ValueError, match=message):
        certified_top_k_radius(**{**usual, **arguments})
