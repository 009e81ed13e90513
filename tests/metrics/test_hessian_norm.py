"""Hessian norms beside torch.func and numpy.linalg, one example at a time."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.attr import smooth_relu
from captum_robust.curvature import spectral_norm
from captum_robust.metrics import hessian_norm
from tests.metrics.definitions import Quadratic, normal, softplus_conv_net, softplus_net, some

NAN, INF = float("nan"), float("inf")
METHODS = ["frobenius", "spectral", "hutchinson", "finite_difference"]
EXACT = {"frobenius": "fro", "spectral": 2}
every_method = pytest.mark.parametrize("method", METHODS)
exact_methods = pytest.mark.parametrize("method", EXACT)
NET = softplus_net(5)
CONV = softplus_conv_net()


def hessian(score, *example):
    """The Hessian (n, n) of one example by torch, over its inputs joined to a vector."""
    shapes = [x.shape for x in example]
    sizes = [x.numel() for x in example]

    def of_vector(vector):
        parts = vector.split(sizes)
        return score(*(p.view(1, *s) for p, s in zip(parts, shapes, strict=True)))

    vector = torch.cat([x.flatten() for x in example])
    return torch.func.jacrev(torch.func.jacrev(of_vector))(vector).detach().numpy()


def norms(matrices, method):
    return torch.tensor([np.linalg.norm(m, EXACT[method]) for m in matrices], dtype=torch.float64)


# --- exact norms -------------------------------------------------------------------------------


@exact_methods
@pytest.mark.parametrize(
    "target", [1, (1,), [0, 2, 1, 1], torch.tensor([0, 2, 1, 1]), torch.tensor(2)], ids=str
)
def test_norms_of_every_form_of_target(method, target):
    inputs = normal(4, 5)
    classes = torch.as_tensor(target).expand(4).tolist() if target != (1,) else [1] * 4
    expected = norms(
        [hessian(lambda r, c=c: NET(r)[0, c], x) for x, c in zip(inputs, classes, strict=True)],
        method,
    )
    found = hessian_norm(NET, inputs, target, method=method)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@exact_methods
def test_norms_of_images(method):
    inputs = normal(3, 2, 4, 4)
    expected = norms([hessian(lambda r: CONV(r)[0, 2], x) for x in inputs], method)
    found = hessian_norm(CONV, inputs, 2, method=method)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def of_two(a, b, scale):
    return NET(torch.cat([a.flatten(1), b], dim=1))[:, 0] * scale


@exact_methods
def test_inputs_of_a_tuple_have_one_joint_hessian(method):
    a, b, scale = normal(4, 1, 3), normal(4, 2, seed=1), torch.arange(1, 5).double()
    matrices = [
        hessian(lambda u, v, s=s: of_two(u, v, s)[0], x, y)
        for x, y, s in zip(a, b, scale, strict=True)
    ]
    for size in (None, 3):
        found = hessian_norm(
            of_two, (a, b), additional_forward_args=scale, method=method,
            max_examples_per_batch=size,
        )  # fmt: skip
        torch.testing.assert_close(found, norms(matrices, method), rtol=1e-9, atol=0)
    apart = hessian_norm(lambda a: of_two(a, b, scale), a, method=method)
    assert (apart < norms(matrices, method)).all()


@exact_methods
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_outputs_of_one_column_need_no_target(method, shape):
    inputs = normal(3, 5)
    expected = hessian_norm(NET, inputs, 0, method=method)
    found = hessian_norm(lambda x: NET(x)[:, 0].view(shape), inputs, method=method)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@every_method
def test_an_input_that_is_not_used_is_named(method):
    used, unused = normal(3, 5), normal(3, 2, seed=1)
    with pytest.raises(ValueError, match=r"inputs\[1\] does not change the output"):
        hessian_norm(lambda a, b: NET(a), (used, unused), 0, method=method)


def test_the_largest_eigenvalue_is_the_one_of_largest_magnitude():
    for eigenvalues in ([1.0, -3.0, 2.0], [3.0, -1.0, 2.0], [3.0, -3.0, 1.0], [-2.0, -2.0, -2.0]):
        model = Quadratic(torch.diag(torch.tensor(eigenvalues).double()), normal(3))
        found = hessian_norm(model, normal(2, 3), method="spectral", seed=0)
        expected = torch.full((2,), max(map(abs, eigenvalues)), dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@every_method
def test_a_linear_model_is_flat(method):
    model = nn.Linear(5, 2).double()
    assert hessian_norm(model, normal(3, 5), 0, method=method).tolist() == [0.0] * 3


def test_norms_are_ordered():
    inputs = normal(20, 5)
    frobenius, spectral, _, along = (hessian_norm(NET, inputs, 0, method=m) for m in METHODS)
    assert (spectral <= frobenius).all() and (frobenius <= 5**0.5 * spectral).all()
    exact_along = hessian_norm(NET, inputs, 0, method="finite_difference", kappa=1e-6)
    assert (exact_along <= spectral * (1 + 1e-4)).all()
    torch.testing.assert_close(along, exact_along, rtol=0.1, atol=1e-3)


# --- Lanczos iteration -------------------------------------------------------------------------


def matrices_of(spectra, seed=0):
    """Symmetric matrices with the given eigenvalues and random eigenvectors; (N, n, n)."""
    spectra = torch.as_tensor(spectra, dtype=torch.float64)
    basis = torch.linalg.qr(normal(len(spectra), spectra.shape[1], spectra.shape[1], seed=seed))[0]
    return basis @ spectra.diag_embed() @ basis.mT


class Products:
    def __init__(self, matrices):
        self.matrices, self.calls = matrices, 0

    def __call__(self, vectors):
        self.calls += 1
        return (self.matrices @ vectors[:, :, None]).squeeze(2)


@some
@given(
    st.integers(1, 40).flatmap(
        lambda n: st.lists(
            st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.999, -7.0, 1e-9, 30.0]), min_size=n,
                     max_size=n),
            min_size=1, max_size=4,
        )
    )
)  # fmt: skip
def test_spectra_with_repeated_opposite_and_vanishing_eigenvalues(spectra):
    matrices = matrices_of(spectra)
    found = spectral_norm(Products(matrices), normal(*matrices.shape[:2], seed=7))
    expected = torch.linalg.matrix_norm(matrices, 2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_spectra_need_few_products(dtype):
    spectra = torch.cat([torch.tensor([-1.0, 0.9]), torch.linspace(0, 0.5, 398)]).expand(3, 400)
    products = Products(matrices_of(spectra).to(dtype))
    found = spectral_norm(products, normal(3, 400, seed=1).to(dtype))
    rtol = 10 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, torch.ones(3, dtype=dtype), rtol=rtol, atol=0)
    assert products.calls < 60  # of 400


def test_a_spectrum_without_gaps_is_found_in_the_end():
    spectra = torch.linspace(-1, 1, 60)[None]
    products = Products(matrices_of(spectra))
    assert spectral_norm(products, normal(1, 60)).item() == pytest.approx(1, abs=1e-12)
    assert 40 < products.calls <= 60


@pytest.mark.parametrize("rank", [0, 1, 2, 5, 9, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_low_rank_ends_the_iteration_early(rank, dtype):
    spectra = torch.cat([torch.linspace(-1, 0.9, rank), torch.zeros(200 - rank)]).expand(5, 200)
    products = Products(matrices_of(spectra).to(dtype))
    found = spectral_norm(products, normal(5, 200, seed=rank).to(dtype))
    expected = torch.full((5,), float(rank > 0), dtype=dtype)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=50 * eps, atol=50 * eps)
    assert products.calls < 10 + 2 * rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_multiple_of_the_identity_leaves_only_rounding_errors(dtype):
    for seed in range(5):
        products = Products(3 * torch.eye(300, dtype=dtype).expand(2, 300, 300))
        found = spectral_norm(products, normal(2, 300, seed=seed).to(dtype))
        torch.testing.assert_close(found, torch.full((2,), 3.0, dtype=dtype))
        assert products.calls == 8


@pytest.mark.parametrize("n_features", [2, 3, 7, 30])
def test_a_start_near_to_another_eigenvector_misleads_nobody(n_features):
    spectra = torch.linspace(0.1, 1, n_features)[None]
    matrices = matrices_of(spectra)
    smallest = torch.linalg.eigh(matrices)[1][:, :, 0]
    for distance in (1e-2, 1e-5, 1e-9):
        start = smallest + distance * normal(1, n_features, seed=3)
        found = spectral_norm(Products(matrices), start)
        assert found.item() == pytest.approx(1, rel=1e-6)


def test_examples_converge_on_their_own():
    easy, hard = [5.0] + [0.0] * 29, torch.linspace(-1, 1, 30).tolist()
    matrices = matrices_of([easy, hard, [0.0] * 30])
    start = normal(3, 30, seed=2)
    together = spectral_norm(Products(matrices), start)
    for i in range(3):
        products = Products(matrices[i : i + 1])
        alone = spectral_norm(products, start[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-9, atol=1e-14)
        assert products.calls > 20 if i == 1 else products.calls == 8
    torch.testing.assert_close(together, torch.tensor([5.0, 1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("value", [NAN, INF, 1e200])
def test_a_product_that_is_not_finite_or_too_long_gives_one_nan(value):
    matrices = matrices_of([[1.0, 2.0, 3.0]] * 3)
    matrices[1, 0, 0] = value
    found = spectral_norm(Products(matrices), normal(3, 3))
    torch.testing.assert_close(
        found, torch.tensor([3.0, NAN, 3.0], dtype=torch.float64), equal_nan=True
    )


# --- estimates ---------------------------------------------------------------------------------


def test_the_random_signs_estimate_the_frobenius_norm():
    inputs, n_probes = normal(30, 5), 2000
    exact = hessian_norm(NET, inputs, 0)
    found = hessian_norm(NET, inputs, 0, method="hutchinson", n_probes=n_probes, seed=0)
    deviations = (found / exact - 1) * math.sqrt(2 * n_probes)  # at most one, as documented
    assert deviations.abs().max() < 3.5 and deviations.square().mean() < 1.5
    assert deviations.square().mean() > 0.01
    few = hessian_norm(NET, inputs, 0, method="hutchinson", n_probes=20, seed=0)
    assert ((few / exact - 1).abs().mean() > 3 * (found / exact - 1).abs().mean()).all()


def test_the_square_of_the_estimate_is_unbiased():
    inputs = normal(1, 5).expand(4000, 5) + 1e-13 * normal(4000, 1)  # other signs for each
    squares = hessian_norm(NET, inputs, 0, method="hutchinson", n_probes=1, seed=0).square()
    exact = hessian_norm(NET, inputs[:1], 0).square()
    assert abs(squares.mean() - exact) < 4 * squares.std() / 4000**0.5
    assert squares.std() > 0.05 * exact


def test_random_signs_are_exact_for_a_diagonal_hessian():
    model = Quadratic(torch.diag(torch.tensor([3.0, 4.0, 0.0]).double()), normal(3))
    found = hessian_norm(model, normal(2, 3), method="hutchinson", n_probes=1)
    torch.testing.assert_close(found, torch.tensor([5.0, 5.0]).double())


def test_the_finite_difference_of_a_quadratic_is_exact():
    root = normal(5, 5)
    model, inputs = Quadratic(root + root.T, normal(5, seed=3)), normal(4, 5, seed=1)
    directions = (inputs @ model.curvature + model.slope).sign() / 5**0.5
    expected = (directions @ model.curvature).norm(dim=1)
    for kappa in (1e-3, 1.0, 100.0):
        found = hessian_norm(model, inputs, method="finite_difference", kappa=kappa)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_the_finite_difference_costs_two_forwards():
    calls = []

    def model(x):
        calls.append(len(x))
        return NET(x)[:, 0]

    hessian_norm(model, normal(7, 5), method="finite_difference", max_examples_per_batch=7)
    assert calls == [7, 7]
    calls.clear()
    hessian_norm(model, normal(7, 5), max_examples_per_batch=7)
    assert calls == [7, 7, 7]  # the gradient of a smooth network is compared at two more points


def test_a_relu_network_is_flat_but_for_kinks_and_smoothing():
    net = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2)).double()
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    inputs = normal(6, 5)
    for method in ("frobenius", "spectral", "hutchinson"):
        assert hessian_norm(net, inputs, 0, method=method).tolist() == [0.0] * 6
    assert (hessian_norm(net, inputs, 0, method="finite_difference", kappa=1.0) > 0).any()
    with smooth_relu(beta=3.0):
        smooth = hessian_norm(net, inputs, 0)
    softplus = nn.Sequential(net[0], nn.Softplus(beta=3.0), net[2])
    torch.testing.assert_close(smooth, hessian_norm(softplus, inputs, 0))
    assert (smooth > 0.01).all()


# --- chunks, seeds, types ----------------------------------------------------------------------


@every_method
def test_chunks_and_order_change_nothing(method):
    inputs, target = normal(11, 5), torch.arange(11) % 3
    whole = hessian_norm(NET, inputs, target, method=method, max_examples_per_batch=11, seed=5)
    for size in (None, 1, 4, 10, 200):
        found = hessian_norm(
            NET, inputs, target, method=method, max_examples_per_batch=size, seed=5
        )
        torch.testing.assert_close(found, whole, rtol=1e-7, atol=0)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    found = hessian_norm(NET, inputs[order], target[order], method=method, seed=5)
    torch.testing.assert_close(found, whole[order], rtol=1e-7, atol=0)


def test_seeds_matter_to_random_signs_only():
    inputs = normal(3, 5)
    for method in METHODS:
        one, same, other, fresh = (
            hessian_norm(NET, inputs, 0, method=method, n_probes=2, seed=s) for s in (0, 0, 1, None)
        )
        assert torch.equal(one, same)
        for different in (other, fresh):
            close = torch.isclose(one, different, rtol=1e-7)
            assert not close.any() if method == "hutchinson" else close.all()


def test_little_memory_is_used_by_default():
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x.square().sum(dim=1)

    hessian_norm(model, normal(30, 600), method="spectral")  # 600² doubles are 2.9 MB
    assert sizes == [8, 8, 8, 10, 10, 2]  # two of them compare the second derivative
    sizes.clear()
    hessian_norm(model, normal(5000, 2))
    assert sizes == [8, 8, 8, 4992]


@every_method
@pytest.mark.parametrize(
    ("dtype", "rtol"), [(torch.float32, 1e-3), (torch.bfloat16, 0.2), (torch.float16, 0.05)]
)
def test_lower_precision_gives_single_precision(method, dtype, rtol):
    inputs = normal(3, 5)
    net = softplus_net(5).to(dtype)
    expected = hessian_norm(NET, inputs, 0, method=method, kappa=0.5)
    found = hessian_norm(net, inputs.to(dtype), 0, method=method, kappa=0.5)
    assert found.dtype == torch.float32
    if method != "hutchinson":  # whose signs follow from the bytes of the example
        torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=0)


def test_attention_has_a_second_derivative():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation="gelu").double().eval()

    def model(x):
        return layer(x)[:, 0, 0]

    inputs = normal(2, 3, 4)
    found = hessian_norm(model, inputs)

    def by_hand(x):
        with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
            return model(x.view(1, 3, 4))[0]

    matrices = [torch.autograd.functional.hessian(by_hand, x.flatten()).numpy() for x in inputs]
    torch.testing.assert_close(found, norms(matrices, "frobenius"), rtol=1e-9, atol=0)


# --- broken input ------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("model", [NET, nn.Linear(5, 2).double()], ids=["curved", "linear"])
def test_a_broken_input_gives_one_nan(method, value, model):
    inputs = normal(3, 5)
    inputs[1, 2] = value
    found = hessian_norm(model, inputs, 0, method=method)
    assert found.isnan().tolist() == [False, True, False]


@every_method
def test_a_hessian_that_is_not_finite_gives_nan(method):
    inputs = torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64)

    def model(x):  # at 0, the gradient is 0 and the second derivative infinite
        return x.pow(1.5).sum(dim=1)

    found = hessian_norm(model, inputs, method=method)
    assert found[0].isfinite()
    assert found[1].isnan() or method == "finite_difference"


@every_method
def test_without_gradient_the_finite_difference_has_no_direction(method):
    inputs = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    found = hessian_norm(lambda x: x.square().sum(dim=1), inputs, method=method)
    assert found.isnan().tolist() == [method == "finite_difference", False]


# --- examples that depend on each other --------------------------------------------------------

DEPENDS = "forward_func must give every example an output that depends on no other"


def normalised(layer, *more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), layer, *more).double().train()


def images(layer):
    torch.manual_seed(0)
    layers = nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), layer, nn.Softplus()
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(27, 2)).double().train()


DEPENDENT = {
    "last": lambda: normalised(nn.BatchNorm1d(4)),
    "hidden": lambda: normalised(nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)),
    "evaluation": lambda: normalised(nn.BatchNorm1d(4, track_running_stats=False)).eval(),
    "wrapped": lambda: lambda x: normalised(nn.BatchNorm1d(4))(x).softmax(dim=1),
    "convolution": lambda: images(nn.BatchNorm2d(3)),
    "by hand": lambda: lambda x: (x - x.mean(dim=0)) ** 2,
}


def own_norm(model, inputs, row, step=1e-3):
    """Frobenius norm of the Hessian of an output by its own example, by central differences."""
    n = inputs.shape[1]
    steps = step * torch.eye(n, dtype=torch.float64)

    def output(move):
        moved = inputs.clone()
        moved[row] += move
        with torch.no_grad():
            return model(moved)[row, 0]

    corners = [
        [output(a + b) - output(a - b) - output(b - a) + output(-a - b) for b in steps]
        for a in steps
    ]
    return torch.tensor(corners, dtype=torch.float64).norm() / (4 * step**2)


@every_method
@pytest.mark.parametrize("name", DEPENDENT)
def test_outputs_that_depend_on_other_examples_are_refused(name, method):
    """None of them is flat, but the Hessian of all examples at once may be zero."""
    model, inputs = DEPENDENT[name](), normal(5, 4)
    assert min(own_norm(model, inputs, row) for row in range(5)) > 1e-3
    for n_broken in (0, 1):  # behind which all would be NaN, and the next chunk a number
        inputs[:n_broken] = NAN
        with pytest.raises(ValueError, match=DEPENDS):
            hessian_norm(model, inputs, 0, method=method, max_examples_per_batch=2)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (DEPENDENT["hidden"]().eval(), {}),
        (images(nn.BatchNorm2d(3)).eval(), {}),
        (images(nn.BatchNorm2d(3)), {"max_examples_per_batch": 1}),
        (images(nn.InstanceNorm2d(3)), {}),
        (normalised(nn.LayerNorm(4)), {}),
    ],
)
def test_norms_behind_normalisation_are_of_the_own_example(model, options):
    inputs = normal(5, 4)
    alone = [own_norm(model, inputs[row, None], 0) for row in range(5)]
    found = hessian_norm(model, inputs, 0, **options)
    torch.testing.assert_close(found, torch.stack(alone), rtol=1e-4, atol=1e-6)
    assert found.min() > 1e-3


# --- what is left ------------------------------------------------------------------------------


@every_method
def test_nothing_is_left_behind(method):
    net = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2)
    ).double()
    net[0].weight.requires_grad_(False)
    inputs = normal(6, 5).requires_grad_()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random_states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    with pytest.raises(ValueError, match=DEPENDS):
        hessian_norm(net, inputs, 0, method=method, seed=0)
    net[1].eval()
    first = hessian_norm(net, inputs, 0, method=method, seed=0)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(p.grad is None for p in net.parameters()) and inputs.grad is None
    assert not net[0].weight.requires_grad and inputs.requires_grad
    assert net.training and not net[1].training
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert random_states[1:] == (str(np.random.get_state()), random.getstate())  # noqa: NPY002
    with torch.no_grad():
        assert torch.equal(hessian_norm(net, inputs, 0, method=method, seed=0), first)
        assert not torch.is_grad_enabled()
    assert first.grad_fn is None


def test_the_same_masks_fall_at_both_ends_of_the_difference():
    net = nn.Sequential(nn.Linear(5, 50), nn.Dropout(0.5), nn.Linear(50, 1)).double()
    assert hessian_norm(net, normal(3, 5), 0, method="finite_difference").tolist() == [0.0] * 3


def test_a_model_that_fails_is_left_as_found_too():
    state = torch.get_rng_state()

    def model(x):
        torch.rand(3)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        hessian_norm(model, normal(3, 5))
    assert torch.equal(torch.get_rng_state(), state)


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nuclear"}, r"method must be one of \('frobenius', .* got 'nuclear'"),
        ({"n_probes": 0}, "n_probes must be an integer of at least 1, got 0"),
        ({"kappa": 0.0}, "kappa must be positive and finite, got 0.0"),
        ({"kappa": NAN}, "kappa must be positive and finite, got nan"),
        ({"kappa": INF}, "kappa must be positive and finite, got inf"),
        (
            {"max_examples_per_batch": 0},
            "max_examples_per_batch must be an integer .* got 0",
        ),
        ({"inputs": normal(0, 5)}, "inputs must hold at least one example, got none"),
        ({"inputs": torch.ones(2, 5).long()}, r"inputs must be floating point .* got \[torch.int"),
        ({"inputs": [normal(2, 5)]}, "inputs must be a Tensor or a tuple of Tensors, got list"),
        ({"target": None}, r"target must select one output per example from .* \(3, 3\), got None"),
        ({"target": 3}, r"target must select one output per example from .* \(3, 3\), got 3"),
        ({"target": (0, 0)}, r"target must select one output .* got \(0, 0\)"),
        ({"target": [0, 1]}, r"target must select one output .* got \[0, 1\]"),
        ({"target": torch.tensor([0, 1, 9])}, r"target must select .* got tensor\(\[0, 1, 9\]\)"),
        ({"target": "cat"}, "target must select one output .* got 'cat'"),
        (
            {"forward_func": lambda x: x.sum()},
            r"forward_func must return one output per example \(3\), got \(\)",
        ),
        (
            {"forward_func": lambda x: x[:2]},
            r"forward_func must return one output per example \(3\), got \(2, 5\)",
        ),
    ],
)
def test_other_values_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hessian_norm(**{"forward_func": NET, "inputs": normal(3, 5), "target": 0, **arguments})
