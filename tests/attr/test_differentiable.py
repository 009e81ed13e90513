"""The changes that the mode makes, and everything that it leaves unchanged."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    NeuronGradient,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor, nn
from torch.autograd import forward_ad

from captum_robust.attr import differentiable_attribution, smooth_relu
from captum_robust.attr.differentiable import summed_gradients
from tests.attr.oracles import compare_gradients, fix_noise, normal, smooth_mlp

TARGET = torch.tensor([0, 2, 1])
METHODS: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "Saliency": lambda model, x: Saliency(model).attribute(x, target=TARGET),
    "InputXGradient": lambda model, x: InputXGradient(model).attribute(x, target=TARGET),
    "IG": lambda model, x: IntegratedGradients(model).attribute(x, target=TARGET, n_steps=4),
    "IG in chunks": lambda model, x: IntegratedGradients(model).attribute(
        x, target=TARGET, n_steps=4, internal_batch_size=6
    ),
    "NoiseTunnel": lambda model, x: NoiseTunnel(Saliency(model)).attribute(
        x, target=TARGET, nt_samples=2, stdevs=0.2
    ),
    "FeatureAblation": lambda model, x: FeatureAblation(model).attribute(x, target=TARGET),
    "Occlusion": lambda model, x: Occlusion(model).attribute(x, (2,), target=TARGET),
    "ShapleyValueSampling": lambda model, x: ShapleyValueSampling(model).attribute(
        x, target=TARGET, n_samples=2
    ),
}


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return normal(*shape, seed=seed).requires_grad_()


def gradient_inside(*modes: Any, method: str) -> Tensor:
    """The gradient of a weighted map computed inside the modes, outermost first."""
    x = leaf(3, 4)
    fix_noise()
    with ExitStack() as stack:
        for mode in modes:
            stack.enter_context(mode)
        maps = METHODS[method](smooth_mlp(), x)
    (gradient,) = torch.autograd.grad((normal(3, 4, seed=1) * maps).sum(), x)
    return gradient


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "other",
    [lambda: smooth_relu(2.0), summed_gradients, lambda: torch.device("cpu")],
    ids=["smooth_relu", "summed_gradients", "torch.device"],
)
def test_order_of_nesting_with_other_modes_does_not_matter(
    method: str, other: Callable[[], Any]
) -> None:
    alone = gradient_inside(differentiable_attribution(), method=method)
    inner = gradient_inside(other(), differentiable_attribution(), method=method)
    outer = gradient_inside(differentiable_attribution(), other(), method=method)
    torch.testing.assert_close(inner, alone, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(outer, alone, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", [m for m in METHODS if m != "NoiseTunnel"])  # float32 noise
def test_values_and_dtypes_are_those_of_stock_captum(method: str, dtype: torch.dtype) -> None:
    model, x = smooth_mlp().to(dtype), normal(3, 4).to(dtype).requires_grad_()
    fix_noise()
    stock = METHODS[method](model, x)
    fix_noise()
    with differentiable_attribution():
        maps = METHODS[method](model, x)
    if dtype == torch.float64 and method in ("Occlusion", "ShapleyValueSampling"):
        assert (stock.dtype, maps.dtype) == (torch.float32, torch.float64)
        stock = stock.double()  # the float32 accumulators that the mode replaces
    epsilon = 1e-6 if dtype == torch.float64 else torch.finfo(dtype).eps
    torch.testing.assert_close(maps, stock, rtol=4 * epsilon, atol=4 * epsilon)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize(
    "method", ["Saliency", "InputXGradient", "IG", "NoiseTunnel", "FeatureAblation"]
)
def test_forward_mode_through_stock_captum_agrees(method: str) -> None:
    """⟨w, J v⟩ by forward-mode AD without the mode is ⟨Jᵀ w, v⟩ by backward mode with it."""
    x, direction, weight = normal(3, 4), normal(3, 4, seed=2), normal(3, 4, seed=1)
    fix_noise()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x.clone().requires_grad_(), direction)
        tangent = forward_ad.unpack_dual(METHODS[method](smooth_mlp(), dual)).tangent
    assert tangent is not None
    forward = (weight * tangent).sum()
    backward = (gradient_inside(differentiable_attribution(), method=method) * direction).sum()
    assert forward.abs() > 1e-3
    torch.testing.assert_close(backward, forward.detach(), rtol=1e-10, atol=0)


def test_stock_behaviour_returns_after_the_block_and_after_an_exception() -> None:
    model, x = smooth_mlp(), leaf(3, 4)
    with differentiable_attribution():
        assert METHODS["NoiseTunnel"](model, x).requires_grad
    assert not METHODS["NoiseTunnel"](model, x).requires_grad
    with pytest.raises(IndexError), differentiable_attribution():
        Saliency(model).attribute(x, target=7)
    assert not METHODS["NoiseTunnel"](model, x).requires_grad
    assert torch.is_grad_enabled()
    with torch.no_grad(), differentiable_attribution():
        METHODS["NoiseTunnel"](model, x)
        assert not torch.is_grad_enabled()


def test_other_threads_see_stock_captum() -> None:
    model = smooth_mlp()
    inside, done = threading.Event(), threading.Event()
    seen: dict[str, bool] = {}

    def stranger() -> None:
        assert inside.wait(30)
        seen["stranger"] = METHODS["NoiseTunnel"](model, leaf(3, 4)).requires_grad
        done.set()

    thread = threading.Thread(target=stranger)
    thread.start()
    with differentiable_attribution():
        inside.set()
        assert done.wait(30)
        seen["inside"] = METHODS["NoiseTunnel"](model, leaf(3, 4)).requires_grad
    thread.join()
    assert seen == {"stranger": False, "inside": True}


def test_a_thread_inside_does_not_change_its_parent() -> None:
    model = smooth_mlp()
    inside, done = threading.Event(), threading.Event()

    def child() -> None:
        with differentiable_attribution():
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=child)
    thread.start()
    assert inside.wait(30)
    maps = METHODS["NoiseTunnel"](model, leaf(3, 4))
    done.set()
    thread.join()
    assert not maps.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_draws_as_much_as_stock_captum(method: str) -> None:
    model, x = smooth_mlp(), leaf(3, 4)
    states = []
    for mode in (torch.enable_grad(), differentiable_attribution()):
        fix_noise()
        with mode:
            METHODS[method](model, x)
        states.append((torch.get_rng_state(), np.random.get_state()[1]))  # noqa: NPY002
    assert torch.equal(states[0][0], states[1][0])
    assert np.array_equal(states[0][1], states[1][1])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("requires_grad", [True, False])
def test_model_attribution_and_inputs_are_left_as_found(method: str, requires_grad: bool) -> None:
    model = smooth_mlp()
    model[0].weight.requires_grad_(False)
    model[2].bias.grad = torch.ones(4, dtype=torch.float64)
    before = copy.deepcopy(model.state_dict())
    x = normal(3, 4).requires_grad_(requires_grad)
    x.grad = torch.full_like(x, 2.0) if requires_grad else None
    with differentiable_attribution():
        if requires_grad or method not in ("Saliency", "InputXGradient"):
            METHODS[method](model, x)
        else:
            with pytest.warns(UserWarning, match="did not already require gradients"):
                METHODS[method](model, x)
    assert x.requires_grad == requires_grad
    assert torch.equal(x.detach(), normal(3, 4))
    assert x.grad is None or torch.equal(x.grad, torch.full_like(x, 2.0))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * 5
    assert torch.equal(model[2].bias.grad, torch.ones(4, dtype=torch.float64))
    assert all(p.grad is None for p in model.parameters() if p is not model[2].bias)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, hook) for module in model.modules() for hook in hooks)
    assert model.training


def test_own_packages_can_be_made_transparent() -> None:
    model, x = smooth_mlp(), leaf(3, 4)

    def own_attribution() -> Tensor:
        with torch.no_grad():
            return x * model(x)[:, :1]

    with differentiable_attribution():
        assert not own_attribution().requires_grad
    with differentiable_attribution(packages=(__name__,)):
        assert own_attribution().requires_grad


# The model's own gradient mode and detachments are its business.


class WatchesItsGradMode(nn.Module):
    """A smooth model that looks at its gradient mode in three kinds of no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.net = smooth_mlp()
        self.seen: list[bool] = []
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen.append(torch.is_grad_enabled())
            self.mean += 0.1 * (x.mean(0) - self.mean)
        with torch.set_grad_enabled(False):
            self.seen.append(torch.is_grad_enabled())
        self.look()
        gate: Tensor = torch.sigmoid(x.sum(1, keepdim=True)).detach()
        return gate * self.net(x)

    @torch.no_grad()
    def look(self) -> None:
        self.seen.append(torch.is_grad_enabled())


