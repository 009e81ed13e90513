"""What an audit was: settings, versions, fingerprints, and why to doubt it as a whole."""

import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import captum
import numpy as np
import torch
from torch import Tensor

import captum_robust
from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust.auditing.configuration import Output, spreads_of
from captum_robust.auditing.measure import Question

__all__ = ["call_of", "doubts_of", "names_of_features", "settings_of", "versions"]

#: Standard deviations of features that differ by more are in different units.
_SAME_UNITS = 100.0


def names_of_features(
    given: Sequence[str] | None,
    n_features: int,
    inputs: tuple[Tensor, ...],
    feature_mask: Inputs | None,
) -> tuple[str, ...]:
    """Those of the caller, or the numbers of columns and groups, or the indices of entries."""
    if given is not None:
        if len(given) != n_features:
            raise ValueError(
                f"feature_names must hold {n_features} names, one a feature, got {len(given)}"
            )
        return tuple(map(str, given))
    shapes = [t.shape[1:] for t in inputs]
    if feature_mask is not None:
        return tuple(f"group {i}" for i in range(n_features))
    if len(shapes) > 1 or len(shapes[0]) < 2 or shapes[0].numel() != n_features:
        return tuple(f"feature {i}" for i in range(n_features))
    places = np.ndindex(*shapes[0])
    return tuple(f"[{', '.join(map(str, place))}]" for place in places)


def doubts_of(inputs: Inputs, output: Output, predicted: Tensor) -> dict[str, str]:
    """Reasons to doubt the audit, whatever the attacks find; by their titles."""
    doubts = {}
    if output.guessed:
        doubts["Outputs were read as probabilities"] = (
            "All outputs lie between 0 and 1, so the predicted class is 1 where the output exceeds "
            "0.5. If they are logits, pass decision_func: the prediction that attacks must keep "
            "would be another."
        )
    if len(predicted) > 1 and bool((predicted == predicted[0]).all()):
        doubts["All rows are predicted alike"] = (
            "Every row has the same predicted class. Either the rows are of one class, or the "
            "prediction is not read as the model means it."
        )
    spreads = spreads_of(inputs)
    if len(spreads) > 1 and float(spreads.max() / spreads.min()) > _SAME_UNITS:
        doubts["Features have different units"] = (
            f"Standard deviations of the features reach from {float(spreads.min()):.2g} to "
            f"{float(spreads.max()):.2g}. A ball of one radius moves some of them far and others "
            "hardly: scale the inputs first."
        )
    return doubts


def settings_of(question: Question, output: Output) -> dict[str, str]:
    """What was asked and chosen, in words."""
    q = question
    bounds = [_bound(q.lower_bound), _bound(q.upper_bound)]
    parameters = list(q.model.parameters())
    settings = {
        "Model": f"{type(q.model).__name__}, {sum(p.numel() for p in parameters):,} parameters",
        "Parameters, SHA-256": _digest([*parameters, *q.model.buffers()]),
        "Inputs": "; ".join(_shape(t) for t in as_tuple(q.inputs)),
        "Inputs, SHA-256": _digest(list(as_tuple(q.inputs))),
        "Explained": output.said,
        "Prediction": output.reading,
        "Ranked": "magnitudes" if q.absolute else "signed values",
        "Top set": f"k = {q.k}",
        "Radii": ", ".join(f"{r:g}" for r in q.radii) + ", in units of the inputs",
        "Norm of the ball": {"Linf": "L∞", "L2": "L2"}[q.norm],
        "Bounds of the inputs": "none" if bounds == ["-inf", "inf"] else " to ".join(bounds),
        "Seed": str(q.seed),
    }
    if isinstance(q.target, Tensor):
        settings["Target, SHA-256"] = _digest([q.target])
    if q.feature_mask is not None:
        settings["Groups, SHA-256"] = _digest(list(as_tuple(q.feature_mask)))
    return settings


def versions() -> dict[str, str]:
    """Of what computes the numbers."""
    return {
        "captum_robust": captum_robust.__version__,
        "captum": str(captum.__version__),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.machine()}",
    }


def call_of(question: Question, names: list[str], has_target: bool) -> str:
    """The call that makes the same audit."""
    q = question
    arguments: dict[str, Any] = {
        "attributions": names if len(names) > 1 else names[0], "k": q.k, "radius": list(q.radii),
        "norm": q.norm, "absolute": q.absolute, "lower_bound": q.lower_bound,
        "upper_bound": q.upper_bound, "seed": q.seed,
    }  # fmt: skip
    defaults = {
        "norm": "Linf", "absolute": True, "lower_bound": float("-inf"),
        "upper_bound": float("inf"), "seed": 0,
    }  # fmt: skip
    said = [
        f"{name}={'...' if isinstance(value, Tensor) else repr(value)}"
        for name, value in arguments.items()
        if isinstance(value, Tensor) or value != defaults.get(name, ...)
    ]
    given = ["model", "inputs", *(["target"] if has_target else []), *said]
    return f"captum_robust.audit({', '.join(given)})"


def _bound(bound: float | Tensor) -> str:
    return "a tensor" if isinstance(bound, Tensor) and bound.numel() > 1 else f"{float(bound):g}"


def _shape(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{' × '.join(map(str, tensor.shape))}, {dtype}, on {tensor.device}"


def _digest(tensors: list[Tensor]) -> str:
    """The first 16 digits of the SHA-256 of the values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
