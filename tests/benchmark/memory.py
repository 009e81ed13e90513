"""Peak memory of a call, as Linux counts it, or torch on a GPU."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

from tests.benchmark.device import device, on_gpu
from tests.benchmark.row import Spread

__all__ = ["peak_bytes", "peak_ratio"]

_PROCESS = Path("/proc/self")
_PAGE = 4096
_BLOCK = 512  # the least that torch takes on a GPU


def peak_bytes(call: Callable[[], object]) -> int | None:
    """Bytes that are held at most while ``call`` runs, above what was held before.

    By the process, or by tensors on the GPU. None where /proc is missing. The first call, which
    loads and caches, does not count.
    """
    call()
    gc.collect()
    return _peak_of_gpu(call) if on_gpu() else _peak_of_process(call)


def peak_ratio(above: Callable[[], object], below: Callable[[], object]) -> Spread | None:
    """Peak memory of ``above`` divided by that of ``below``."""
    high, low = peak_bytes(above), peak_bytes(below)
    return None if high is None or low is None else Spread.of([high / low])


def _peak_of_gpu(call: Callable[[], object]) -> int:
    torch.cuda.reset_peak_memory_stats(device())
    before = torch.cuda.memory_allocated(device())
    call()
    return max(torch.cuda.max_memory_allocated(device()) - before, _BLOCK)


def _peak_of_process(call: Callable[[], object]) -> int | None:
    _give_back()
    try:
        (_PROCESS / "clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status("VmRSS")
        call()
        return max(_status("VmHWM") - before, _PAGE)
    except (OSError, KeyError):
        return None


def _status(name: str) -> int:
    lines = (_PROCESS / "status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) * 1024


def _give_back() -> None:
    """Return freed memory to the system, or the next call would reuse it unseen (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
