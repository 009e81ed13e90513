"""Derivatives that exist: torch's errors are named, and a missing path is not taken for zero."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import CheckpointError

from captum_robust._utils.precision import is_coarse

__all__ = [
    "NotDifferentiableError",
    "all_gradients",
    "check_first_derivative",
    "check_second_derivative",
    "differentiate",
    "parameters_behind",
    "rehearse_backward",
]

Tensors = tuple[Tensor, ...]
Compare = Literal["custom", "pathless", "smooth"]


class NotDifferentiableError(RuntimeError):
    """An attribution or a model has no correct gradient; the message names what can be used."""


_ALTERNATIVES = (
    "Without a second derivative work gradient='finite_difference', gradient='spsa' and "
    "RandomSearchAttack of attacks, and hessian_norm(method='finite_difference'). "
    "smooth_relu and replace_relu replace piecewise linear activations, and "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH) around the whole step gives attention a "
    "second derivative"
)

# Nodes of the graph behind which torch can take no further derivative.
_ENDS = ("NotImplemented", "Error", "CompiledFunctionBackward", "DifferentiableGraphBackward")
# Nodes whose derivative is zero wherever it exists.
_STEPS = ("RoundBackward", "FloorBackward", "CeilBackward", "TruncBackward", "SignBackward")
# Nodes with kinks: near one, the difference of two gradients is no second derivative.
_KINKS = (
    "Abs", "AdaptiveMaxPool", "Amax", "Amin", "Clamp", "Hardshrink", "Hardsigmoid", "Hardswish",
    "Hardtanh", "Kthvalue", "LeakyRelu", "Max", "Median", "Min", "PreluKernel", "Relu", "Rrelu",
    "Softshrink", "Sort", "Threshold", "Topk", "Where",
)  # fmt: skip


def differentiate(
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor | None] | None = None,
    **options: Any,
) -> tuple[Tensor | None, ...]:
    """Return the gradient of a weighted sum of outputs; None for inputs that it does not reach.

    Raises:
        NotDifferentiableError: for an operation without the derivative; with torch's own words,
            which name the operation.
    """
    try:
        return torch.autograd.grad(outputs, inputs, weights, allow_unused=True, **options)
    except RuntimeError as error:
        if not _is_missing_derivative(error, outputs):
            raise
        raise NotDifferentiableError(_message(error)) from error


def all_gradients(gradients: Sequence[Tensor | None]) -> Tensors:
    """Return gradients of outputs by all inputs, every one of which exists.

    Raises:
        ValueError: for an input tensor that the outputs do not depend on.
        NotDifferentiableError: if they depend on none.
    """
    found = [g for g in gradients if g is not None]
    if not found:
        raise NotDifferentiableError(
            "the output of forward_func does not depend on inputs by autograd, so that no gradient "
            "explains it: the call is within torch.inference_mode(), or a part of the model runs "
            "under torch.no_grad(), detaches its input or converts it to integers. Freeze "
            "parameters by requires_grad_(False) instead"
        )
    for number, gradient in enumerate(gradients):
        if gradient is None:
            raise ValueError(
                f"inputs[{number}] does not change the output of forward_func by autograd: leave "
                "it out, or pass it in additional_forward_args; or the model detaches it"
            )
    return tuple(found)


def check_first_derivative(outputs: Tensor, gradients: Sequence[Tensor | None]) -> Tensors:
    """Return :func:`all_gradients`, which are not zero because of steps such as rounding.

    Raises:
        ValueError: for an input tensor that the outputs do not depend on.
        NotDifferentiableError: if they depend on none, or only through steps.
    """
    found = all_gradients(gradients)
    if not any(bool(g.detach().count_nonzero()) for g in found):
        steps = [name for name in _names([outputs]) if name.startswith(_STEPS)]
        if steps:
            raise NotDifferentiableError(
                f"the gradient of forward_func by inputs is zero, because of {steps[0]}: rounding "
                "and sign have no other derivative. Explain the values before it"
            )
    return found


def check_second_derivative(
    gradient_at: Callable[[Tensors], Tensors],
    leaves: Tensors,
    gradients: Tensors,
    outputs: Tensor,
    compare: Compare = "smooth",
) -> None:
    """Compare a second derivative by autograd with a difference of gradients, where that is safe.

    Along one random direction of each example, with two lengths of the step. A missing derivative
    is found where the two differences agree with each other, and not with autograd. Half precision
    is too coarse.

    Args:
        gradient_at: gradients at other points, without random numbers of their own.
        leaves: the points.
        gradients: the gradients there, with their graph.
        outputs: the outputs of the model there.
        compare: the models that are compared, at the price of two more gradients: ``"custom"``,
            those with custom functions; ``"pathless"``, also those where autograd finds no path
            from the gradient to the inputs, as in linear models; ``"smooth"``, all but those with
            kinks, which the difference sees and the second derivative does not.

    Raises:
        NotDifferentiableError: for an operation without a second derivative, and where autograd
            and the differences disagree.
    """
    dtype = torch.promote_types(leaves[0].dtype, gradients[0].dtype)
    custom = _custom_functions([outputs])
    for function in custom:
        if _is_once_differentiable(function):
            raise NotDifferentiableError(
                f"{function.__name__} is marked with @once_differentiable, so that the model has "
                f"no second derivative. {_ALTERNATIVES}"
            )
    if (compare == "custom" and not custom) or is_coarse((*leaves, *gradients)):
        return
    generator = torch.Generator().manual_seed(0)
    weights = tuple(_signs(g, generator) for g in gradients)
    with torch.enable_grad():
        total = _inner(gradients, weights)
        summed = total.sum()
    products: tuple[Tensor | None, ...] = (None,) * len(leaves)
    if total.requires_grad:
        products = differentiate([summed], leaves, retain_graph=True)
    if not custom and any(p is not None for p in products):
        kinks = any(name.startswith(_KINKS) for name in _names([outputs]))
        if compare == "pathless" or kinks:
            return
    directions = _steps(leaves, torch.finfo(dtype).eps ** (1 / 3), generator)
    known = [0 * x if p is None else p for p, x in zip(products, leaves, strict=True)]
    start, product = total.detach(), _inner(known, directions).detach()
    ahead = [
        (_inner(gradient_at(_moved(leaves, directions, t)), weights).detach() - start) / t
        for t in (1.0, 0.5)
    ]
    whole = torch.stack([product, *ahead]).isfinite().all(dim=0)
    expected, far, near = (float(v[whole].sum()) for v in (product, *ahead))
    size = max(abs(expected), abs(far), abs(near))
    magnitudes = _inner([g.detach().abs() for g in gradients], [w.abs() for w in weights])
    noise = 100 * torch.finfo(dtype).eps * float(magnitudes[whole].sum())
    error = 4 * abs(far - near) + 0.1 * size + noise  # of a difference, which is of first order
    has_converged = abs(far - near) <= 0.05 * size
    if has_converged and abs(near - expected) > error:
        named = ", ".join(function.__name__ for function in custom)
        reason = f"check the backward of {named}" if named else "a part of the model is detached"
        raise NotDifferentiableError(
            "the gradient of forward_func by inputs changes, but has no correct derivative by "
            f"autograd: {reason}. {_ALTERNATIVES}"
        )


def rehearse_backward(loss: Tensor) -> None:
    """Differentiate a loss by all parameters, and keep its graph and their ``.grad``.

    Raises:
        NotDifferentiableError: for an operation without the derivative, which the backward pass of
            the caller would meet.
    """
    leaves = parameters_behind(loss)
    if loss.requires_grad and leaves:
        differentiate([loss.sum()], leaves, retain_graph=True)


def parameters_behind(outputs: Tensor) -> list[Tensor]:
    """Return all leaves of the graph of a tensor."""
    leaves = (getattr(node, "variable", None) for node in _nodes([outputs]))
    return [leaf for leaf in leaves if leaf is not None]


def _is_missing_derivative(error: RuntimeError, outputs: Sequence[Tensor]) -> bool:
    """Return whether torch has no such derivative; other errors are those of the model."""
    if isinstance(error, NotImplementedError | CheckpointError):
        return True
    names = _names(outputs)
    # A checkpoint that is re-entrant allows no gradient by inputs.
    return any(name.startswith((*_ENDS, "CheckpointFunctionBackward")) for name in names)


def _message(error: RuntimeError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    return f"an operation of the model has no such derivative in torch: {said} {_ALTERNATIVES}"


def _is_once_differentiable(function: Any) -> bool:
    """Return whether the backward of a custom function carries torch's mark."""
    code = getattr(function.backward, "__code__", None)
    return code is not None and code is once_differentiable(_nothing).__code__


