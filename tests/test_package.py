"""The package as a user installs it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import captum_robust

CHECK = Path(__file__).parents[1] / ".ci" / "check_install.py"


def test_imports_light_typed_and_with_its_data(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-I", CHECK], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[:2] == ["adult: 48842 rows", "bank: 45211 rows"]
    assert f"captum_robust {captum_robust.__version__} from" in run.stdout


def test_one_version() -> None:
    assert version("captum-robust") == captum_robust.__version__


def test_metadata_names_the_licence() -> None:
    package = metadata("captum-robust")
    assert package["License-Expression"] == "BSD-3-Clause"
    assert sorted(package.get_all("License-File") or []) == [
        "LICENSE",
        "captum_robust/datasets/data/ATTRIBUTION.md",
    ]
