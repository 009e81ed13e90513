"""The rules of a training loss."""

from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple, format_like, run_forward
from captum_robust._utils.random import cuda_devices
from captum_robust.testing.fault_injection import Trouble, failing_at, refusal, worn
from captum_robust.testing.loss_case import LossCase
from captum_robust.testing.models import normal
from captum_robust.testing.report import require, require_close
from captum_robust.testing.snapshot import (
    changes,
    random_state,
    state_of_model,
    state_of_tensors,
)

__all__ = [
    "check_broken_rows_are_not_hidden",
    "check_dtypes",
    "check_errors_name_the_argument",
    "check_gradient_is_that_of_the_value",
    "check_gradient_reaches_every_parameter",
    "check_has_no_parameters",
    "check_inputs_are_not_modified",
    "check_model_is_left_as_found",
    "check_model_is_left_as_found_after_an_exception",
    "check_noncontiguous_inputs",
    "check_order_does_not_matter",
    "check_returns_a_finite_scalar",
    "check_same_result_again",
    "check_statistics_see_a_batch_once",
    "check_steps_lower_the_loss",
    "check_works_without_a_graph",
]


def check_returns_a_finite_scalar(case: LossCase) -> None:
    """The loss of a batch is one finite number with a graph, in the type of the outputs."""
    loss = case.value()
    require(loss.shape == (), f"returned shape {tuple(loss.shape)}")
    require(loss.isfinite(), f"returned {loss.tolist()}")
    require(loss.requires_grad, "returned a loss without a graph")
    require(loss.dtype == torch.float64, f"returned {loss.dtype} for a model in float64")


def check_has_no_parameters(case: LossCase) -> None:
    """The loss has no parameters of its own and does not register those of the model."""
    criterion = case.factory(case.model.build())
    names = [name for name, _ in criterion.named_parameters()]
    names += [name for name, _ in criterion.named_buffers()]
    require(not names, f"registers {', '.join(names)}")


def check_gradient_reaches_every_parameter(case: LossCase) -> None:
    """Backward gives every parameter of the model that asks for one a finite gradient, none else.

    A frozen parameter gets none.
    """
    model = case.model.build()
    case.value(model).backward()
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        if not parameter.requires_grad:
            require(grad is None, f"the frozen parameter {name} has a gradient")
            continue
        require(grad is not None, f"{name} has no gradient")
        require(grad is not None and grad.isfinite().all(), f"the gradient of {name} is not finite")


def check_gradient_is_that_of_the_value(case: LossCase) -> None:
    """The gradient agrees with central differences of the loss along random directions.

    In evaluation mode, and in training mode with the same dropout masks.
    """
    for training in (False, True):
        with torch.random.fork_rng(devices=cuda_devices()):
            _compare_with_differences(case, training)


def _compare_with_differences(case: LossCase, training: bool) -> None:
    model = case.model.build().train(training)
    torch.manual_seed(0)
    gradients = case.gradients(model)
    parameters = dict(model.named_parameters())
    mode = "training" if training else "evaluation"
    for seed in range(2):
        directions = {
            n: normal(*parameters[n].shape, seed=200 + 10 * seed + i).to(parameters[n])
            for i, n in enumerate(gradients)
        }
        slope = sum(float((g * directions[n]).sum()) for n, g in gradients.items() if g is not None)
        ends = []
        for step in (1e-6, -1e-6):
            moved = case.model.build().train(training)
            with torch.no_grad():
                for n, p in moved.named_parameters():
                    if n in directions:
                        p.add_(directions[n], alpha=step)
            torch.manual_seed(0)
            ends.append(float(case.value(moved).detach()))
        expected = (ends[0] - ends[1]) / 2e-6
        require(
            abs(slope - expected) <= 1e-4 * max(1.0, abs(expected)),
            f"in {mode} mode, along a direction, the gradient is {slope:.8g} and the value changes "
            f"by {expected:.8g}",
        )


def check_steps_lower_the_loss(case: LossCase) -> None:
    """20 steps of plain gradient descent lower the loss of the batch."""
    model = case.model.build()
    start = float(case.value(model).detach())
    for _ in range(20):
        gradients = case.gradients(model)
        size = sum(float(g.square().sum()) for g in gradients.values() if g is not None) ** 0.5
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                g = gradients.get(name)
                if g is not None:
                    parameter.sub_(g, alpha=0.01 / max(size, 1e-12))
    end = float(case.value(model).detach())
    require(end < start, f"rose from {start:.6g} to {end:.6g}")


def check_same_result_again(case: LossCase) -> None:
    """In evaluation mode, two calls agree bit for bit and draw from no global generator."""
    before = random_state()
    first, second = case.value(), case.value()
    require(torch.equal(first, second), f"two calls: {first.tolist()}, {second.tolist()}")
    changed = changes(before, random_state())
    require(not changed, f"moved: {', '.join(changed)}")


def check_order_does_not_matter(case: LossCase) -> None:
    """The order of the examples in a batch changes neither the loss nor its gradient."""
    order = [3, 1, 4, 0, 2]
    inputs, arguments = case.model.rows(order)
    given: dict[str, Any] = {
        "inputs": inputs,
        "target": case.target(case.model.labels[order]),
        "arguments": arguments,
    }
    model = case.model.build()
    require_close(case.value(model, **given), case.value(model), "another order, another loss")
    for name, gradient in case.gradients(model, **given).items():
        expected = case.gradients(model)[name]
        if gradient is not None and expected is not None:
            require_close(gradient, expected, f"another order, another gradient of {name}", 1e-7)


