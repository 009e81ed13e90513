"""What an attack must leave alone, give back, and not depend on."""

import random
from functools import partial
from typing import Any

import numpy as np
import torch
from captum.attr import Saliency
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple, format_like
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.fault_injection import Trouble, failing_at, refusal, worn
from captum_robust.testing.report import require, require_close
from captum_robust.testing.snapshot import (
    changes,
    random_state,
    state_of_model,
    state_of_tensors,
)

__all__ = [
    "check_broken_rows_stay_broken",
    "check_chunks_and_order_do_not_matter",
    "check_dtypes",
    "check_errors_name_the_argument",
    "check_inputs_are_not_modified",
    "check_model_is_left_as_found",
    "check_model_is_left_as_found_after_an_exception",
    "check_noncontiguous_inputs",
    "check_random_state_is_left_as_found",
    "check_same_seed_same_result",
    "check_target_in_every_form",
    "check_tuple_in_tuple_out",
]


def check_model_is_left_as_found(case: AttackCase) -> None:
    """Mode, hooks, parameters, requires_grad, .grad and buffers are as before, in both modes."""
    for training in (False, True):
        model = worn(case.model.build()).train(training)
        before = state_of_model(model)
        case.perturb(case.attack(model))
        changed = changes(before, state_of_model(model))
        mode = "training" if training else "evaluation"
        require(not changed, f"changed in {mode} mode: {', '.join(changed)}")


def check_model_is_left_as_found_after_an_exception(case: AttackCase) -> None:
    """An exception inside the model reaches the caller, and leaves model and random state alone."""
    for call in (1, 3):
        model = worn(case.model.build()).train()
        raised = failing_at(call, model)
        before = {**state_of_model(model), **random_state()}
        try:
            case.perturb(case.attack(model))
        except Trouble:
            changed = changes(before, {**state_of_model(model), **random_state()})
            require(not changed, f"changed after an exception: {', '.join(changed)}")
        else:  # a search that has nothing to find may end before
            require(
                call > 1 and not raised,
                f"an exception in call {call} of the model did not reach the caller",
            )


def check_random_state_is_left_as_found(case: AttackCase) -> None:
    """The global generators of torch, NumPy and Python are where they were, seed or no seed."""
    for seed in (0, None):
        before = random_state()
        case.perturb(seed=seed)
        changed = changes(before, random_state())
        require(not changed, f"moved, with seed={seed}: {', '.join(changed)}")


def check_inputs_are_not_modified(case: AttackCase) -> None:
    """Inputs, target and additional arguments keep values, gradient flags and memory."""
    inputs, arguments = case.model.inputs, case.model.arguments
    tensors = {f"inputs[{i}]": t.requires_grad_() for i, t in enumerate(as_tuple(inputs))}
    tensors.update(_tensors_of(arguments))
    before = state_of_tensors(tensors)
    moved = case.perturb(inputs=inputs, **arguments)
    changed = changes(before, state_of_tensors(tensors))
    require(not changed, f"modified: {', '.join(changed)}")
    memory = {t.data_ptr() for t in tensors.values()}
    require(
        not any(t.data_ptr() in memory for t in as_tuple(moved)),
        "the result shares its memory with the inputs",
    )


def check_broken_rows_stay_broken(case: AttackCase) -> None:
    """A NaN or infinite row changes no other row, comes back not finite, and has no objective.

    Broken input never scores as robust.
    """
    clean = as_tuple(case.perturb())
    for value in (float("nan"), float("inf")):
        inputs = case.model.inputs
        as_tuple(inputs)[0][1].view(-1)[0] = value
        moved = case.perturb(inputs=inputs)
        rest = [0, 2, 3, 4]
        require_close(
            tuple(t[rest] for t in as_tuple(moved)),
            tuple(t[rest] for t in clean),
            f"a row with {value} changed others",
        )
        require(
            not bool(as_tuple(moved)[0][1].isfinite().all()),
            f"a row with {value} came back finite",
        )
        if case.traits.info is not None:
            _, info = case.perturb(inputs=inputs, return_info=True)
            reported = getattr(info, case.traits.info)
            require(
                bool(reported[1].isnan()) and bool(reported[rest].isfinite().all()),
                f"with {value} in row 1 the reported objective is {reported.tolist()}",
            )


def check_same_seed_same_result(case: AttackCase) -> None:
    """With a seed, the result is the same bit for bit, whatever the global generators do."""
    results = []
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        for number in (1, 2):
            torch.default_generator.manual_seed(number)
            np.random.seed(number)  # noqa: NPY002
            random.seed(number)
            results.append(as_tuple(case.perturb(seed=5)))
    finally:
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
        random.setstate(state[2])
    require(all(map(torch.equal, *results)), "two runs with one seed differ")


