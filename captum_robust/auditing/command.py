"""``captum-robust audit``."""

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_robust.auditing.attributions import ATTRIBUTIONS
from captum_robust.auditing.load import LoadError, load_model, load_rows
from captum_robust.auditing.result import Audit
from captum_robust.auditing.run import audit

__all__ = ["add_options", "made"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add = parser.add_argument
    add("factory", help="module:factory, a Python function that returns the model; it is executed")
    add("--data", type=Path, required=True, help=".npz with inputs, and targets, labels, "
        "feature_names if you have them")  # fmt: skip
    add("--attribution", default="saliency", help=f"default: saliency; of {', '.join(ATTRIBUTIONS)}"
        "; commas")  # fmt: skip
    add("--k", type=int, help="size of the top set; default: 8, at most a third of the features")
    add("--radius", type=_radii, help="of the ball, in units of the inputs; commas; default: a "
        "tenth of the typical standard deviation of a feature")  # fmt: skip
    add("--norm", choices=("Linf", "L2"), default="Linf", help="of the ball; default: Linf")
    add("--lower", type=float, default=-math.inf, help="smallest value of an input")
    add("--upper", type=float, default=math.inf, help="largest value of an input")
    add("--rows", type=_count, default=100, help="the first rows of the file; default: 100")
    add("--max-examples-per-batch", type=int, help="rows at once; lower it if memory runs out")
    add("--seed", type=int, default=0, help="of everything random; default: 0")
    add("--name", help="of the model, in the report")
    add("--date", help="that the report names; default: today")
    add("--out", type=Path, required=True, help="folder of the report and the numbers")


def made(options: argparse.Namespace, arguments: Sequence[str]) -> Audit:
    """The audit that the options ask for.

    Raises:
        LoadError: for a factory, data or options that cannot be used; names the argument.
    """
    model, given = _named("factory", load_model, options.factory)
    rows = _named("--data", load_rows, options.data, model, options.rows)
    arguments_of_audit: dict[str, Any] = {
        "target": rows.targets, "labels": rows.labels, "feature_names": rows.feature_names,
        "attributions": options.attribution.split(","), **given,
    }  # fmt: skip
    try:
        found: Audit = audit(
            model, rows.inputs, **arguments_of_audit, k=options.k, radius=options.radius,
            norm=options.norm, lower_bound=options.lower, upper_bound=options.upper,
            name=options.name, seed=options.seed, date=options.date,
            max_examples_per_batch=options.max_examples_per_batch,
            command=shlex.join(["captum-robust", *arguments]),
        )  # fmt: skip
    except ValueError as error:
        raise LoadError(str(error)) from error
    return found


def _named(argument: str, load: Any, *args: Any) -> Any:
    try:
        return load(*args)
    except LoadError as error:
        raise LoadError(f"argument {argument}: {error}") from error


def _radii(text: str) -> float | list[float]:
    radii = [float(part) for part in text.split(",")]
    return radii[0] if len(radii) == 1 else radii


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text!r}")
    return count
