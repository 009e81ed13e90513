"""The number of tensor operations of a call: what small networks spend their time on."""

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["count_operations"]


class _Counter(TorchDispatchMode):
    """Counts the operations that reach a backend, those of backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def count_operations(call: Callable[[], object]) -> int:
    """Return how many tensor operations ``call`` takes.

    The same on every machine, but not in every release of torch.
    """
    with _Counter() as counter:
        call()
    return counter.count
