"""The provenance of an audit: settings, versions, fingerprints, and the call that repeats it."""

import hashlib
import platform
from typing import Any

import captum
import numpy as np
import torch
from torch import Tensor

from captum_robust._utils.captum import as_tuple
from captum_robust._version import __version__
from captum_robust.auditing.configuration import AuditConfig
from captum_robust.auditing.output import ExplainedOutput

__all__ = ["call_of", "settings_of", "versions"]


def settings_of(config: AuditConfig, output: ExplainedOutput) -> dict[str, str]:
    """Describe the arguments and the choices of an audit."""
    bounds = [_bound(config.lower_bound), _bound(config.upper_bound)]
    parameters = list(config.model.parameters())
    n_parameters = sum(p.numel() for p in parameters)
    settings = {
        "Model": f"{type(config.model).__name__}, {n_parameters:,} parameters",
        "Parameters, SHA-256": _digest([*parameters, *config.model.buffers()]),
        "Inputs": "; ".join(_shape(t) for t in as_tuple(config.inputs)),
        "Inputs, SHA-256": _digest(list(as_tuple(config.inputs))),
        "Explained": output.description,
        "Prediction": output.reading,
        "Ranked": "magnitudes" if config.absolute else "signed values",
        "Top set": f"k = {config.k}",
        "Radii": ", ".join(f"{r:g}" for r in config.radii) + ", in units of the inputs",
        "Norm of the ball": {"Linf": "L∞", "L2": "L2"}[config.norm],
        "Bounds of the inputs": "none" if bounds == ["-inf", "inf"] else " to ".join(bounds),
        "Seed": str(config.seed),
    }
    if isinstance(config.target, Tensor):
        settings["Target, SHA-256"] = _digest([config.target])
    if config.feature_mask is not None:
        settings["Groups, SHA-256"] = _digest(list(as_tuple(config.feature_mask)))
    return settings


def versions() -> dict[str, str]:
    """Return the versions of the software that computes the numbers."""
    return {
        "captum_robust": __version__,
        "captum": str(captum.__version__),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "Python": platform.python_version(),
        "System": f"{platform.system()} {platform.machine()}",
    }


def call_of(
    config: AuditConfig, names: list[str], has_target: bool, tolerance: float | Tensor | None
) -> str:
    """Return the call that repeats an audit; ``tolerance`` is that of the caller."""
    arguments: dict[str, Any] = {
        "attributions": names if len(names) > 1 else names[0], "k": config.k,
        "radius": list(config.radii), "norm": config.norm, "absolute": config.absolute,
        **config.bounds, "seed": config.seed, "tolerance": tolerance,
    }  # fmt: skip
    defaults = {
        "norm": "Linf", "absolute": True, "lower_bound": float("-inf"),
        "upper_bound": float("inf"), "seed": 0, "tolerance": None,
    }  # fmt: skip
    written = [
        f"{name}={'...' if isinstance(value, Tensor) else repr(value)}"
        for name, value in arguments.items()
        if isinstance(value, Tensor) or value != defaults.get(name, ...)
    ]
    given = ["model", "inputs", *(["target"] if has_target else []), *written]
    return f"captum_robust.audit({', '.join(given)})"


def _bound(bound: float | Tensor) -> str:
    return "a tensor" if isinstance(bound, Tensor) and bound.numel() > 1 else f"{float(bound):g}"


def _shape(tensor: Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{' × '.join(map(str, tensor.shape))}, {dtype}, on {tensor.device}"


def _digest(tensors: list[Tensor]) -> str:
    """Return the first 16 digits of the SHA-256 of the values."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
