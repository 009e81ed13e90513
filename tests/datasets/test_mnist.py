"""MNIST, and pairs of its digits."""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from captum_robust.datasets import load_mnist, load_mnist_pairs
from captum_robust.datasets.mnist import ORIGINALS
from tests.datasets.conftest import DATA
from tests.datasets.graph_files import mnist_files, sizes

LABELS = [3, 8, 1, 3, 8, 3, 8, 3, 8, 9, 3, 8, 3, 8, 3, 8]


def mnist_folder(folder: Path) -> Path:
    mnist_files(folder, "train", LABELS)
    return mnist_files(folder, "test", LABELS[::-1])


def numbers(images: Tensor) -> list[int]:
    """The number of each image."""
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_bytes_become_pixels_from_0_to_1(tmp_path: Path) -> None:
    data = load_mnist(mnist_folder(tmp_path), part="test")
    assert (data.name, len(data)) == ("mnist-test", 16)
    assert data.inputs.shape == (16, 1, 28, 28)
    assert (data.inputs.dtype, data.targets.dtype) == (torch.float32, torch.int64)
    assert data.targets.tolist() == LABELS[::-1]
    expected = torch.arange(16.0).reshape(16, 1, 1, 1) / 255
    torch.testing.assert_close(data.inputs[:, :, :1], expected.expand(16, 1, 1, 28))
    assert data.inputs[:, :, 1:].count_nonzero() == 0


