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

from captum_robust.attr import differentiable_attribution, smooth_relu
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


def test_kernels_are_restored_whatever_order_threads_leave_in() -> None:
    """The flags belong to the process: interleaved blocks must not restore each other's."""
    before = kernels()
    start = threading.Barrier(2)

    def attend() -> None:
        model = drawn(Attends(Fused())).train(False)
        start.wait(30)
        for _ in range(20):
            with differentiable_attribution():
                MAPS["Saliency"](model, normal(2, 3, 4).requires_grad_())

    threads = [threading.Thread(target=attend) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kernels() == before
