"""Fails loudly when a release of torch or Captum slips through the interception.

Read the message of the assertion: it says what to look at. The rest of ``tests/attr`` says when
it is right again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum
import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    LayerGradCam,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronGradient,
    NoiseTunnel,
    Occlusion,
    Saliency,
    ShapleyValueSampling,
)
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_robust.attr import differentiable_attribution
from captum_robust.attr._caller import calling_module
from captum_robust.attr.differentiable import _REWRITTEN, _SET_GRAD_ENABLED, summed_gradients
from tests.attr.oracles import compare_gradients, normal, smooth_mlp
from tests.captum_testing import MEMORY_EFFICIENT

VERSIONS = f"torch {torch.__version__}, Captum {captum.__version__}"


class Listens(TorchFunctionMode):
    """Remembers which functions it was given, by which modules, and with which arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, str, tuple[Any, ...]]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        arguments = (*args, *(kwargs or {}).values())
        self.calls.append((func, calling_module(), arguments))
        return func(*args, **(kwargs or {}))


def switch_gradients_off() -> None:
    with torch.no_grad():
        pass


def add_in_place() -> None:
    totals = [torch.zeros(1)]
    totals[0] += torch.ones(1)


X = torch.ones(2, requires_grad=True)
REACH: dict[str, tuple[Any, Callable[[], Any]]] = {
    "torch._C._set_grad_enabled": (torch._C._set_grad_enabled, switch_gradients_off),
    "torch.autograd.grad": (torch.autograd.grad, lambda: torch.autograd.grad(X.sum(), X)),
    "torch.unbind": (torch.unbind, lambda: torch.unbind(X)),
    "Tensor.detach": (Tensor.detach, lambda: X.detach()),
    "Tensor.float": (Tensor.float, lambda: X.float()),
    "Tensor.add_": (Tensor.add_, add_in_place),
    "scaled_dot_product_attention": (
        torch.nn.functional.scaled_dot_product_attention,
        lambda: torch.nn.functional.scaled_dot_product_attention(*[torch.ones(1, 1, 1)] * 3),
    ),
    "relu": (torch.nn.functional.relu, lambda: torch.nn.ReLU()(X)),
}


@pytest.mark.parametrize("name", REACH)
def test_torch_hands_the_function_to_a_mode(name: str) -> None:
    func, call = REACH[name]
    with Listens() as listener:
        call()
    assert func in [f for f, _, _ in listener.calls], (
        f"{name} no longer reaches a TorchFunctionMode in {VERSIONS}. The mode sees "
        f"{[f for f, _, _ in listener.calls]} instead: intercept that."
    )


def test_switching_gradients_off_is_traced_to_its_author() -> None:
    def decorated() -> None:
        pass

    decorated.__module__ = "author"
    with Listens() as listener:
        with torch.no_grad(), torch.enable_grad():
            pass  # leaving enable_grad switches off again
        torch.no_grad()(decorated)()
    off = [m for f, m, args in listener.calls if f is _SET_GRAD_ENABLED and args[0] is False]
    assert off == [__name__, "torch.autograd.grad_mode", "author"], (
        f"with {VERSIONS} the call stack of torch.no_grad looks different, and gives {off} for a "
        "with block, its end and a decorated function: mend captum_robust/attr/_caller.py."
    )


def attribute_by_every_rewritten_path() -> None:
    model = smooth_mlp()
    x = normal(3, 4).requires_grad_()
    target = {"target": 1}
    Saliency(model).attribute(x, **target)
    IntegratedGradients(model).attribute(x, n_steps=4, internal_batch_size=6, **target)
    LayerIntegratedGradients(model, model[1]).attribute(x, n_steps=4, **target)
    NoiseTunnel(Saliency(model)).attribute(x, nt_samples=2, **target)
    Occlusion(model).attribute(x, (2,), **target)
    ShapleyValueSampling(model).attribute(x, n_samples=1, **target)
    if MEMORY_EFFICIENT:
        LayerGradientXActivation(model, model[1], memory_efficient=True).attribute(x, **target)