def _nothing(ctx: Any) -> None:
    pass


def _custom_functions(outputs: Sequence[Tensor]) -> list[Any]:
    """Return the classes of the caller's own functions in the graph of some tensors."""
    found = (getattr(type(node), "_forward_cls", None) for node in _nodes(outputs))
    own = (f for f in found if f is not None and f.__module__ != "captum_robust.attr.smooth")
    return list(dict.fromkeys(own))


def _names(outputs: Sequence[Tensor]) -> list[str]:
    """Return the names of the operations in the graph of some tensors."""
    return [node.name().rsplit("::", 1)[-1] for node in _nodes(outputs)]


def _nodes(outputs: Sequence[Tensor]) -> Iterator[Any]:
    waiting: list[Any] = [t.grad_fn for t in outputs if t.grad_fn is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for after, _ in node.next_functions:
            if after is not None and after not in seen:
                seen.add(after)
                waiting.append(after)


def _signs(tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return random signs of the features, the same for all examples."""
    drawn = torch.randint(0, 2, tensor.shape[1:], generator=generator)
    return (2 * drawn - 1).to(tensor).expand_as(tensor)


def _steps(leaves: Tensors, fraction: float, generator: torch.Generator) -> Tensors:
    """Return one random step for each example, a fraction of its values in size."""
    sizes = torch.stack([_rows(x.detach()).square().mean(dim=1).sqrt() for x in leaves]).amax(0)
    sizes = fraction * sizes.where(sizes > 0, 1)
    return tuple(sizes.view(-1, *(1,) * (x.dim() - 1)).to(x) * _signs(x, generator) for x in leaves)


def _moved(leaves: Tensors, directions: Tensors, t: float) -> Tensors:
    return tuple(x.detach() + t * d for x, d in zip(leaves, directions, strict=True))


def _rows(tensor: Tensor) -> Tensor:
    rows = tensor.reshape(len(tensor), -1)
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def _inner(tensors: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Return the inner product of each example; (N,)."""
    parts = [_rows(t * w).sum(dim=1) for t, w in zip(tensors, weights, strict=True)]
    return torch.stack(parts).sum(dim=0)
