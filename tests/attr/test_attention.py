"""Fused attention has no second derivative; inside the mode the math kernel takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam, NoiseTunnel, Saliency
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_robust.attr import differentiable_attribution, smooth_relu
from captum_robust.attr._direct import direct_attribution
from tests.attr.oracles import compare_gradients, drawn, normal


class Attends(nn.Module):
    """(N, 3, 4) -> (N, 2) through one attention block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.block, nn.MultiheadAttention):
            hidden, _ = self.block(x, x, x, need_weights=False)
        else:
            hidden = self.block(x)
        return self.head(hidden.flatten(1))


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.mix(x).unsqueeze(1).chunk(3, dim=-1)  # one head
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)


BLOCKS: dict[str, Callable[[], nn.Module]] = {
    "scaled_dot_product_attention": Fused,
    "MultiheadAttention": lambda: nn.MultiheadAttention(4, 2, batch_first=True),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(
        4, 2, dim_feedforward=5, batch_first=True, activation="gelu"
    ),
    "TransformerEncoderLayer with ReLU": lambda: nn.TransformerEncoderLayer(
        4, 2, dim_feedforward=5, batch_first=True
    ),
}
MAPS: dict[str, Callable[[Any, Tensor], Any]] = {
    "Saliency": lambda model, x: Saliency(model).attribute(x, target=1),
    "InputXGradient": lambda model, x: InputXGradient(model).attribute(x, target=1),
    "IG": lambda model, x: IntegratedGradients(model).attribute(x, target=1, n_steps=3),
    "NoiseTunnel": lambda model, x: NoiseTunnel(Saliency(model)).attribute(
        x, target=1, nt_samples=2, stdevs=0.1
    ),
    "LayerGradCam": lambda model, x: LayerGradCam(model, model.block).attribute(
        x, target=1, attr_dim_summation=False
    ),
}


def kernels() -> list[bool]:
    flags = torch.backends.cuda
    return [flags.flash_sdp_enabled(), flags.mem_efficient_sdp_enabled(), flags.math_sdp_enabled()]


@pytest.mark.parametrize("method", ["Saliency", "InputXGradient", "IG", "NoiseTunnel"])
@pytest.mark.parametrize("block", BLOCKS)
def test_second_derivative_in_evaluation_mode(block: str, method: str) -> None:
    model = drawn(Attends(BLOCKS[block]())).train(False)
    x = normal(2, 3, 4).requires_grad_()
    before = kernels()
    with smooth_relu(2.0):
        comparison = compare_gradients(lambda: MAPS[method](model, x), (x,))
    assert comparison.error < 1e-6
    assert kernels() == before


@pytest.mark.parametrize("method", [Saliency, InputXGradient])
@pytest.mark.parametrize("block", BLOCKS)
def test_second_derivative_of_the_direct_attribution(block: str, method: Any) -> None:
    attribution = method(drawn(Attends(BLOCKS[block]())).train(False))
    x, before = normal(2, 3, 4).requires_grad_(), kernels()
    with smooth_relu(2.0):
        found = direct_attribution(attribution, (x,), {"target": 1}, create_graph=True)
        with differentiable_attribution():
            expected = attribution.attribute(x, target=1)
    assert found is not None and kernels() == before
    ours, theirs = (
        torch.autograd.grad(m.square().sum(), x)[0] for m in (found.attributions[0], expected)
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("block", BLOCKS)
def test_outside_the_mode_there_is_none(block: str) -> None:
    """What the fallback is for: when torch can do this, the fallback can go."""
    model = drawn(Attends(BLOCKS[block]())).train(False)
    x = normal(2, 3, 4).requires_grad_()
    (saliency,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative for .* is not implemented"):
        torch.autograd.grad(saliency.sum(), x)


def test_kernels_are_restored_after_an_exception() -> None:
    before = kernels()
    queries, keys = torch.ones(1, 2, 3), torch.ones(1, 2, 4)
    with pytest.raises(RuntimeError), differentiable_attribution():
        F.scaled_dot_product_attention(queries, keys, keys)
    assert kernels() == before


class Gate(TorchFunctionMode):
    """Lies outside the mode, so that it sees attention while the mode has switched kernels."""

    def __init__(self, meet: Callable[[], object]) -> None:
        super().__init__()
        self.meet = meet

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            self.meet()
        return func(*args, **(kwargs or {}))


def test_kernels_are_restored_when_two_threads_attend_at_once() -> None:
    """The flags belong to the process: the first to leave must not be the one that came first."""
    before = kernels()
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()

    def first_meets() -> None:
        first_in.set()
        second_in.wait(0.3)  # in vain, because the second has to wait

    def second_meets() -> None:
        second_in.set()
        first_out.wait(30)

    def attend(meet: Callable[[], object]) -> None:
        with Gate(meet), differentiable_attribution():
            F.scaled_dot_product_attention(*[torch.ones(1, 1, 2, 2) for _ in range(3)])

    def second() -> None:
        first_in.wait(30)
        attend(second_meets)

    thread = threading.Thread(target=second)
    thread.start()
    attend(first_meets)
    first_out.set()
    thread.join()
    assert second_in.is_set()
    assert kernels() == before
