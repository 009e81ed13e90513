"""MNIST: handwritten digits, and pairs of two digits."""

from __future__ import annotations

import gzip
import math
import os
import zlib
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_robust.datasets._originals import File, Original, locate
from captum_robust.datasets.pairs import Pairs, PairSplit, draw_pairs

Part = Literal["train", "test"]

ORIGINALS = {
    part: tuple(
        Original(
            names=(name,),
            folder="mnist",
            url=f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}.gz",
            sha256=sha256,
        )
        for name, sha256 in files
    )
    for part, files in {
        "train": (
            (
                "train-images-idx3-ubyte",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            (
                "train-labels-idx1-ubyte",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
        ),
        "test": (
            (
                "t10k-images-idx3-ubyte",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            (
                "t10k-labels-idx1-ubyte",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    }.items()
}

_SOURCE = "MNIST, LeCun, Cortes and Burges, commonly given as CC BY-SA 3.0"


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """Images and their classes.

    Attributes:
        name: Short name, such as ``"mnist-train"``.
        inputs: Pixels from 0 to 1, float32, shape (N, channels, height, width).
        targets: Class of each image, int64, shape (N,).
        source: Origin and licence of the images.
    """

    name: str
    inputs: Tensor
    targets: Tensor
    source: str

    def __len__(self) -> int:
        return len(self.inputs)


def load_mnist(root: str | os.PathLike[str] | None = None, part: Part = "train") -> ImageDataset:
    """MNIST, images of 28 by 28 pixels, 1 for ink and 0 for background.

    Args:
        root: Folder with the two idx files of the part, such as ``train-images-idx3-ubyte`` and
            ``train-labels-idx1-ubyte`` (or ``.gz``), directly or in its subfolder ``mnist``. None:
            the folder that the environment variable ``CAPTUM_ROBUST_DATA`` names, or the user's
            cache if the variable is not set or the files are missing; the files are downloaded into
            the cache if necessary.
        part: ``"train"``, 60,000 images, or ``"test"``, 10,000.

    Returns:
        ``inputs`` (N, 1, 28, 28), the original bytes divided by 255, and ``targets`` (N,), 0 to 9.
        The R2ET paper uses 0 to 255: convert its radii and variances accordingly.

    Raises:
        FileNotFoundError: If ``root`` does not contain the files, or if they cannot be downloaded;
            the message names the required files.
        ImportError: If the files must be downloaded and pooch (extra
            ``captum-robust[benchmark]``) is not installed.
        ValueError: If ``part`` is unknown, or a file is malformed; the message names the file.

    Source:
        LeCun, Bottou, Bengio and Haffner (1998), Gradient-based learning applied to document
        recognition, Proceedings of the IEEE.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> sizes = lambda *numbers: b"".join(number.to_bytes(4, "big") for number in numbers)
        >>> with TemporaryDirectory() as folder:
        ...     images, labels = (Path(folder, f"t10k-{name}-ubyte") for name in
        ...         ("images-idx3", "labels-idx1"))
        ...     _ = images.write_bytes(sizes(0x803, 1, 28, 28) + 784 * bytes([51]))
        ...     _ = labels.write_bytes(sizes(0x801, 1) + bytes([3]))
        ...     mnist = load_mnist(folder, part="test")
        >>> mnist.inputs.shape, mnist.inputs.max(), mnist.targets
        (torch.Size([1, 1, 28, 28]), tensor(0.2000), tensor([3]))
    """
    if part not in get_args(Part):
        raise ValueError(f"part: got {part!r}, accepted: {' or '.join(get_args(Part))}")
    image_file, label_file = locate(ORIGINALS[part], root)
    images, labels = read_idx(image_file, n_axes=3), read_idx(label_file, n_axes=1)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{image_file}: got images of {images.shape[1:]}, accepted: (28, 28)")
    if len(images) != len(labels):
        raise ValueError(
            f"{label_file}: got {len(labels)} labels, accepted: {len(images)}, one for each image "
            f"of {image_file}"
        )
    above = np.flatnonzero(labels > 9)
    if len(above):
        raise ValueError(
            f"{label_file}, label {above[0]}: got {labels[above[0]]}, accepted: 0 to 9"
        )
    return ImageDataset(
        name=f"mnist-{part}",
        inputs=torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1),
        targets=torch.from_numpy(labels.astype(np.int64)),
        source=_SOURCE,
    )


def load_mnist_pairs(
    root: str | os.PathLike[str] | None = None,
    digits: tuple[int, int] = (3, 8),
    n_train: int = 10_000,
    n_validation: int = 1_000,
    n_test: int = 1_000,
    seed: int = 0,
) -> PairSplit:
    """Pairs of two digits, 3 and 8 as in the R2ET paper; the target is whether they are equal.

    Training pairs are pairs of training images. The test images of each digit are shuffled and
    divided into halves: validation pairs are from the first half, test pairs from the second, so
    that the three parts share no image. Half of the pairs of each part have the same digit (label
    1), with both digits equally often; half have different digits, with both orders equally often.
    No pair is repeated, and no image is paired with itself.

    Args:
        root: As in :func:`load_mnist`; the files of both parts are needed.
        digits: The two digits; class 0 and class 1 of the members.
        n_train: Training pairs, 1 or more; a multiple of 4 is balanced exactly.
        n_validation: Validation pairs.
        n_test: Test pairs.
        seed: Seed of the halves and of the pairs, 0 or more; the global random state does not
            change.

    Returns:
        The named tuple ``train``, ``validation``, ``test``; ``first`` and ``second`` have shape
        (N, 1, 28, 28), with pixels from 0 to 1.

    Raises:
        FileNotFoundError: As :func:`load_mnist`.
        ImportError: As :func:`load_mnist`.
        ValueError: As :func:`load_mnist`; also if ``digits`` are not two different digits, or if
            there are fewer different pairs than requested.

    Source:
        R2ET, arXiv 2212.14106, experiments on MNIST; the numbers of pairs are ours.
    """
    if len(set(digits)) != 2 or not all(digit in range(10) for digit in digits):
        raise ValueError(f"digits: got {digits}, accepted: two different ones of 0 to 9")
    generator = np.random.default_rng(seed)
    train, test = (_of(load_mnist(root, part), digits) for part in get_args(Part))
    halves = [
        np.array_split(generator.permutation(np.flatnonzero(test[1].numpy() == c)), 2)
        for c in range(2)
    ]
    validation, held_out = (np.concatenate(half) for half in zip(*halves, strict=True))
    parts = []
    for name, (images, classes), rows, n_pairs in (
        ("train", train, np.arange(len(train[1])), n_train),
        ("validation", test, validation, n_validation),
        ("test", test, held_out, n_test),
    ):
        first, second = draw_pairs(classes.numpy()[rows], n_pairs, generator)
        parts.append(
            Pairs.of(f"mnist-pairs-{name}", images, classes, rows[first], rows[second], _SOURCE)
        )
    return PairSplit(*parts)


def _of(data: ImageDataset, digits: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the images of two digits and their classes, 0 and 1."""
    there = (data.targets == digits[0]) | (data.targets == digits[1])
    return data.inputs[there], (data.targets[there] == digits[1]).long()


def read_idx(path: File, n_axes: int) -> NDArray[np.uint8]:
    """Return the bytes of an idx file with ``n_axes`` axes in its shape; refuse other content."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path}: got a file that breaks off ({error}), accepted: the whole file, idx or gzip"
        ) from error
    start = 4 + 4 * n_axes
    magic = 0x800 + n_axes  # 8 stands for unsigned bytes
    if len(content) < start or int.from_bytes(content[:4], "big") != magic:
        raise ValueError(
            f"{path}: got a file that begins with {content[:4].hex()!r}, accepted: an idx file of "
            f"bytes with {n_axes} axes, {magic:08x}"
        )
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) - start != math.prod(shape):
        raise ValueError(
            f"{path}: got {len(content) - start} bytes after the header, accepted: "
            f"{math.prod(shape)}, for the shape {tuple(shape)} that it names"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
