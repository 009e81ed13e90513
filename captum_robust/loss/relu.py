"""SP: a model with its ReLUs replaced by softplus."""

import inspect
from types import CodeType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_robust.loss._checks import check_positive

__all__ = ["replace_relu"]

_REPLACED = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.RReLU)
# Piecewise linear or quadratic as well, but with a second kink that no softplus has.
_REFUSED = (nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Hardshrink, nn.Threshold)
_FUNCTIONS = ("relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "rrelu_", "relu6")


class replace_relu:
    r"""Replace every ReLU of a model by :math:`\frac{1}{\beta} \log(1 + e^{\beta x})`.

    The baseline SP of arXiv 2212.14106, section 5, after Dombrowski et al. 2019 (arXiv 1906.07983):
    a network with a second derivative, which any loss can train. A smaller :math:`\beta` gives a
    smaller curvature. To smooth only a gradient, without changing the model, use
    :class:`~captum_robust.attr.smooth_relu`.

    The modules ``nn.ReLU``, ``nn.LeakyReLU``, ``nn.PReLU`` and ``nn.RReLU`` are replaced in the
    model itself. Their slopes below zero are lost, as in the paper. A module that is used in
    several places is replaced by one module, and an in-place module by an in-place module.
    Parameters, buffers and modes do not change, except that the parameters of PReLUs are removed.

    Activations that cannot be replaced are refused, and the model is left as it is: ``nn.ReLU6``,
    ``nn.Hardtanh`` and similar modules, which have a second kink; ``nn.RNN(nonlinearity="relu")``;
    and functions (``F.relu``, ``torch.relu``, ``x.relu()``) that the class of a module calls or
    that an attribute holds. Functions in TorchScript, and in functions that a forward pass calls,
    are not found: use modules instead.

    The result undoes the replacement by its method ``restore()`` or at the end of a ``with`` block.

    Args:
        model (nn.Module): the model, which is changed in place.
        beta (float): sharpness :math:`\beta > 0`.

    Attributes:
        names (tuple[str, ...]): names of the replaced modules, in the order of
            ``model.named_modules(remove_duplicate=False)``.

    Raises:
        ValueError: for a beta that is not positive and finite, and for a model without an
            activation to replace or with one that cannot be replaced.

    Examples::

        >>> model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> replaced = replace_relu(model, beta=5.0)
        >>> replaced.names, model[1]
        (('1',), _Softplus(beta=5.0, threshold=40))
        >>> replaced.restore()
        >>> model[1]
        ReLU()
    """

    def __init__(self, model: nn.Module, beta: float) -> None:
        check_positive(beta=beta)
        refused = [
            f"{name or 'the model itself'} ({reason})"
            for name, module in model.named_modules()
            if (reason := _cannot_replace(module))
        ]
        if isinstance(model, _REPLACED):
            refused.append("the model itself (it is a ReLU)")
        if refused:
            raise ValueError(
                f"model has activations that replace_relu cannot replace: {', '.join(refused)}"
            )
        # Collected before the first change, which a walk over the model would meet.
        places = [
            (parent, attribute, child)
            for parent in model.modules()
            for attribute, child in parent._modules.items()
            if isinstance(child, _REPLACED)
        ]
        if not places:
            kinds = ", ".join(f"nn.{kind.__name__}" for kind in _REPLACED)
            raise ValueError(f"model must have one of {kinds}, got none")
        self.names = tuple(
            name
            for name, module in model.named_modules(remove_duplicate=False)
            if isinstance(module, _REPLACED)
        )
        self._places = places
        twins: dict[nn.Module, nn.Module] = {}
        for parent, attribute, child in places:
            if child not in twins:
                twins[child] = _Softplus(beta, getattr(child, "inplace", False))
                twins[child].train(child.training)
            parent._modules[attribute] = twins[child]

    def restore(self) -> None:
        """Put the replaced modules back."""
        for parent, attribute, child in self._places:
            parent._modules[attribute] = child

    def __enter__(self) -> "replace_relu":
        """Return the replacement, which has taken place."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Undo the replacement, also after an exception."""
        self.restore()


class _Softplus(nn.Softplus):
    """A softplus with an in-place option."""

    def __init__(self, beta: float, inplace: bool) -> None:
        # Linear only where float64 has no difference; at torch's default of 20 there is a step.
        super().__init__(beta, threshold=40)
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        if not self.inplace:
            return super().forward(input)
        return input.copy_(super().forward(input.clone()))


def _cannot_replace(module: nn.Module) -> str:
    """Return why a module, without its submodules, cannot be smoothed by replacement; or ''."""
    if isinstance(module, _REFUSED):
        return f"nn.{type(module).__name__}"
    if isinstance(module, nn.RNNBase):
        return "nonlinearity='relu'" if module.mode == "RNN_RELU" else ""
    # A name in the code belongs to a function unless the module has a member of that name.
    called = _names_in_code(type(module)) - set(dir(module))
    kept = [value for value in vars(module).values() if callable(value)]
    for name in _FUNCTIONS:
        functions = (getattr(F, name), getattr(torch, name, None))
        if name in called or any(value in functions for value in kept):
            return f"the function {name}"
    return ""


def _names_in_code(kind: type) -> set[str]:
    """Return the names in the code of the methods of a class, except those of torch's classes."""
    members: dict[str, Any] = {}  # the last of a name, which overrides the others
    for owner in reversed(kind.__mro__):
        if not owner.__module__.startswith("torch.nn.modules."):
            members.update(vars(owner))
    functions = (getattr(member, "__func__", member) for member in members.values())
    methods = [inspect.unwrap(function) for function in functions if callable(function)]
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    names: set[str] = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [c for c in code.co_consts if isinstance(c, CodeType)]  # comprehensions, lambdas
    return names
