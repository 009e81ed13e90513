"""Max-sensitivity as two other libraries compute it: Captum, and Quantus where it is installed."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from captum.metrics import sensitivity_max
from torch import Tensor

from tests.benchmark.cases import Case

__all__ = ["captum_sensitivity", "has_quantus", "quantus_sensitivity"]


def captum_sensitivity(
    case: Case, radius: float, n_draws: int, noise: Tensor | None = None
) -> Callable[[], Tensor]:
    """Stock Captum, with its own noise or the given one (B, S, …)."""
    own = {} if noise is None else {"perturb_func": lambda x: x + noise.flatten(0, 1)}

    def run() -> Tensor:
        worst: Tensor = sensitivity_max(
            case.attribute, case.inputs, perturb_radius=radius, n_perturb_samples=n_draws,
            target=case.target, **own,
        )  # fmt: skip
        return worst

    return run


def has_quantus() -> bool:
    """Return whether Quantus is installed, as by ``make benchmark-peers``."""
    return find_spec("quantus") is not None


def quantus_sensitivity(
    case: Case, radius: float, n_draws: int, noise: Tensor | None = None
) -> Callable[[], Tensor]:
    """Quantus' MaxSensitivity over Captum's Saliency, the whole batch at once."""
    import quantus

    own = {}
    if noise is not None:
        draws = iter(noise.flatten(2).unbind(dim=1))
        own = {"perturb_func": lambda arr, indices, **_: arr + next(draws).numpy()}
    metric = quantus.MaxSensitivity(
        nr_samples=n_draws, lower_bound=radius, normalise=False, disable_warnings=True, **own
    )
    inputs, labels = case.inputs.detach().numpy(), case.target.numpy()

    def run() -> Tensor:
        scores = metric(
            model=case.model, x_batch=inputs, y_batch=labels, a_batch=None,
            explain_func=quantus.explain, batch_size=len(inputs),
            explain_func_kwargs={"method": "Saliency", "xai_lib": "captum"},
        )  # fmt: skip
        return torch.tensor(scores)

    return run
