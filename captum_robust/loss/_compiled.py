"""The step of a loss by ``torch.compile``, or as it is written where that is not possible."""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vjp
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_robust._utils.captum import as_tuple, run_forward
from captum_robust._utils.compile_warning import CompileWarning, first_line
from captum_robust.loss._fused import Examples, FusedForward
from captum_robust.loss._gaps import gap_weights, sorts_in_numpy
from captum_robust.loss._regularised import Loss
from captum_robust.loss._repeat import Repeat
from captum_robust.loss._score import Explain, LabelledOutputs
from captum_robust.ranking import Pairs, pair_features

__all__ = ["CompiledStep"]

#: Most combinations of modes and shapes that are compiled; torch has the same limit.
_MOST_KINDS = 8


class CompiledStep:
    """A step of a loss, compiled where that gives the same result.

    The first step for each combination of modes of the modules and shapes of the inputs is computed
    as it is written. It is observed, because a compiled step would draw random numbers (dropout) or
    write to buffers (batch normalisation) once for each of its forwards, and compared with the
    compiled step: torch's compilers have errors that no exception shows. The first step that is not
    compiled warns with the reason.
    """

    def __init__(self) -> None:
        self._compiled: Callable[..., Any] | None = None
        self._findings: dict[Any, str] = {}  # why steps of a kind are not compiled; or ""
        self._failure = ""
        self._has_warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy compile anew: compiled functions can be neither copied nor pickled."""
        return CompiledStep, ()

    def __call__(
        self,
        obstacle: str,
        step: Callable[..., Loss],
        model: Callable[..., Tensor],
        examples: Examples,
        *how: Any,
    ) -> Loss:
        """Return ``step(model, examples, *how)``.

        Args:
            obstacle (str): the option of the loss that does not allow to compile it; or "".
            step (Callable): the step; ``step(model, examples, *how, FunctionalForward)`` is
                compiled.
            model (Callable): the model.
            examples (Examples): the batch.
            how: further arguments of the step.
        """
        call = (step, model, examples, *how)
        reason = obstacle or self._failure or _obstacle(model)
        if not reason and isinstance(model, nn.Module):
            modes = tuple([module.training for module in model.modules()])
            kind = modes, *[(x.shape, x.dtype) for x in as_tuple(examples.inputs)]
            if kind not in self._findings and len(self._findings) < _MOST_KINDS:
                return self._examine(kind, step, model, examples, *how)
            reason = self._findings.get(kind, f"the inputs have more than {_MOST_KINDS} shapes")
            if not reason:
                try:
                    return self._run(*call)
                except Exception as error:
                    loss = _run(*call)  # raises what is wrong with the call itself
                    self._warn(self._failed(error))
                    return loss
        self._warn(reason)
        return _run(*call)

    def _examine(
        self,
        kind: Any,
        step: Callable[..., Loss],
        model: nn.Module,
        examples: Examples,
        *how: Any,
    ) -> Loss:
        """Compute a step as it is written, and find out whether it can be compiled."""
        call = (step, model, examples, *how)
        repeat = Repeat(model)
        loss, means = _run(*call)
        trained = [t for t in (*model.parameters(), *as_tuple(examples.inputs)) if t.requires_grad]
        reason = ""
        if repeat.has_moved():
            reason = "the model draws random numbers or writes to its buffers"
        elif not trained:
            reason = "nothing requires gradients"
        else:
            try:
                with warnings.catch_warnings():  # torch's own, of its imports and beside errors
                    warnings.simplefilter("ignore")
                    compiled, _ = self._run(*call)
                if not _equal_with_gradients(compiled, loss, trained):
                    reason = "torch.compile gives another result"
            except Exception as error:
                reason = self._failed(error)
        self._findings[kind] = reason
        if reason:
            self._warn(reason)
        return loss, means

    def _run(self, *call: Any) -> Loss:
        """Compute a compiled step."""
        hooks_disabled = torch._C._autograd._saved_tensors_hooks_get_disabled_error_message()
        try:
            if self._compiled is None:
                self._compiled = torch.compile(_copy(_run), fullgraph=True)
            result: Loss = self._compiled(*call, FunctionalForward)
            return result
        except Exception:
            if hooks_disabled is None:  # torch.func disables them, and an error leaves them so
                torch._C._autograd._saved_tensors_hooks_enable()
            raise

    def _failed(self, error: Exception) -> str:
        self._failure = first_line(error)
        return self._failure

    def _warn(self, reason: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            message = f"compile=True: not compiled, the result is the same: {reason}"
            warnings.warn(message, CompileWarning, stacklevel=2)


class _RepeatStateless(Repeat):
    """Repeat a forward of a model that has no state to put back."""

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        pass

    @contextmanager
    def again(self) -> Iterator[None]:
        """The block of the second forward."""
        yield


class FunctionalForward(FusedForward):
    """A forward that ``torch.compile`` can trace, of a model that keeps its state.

    It has no norm of the Hessian but the finite difference, and no scores of an attribution.
    """

    repeat = _RepeatStateless

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        examples: Examples,
        explain: Explain,
        order: int = 2,
    ) -> None:
        self.forward_func = forward_func
        self.examples = examples
        self.explain = explain
        self.points = as_tuple(examples.inputs)
        self._normalisation = None
        self.gradients, self.labelled = self._differentiate(self.points)
        self.outputs = self.labelled.outputs

    def gradient_at(self, moved: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the gradient at other points."""
        return self._differentiate(moved)[0]

    def _differentiate(
        self, points: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], LabelledOutputs]:
        """Return the gradient of each example's score, and the outputs; both with their graph."""

        def model(*points: Tensor) -> Tensor:
            extra = self.examples.additional_forward_args
            with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no second derivative
                return run_forward(self.forward_func, points, extra)

        outputs, pull_back = vjp(model, *points)  # type: ignore[misc]
        labelled = LabelledOutputs(outputs, self.examples.target)
        return pull_back(labelled.score_gradient(self.explain)), labelled

    @staticmethod
    def gap_weights(
        reference: Tensor, k: int, pairs: Pairs = "all", k_prime: int | None = None
    ) -> Tensor:
        """:func:`gap_weights`, which as one operation may sort in NumPy."""
        if not sorts_in_numpy(reference):
            return gap_weights(reference, k, pairs, k_prime)
        found: Tensor = torch.ops.captum_robust.gap_weights(reference, k, pairs, k_prime)
        return found

    @staticmethod
    def pair_features(
        reference: Tensor, k: int, pairs: Pairs = "all", k_prime: int | None = None
    ) -> Tensor:
        """:func:`pair_features` as one operation."""
        found: Tensor = torch.ops.captum_robust.pair_features(reference, k, pairs, k_prime)
        return found


