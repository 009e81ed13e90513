"""Options and checks that the commands share."""

import argparse
import importlib
from pathlib import Path
from typing import NoReturn

__all__ = [
    "Parser", "check_folder", "count", "counts", "one_line", "require", "seed",
]  # fmt: skip

_MAX_SEED = 2**32 - 1


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2 and the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def check_folder(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Exit with an error if ``--out`` exists and is not a folder."""
    if folder.exists() and not folder.is_dir():
        parser.error(f"argument --out: {folder} is not a folder")


def require(parser: argparse.ArgumentParser, *modules: str) -> None:
    """Exit with an error if modules of the extra ``benchmark`` are missing."""
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        parser.error(f"{error.name} is missing: pip install 'captum-robust[benchmark]'")


def one_line(error: Exception) -> str:
    """Return the message of an error without its line breaks."""
    return " ".join(str(error).split())


def seed(text: str) -> int:
    """Read a seed."""
    return _integer(text, 0, _MAX_SEED, "must be an integer from 0 to 2**32 - 1")


def count(text: str) -> int:
    """Read a count, at least 1."""
    return _integer(text, 1, _MAX_SEED, "must be an integer of at least 1")


def counts(text: str) -> tuple[int, ...]:
    """Read several counts, separated by commas, without repetitions."""
    return tuple(dict.fromkeys(count(part) for part in text.split(",")))


def _integer(text: str, lowest: int, highest: int, must: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if not lowest <= number <= highest:
        raise argparse.ArgumentTypeError(f"{must}, got {text!r}")
    return number
