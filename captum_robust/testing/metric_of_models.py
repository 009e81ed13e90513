"""The rules of a metric that calls an explanation or a model."""

from contextlib import nullcontext, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.testing.fault_injection import Trouble, failing_at, refusal, worn
from captum_robust.testing.metric_case import ModelCase
from captum_robust.testing.report import require, require_close
from captum_robust.testing.snapshot import (
    changes,
    random_state,
    state_of_model,
    state_of_tensors,
)

__all__ = [
    "check_broken_rows_give_nan",
    "check_chunks_and_order_do_not_matter",
    "check_dtypes",
    "check_errors_name_the_argument",
    "check_inputs_are_not_modified",
    "check_linear_model_is_perfectly_robust",
    "check_model_is_left_as_found",
    "check_model_is_left_as_found_after_an_exception",
    "check_noncontiguous_inputs",
    "check_one_value_an_example",
    "check_random_state_is_left_as_found",
    "check_same_seed_same_result",
    "check_tuple_of_one_input",
    "check_values_in_range",
]


def check_one_value_an_example(case: ModelCase) -> None:
    """One floating point value an example, shape (N,), without a graph."""
    value = case.value()
    n_examples = len(case.model.labels)
    require(isinstance(value, Tensor), f"returned a {type(value).__name__}")
    require(value.shape == (n_examples,), f"returned shape {tuple(value.shape)}")
    require(value.is_floating_point(), f"returned {value.dtype}")
    require(not value.requires_grad, "the value requires a gradient")


def check_values_in_range(case: ModelCase) -> None:
    """Every value is finite for finite maps, and lies in the declared range."""
    value = case.value()
    inside = (value >= case.traits.lowest) & (value <= case.traits.highest)
    require(
        inside.all(),
        f"values {value.tolist()} outside [{case.traits.lowest}, {case.traits.highest}]",
    )


def check_linear_model_is_perfectly_robust(case: ModelCase) -> None:
    """The explanation of a linear model never changes: it has the declared perfect value."""
    value = case.value()
    expected = torch.full_like(value, case.traits.perfect or 0.0)
    require_close(value, expected, f"a linear model scores {value.tolist()}", 1e-6)


def check_broken_rows_give_nan(case: ModelCase) -> None:
    """A row with NaN or infinity gives NaN, also where its map is finite, and changes no other.

    Broken input never scores as robust.
    """
    whole = case.value()
    rest = [0, 2, 3, 4]
    for broken in (float("nan"), float("inf")):
        inputs = case.model.inputs
        as_tuple(inputs)[0][1].view(-1)[0] = broken
        value = case.value(inputs=inputs)
        require(value[1].isnan(), f"a row with {broken} scores {float(value[1])}")
        require_close(value[rest], whole[rest], f"a row with {broken} changed others", 1e-6)


def check_chunks_and_order_do_not_matter(case: ModelCase) -> None:
    """An example is scored alike in any chunk, at any place of the batch, and alone."""
    whole = case.value()
    if case.traits.chunks:
        value = case.value(max_examples_per_batch=3)
        require_close(value, whole, "max_examples_per_batch=3 changed values", 1e-6)
    for order in ([3, 1, 4, 0, 2], [2]):
        inputs, arguments = case.model.rows(order)
        value = case.value(inputs=inputs, **arguments)
        require_close(value, whole[order], f"rows {order} have other values", 1e-6)


