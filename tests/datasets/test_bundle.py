"""The tables that ship in the package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from captum_robust.datasets import _bundle, adult, bank, build
from tests.datasets.conftest import data_folder


@pytest.mark.parametrize("table", [adult.TABLE, bank.TABLE], ids=lambda table: table.name)
class TestBundle:
    def bits(self, table: _bundle.Table) -> np.ndarray:
        dataset = _bundle.load(table)
        columns = (dataset.inputs, dataset.targets.unsqueeze(1))
        return torch.cat(columns, dim=1).to(torch.uint8).numpy()

    def test_round_trip_is_deterministic(self, table: _bundle.Table, tmp_path: Path) -> None:
        bits = self.bits(table)
        first = _bundle.save(table, bits, tmp_path).read_bytes()
        assert _bundle.save(table, bits, tmp_path).read_bytes() == first
        assert [path.name for path in tmp_path.iterdir()] == [table.file]
        with np.load(tmp_path / table.file) as ours, np.load(build.FOLDER / table.file) as shipped:
            assert sorted(ours) == sorted(shipped) == ["bits", "shape", "source"]
            assert all(np.array_equal(ours[key], shipped[key]) for key in ours)

    @pytest.mark.parametrize(("column", "part"), [(0, "inputs"), (-1, "targets")])
    def test_save_refuses_other_bits(
        self, table: _bundle.Table, column: int, part: str, tmp_path: Path
    ) -> None:
        bits = self.bits(table)
        bits[7, column] ^= 1
        with pytest.raises(ValueError, match=rf"{table.name}: got {part} of SHA-256"):
            _bundle.save(table, bits, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_save_leaves_no_draft_behind(
        self, table: _bundle.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*args: object, **kwargs: object) -> None:
            raise OSError("no space left")

        bits = self.bits(table)
        monkeypatch.setattr(np, "savez_compressed", full)
        with pytest.raises(OSError, match="no space left"):
            _bundle.save(table, bits, tmp_path)
        assert not list(tmp_path.iterdir())

    def test_load_refuses_a_flipped_bit(
        self, table: _bundle.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bits = self.bits(table)
        bits[-1, 3] ^= 1
        (tmp_path / "data").mkdir()
        np.savez(tmp_path / "data" / table.file, bits=np.packbits(bits), shape=np.array(bits.shape))
        monkeypatch.setattr(_bundle, "files", lambda package: tmp_path)
        with pytest.raises(ValueError, match=rf"{table.file}: got inputs of SHA-256"):
            _bundle.load(table)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: b"",
            lambda content: content[:10],
            lambda content: content[:-1],
            lambda content: content[:58] + b"\xff" * 42 + content[100:],
            lambda content: content.replace(b"bits.npy", b"bats.npy"),
        ],
        ids=["empty", "only a start", "cut", "not compressed", "renamed"],
    )
    def test_load_refuses_a_damaged_file(
        self,
        table: _bundle.Table,
        damage: Callable[[bytes], bytes],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        (tmp_path / "data").mkdir()
        damaged = damage((build.FOLDER / table.file).read_bytes())
        (tmp_path / "data" / table.file).write_bytes(damaged)
        monkeypatch.setattr(_bundle, "files", lambda package: tmp_path)
        with pytest.raises(ValueError, match=rf"{table.file}: got a damaged file"):
            _bundle.load(table)


def test_build_makes_the_shipped_tables(tmp_path: Path) -> None:
    for path in build.build(data_folder("adult", "bank"), tmp_path):
        with np.load(path) as ours, np.load(build.FOLDER / path.name) as shipped:
            assert all(np.array_equal(ours[key], shipped[key]) for key in shipped)
