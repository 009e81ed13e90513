"""The random numbers that Captum draws for a batch, as it draws them for one example."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from captum_robust._utils.random import DrawWatch
from captum_robust.attr._caller import calling_module

__all__ = ["DrawsOfOneExample"]

_NOISE_TUNNEL = "captum.attr._core.noise_tunnel"
_BASELINES = "captum._utils.common"
_GRADIENT_SHAP = ("captum.attr._core.gradient_shap", "captum.attr._core.layer.layer_gradient_shap")
_SHAPLEY = "captum.attr._core.shapley_value"


class DrawsOfOneExample(TorchFunctionMode):
    """Context in which Captum gives every example of a batch the random numbers of a single one.

    Captum draws the noise of NoiseTunnel, and the baselines and coefficients of GradientShap, for
    the rows of a whole batch, example by example. Inside the block every example gets the numbers
    that a batch of one example gets with the same seed. The permutations of Shapley sampling are
    those of all examples anyway. Any other draws, as those of a model, are not replaced;
    :meth:`are_all` says whether there were any.

    Args:
        seed: the seed. The global generators are set to it.
        n_examples: number of examples of the batch.
    """

    def __init__(self, seed: int, n_examples: int) -> None:
        super().__init__()
        self._seed = seed
        self._n_examples = n_examples
        self._watch = DrawWatch()
        self._watch.start(seed)
        self._numpy = np.random.RandomState(seed % 2**32)
        self._generators: dict[torch.device, torch.Generator] = {}

    def are_all(self) -> bool:
        """Return whether Captum's draws have been the only ones."""
        return self._watch.is_undisturbed()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        replacement = _REPLACEMENTS.get(func)
        found = None if replacement is None else replacement(self, *args, **kwargs)
        return func(*args, **kwargs) if found is None else found

    def _normal(self, mean: Any = None, std: Any = None, *args: Any, **kwargs: Any) -> Any:
        if calling_module() != _NOISE_TUNNEL:
            return None
        generator = self._generator(std.device)
        return self._repeated(torch.normal(mean, std[: self._each(std)], generator=generator))

    def _getitem(self, baselines: Tensor, index: Any) -> Any:
        """Select baselines at random; Captum has drawn the index from NumPy's generator."""
        if not (type(index) is list and calling_module() == _BASELINES):
            return None
        self._watch.numpy.choice(len(baselines), len(index))
        own = self._numpy.choice(len(baselines), self._each(index))
        return baselines[np.tile(own, self._n_examples)]

    def _tensor(self, data: Any, **kwargs: Any) -> Any:
        """Make a tensor of coefficients; Captum has drawn them from NumPy's generator."""
        if not (isinstance(data, np.ndarray) and calling_module() in _GRADIENT_SHAP):
            return None
        self._watch.numpy.uniform(0.0, 1.0, len(data))
        own = self._numpy.uniform(0.0, 1.0, self._each(data))
        return torch.tensor(np.tile(own, self._n_examples), **kwargs)

    def _randperm(self, n: int, **kwargs: Any) -> Any:
        if calling_module() != _SHAPLEY:
            return None
        return torch.randperm(n, generator=self._generator(torch.device("cpu")), **kwargs)

    def _each(self, rows: Any) -> int:
        """Return the number of rows per example."""
        return len(rows) // self._n_examples

    def _repeated(self, rows: Tensor) -> Tensor:
        return rows.repeat(self._n_examples, *(1,) * (rows.dim() - 1))

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    torch.normal: DrawsOfOneExample._normal,
    torch.tensor: DrawsOfOneExample._tensor,
    torch.randperm: DrawsOfOneExample._randperm,
    Tensor.__getitem__: DrawsOfOneExample._getitem,
}