def test_captum_calls_what_is_rewritten_where_it_is_rewritten() -> None:
    with Listens() as listener:
        attribute_by_every_rewritten_path()
    heard = {(func, module) for func, module, _ in listener.calls}
    for func, (modules, _) in _REWRITTEN.items():
        for module in modules:
            if func is Tensor.detach and module.endswith("gradient") and not MEMORY_EFFICIENT:
                continue
            assert (func, module) in heard, (
                f"{module} no longer calls {func} ({VERSIONS}). See what it does instead and mend "
                "_REWRITTEN in captum_robust/attr/differentiable.py."
            )


def test_captum_switches_gradients_off_in_its_own_name() -> None:
    with Listens() as listener:
        attribute_by_every_rewritten_path()
    off = {m for f, m, args in listener.calls if f is _SET_GRAD_ENABLED and args[0] is False}
    for module in ("noise_tunnel", "feature_ablation", "shapley_value"):
        assert f"captum.attr._core.{module}" in off, (
            f"the no_grad of captum.attr._core.{module} is not recognised ({VERSIONS}), only those "
            f"of {sorted(off)}: mend calling_module in captum_robust/attr/_caller.py."
        )


ATTRIBUTIONS: dict[str, Callable[[Any, Tensor], Any]] = {
    "IntegratedGradients in chunks": lambda model, x: IntegratedGradients(model).attribute(
        x, target=1, n_steps=4, internal_batch_size=6
    ),
    "NoiseTunnel": lambda model, x: NoiseTunnel(Saliency(model)).attribute(
        x, target=1, nt_samples=2, stdevs=0.3
    ),
    "Occlusion": lambda model, x: Occlusion(model).attribute(x, (2,), target=1),
    "ShapleyValueSampling": lambda model, x: ShapleyValueSampling(model).attribute(
        x, target=1, n_samples=2
    ),
}


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_gradient_is_right(name: str) -> None:
    model, x = smooth_mlp(), normal(3, 4).requires_grad_()
    comparison = compare_gradients(
        lambda: ATTRIBUTIONS[name](model, x),
        (x,),
        differences_in_mode=name in ("Occlusion", "ShapleyValueSampling"),
    )
    assert comparison.error < 1e-6, (
        f"the gradient of {name} is wrong with {VERSIONS}: attacks and training would be too. "
        f"Look for a detach, no_grad or float32 that captum_robust.attr does not intercept."
    )


ROOTED: dict[str, Callable[[Any, Tensor], Any]] = {
    "Saliency": lambda model, x: Saliency(model).attribute(x, target=1),
    "IntegratedGradients": lambda model, x: IntegratedGradients(model).attribute(
        x, target=1, n_steps=4
    ),
    "LayerGradCam": lambda model, x: LayerGradCam(model, model[1]).attribute(x, target=1),
    "LayerIntegratedGradients": lambda model, x: LayerIntegratedGradients(
        model, model[1]
    ).attribute(x, target=1, n_steps=4),
    "NeuronGradient": lambda model, x: NeuronGradient(model, model[1]).attribute(x, 1),
}


def roots(mode: Any, name: str) -> list[int]:
    """Return the number of graph roots of each call of torch.autograd.grad below ``mode``."""
    with Listens() as listener, mode:
        ROOTED[name](smooth_mlp(), normal(3, 4).requires_grad_())
    outputs = [args[0] for func, _, args in listener.calls if func is torch.autograd.grad]
    return [len(o) if isinstance(o, tuple | list) else 1 for o in outputs]


@pytest.mark.parametrize("mode", [differentiable_attribution, summed_gradients])
@pytest.mark.parametrize("name", ROOTED)
def test_the_batch_is_one_graph_root(name: str, mode: type) -> None:
    assert set(roots(mode(), name)) == {1}, (
        f"{name} differentiates every output on its own again ({VERSIONS}), up to 40 times slower: "
        "mend _SUMMED in captum_robust/attr/differentiable.py."
    )
    assert max(roots(torch.enable_grad(), name)) >= 3, (
        f"Captum itself now differentiates the sum ({VERSIONS}): _SUMMED can go."
    )
