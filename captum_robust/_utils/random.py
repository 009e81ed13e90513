"""Random numbers that depend on the seed and the example, not on chunks or the batch order."""

import hashlib
import math
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral

import numpy as np
import torch
from torch import Tensor

from captum_robust._utils.exclusive import EXCLUSIVE

__all__ = ["DrawWatch", "cuda_devices", "example_generators", "reseed", "resolve_seed", "seeded"]


def resolve_seed(seed: int | None) -> int:
    """Return ``seed``, or fresh entropy for None, as in ``numpy.random.default_rng``.

    Raises:
        ValueError: for a seed that is no integer.
    """
    if seed is None:
        return secrets.randbits(62)
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise ValueError(f"seed must be an integer or None, got {seed!r}")
    return int(seed)


def example_generators(
    inputs: tuple[Tensor, ...], seed: int | None, stream: int = 0
) -> list[torch.Generator]:
    """Return one generator per example, keyed by the seed, the stream and the example's values.

    With one generator for the batch, the noise of an example would change with its neighbours,
    the chunks and the order. Equal examples draw equal numbers; with seed None, every example
    draws different ones. The generators live on the CPU, so that a seed gives the same noise on
    every device.
    """
    if seed is None:
        return [torch.Generator().manual_seed(resolve_seed(None)) for _ in inputs[0]]
    rows = [_bytes_of_examples(tensor) for tensor in inputs]
    key = f"{resolve_seed(seed)},{stream}".encode()
    generators = []
    for example in zip(*rows, strict=True):
        digest = hashlib.blake2b(key, digest_size=8)
        for part in example:
            digest.update(part)
        entropy = int.from_bytes(digest.digest(), "little") >> 1
        generators.append(torch.Generator().manual_seed(entropy))
    return generators


def _bytes_of_examples(tensor: Tensor) -> list[bytes]:
    flat = tensor.detach().cpu().reshape(len(tensor), math.prod(tensor.shape[1:])).contiguous()
    return [row.tobytes() for row in flat.view(torch.uint8).numpy()]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside the block; restore them after.

    Captum draws from torch's and, in GradientShap, from NumPy's global generator. A block in
    another thread waits until the end of this one; other code that draws in another thread does
    not, and sees the seeded generators.
    """
    with EXCLUSIVE, torch.random.fork_rng(devices=cuda_devices()):
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        try:
            reseed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def reseed(seed: int) -> None:
    """Set the global generators; only inside :func:`seeded`."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    # torch.manual_seed would also leave a seed for a GPU that is not in use yet.
    torch.default_generator.manual_seed(seed)
    if cuda_devices():
        torch.cuda.manual_seed_all(seed)


class DrawWatch:
    """Detect draws from the global generators; only inside :func:`seeded`.

    To read the states of all generators takes as long as a small network. One number drawn from
    NumPy's and from Python's generator, and from copies of both, shows the same.
    """

    def __init__(self) -> None:
        self._python = random.Random()
        self.numpy = np.random.RandomState()  #: copy of NumPy's global generator
        self._torch: list[bytes] = []

    def start(self, seed: int) -> None:
        """Set the global generators to a seed, and watch them from now on."""
        reseed(seed)
        self._python.seed(seed)
        self.numpy.seed(seed % 2**32)
        self._torch = _torch_states()

    def resume(self) -> None:
        """Watch on, from a new start if the generators have been used outside of the watch."""
        if not (self._torch and self.is_undisturbed()):
            self.start(0)

    def is_undisturbed(self) -> bool:
        """Return whether nothing was drawn since the start, or since the last call."""
        python = random.random() == self._python.random()
        drawn = np.random.random_sample()  # noqa: NPY002
        return python and drawn == self.numpy.random_sample() and self._torch == _torch_states()


def _torch_states() -> list[bytes]:
    states = [torch.default_generator.get_state()]
    states += [torch.cuda.get_rng_state(device) for device in cuda_devices()]
    return [state.numpy().tobytes() for state in states]


def cuda_devices() -> range:
    """Return the GPUs whose generators are in use."""
    initialised = torch.cuda.is_initialized()
    return range(torch.cuda.device_count() if initialised else 0)
