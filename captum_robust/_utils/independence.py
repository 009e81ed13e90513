"""A question to the model: does an output belong to its own row of inputs and arguments?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import run_forward
from captum_robust._utils.random import reseed, seeded
from captum_robust._utils.state import in_training_mode, left_as_found

__all__ = ["check_rows_are_examples"]

_N_ASKED = 16

_GRAPHS = (
    "the nodes of a graph are no examples, because they depend on each other: explain a "
    "captum_robust.graph.ExplainedGraph or, for a batch of graphs, a "
    "captum_robust.graph.PaddedGraphs"
)
_SHARED = (
    "a tensor whose first dimension is the number of examples is split with them: bind one that "
    "all examples share, such as class weights, to the model"
)


def check_rows_are_examples(
    forward_func: Callable[..., Any], inputs: tuple[Tensor, ...], additional_forward_args: Any
) -> None:
    """Raise ValueError if outputs change where a batch and its arguments are split into rows.

    The model is evaluated on a few examples and on two of them. It is asked only where additional
    arguments could be misread: tensors with as many rows as there are examples, and the edges of a
    graph. A model whose output depends on chance is not judged, nor is one in training mode, whose
    batch normalisation depends on the other examples.

    Args:
        forward_func: the model.
        inputs: the examples.
        additional_forward_args: further arguments of the model, as in Captum.
    """
    n_examples = len(inputs[0])
    extra = additional_forward_args
    tensors = [t for t in (extra if isinstance(extra, tuple) else (extra,)) if torch.is_tensor(t)]
    has_edges = any(_could_be_edges(t) for t in tensors)
    if n_examples < 2 or not (has_edges or any(t.shape[:1] == (n_examples,) for t in tensors)):
        return
    if in_training_mode(forward_func):
        return
    advice = _GRAPHS if has_edges else _SHARED
    some = torch.arange(min(n_examples, _N_ASKED))
    two = some[[-1, 0]]

    def outputs_of(rows: Tensor, seed: int = 0) -> Any:
        own = kwargs_of_examples({"extra": extra}, rows, n_examples)["extra"]
        reseed(seed)
        return run_forward(forward_func, tuple(t.detach()[rows] for t in inputs), own)

    with left_as_found(forward_func), seeded(0), torch.no_grad():
        try:
            whole, part = outputs_of(some), outputs_of(two)
            again = outputs_of(some, seed=1)
        except (IndexError, RuntimeError) as error:
            raise ValueError(
                f"forward_func failed on some rows of inputs and additional_forward_args; {advice}"
            ) from error
    if not (isinstance(whole, Tensor) and isinstance(part, Tensor)):
        return
    if len(whole) != len(some) or len(part) != 2:
        raise ValueError(
            "inputs must have one example per output of forward_func along dimension 0, got "
            f"{len(some)} rows for {len(whole)} outputs; {_GRAPHS}"
        )
    if torch.equal(whole, again) and not _close(whole[[-1, 0]], part):
        raise ValueError(
            "forward_func gives an example another output beside fewer examples, with the rows of "
            f"additional_forward_args that belong to it; {advice}"
        )


def _could_be_edges(tensor: Tensor) -> bool:
    """Return whether a tensor looks like the ``edge_index`` of PyTorch Geometric."""
    return tensor.dtype == torch.long and tensor.dim() == 2 and len(tensor) == 2


def _close(first: Tensor, second: Tensor) -> bool:
    if not first.is_floating_point():
        return torch.equal(first, second)
    tolerance = torch.finfo(first.dtype).eps ** 0.5
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True)
