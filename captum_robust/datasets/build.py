"""Build the tables of the package from the original UCI files.

``python -m captum_robust.datasets.build ROOT``, where ROOT holds ``adult.data``, ``adult.test`` and
``bank-full.csv`` (or ``.gz``), directly or in the subfolders ``adult`` and ``bank``. Tables
with another SHA-256 than the known one are not written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from captum_robust.datasets import _bundle, adult, bank

FOLDER = Path(__file__).parent / "data"


def build(root: str | Path, folder: Path = FOLDER) -> list[Path]:
    """Writes the tables made from the files in ``root`` into ``folder`` and returns their paths."""
    tables = [(module.TABLE, module.read(root)) for module in (adult, bank)]
    return [_bundle.save(table, bits, folder) for table, bits in tables]


def main() -> None:
    """The command line: one argument, the folder of the original files."""
    parser = argparse.ArgumentParser(description="Build the tables that ship in the package.")
    parser.add_argument("root", help="folder of the original UCI files")
    for path in build(parser.parse_args().root):
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
