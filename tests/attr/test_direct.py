"""The direct way to a Saliency or an InputXGradient gives Captum's own map, or says no."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_robust.attr import differentiable_attribution, smooth_relu
from captum_robust.attr._direct import direct_attribution
from tests.attr.captum_cases import CASES, built
from tests.attr.oracles import TwoInputs, as_tuple, normal, smooth_convnet, smooth_mlp
from tests.captum_testing import AVAILABLE

DIRECT = {
    name: case
    for name, case in CASES.items()
    if case[1] in (Saliency, InputXGradient) and not case[0].get("noise_tunnel")
}
METHODS = pytest.mark.parametrize("method", [Saliency, InputXGradient])


def same(found: Any, expected: Any) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def split(kwargs: dict[str, Any]) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The inputs, as a tuple, and the other arguments of ``attribute``."""
    others = {name: value for name, value in kwargs.items() if name != "inputs"}
    return as_tuple(kwargs["inputs"]), others


# --- Captum's own test configuration -----------------------------------------------------------


@pytest.mark.skipif(not AVAILABLE, reason="the wheel of Captum 0.8 has no captum.testing")
def test_the_configuration_has_many_direct_cases() -> None:
    assert len(DIRECT) >= 10
    assert {case[1] for case in DIRECT.values()} == {Saliency, InputXGradient}


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("create_graph", [False, True])
def test_the_map_is_that_of_stock_captum(name: str, create_graph: bool) -> None:
    attribution, _, kwargs = built(DIRECT[name])
    inputs, arguments = split(kwargs)
    found = direct_attribution(attribution, inputs, arguments, create_graph)
    assert found is not None
    same(found.attributions, as_tuple(attribution.attribute(**kwargs)))
    extra = arguments.get("additional_forward_args")
    further = () if extra is None else extra if isinstance(extra, tuple) else (extra,)
    same((found.output,), (attribution.forward_func(*inputs, *further),))
    assert all(t.requires_grad == create_graph for t in (*found.attributions, found.output))


@pytest.mark.parametrize("name", DIRECT)
def test_its_derivative_is_that_of_stock_captum_in_the_mode(name: str) -> None:
    attribution, leaves, kwargs = built(DIRECT[name])
    inputs, arguments = split(kwargs)

    def derivative(maps: tuple[Tensor, ...]) -> list[Tensor]:
        parameters = attribution.forward_func.parameters()
        variables = [*leaves, *(p for p in parameters if p.requires_grad)]
        total = sum((m * normal(*m.shape, seed=7)).sum() for m in maps)
        found = torch.autograd.grad(total, variables, allow_unused=True)
        return [torch.zeros(0) if g is None else g for g in found]

    with smooth_relu(1.0):
        found = direct_attribution(attribution, inputs, arguments, create_graph=True)
        with differentiable_attribution():
            expected = as_tuple(attribution.attribute(**kwargs))
    assert found is not None
    same(derivative(found.attributions), derivative(expected))


@pytest.mark.filterwarnings("ignore:Multiple layers provided:UserWarning")
@pytest.mark.parametrize("name", [name for name in CASES if name not in DIRECT])
def test_other_attributions_are_not_direct_and_do_not_call_the_model(name: str) -> None:
    attribution, _, kwargs = built(CASES[name])
    calls: list[Any] = []
    method = getattr(attribution, "attribution_method", attribution)
    method.forward_func.register_forward_pre_hook(lambda *args: calls.append(args))
    assert direct_attribution(attribution, *split(kwargs)) is None
    assert not calls


# --- when it applies ---------------------------------------------------------------------------


def with_own_gradient(attribution: Any) -> Any:
    attribution.gradient_func = lambda forward_func, inputs, *_: inputs
    return attribution


def with_own_attribute(attribution: Any) -> Any:
    attribution.attribute = lambda inputs, **kwargs: inputs
    return attribution


class Doubled(Saliency):
    def attribute(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * super().attribute(*args, **kwargs)


CHANGED: dict[str, Callable[[nn.Module], Any]] = {
    "a subclass": Doubled,
    "a subclass that adds nothing": type("Plain", (Saliency,), {}),
    "another gradient": lambda model: with_own_gradient(Saliency(model)),
    "another attribute": lambda model: with_own_attribute(Saliency(model)),
    "a noise tunnel": lambda model: NoiseTunnel(Saliency(model)),
    "another method": IntegratedGradients,
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_attribution_is_not_direct(name: str) -> None:
    attribution = CHANGED[name](smooth_mlp())
    assert direct_attribution(attribution, (normal(3, 4),), {"target": 0}) is None


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (Saliency, {"n_steps": 3}),
        (InputXGradient, {"abs": True}),  # it has no such argument
        (InputXGradient, {"grad_kwargs": {}}),
    ],
)
def test_unknown_arguments_are_left_to_captum(method: Any, arguments: dict[str, Any]) -> None:
    attribution = method(smooth_mlp())
    assert direct_attribution(attribution, (normal(3, 4),), {"target": 0, **arguments}) is None


def test_integer_inputs_are_left_to_captum() -> None:
    tokens = torch.arange(6).view(2, 3)
    assert direct_attribution(Saliency(lambda x: x.sum(1)), (tokens,), {}) is None


