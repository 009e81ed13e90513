"""A function of tensors as one compiled graph, where that gives the same results."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from captum_robust._utils.compile_warning import first_line
from captum_robust._utils.exclusive import EXCLUSIVE
from captum_robust._utils.tensors import Points

__all__ = ["CannotCompile", "compile_function"]

_MOST_KEPT = 64


class CannotCompile(Exception):
    """Error of a function that cannot be compiled; the message says why."""


# Compiled graphs by their code and the tensors that they take, the one used last at the end.
_KEPT: OrderedDict[Any, Callable[..., Any]] = OrderedDict()


def compile_function(function: Callable[..., Points], points: Points) -> Callable[..., Points]:
    """Compile a function of tensors that returns tensors, without their graphs.

    The function is run once and recorded as torch's elementary operations, derivatives included.
    All other tensors that it uses, parameters for instance, become arguments of the record, so
    that functions with equal records share one compiled graph: a second attack on the same network
    compiles nothing.

    Raises:
        CannotCompile: where the operations depend on values, draw random numbers or change a
            tensor of the caller, where nothing can be compiled on this machine, and where the
            compiled results at ``points`` are not those of the function.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # imports a large part of torch

    try:
        with EXCLUSIVE, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make_fx(function)(*points)
    except Exception as error:
        raise CannotCompile(first_line(error)) from error
    constants = _lift_constants(graph)
    _check_operations(graph)
    given: list[Any] = [t.detach() for t in (*points, *constants)]
    key = (graph.code, *((t.shape, t.stride(), t.dtype, t.device) for t in given))
    if key not in _KEPT:
        _KEPT[key] = _compiled(graph, given)
    _KEPT.move_to_end(key)
    if len(_KEPT) > _MOST_KEPT:
        _KEPT.popitem(last=False)
    run, others = _KEPT[key], given[len(points) :]

    def call(*tensors: Tensor) -> Points:
        with torch.no_grad():
            return tuple(run(*(t.detach() for t in tensors), *others))

    _check_results(call(*points), function(*points))
    return call


def _check_results(compiled: Points, written: Points) -> None:
    """Raise CannotCompile unless the results agree: compilers have given wrong gradients."""
    for found, expected in zip(compiled, written, strict=True):
        if not expected.is_floating_point():
            same = torch.equal(found, expected)
        else:
            size = float(expected.nan_to_num(posinf=0, neginf=0).abs().max())
            slack = torch.finfo(expected.dtype).eps ** 0.5 * size
            same = torch.allclose(found, expected, rtol=0, atol=slack, equal_nan=True)
        if not same:
            raise CannotCompile("the compiled graph gave another result than the steps as written")


def _compiled(graph: fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
    from torch._inductor import compile as compile_graph

    try:
        with EXCLUSIVE, torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its internals
            run: Callable[..., Any] = compile_graph(graph, given)
            run(*given)
    except Exception as error:
        raise CannotCompile(first_line(error)) from error
    return run


def _lift_constants(graph: fx.GraphModule) -> list[Tensor]:
    """Make the tensors within a graph its last arguments, and return them."""
    nodes = [n for n in graph.graph.nodes if n.op == "get_attr"]
    last = next(n for n in reversed(list(graph.graph.nodes)) if n.op == "placeholder")
    lifted: dict[str, fx.Node] = {}
    for node in nodes:
        if node.target not in lifted:
            with graph.graph.inserting_after(last):
                last = lifted[node.target] = graph.graph.placeholder(f"constant_{len(lifted)}")
        node.replace_all_uses_with(lifted[node.target])
        graph.graph.erase_node(node)
    graph.recompile()
    return [getattr(graph, name) for name in lifted]


def _check_operations(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        if node.op != "call_function":
            continue
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise CannotCompile(f"{node.target} draws random numbers")
        schema = getattr(node.target, "_schema", None)
        written = schema is not None and schema.is_mutable
        if written and any(isinstance(a, fx.Node) and a.op == "placeholder" for a in node.args):
            raise CannotCompile(f"{node.target} changes a tensor of the model")