def check_model_is_left_as_found(case: LossCase) -> None:
    """The forward pass changes no mode, hook, parameter, requires_grad, .grad, nor any buffer.

    In training mode buffers move as they do in any forward.
    """
    for training in (False, True):
        model = worn(case.model.build()).train(training)
        before = state_of_model(model)
        case.value(model)
        changed = changes(before, state_of_model(model))
        if training:
            changed = [name for name in changed if not name.startswith("buffer")]
        mode = "training" if training else "evaluation"
        require(not changed, f"changed in {mode} mode: {', '.join(changed)}")


def check_model_is_left_as_found_after_an_exception(case: LossCase) -> None:
    """An exception inside the model reaches the caller, and leaves the model alone."""
    model = worn(case.model.build())
    failing_at(1, model)
    before = state_of_model(model)
    try:
        case.value(model)
    except Trouble:
        changed = changes(before, state_of_model(model))
        require(not changed, f"changed after an exception: {', '.join(changed)}")
    else:
        require(False, "an exception of the model did not reach the caller")


def check_statistics_see_a_batch_once(case: LossCase) -> None:
    """In training mode, running statistics move as one plain forward moves them.

    They count one batch; where it is not perturbed, they take in no more than that batch.
    """
    model, plain = case.model.build().train(), case.model.build().train()
    case.value(model)
    with torch.no_grad():
        run_forward(plain, as_tuple(case.model.inputs), case.model.draw_arguments() or None)
    expected = dict(plain.named_buffers())
    for name, buffer in model.named_buffers():
        if case.traits.perturbs_inputs and buffer.is_floating_point():
            continue
        require(
            torch.allclose(buffer, expected[name]),
            f"{name} is {buffer.flatten()[:3].tolist()}, after one forward it is "
            f"{expected[name].flatten()[:3].tolist()}",
        )


def check_inputs_are_not_modified(case: LossCase) -> None:
    """Inputs and target keep values and gradient flags, through the backward pass too."""
    inputs, target = case.model.inputs, case.target(case.model.labels)
    tensors = {f"inputs[{i}]": t for i, t in enumerate(as_tuple(inputs))} | {"target": target}
    before = state_of_tensors(tensors)
    case.value(inputs=inputs, target=target).backward()
    changed = changes(before, state_of_tensors(tensors))
    require(not changed, f"modified: {', '.join(changed)}")


def check_broken_rows_are_not_hidden(case: LossCase) -> None:
    """A NaN in the inputs makes the loss NaN: a broken batch never counts as a good one."""
    inputs = case.model.inputs
    as_tuple(inputs)[0][1].view(-1)[0] = float("nan")
    loss = case.value(inputs=inputs)
    require(loss.isnan(), f"a row with NaN gives a loss of {loss.tolist()}")


def check_works_without_a_graph(case: LossCase) -> None:
    """Under ``torch.no_grad()``, as in validation, the value is the same."""
    expected = case.value().detach()
    with torch.no_grad():
        require_close(case.value(), expected, "another value under torch.no_grad()")


def check_noncontiguous_inputs(case: LossCase) -> None:
    """Memory layout does not matter: strided inputs give what contiguous ones give."""
    inputs = case.model.inputs
    strided = tuple(torch.stack([t, -t], dim=-1)[..., 0] for t in as_tuple(inputs))
    require_close(
        case.value(inputs=format_like(inputs, strided)),
        case.value(),
        "strided inputs have another loss",
    )


def check_dtypes(case: LossCase) -> None:
    """float32 agrees with float64; bfloat16 gives a finite loss and finite gradients."""
    expected = float(case.value().detach())
    for dtype in [torch.float32] + [torch.bfloat16] * case.traits.half_precision:
        inputs = format_like(
            case.model.inputs, tuple(t.to(dtype) for t in as_tuple(case.model.inputs))
        )
        target = case.target(case.model.labels)
        target = target.to(dtype) if target.is_floating_point() else target
        model = case.model.build().to(dtype)
        loss = case.value(model, inputs=inputs, target=target)
        loss.backward()
        loss = loss.detach()
        require(loss.isfinite(), f"in {dtype}: {float(loss)}")
        grads: list[Tensor] = [p.grad for p in model.parameters() if p.grad is not None]
        require(all(bool(g.isfinite().all()) for g in grads), f"in {dtype}: infinite gradients")
        if dtype == torch.float32:
            near = abs(float(loss) - expected) <= 1e-2 * max(1.0, abs(expected))
            require(near, f"in float32 {float(loss):.6g}, in float64 {expected:.6g}")


def check_errors_name_the_argument(case: LossCase) -> None:
    """Labels of another number of examples, or inputs in a list, raise a ValueError naming them."""
    target = case.target(case.model.labels)[:-1]
    message = refusal(lambda: case.value(target=target))
    require(
        message is not None and "target" in message.lower().split(),
        f"4 labels for 5 examples must raise a ValueError that names target, got {message}",
    )
    message = refusal(lambda: case.value(inputs=[case.model.inputs]))  # type: ignore[arg-type]
    require(
        message is not None and "inputs" in message.split(),
        f"a list of inputs must raise a ValueError that names inputs, got {message}",
    )