def test_reads_gzip_in_the_subfolder(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    for file in list(mnist_files(tmp_path, "train", [5, 6]).glob("train*")):
        (tmp_path / "mnist" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert load_mnist(tmp_path).targets.tolist() == [5, 6]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images-idx3", b"", "begins with '', accepted: .* 3 axes, 00000803"),
        ("images-idx3", sizes(0x801, 2) + bytes(2), "begins with '00000801', accepted: .*0803"),
        ("images-idx3", sizes(0x803, 2, 28, 28) + bytes(99), r"99 bytes .* 1568, .*\(2, 28, 28\)"),
        ("images-idx3", sizes(0x803, 2, 28, 28) + bytes(1569), "1569 bytes .* accepted: 1568"),
        ("images-idx3", sizes(0x803, 2, 14, 14) + bytes(392), r"\(14, 14\), accepted: \(28, 28\)"),
        ("images-idx3", gzip.compress(bytes(99), mtime=0)[:-9], "breaks off"),
        ("labels-idx1", sizes(0x801, 3) + bytes(3), "3 labels, accepted: 2, one for each image"),
        ("labels-idx1", sizes(0x801, 2) + bytes([1, 10]), "label 1: got 10, accepted: 0 to 9"),
        ("labels-idx1", sizes(0x801), "begins with '00000801', accepted"),
    ],
)
def test_refuses_a_malformed_file(file: str, content: bytes, message: str, tmp_path: Path) -> None:
    mnist_files(tmp_path, "train", [5, 6])
    (tmp_path / f"train-{file}-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=rf"train-{file}-ubyte.*{message}"):
        load_mnist(tmp_path)


def test_refuses_an_unknown_part(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part: got 'valid', accepted: train or test"):
        load_mnist(tmp_path, part="valid")  # type: ignore[arg-type]


def test_names_what_is_missing(tmp_path: Path) -> None:
    mnist_files(tmp_path, "train", [3, 8])
    with pytest.raises(FileNotFoundError, match=r"root: got .*t10k-images-idx3-ubyte"):
        load_mnist_pairs(tmp_path)


def test_sources_are_https_with_a_digest() -> None:
    for original in (*ORIGINALS["train"], *ORIGINALS["test"]):
        assert original.url is not None
        assert original.url.startswith("https://")
        assert len(bytes.fromhex(original.sha256)) == 32


class TestPairs:
    @pytest.mark.parametrize("digits", [(3, 8), (8, 3)])
    def test_label_1_is_the_same_digit(self, digits: tuple[int, int], tmp_path: Path) -> None:
        parts = load_mnist_pairs(mnist_folder(tmp_path), digits, 24, 8, 8)
        for part, labels in zip(parts, (LABELS, LABELS[::-1], LABELS[::-1]), strict=True):
            first, second = ([labels[i] for i in numbers(m)] for m in part.inputs)
            assert set(first + second) == {3, 8}
            assert part.targets.tolist() == [a == b for a, b in zip(first, second, strict=True)]
            assert [digits[c] for c in part.classes_first.tolist()] == first
            assert [digits[c] for c in part.classes_second.tolist()] == second
            kinds = Counter(zip(first, second, strict=True))
            assert set(kinds.values()) == {len(part) // 4}
            pairs = list(zip(*(numbers(member) for member in part.inputs), strict=True))
            assert len(set(pairs)) == len(pairs)
            assert all(a != b for a, b in pairs)

    def test_validation_and_test_share_no_image(self, tmp_path: Path) -> None:
        for seed in range(5):
            parts = load_mnist_pairs(mnist_folder(tmp_path), seed=seed, n_train=4,
                                     n_validation=12, n_test=12)  # fmt: skip
            seen = [set(numbers(p.first)) | set(numbers(p.second)) for p in parts[1:]]
            assert not seen[0] & seen[1]
            assert len(seen[0] | seen[1]) > 10

    def test_every_pair_is_drawn_if_as_many_are_asked_for(self, tmp_path: Path) -> None:
        mnist_files(tmp_path, "train", [3, 3, 8, 8])
        mnist_files(tmp_path, "test", [3, 3, 3, 3, 8, 8, 8, 8])
        train, validation, test = load_mnist_pairs(tmp_path, (3, 8), 8, 8, 8)
        pairs = set(zip(numbers(train.first), numbers(train.second), strict=True))
        assert len(pairs) == 8
        assert {(0, 1), (1, 0), (2, 3), (3, 2)} < pairs
        assert len(validation) == len(test) == 8

    def test_the_seed_decides(self, tmp_path: Path) -> None:
        folder = mnist_folder(tmp_path)
        state = torch.get_rng_state()
        one, again, other = (load_mnist_pairs(folder, (3, 8), 16, 4, 4, s) for s in (1, 1, 2))
        assert torch.equal(one.train.first, again.train.first)
        assert torch.equal(one.test.second, again.test.second)
        assert not torch.equal(one.train.first, other.train.first)
        assert torch.equal(torch.get_rng_state(), state)

    @pytest.mark.parametrize("digits", [(3, 3), (3, 10), (3,), (3, 8, 9)])
    def test_refuses_digits(self, digits: tuple[int, ...], tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"digits: got \(3, .*|digits: got \(3,\)"):
            load_mnist_pairs(mnist_folder(tmp_path), digits)  # type: ignore[arg-type]

    @pytest.mark.parametrize("n_train", [0, 1000])
    def test_refuses_numbers(self, n_train: int, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=f"n_pairs: got {n_train}, accepted: 1 to about"):
            load_mnist_pairs(mnist_folder(tmp_path), n_train=n_train, n_validation=4, n_test=4)


@pytest.mark.parametrize(
    ("part", "count", "images", "labels"),
    [
        (
            "train",
            60_000,
            "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
        ),
        (
            "test",
            10_000,
            "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
        ),
    ],
)
def test_the_original_files(part: str, count: int, images: str, labels: str) -> None:
    if not DATA or not all(original.within(DATA) for original in ORIGINALS[part]):
        pytest.skip("CAPTUM_ROBUST_DATA names no folder with the files of MNIST")
    data = load_mnist(DATA, part)  # type: ignore[arg-type]
    assert data.inputs.shape == (count, 1, 28, 28)
    pixels = (data.inputs * 255).round().byte()
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == images
    assert hashlib.sha256(data.targets.numpy().tobytes()).hexdigest() == labels
