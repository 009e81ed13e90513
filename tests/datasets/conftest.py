"""Data folders are named by the tests alone; the one of the environment is for the golden tests."""

from __future__ import annotations

import os

import pytest

from captum_robust.datasets import adult, bank, compas

DATA = os.environ.get("CAPTUM_ROBUST_DATA")
MODULES = {"adult": adult, "bank": bank, "compas": compas}


@pytest.fixture(autouse=True)
def no_named_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAPTUM_ROBUST_DATA", raising=False)


def data_folder(*names: str) -> str:
    """The folder of the environment; skips where it lacks the original files of a table."""
    for name in names:
        files = MODULES[name].ORIGINALS
        if not DATA or not all(original.within(DATA) for original in files):
            pytest.skip(f"CAPTUM_ROBUST_DATA names no folder with the original files of {name}")
    assert DATA is not None
    return DATA
