"""Networks under smooth_relu: the surrogate that attacks differentiate."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor, nn

from captum_robust.attr import differentiable_attribution, smooth_relu
from tests.attr.oracles import drawn, normal

BETA = 4.0


class Softplus(nn.Module):
    """Written out once more, so that nothing of smooth_relu is used."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log1p(torch.exp(BETA * x)) / BETA


class Residual(nn.Module):
    """ReLU as a module, a function and an in-place tensor method, with max-pooling."""

    def __init__(self, relu: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.relu = relu
        self.activation = nn.ReLU(inplace=True)
        self.first = nn.Conv1d(1, 3, 3, padding=1)
        self.second = nn.Conv1d(3, 3, 3, padding=1)
        self.head = nn.Linear(9, 2)
        drawn(self)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = self.relu(hidden) if self.relu else self.activation(hidden)
        skip = self.second(hidden) + hidden
        hidden = self.relu(skip) if self.relu else F.relu(skip)
        hidden = F.max_pool1d(hidden, 2)
        hidden = self.relu(hidden - 0.2) if self.relu else (hidden - 0.2).relu_()
        return self.head(hidden.flatten(1))


def mlp(activation: nn.Module) -> nn.Module:
    return drawn(
        nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 2))
    )


def mlp_on_rows(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), mlp(activation))


NETWORKS: dict[str, tuple[nn.Module, nn.Module]] = {
    "Sequential": (mlp_on_rows(nn.ReLU()), mlp_on_rows(Softplus())),
    "Sequential in place": (mlp_on_rows(nn.ReLU(inplace=True)), mlp_on_rows(Softplus())),
    "residual": (Residual(), Residual(Softplus())),
}
X = normal(5, 1, 6)


def saliency(model: Any, x: Tensor, **kwargs: Any) -> Tensor:
    return Saliency(model).attribute(x, target=1, **kwargs)


def gradient_of_saliency(model: Any, smooth: float | None = None) -> Tensor:
    """Of the summed absolute map, with or without smooth_relu."""
    x = X.clone().requires_grad_()
    with differentiable_attribution():
        if smooth is None:
            maps = saliency(model, x)
        else:
            with smooth_relu(smooth):
                maps = saliency(model, x)
    return torch.autograd.grad(maps.sum(), x)[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_is_the_softplus_network(name: str) -> None:
    relu, softplus = NETWORKS[name]
    x = X.clone().requires_grad_()
    with smooth_relu(BETA):
        output, maps = relu(x), saliency(relu, x)
    torch.testing.assert_close(output, softplus(x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(maps, saliency(softplus, x), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(
        gradient_of_saliency(relu, smooth=BETA),
        gradient_of_saliency(softplus),
        rtol=1e-10,
        atol=1e-12,
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_trap_relu_networks_hide_their_second_derivative(name: str) -> None:
    relu, _ = NETWORKS[name]
    assert torch.count_nonzero(gradient_of_saliency(relu)) == 0
    gradient = gradient_of_saliency(relu, smooth=BETA)
    assert (gradient.flatten(1).norm(dim=1) > 1e-3).all()  # for every example


def test_exact_forward_keeps_the_outputs_and_smooths_the_derivatives() -> None:
    relu = mlp(nn.ReLU())
    x = normal(5, 6).requires_grad_()
    with smooth_relu(BETA, forward="exact"):
        output = relu(x)
        (slope,) = torch.autograd.grad(output[:, 1].sum(), x, create_graph=True)
    assert torch.equal(output, relu(x))
    # By hand: the hidden values are those of the ReLU, the slopes those of the softplus at them.
    first, second, last = relu[0], relu[2], relu[4]
    before = first(x)
    middle = second(torch.relu(before))
    at_middle = last.weight[1] * torch.sigmoid(BETA * middle)
    expected = ((at_middle @ second.weight) * torch.sigmoid(BETA * before)) @ first.weight
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-13)
    assert torch.autograd.grad(slope.sum(), x)[0].abs().max() > 1e-3


@pytest.mark.parametrize("smooth_inside", [True, False])
def test_captums_own_relu_of_a_finished_map_stays_exact(smooth_inside: bool) -> None:
    model = Residual()
    x = X.clone().requires_grad_()
    modes = [differentiable_attribution(), smooth_relu(BETA)]
    first, second = modes if smooth_inside else reversed(modes)
    cam = LayerGradCam(model, model.second)
    with first, second:
        raw = cam.attribute(x, target=1)
        rectified = cam.attribute(x, target=1, relu_attributions=True)
    assert (raw < 0).any()
    assert torch.equal(rectified, raw.clamp(min=0))


@pytest.mark.parametrize(
    "forward_func",
    [nn.Sequential(nn.ReLU()), F.relu, lambda x: x.clamp(min=0)],
    ids=["Sequential", "F.relu", "lambda"],
)
def test_what_captum_calls_as_the_model_is_smoothed(forward_func: Any) -> None:
    x = normal(4, 3).requires_grad_()
    with smooth_relu(BETA):
        maps = Saliency(forward_func).attribute(x, target=0)
    torch.testing.assert_close(maps[:, 0], torch.sigmoid(BETA * x[:, 0]), rtol=1e-12, atol=0)


def test_only_inside_the_block() -> None:
    model, x = Residual(), X
    plain, state = model(x), copy.deepcopy(model.state_dict())
    with smooth_relu(BETA):
        smooth = model(x)
    assert not torch.equal(plain, smooth)
    with pytest.raises(ZeroDivisionError), smooth_relu(BETA):
        raise ZeroDivisionError
    assert torch.equal(model(x), plain)
    assert isinstance(model.activation, nn.ReLU)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_innermost_block_decides() -> None:
    x = normal(4)
    with smooth_relu(1.0), smooth_relu(BETA):
        torch.testing.assert_close(torch.relu(x), Softplus()(x))


def test_other_threads_keep_the_relu() -> None:
    x = normal(4)
    inside, done = threading.Event(), threading.Event()
    seen: list[Tensor] = []

    def stranger() -> None:
        assert inside.wait(30)
        seen.append(torch.relu(x))
        done.set()

    thread = threading.Thread(target=stranger)
    thread.start()
    with smooth_relu(BETA):
        inside.set()
        assert done.wait(30)
        assert not torch.equal(torch.relu(x), seen[0])
    thread.join()
    assert torch.equal(seen[0], torch.relu(x))


def test_sharper_surrogates_come_closer_to_the_network() -> None:
    model = Residual()
    x = X.clone().requires_grad_()
    plain, exact = model(x).detach(), saliency(model, x, abs=False)
    outputs, maps = [], []
    for beta in (1.0, 10.0, 1e2, 1e4):
        with smooth_relu(beta):
            outputs.append(float((model(x).detach() - plain).abs().max()))
            maps.append(float((saliency(model, x, abs=False) - exact).abs().max()))
    assert outputs == sorted(outputs, reverse=True)
    assert outputs[-1] < 1e-3 < outputs[0]
    assert maps[-1] < 1e-3 < maps[0]


def test_integrated_gradients_sum_to_the_smooth_difference() -> None:
    """Completeness holds for the surrogate, so Captum saw it at every step and not only at x."""
    model = mlp(nn.ReLU())
    x = normal(3, 6)
    with smooth_relu(BETA), torch.no_grad():
        difference = (model(x) - model(torch.zeros_like(x)))[:, 1]
    with smooth_relu(BETA):
        maps = IntegratedGradients(model).attribute(x, target=1, n_steps=60)
    torch.testing.assert_close(maps.sum(1), difference, rtol=1e-8, atol=1e-9)
