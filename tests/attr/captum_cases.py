"""The cases of Captum's own test configuration, ready to be called.

Its layers, targets and arguments are used as they are; parameters and inputs are drawn, because
its hand-picked ones saturate (a softmax over equal logits) or sit on the kinks of max-pooling.
"""

from __future__ import annotations

import copy
from typing import Any

from captum.attr import NoiseTunnel, ShapleyValueSampling
from torch import Tensor

from tests.attr.oracles import as_tuple, drawn, normal
from tests.captum_testing import config, get_target_layer

Case = tuple[dict[str, Any], Any]  # an entry of the configuration, and one of its algorithms
CASES: dict[str, Case] = {
    f"{entry['name']}-{algorithm.__name__}": (entry, algorithm)
    for entry in config
    for algorithm in entry["algorithms"]
}


def built(case: Case) -> tuple[Any, tuple[Tensor, ...], dict[str, Any]]:
    """The attribution, its inputs as leaves, and the arguments of its ``attribute``."""
    entry, algorithm = case
    model = drawn(copy.deepcopy(entry["model"]))
    layer = [get_target_layer(model, entry["layer"])] if "layer" in entry else []
    attribution = algorithm(model, *layer)
    if entry.get("noise_tunnel"):
        attribution = NoiseTunnel(attribution)
    kwargs = {name: in_double(value) for name, value in entry["attribute_args"].items()}
    shapes = [t.shape for t in as_tuple(kwargs["inputs"])]
    leaves = tuple(normal(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes))
    kwargs["inputs"] = leaves if isinstance(kwargs["inputs"], tuple) else leaves[0]
    for count in {"n_samples", "nt_samples"} & kwargs.keys():
        kwargs[count] = 4  # hundreds, for statistics that are of no interest here
    if algorithm is ShapleyValueSampling:
        kwargs["n_samples"] = 2
    return attribution, leaves, kwargs


def in_double(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(in_double(part) for part in value)
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.detach().double() if floating else value


def flat(maps: Any) -> tuple[Tensor, ...]:
    """Maps of several layers come as a list of tuples."""
    return (maps,) if isinstance(maps, Tensor) else tuple(t for m in maps for t in flat(m))
