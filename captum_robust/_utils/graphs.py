"""Models of PyTorch Geometric that take one graph at a time, recognised without an import."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captum_robust._utils.state import models_of

__all__ = ["one_graph_at_a_time", "takes_one_graph"]

# The message of torch_geometric's CaptumModel where an input has more than one row.
_ASSERTION = "Dimension 0 of input should be 1"


def takes_one_graph(explainer: Any) -> bool:
    """Return whether an attribution, or its method, explains a ``to_captum_model``."""
    return any(
        type(model).__module__.startswith("torch_geometric.explain")
        for model in models_of(explainer)
    )


@contextmanager
def one_graph_at_a_time() -> Iterator[None]:
    """Explain the error of a ``to_captum_model`` that got several versions of its graph."""
    try:
        yield
    except AssertionError as error:
        if str(error) != _ASSERTION:
            raise
        raise ValueError(
            "the model of torch_geometric.nn.to_captum_model takes one version of its graph at a "
            "time: pass internal_batch_size=1 to IntegratedGradients, nt_samples_batch_size=1 to "
            "NoiseTunnel and max_examples_per_batch=1 to metrics; or explain a "
            "captum_robust.graph.ExplainedGraph, which takes any number"
        ) from error