def check_chunks_and_order_do_not_matter(case: AttackCase) -> None:
    """An example is attacked alike in any chunk, at any place of the batch, and alone."""
    whole = as_tuple(case.perturb())
    chunked = case.perturb(max_examples_per_batch=2)
    # At an optimum, rounding of the objective leaves its root open in the inputs.
    require_close(chunked, whole, "max_examples_per_batch=2 changed the result", 1e-6)
    for order in ([3, 1, 4, 0, 2], [2]):
        inputs, arguments = case.model.rows(order)
        moved = case.perturb(inputs=inputs, **arguments)
        expected = tuple(t[order] for t in whole)
        require_close(
            moved, expected, f"rows {order} alone, in this order, changed the result", 1e-6
        )


def check_tuple_in_tuple_out(case: AttackCase) -> None:
    """A tensor gives a tensor, a tuple a tuple; shapes and types as the inputs, no graph."""
    inputs = case.model.inputs
    given: list[Inputs] = [inputs, (inputs,) if isinstance(inputs, Tensor) else inputs]
    results = []
    for one in given:
        moved = case.perturb(inputs=one)
        require(
            isinstance(moved, tuple) == isinstance(one, tuple),
            f"given a {type(one).__name__}, returned a {type(moved).__name__}",
        )
        for x, y in zip(as_tuple(one), as_tuple(moved), strict=True):
            require(x.shape == y.shape, f"shape {tuple(x.shape)} became {tuple(y.shape)}")
            require(not y.requires_grad, "the result requires a gradient")
        results.append(moved)
    require_close(as_tuple(results[0]), as_tuple(results[1]), "a tuple of one is another result")


def check_dtypes(case: AttackCase) -> None:
    """float64, float32, bfloat16 and float16 come back as they are, finite and within the ball."""
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        inputs = case.model.inputs
        inputs = format_like(inputs, tuple(t.to(dtype) for t in as_tuple(inputs)))
        moved = case.perturb(case.attack(case.model.build().to(dtype)), inputs=inputs)
        for x, y in zip(as_tuple(inputs), as_tuple(moved), strict=True):
            require(y.dtype == dtype, f"{dtype} became {y.dtype}")
            length = float((y.double() - x.double()).abs().max())
            allowed = case.model.radius + 4 * torch.finfo(dtype).eps * float(x.abs().max() + 1)
            require(length <= allowed, f"in {dtype}, moved by {length}, radius {case.model.radius}")


def check_noncontiguous_inputs(case: AttackCase) -> None:
    """Memory layout does not matter: strided inputs give what contiguous ones give."""
    inputs = case.model.inputs
    strided = tuple(torch.stack([t, -t], dim=-1)[..., 0] for t in as_tuple(inputs))
    moved = case.perturb(inputs=format_like(inputs, strided))
    require_close(moved, case.perturb(), "strided inputs changed the result")


def check_target_in_every_form(case: AttackCase) -> None:
    """A target as an int, a tensor of one, a list or a tensor with one an example is the same."""
    ones = torch.ones_like(case.model.labels)
    forms = {"a tensor of one": ones[:1], "a list": ones.tolist(), "a tensor": ones}
    expected = case.perturb(target=1)
    for name, form in forms.items():
        require_close(case.perturb(target=form), expected, f"target as {name} is another result")


def check_errors_name_the_argument(case: AttackCase) -> None:
    """Wrong arguments raise a ValueError that names the argument."""
    n_features = sum(t[0].numel() for t in as_tuple(case.model.inputs))
    wrong: list[tuple[str, Any]] = [
        ("radius", -1.0),
        ("radius", float("nan")),
        ("norm", "L0"),
        ("max_examples_per_batch", 0),
    ]
    if case.traits.restarts:
        wrong.append(("n_restarts", 0))
    for name, value in wrong:
        message = refusal(partial(case.perturb, **{name: value}))
        require(
            message is not None and name in message,
            f"{name}={value!r} must raise a ValueError that names it, got {message}",
        )
    if case.traits.aims_at_top_k:
        for k in (0, n_features):
            message = refusal(partial(_attack_with, case, k))
            require(
                message is not None and "k" in message.split(),
                f"k={k} of {n_features} features must raise a ValueError that names it, "
                f"got {message}",
            )


def _attack_with(case: AttackCase, k: int) -> None:
    case.perturb(case.factory(Saliency(case.model.build()), k))


def _tensors_of(arguments: dict[str, Any]) -> dict[str, Tensor]:
    found = {}
    for name, value in arguments.items():
        for i, item in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(item, Tensor):
                found[f"{name}[{i}]"] = item
    return found
