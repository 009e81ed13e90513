"""Small models with examples, for all checks."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_robust._utils.captum import Inputs

__all__ = ["N_EXAMPLES", "SmallModel", "small_models"]

#: Number of examples of every small model; no other dimension has this size.
N_EXAMPLES = 5


@dataclass(frozen=True)
class SmallModel:
    """A model in float64 with examples, explained outputs and labels.

    All values are drawn from fixed seeds without a change of the global random state, and every
    access creates new tensors, so that checks are independent.

    Attributes:
        name (str): name in reports.
        build (Callable): returns the model in evaluation mode.
        draw (Callable): returns the examples, a tensor or a tuple, along dimension 0.
        n_outputs (int): number of classes; 1 for a single logit.
        draw_arguments (Callable): returns the further arguments of the model; tensors among them
            have one row per example.
        radius (float): a radius at which the ranking of some examples changes.
        k (int): size of the top set.
        hides_gradients (bool): the second derivative is zero almost everywhere.
        constant_map (bool): the saliency is constant, so that no attack can change it.
        quadratic (bool): a quadratic function whose gradient is positive within the radius.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[], Inputs]
    n_outputs: int = 3
    draw_arguments: Callable[[], tuple[Any, ...]] = tuple
    radius: float = 0.5
    k: int = 2
    hides_gradients: bool = False
    constant_map: bool = False
    quadratic: bool = False

    @property
    def inputs(self) -> Inputs:
        """The examples."""
        return self.draw()

    @property
    def target(self) -> Tensor | None:
        """The explained output of every example, (N,); None for a single logit."""
        return None if self.n_outputs == 1 else torch.arange(N_EXAMPLES) % self.n_outputs

    @property
    def labels(self) -> Tensor:
        """The labels for training, (N,)."""
        return (torch.arange(N_EXAMPLES) + 1) % max(2, self.n_outputs)

    @property
    def arguments(self) -> dict[str, Any]:
        """Target and additional arguments by name, if there are any."""
        given: dict[str, Any] = {"target": self.target}
        given["additional_forward_args"] = self.draw_arguments() or None
        return {name: value for name, value in given.items() if value is not None}

    def rows(self, order: list[int]) -> tuple[Inputs, dict[str, Any]]:
        """Return inputs and arguments of some examples in the given order."""
        index = torch.tensor(order)
        inputs = self.inputs
        chosen = inputs[index] if isinstance(inputs, Tensor) else tuple(t[index] for t in inputs)
        arguments = {
            name: tuple(v[index] if isinstance(v, Tensor) else v for v in value)
            if isinstance(value, tuple)
            else value[index]
            for name, value in self.arguments.items()
        }
        return chosen, arguments

    def __str__(self) -> str:
        return self.name


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Return standard normal numbers in float64 that are the same on all machines."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _build_fixed(make: Callable[[], nn.Module], gain: float = 1.5) -> Callable[[], nn.Module]:
    """Return ``make`` with parameters from fixed seeds."""

    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # the layers draw parameters of their own
            model = make().double().eval()
        for seed, parameter in enumerate(model.parameters()):
            # Small biases, so that predictions change within a few radii.
            scale = gain / math.sqrt(parameter[0].numel()) if parameter.dim() > 1 else 0.2
            parameter.data = scale * normal(*parameter.shape, seed=100 + seed)
        return model

    return build


def _mlp(activation: type[nn.Module], n_outputs: int = 3) -> Callable[[], nn.Module]:
    return _build_fixed(
        lambda: nn.Sequential(
            nn.Linear(6, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, n_outputs)
        )
    )


class _Convolutional(nn.Sequential):
    """(N, 1, 6, 6) -> (N, 3), with max-pooling."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 3, 3), nn.Softplus(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
        )


class _TwoInputs(nn.Module):
    """(N, 3) and (N, 1, 2) -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        hidden = F.softplus(self.left(left)) * torch.tanh(self.right(right.flatten(1)))
        outputs: Tensor = self.out(hidden)
        return outputs


class _Shifted(nn.Module):
    """(N, 6), a shift per example and a factor for all -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, shift: Tensor, factor: float) -> Tensor:
        hidden = F.softplus(factor * self.hidden(x + shift.to(x)[:, None]))
        outputs: Tensor = self.out(hidden)
        return outputs


class _SingleLogit(nn.Module):
    """(N, 6) -> (N,)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(torch.tanh(self.hidden(x)))
        return logits.squeeze(1)


class _Normalised(nn.Module):
    """(N, 2, 3, 3) -> (N, 3), with running statistics, dropout and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.Dropout(0.3)
        self.out = nn.Linear(12, 3)
        self.out.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.softplus(self.norm(self.conv(x))).flatten(1)
        outputs: Tensor = self.out(self.drop(hidden))
        return outputs


class _Quadratic(nn.Module):
    """(N, 4) -> (N,): x'Ax/2 + b'x + c, with a positive gradient and label near the examples."""

    def __init__(self) -> None:
        super().__init__()
        root = normal(4, 4, seed=7)
        self.curvature = nn.Parameter(root + root.T)
        self.slope = nn.Parameter(torch.zeros(4, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        slope = 20 + torch.arange(4, device=x.device) + self.slope
        bent: Tensor = ((x @ self.curvature) * x).sum(dim=1) / 2
        return bent + x @ slope.to(x) + 1000


def small_models() -> tuple[SmallModel, ...]:
    """Return the registry of models: each has a property on which rules may depend.

    >>> [model.name for model in small_models()]  # doctest: +NORMALIZE_WHITESPACE
    ['mlp_softplus', 'mlp_tanh', 'mlp_relu', 'max_pool', 'two_inputs', 'forward_args',
     'single_logit', 'norm_and_dropout', 'linear', 'quadratic']
    """

    def table() -> Tensor:
        return normal(N_EXAMPLES, 6)

    return (
        SmallModel("mlp_softplus", _mlp(nn.Softplus), table),
        SmallModel("mlp_tanh", _mlp(nn.Tanh), table),
        SmallModel("mlp_relu", _mlp(nn.ReLU), table, hides_gradients=True),
        SmallModel("max_pool", _build_fixed(_Convolutional), lambda: normal(N_EXAMPLES, 1, 6, 6)),
        SmallModel(
            "two_inputs",
            _build_fixed(_TwoInputs),
            lambda: (normal(N_EXAMPLES, 3), normal(N_EXAMPLES, 1, 2, seed=1)),
        ),
        SmallModel(
            "forward_args",
            _build_fixed(_Shifted),
            table,
            draw_arguments=lambda: (normal(N_EXAMPLES, seed=2), 0.8),
        ),
        SmallModel("single_logit", _build_fixed(_SingleLogit), table, n_outputs=1),
        SmallModel(
            "norm_and_dropout",
            _build_fixed(_Normalised),
            lambda: normal(N_EXAMPLES, 2, 3, 3),
        ),
        SmallModel("linear", _build_fixed(lambda: nn.Linear(6, 3)), table, constant_map=True),
        SmallModel(
            "quadratic",
            lambda: _Quadratic().eval(),
            lambda: 0.3 * normal(N_EXAMPLES, 4),
            n_outputs=1,
            radius=1.0,
            quadratic=True,
        ),
    )