def _obstacle(model: Callable[..., Tensor]) -> str:
    """Return what can be seen beforehand not to be compiled; or ""."""
    if not isinstance(model, nn.Module):
        return "forward_func is no nn.Module"
    for module in model.modules():
        forward = module._forward_hooks or module._forward_pre_hooks
        if forward or module._backward_hooks or module._backward_pre_hooks:
            return "the model has hooks"
    if torch._C._len_torch_function_stack() > 0:
        return "a mode of torch, such as smooth_relu, is active"
    return ""


def _run(step: Callable[..., Loss], *call: Any) -> Loss:
    return step(*call)


def _equal_with_gradients(loss: Tensor, expected: Tensor, leaves: list[Tensor]) -> bool:
    """Return whether two losses and their gradients are equal up to rounding."""
    both = []
    for value in (loss, expected):
        gradients = torch.autograd.grad(
            value.sum(), leaves, retain_graph=True, materialize_grads=True
        )
        both.append(torch.cat([value.detach().flatten(), *(g.flatten() for g in gradients)]))
    found, wanted = both
    tolerance = 10 * math.sqrt(torch.finfo(expected.dtype).eps)
    return bool((found - wanted).norm() <= tolerance * wanted.norm())


_COPIES = count()


def _copy(function: Any) -> Any:
    """A function with code of its own: torch keeps, and limits, what it compiles by the code."""
    code = function.__code__.replace(co_name=f"{function.__name__}_{next(_COPIES)}")
    return FunctionType(code, function.__globals__)


def _weights_like(reference: Tensor, k: int, pairs: str, k_prime: int | None) -> Tensor:
    return torch.empty_like(reference, dtype=torch.promote_types(reference.dtype, torch.float32))


def _features_like(reference: Tensor, k: int, pairs: str, k_prime: int | None) -> Tensor:
    n_features = reference.shape[1]
    n_found = k if pairs == "all" else min(k + (k if k_prime is None else k_prime), n_features)
    return reference.new_empty(len(reference), n_found, dtype=torch.int64)


def _contiguous(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *arguments: function(*arguments).contiguous()


# What depends on the data, as the treatment of ties does, cannot be traced.
_OPERATIONS = torch.library.Library("captum_robust", "DEF")
for _function, _like in ((gap_weights, _weights_like), (pair_features, _features_like)):
    _name = _function.__name__
    _OPERATIONS.define(f"{_name}(Tensor reference, int k, str pairs, int? k_prime) -> Tensor")
    _OPERATIONS.impl(_name, _contiguous(_function), "CompositeExplicitAutograd")
    _OPERATIONS.impl(_name, _like, "Meta")