def check_same_seed_same_result(case: ModelCase) -> None:
    """With a seed (or where no chance is involved) two calls agree bit for bit."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(1)
        first = case.value()
        torch.default_generator.manual_seed(2)
        second = case.value()
    require(torch.equal(first, second), f"two calls: {first.tolist()}, {second.tolist()}")


def check_random_state_is_left_as_found(case: ModelCase) -> None:
    """The global generators of torch, NumPy and Python are where they were, seed or no seed."""
    for seed in (0, None) if case.traits.seed else (None,):
        before = random_state()
        case.value(seed=seed)
        changed = changes(before, random_state())
        require(not changed, f"moved, with seed={seed}: {', '.join(changed)}")


def check_model_is_left_as_found(case: ModelCase) -> None:
    """Mode, hooks, parameters, requires_grad, .grad and buffers are as before, in both modes.

    A metric may refuse a model in training mode, by a ValueError.
    """
    for training in (False, True):
        model = worn(case.model.build(), hook=case.traits.calls_model).train(training)
        before = state_of_model(model)
        with suppress(ValueError) if training else nullcontext():
            case.value(model)
        changed = changes(before, state_of_model(model))
        mode = "training" if training else "evaluation"
        require(not changed, f"changed in {mode} mode: {', '.join(changed)}")


def check_model_is_left_as_found_after_an_exception(case: ModelCase) -> None:
    """An exception inside the model reaches the caller, and leaves model and random state alone."""
    model = worn(case.model.build()).train()
    failing_at(1, model)
    before = {**state_of_model(model), **random_state()}
    try:
        case.value(model)
    except Trouble:
        changed = changes(before, {**state_of_model(model), **random_state()})
        require(not changed, f"changed after an exception: {', '.join(changed)}")
    else:
        require(False, "an exception of the model did not reach the caller")


def check_inputs_are_not_modified(case: ModelCase) -> None:
    """Inputs and target keep their values and gradient flags."""
    inputs = case.model.inputs
    tensors = {f"inputs[{i}]": t.requires_grad_() for i, t in enumerate(as_tuple(inputs))}
    target = case.model.target
    if target is not None:
        tensors["target"] = target
    before = state_of_tensors(tensors)
    case.value(inputs=inputs, target=target)
    changed = changes(before, state_of_tensors(tensors))
    require(not changed, f"modified: {', '.join(changed)}")


def check_noncontiguous_inputs(case: ModelCase) -> None:
    """Memory layout does not matter: strided inputs give what contiguous ones give."""
    whole, inputs = case.value(), case.model.inputs
    strided = tuple(torch.stack([t, -t], dim=-1)[..., 0] for t in as_tuple(inputs))
    value = case.value(inputs=format_like(inputs, strided))
    require_close(value, whole, "strided inputs have other values", 1e-6)


def check_tuple_of_one_input(case: ModelCase) -> None:
    """A tuple of one tensor is scored as that tensor."""
    value = case.value(inputs=(case.model.inputs,))
    require_close(value, case.value(), "a tuple of one input has another value")


def check_dtypes(case: ModelCase) -> None:
    """Models in float32, bfloat16 and float16 are scored, in at least single precision."""
    dtypes = [torch.float32]
    if case.traits.half_precision:
        dtypes += [torch.bfloat16, torch.float16]
    for dtype in dtypes:
        inputs = format_like(
            case.model.inputs, tuple(t.to(dtype) for t in as_tuple(case.model.inputs))
        )
        value = case.value(case.model.build().to(dtype), inputs=inputs)
        require(value.isfinite().all(), f"in {dtype}: {value.tolist()}")
        require(value.dtype in (torch.float32, torch.float64), f"in {dtype} returned {value.dtype}")


def check_errors_name_the_argument(case: ModelCase) -> None:
    """Wrong k, a negative radius, chunks of nothing: a ValueError that names the argument."""
    wrong: list[tuple[str, Any]] = []
    if case.traits.k is not None:
        wrong += [(case.traits.k, 0), (case.traits.k, 10_000)]
    if case.traits.radius is not None:
        wrong += [(case.traits.radius, -1.0), (case.traits.radius, float("nan"))]
    if case.traits.chunks:
        wrong += [("max_examples_per_batch", 0)]
    for name, value in wrong:
        message = refusal(partial(case.value, **{name: value}))
        require(
            message is not None and name in message.replace(",", " ").split(),
            f"{name}={value} must raise a ValueError that names it, got {message}",
        )
    message = refusal(partial(case.value, inputs=[case.model.inputs]))
    require(
        message is not None and "inputs" in message.split(),
        f"a list of inputs must raise a ValueError that names them, got {message}",
    )