def test_a_model_that_returns_no_tensor_is_named() -> None:
    attribution = Saliency(lambda x: {"logits": x.sum(1)})
    with pytest.raises(ValueError, match=r"must return one tensor, got dict with the keys"):
        direct_attribution(attribution, (normal(2, 3),), {})


@METHODS
@pytest.mark.parametrize("target", [None, 3, (0, 0), [0], torch.tensor([0, 1])])
def test_a_target_that_does_not_fit_is_named(method: Any, target: Any) -> None:
    with pytest.raises(ValueError, match="target must select one output"):
        direct_attribution(method(smooth_mlp()), (normal(3, 4),), {"target": target})


# --- forms of models and arguments -------------------------------------------------------------


def forms_of_a_model() -> dict[str, Callable[..., Tensor]]:
    net = smooth_mlp()
    return {
        "module": net,
        "bound method": net.forward,
        "lambda": lambda x: net(x),
        "partial": functools.partial(lambda scale, x: net(scale * x), 0.5),
        "one value per example": lambda x: net(x)[:, 1],
        "a column": lambda x: net(x)[:, 1:2],
        "several dimensions": lambda x: net(x).unsqueeze(1).expand(-1, 2, 3),
    }


TARGET_OF_FORM = {"one value per example": None, "a column": None, "several dimensions": (1, 2)}


@METHODS
@pytest.mark.parametrize("form", forms_of_a_model())
def test_any_forward_function(method: Any, form: str) -> None:
    attribution, x = method(forms_of_a_model()[form]), normal(3, 4).requires_grad_()
    target = TARGET_OF_FORM.get(form, 2)
    found = direct_attribution(attribution, (x,), {"target": target})
    assert found is not None
    same(found.attributions, (attribution.attribute(x, target=target),))


@pytest.mark.parametrize("absolute", [True, False, 0, 1])
def test_abs(absolute: Any) -> None:
    attribution, x = Saliency(smooth_mlp()), normal(5, 4).requires_grad_()
    found = direct_attribution(attribution, (x,), {"target": 0, "abs": absolute})
    assert found is not None
    assert bool((found.attributions[0] < 0).any()) == (not absolute)
    same(found.attributions, (attribution.attribute(x, target=0, abs=absolute),))


@METHODS
@pytest.mark.parametrize("extra", [2.0, (2.0,), (), None])
def test_several_inputs_and_additional_arguments(method: Any, extra: Any) -> None:
    attribution = method(TwoInputs())
    inputs = normal(3, 3).requires_grad_(), normal(3, 1, 2, seed=1).requires_grad_()
    arguments = {"target": [0, 1, 1], "additional_forward_args": extra}
    found = direct_attribution(attribution, inputs, arguments)
    assert found is not None
    same(found.attributions, attribution.attribute(inputs, **arguments))


@METHODS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision(method: Any, dtype: torch.dtype) -> None:
    attribution = method(smooth_mlp().to(dtype))
    x = normal(5, 4).to(dtype).requires_grad_()
    found = direct_attribution(attribution, (x,), {"target": 1})
    assert found is not None
    (ours,), theirs = found.attributions, attribution.attribute(x, target=1)
    torch.testing.assert_close(ours, theirs)  # by torch's tolerances of the dtype
    assert ours.dtype == theirs.dtype == dtype


@METHODS
def test_examples_that_interact_through_batch_statistics(method: Any) -> None:
    model = nn.Sequential(smooth_mlp(), nn.BatchNorm1d(3).double(), nn.Softplus()).train()
    attribution, x = method(model), normal(6, 4).requires_grad_()
    target = torch.tensor([0, 1, 2, 0, 1, 2])
    found = direct_attribution(attribution, (x,), {"target": target})
    assert found is not None
    same(found.attributions, (attribution.attribute(x, target=target),))


# --- one forward, and nothing left changed -----------------------------------------------------


@METHODS
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_one_forward_and_the_inputs_as_they_were(
    method: Any, create_graph: bool, requires_grad: bool
) -> None:
    model = smooth_convnet()
    calls: list[Any] = []
    model.register_forward_hook(lambda *args: calls.append(args))
    x = normal(2, 1, 4, 4).requires_grad_(requires_grad)
    with torch.no_grad():
        found = direct_attribution(method(model), (x,), {"target": 1}, create_graph)
    assert found is not None and len(calls) == 1
    assert x.requires_grad == requires_grad and x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert found.attributions[0].requires_grad == create_graph


def test_parameters_are_reached_from_inputs_without_gradients() -> None:
    model = smooth_mlp()
    found = direct_attribution(Saliency(model), (normal(3, 4),), {"target": 1}, create_graph=True)
    assert found is not None
    (slope,) = torch.autograd.grad(found.attributions[0].sum(), model[0].weight)
    assert bool(slope.any())


@METHODS
def test_an_input_that_is_not_a_leaf(method: Any) -> None:
    root = normal(3, 4).requires_grad_()
    attribution = method(smooth_mlp())
    found = direct_attribution(attribution, (2 * root,), {"target": 0}, create_graph=True)
    assert found is not None
    with differentiable_attribution():
        expected = attribution.attribute(2 * root, target=0)
    ours, theirs = (
        torch.autograd.grad(m.square().sum(), root) for m in (found.attributions[0], expected)
    )
    same(ours, theirs)