@pytest.mark.parametrize("method", METHODS)
def test_no_grad_and_detach_of_the_model_are_respected(method: str) -> None:
    maps, buffers = [], []
    for mode in (torch.enable_grad(), differentiable_attribution()):
        model = WatchesItsGradMode()
        fix_noise()
        with mode:
            maps.append(METHODS[method](model, leaf(3, 4)))
        assert model.seen
        assert not any(model.seen)
        assert not model.mean.requires_grad
        buffers.append(model.mean)
    assert torch.equal(*buffers)
    torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-7, check_dtype=False)


def test_a_forward_function_under_no_grad_has_no_gradient() -> None:
    model, x = smooth_mlp(), leaf(3, 4)
    with differentiable_attribution():
        assert FeatureAblation(model.forward).attribute(x, target=0).requires_grad
        assert (
            not FeatureAblation(torch.no_grad()(model.forward)).attribute(x, target=0).requires_grad
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "spectral_norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm]
)
@pytest.mark.parametrize("method", ["Saliency", "IG in chunks", "NoiseTunnel", "FeatureAblation"])
def test_spectral_norm_keeps_its_power_iteration_to_itself(
    method: str, spectral_norm: Callable[[nn.Module], nn.Module], training: bool
) -> None:
    torch.manual_seed(0)
    layers = spectral_norm(nn.Linear(4, 5)), nn.Softplus(), spectral_norm(nn.Linear(5, 3))
    model = nn.Sequential(*layers).double().train(training)
    start = copy.deepcopy(model.state_dict())
    x = leaf(3, 4)

    def attribute() -> Any:
        model.load_state_dict(start)  # training mode moves it on with every forward
        return METHODS[method](model, x)

    assert compare_gradients(attribute, (x,)).error < 1e-6
    attribute()
    after_stock = copy.deepcopy(model.state_dict())
    with differentiable_attribution():
        attribute()
    for name, value in model.state_dict(keep_vars=True).items():
        torch.testing.assert_close(value.detach(), after_stock[name], rtol=1e-12, atol=1e-14)
        assert isinstance(value, nn.Parameter) or not value.requires_grad


# The sum of the outputs instead of each output, on its own.


def test_summed_gradients_gives_captums_maps_without_a_graph() -> None:
    model, x = smooth_mlp(), leaf(3, 4)
    for method in ("Saliency", "InputXGradient", "IG"):
        stock = METHODS[method](model, x)
        with summed_gradients():
            maps = METHODS[method](model, x)
        torch.testing.assert_close(maps, stock, rtol=1e-12, atol=1e-14)
    with summed_gradients():
        assert not METHODS["Saliency"](model, x).requires_grad


def test_several_outputs_an_example_are_refused_as_in_stock_captum() -> None:
    model, x = smooth_mlp(), leaf(3, 4)
    for mode in (torch.enable_grad(), differentiable_attribution(), summed_gradients()):
        with mode, pytest.raises(AssertionError, match="Target not provided"):
            Saliency(model).attribute(x)
        with mode, pytest.raises(RuntimeError, match="scalar outputs"):
            NeuronGradient(model, model[0]).attribute(x, neuron_selector=lambda output: output)
