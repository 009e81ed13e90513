"""The device of the measurements, one per process, and its clock."""

import time

import torch

__all__ = ["choose", "device", "name", "on_gpu", "seconds"]

_chosen = torch.device("cpu")


def choose(device_name: str) -> None:
    """Put models and inputs that are made from now on there."""
    global _chosen
    _chosen = torch.device(device_name)
    # On a CPU all arithmetic is single precision; then it should be in convolutions on a GPU.
    torch.backends.cudnn.allow_tf32 = False


def device() -> torch.device:
    """The chosen device; the CPU unless told otherwise."""
    return _chosen


def on_gpu() -> bool:
    """Return whether the chosen device is a GPU."""
    return _chosen.type == "cuda"


def name() -> str:
    """Return the name of the device."""
    return torch.cuda.get_device_name(_chosen) if on_gpu() else "cpu"


def seconds() -> float:
    """Processor time; on a GPU, whose work goes on behind, that of the wall once all is done."""
    if not on_gpu():
        return time.process_time()
    torch.cuda.synchronize(_chosen)
    return time.perf_counter()
