"""Read a sequential network into the layers that can be bounded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from captum_robust.certify.activations import ACTIVATIONS, Activation
from captum_robust.models.mlp import TabularMLP

__all__ = ["Dense", "Network", "read_network"]

_MODULES_IN_ORDER: dict[type[nn.Module], Callable[..., list[nn.Module]]] = {
    nn.Sequential: list,
    TabularMLP: lambda model: [model.hidden, model.activation, model.output],
}
_HOOKS = ("forward_pre", "forward", "backward_pre", "backward")
_ACCEPTED = (
    "nn.Sequential (nested ones too) and TabularMLP, made of Linear, "
    + ", ".join(sorted(kind.__name__ for kind in ACTIVATIONS))
    + ", Flatten, Identity and Dropout in evaluation mode; Linear comes first and last, and a "
    "Sigmoid may follow; without hooks"
)


class Dense(NamedTuple):
    """A linear layer in float64."""

    weight: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Network:
    """A linear layer, followed by linear layers and activations; the last is linear."""

    first: Dense
    rest: list[Dense | Activation]

    @property
    def layers(self) -> list[Dense | Activation]:
        """All of them, in order."""
        return [self.first, *self.rest]

    @property
    def widths(self) -> list[int]:
        """Number of features, and of the outputs of every linear layer."""
        dense = [layer for layer in self.layers if isinstance(layer, Dense)]
        return [self.first.weight.shape[1], *(len(layer.bias) for layer in dense)]


def read_network(model: nn.Module) -> Network:
    """Return the layers of ``model`` up to the last linear one, whose outputs are explained.

    Raises:
        ValueError: for a network that is not of the accepted form.
    """
    modules = [module for module in _flat(model) if not _does_nothing(module)]
    if modules and type(modules[-1]) is nn.Sigmoid:
        modules.pop()
    layers = [_layer(module) for module in modules]
    if not layers or not isinstance(layers[0], Dense) or not isinstance(layers[-1], Dense):
        raise _refused("one that does not start and end with Linear")
    return Network(layers[0], layers[1:])


def _flat(module: nn.Module) -> list[nn.Module]:
    if any(getattr(module, f"_{kind}_hooks") for kind in _HOOKS):
        raise _refused(f"{type(module).__name__} with a hook")
    if "forward" in vars(module):
        raise _refused(f"{type(module).__name__} with a forward of its own")
    container = next((kind for kind in _MODULES_IN_ORDER if isinstance(module, kind)), None)
    if container is None:
        return [module]
    if type(module).forward is not container.forward:
        raise _refused(f"{type(module).__name__} with a forward of its own")
    return [inner for part in _MODULES_IN_ORDER[container](module) for inner in _flat(part)]


def _does_nothing(module: nn.Module) -> bool:
    if type(module) is nn.Dropout:
        return not module.training or module.p == 0
    if type(module) is nn.Flatten:
        return (module.start_dim, module.end_dim) == (1, -1)
    return type(module) is nn.Identity


def _layer(module: nn.Module) -> Dense | Activation:
    if type(module) is nn.Linear:
        weight = module.weight.detach().double()
        bias = weight.new_zeros(len(weight)) if module.bias is None else module.bias.detach()
        return Dense(weight, bias.double())
    if type(module) in ACTIVATIONS:
        return ACTIVATIONS[type(module)](module)
    mode = " in training mode" if isinstance(module, nn.Dropout) else ""
    raise _refused(f"{type(module).__name__}{mode}")


def _refused(what: str) -> ValueError:
    return ValueError(
        f"model must be a network that can be bounded, got {what}; accepted: {_ACCEPTED}"
    )
