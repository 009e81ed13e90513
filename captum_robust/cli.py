"""The command line: ``captum-robust demo``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from captum_robust import __version__

__all__ = ["main"]

_DATASETS = ("adult", "bank", "breast-cancer")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 for a bad option."""
    parser = _Parser(prog="captum-robust", description="Explanations that hold still.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    demo = commands.add_parser(
        "demo",
        help="train three models and attack their explanations",
        description="Train a vanilla, a softplus and an R2ET network and attack their maps.",
    )
    demo.add_argument("--dataset", choices=_DATASETS, default="adult", help="default: adult")
    demo.add_argument("--seed", type=_seed, default=0, help="of split, training and attacks")
    demo.add_argument(
        "--out", type=Path, default=Path("captum-robust-demo"), help="folder of figure and CSV"
    )
    options = parser.parse_args(arguments)
    if options.out.exists() and not options.out.is_dir():
        demo.error(f"argument --out: {options.out} is not a folder")
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        demo.error(f"{error.name} is missing: pip install 'captum-robust[benchmark]'")
    from captum_robust.benchmark.demo import run

    try:
        run(options.dataset, options.seed, options.out)
    except OSError as error:
        demo.error(f"cannot write to {options.out}: {error.strerror}")
    return 0


def _seed(text: str) -> int:
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed < 2**32:
        raise argparse.ArgumentTypeError(f"must be an integer from 0 to 2**32 - 1, got {text!r}")
    return seed


if __name__ == "__main__":
    sys.exit(main())
