"""``captum-robust audit``."""

import argparse
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_robust._utils.command_line import check_folder, count, one_line, require
from captum_robust.auditing.explanations import ATTRIBUTIONS
from captum_robust.auditing.load import LoadError, load_model, load_rows
from captum_robust.auditing.result import Audit
from captum_robust.auditing.run import audit

__all__ = ["add_audit", "run_audit"]


def add_audit(commands: Any) -> None:
    """Add the audit to the commands."""
    parser = commands.add_parser(
        "audit",
        help="attack the explanations of your own model, and write a report",
        description=(
            "Attack the explanations of your model on your rows, and write a report with the "
            "results, their warnings and what can be proven. The factory is your own Python code "
            "and is executed."
        ),
    )
    add = parser.add_argument
    add("factory", help="module:factory, a Python function that returns the model; it is executed")
    add("--data", type=Path, required=True, help=".npz file with inputs, and targets, labels and "
        "feature_names if you have them")  # fmt: skip
    add("--attribution", default="saliency", help=f"any of {', '.join(ATTRIBUTIONS)}; separate "
        "several by commas; default: saliency")  # fmt: skip
    add("--k", type=int, help="size of the top set; default: 8, at most a third of the features")
    add("--radius", type=_radii, help="radius of the ball in units of the inputs; separate several "
        "by commas; default: a tenth of the typical standard deviation of a feature")  # fmt: skip
    add("--norm", choices=("Linf", "L2"), default="Linf", help="norm of the ball; default: Linf")
    add("--lower", type=float, default=-math.inf, help="smallest value of an input")
    add("--upper", type=float, default=math.inf, help="largest value of an input")
    add(
        "--rows",
        type=count,
        default=100,
        help="number of rows, the first of the file; default: 100",
    )
    add("--max-examples-per-batch", type=int, help="rows that are attacked at once; lower it if "
        "memory runs out")  # fmt: skip
    add("--tolerance", type=float, help="for a regression: how far the output may move; default: "
        "a tenth of its standard deviation where the labels are no classes")  # fmt: skip
    add("--seed", type=int, default=0, help="seed of everything random; default: 0")
    add("--name", help="name of the model in the report")
    add("--date", help="date in the report; default: today")
    add("--out", type=Path, required=True, help="folder of the report and the numbers")
    parser.set_defaults(do=lambda options: _audit(parser, options))


def _audit(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    check_folder(parser, options.out)
    require(parser, "jinja2")
    try:
        found = run_audit(options, options.arguments)
    except LoadError as error:
        parser.error(one_line(error))
    try:
        found.save(options.out)
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error.strerror}")
    print(f"{found}\n\nReport: {options.out / 'audit.html'}")
    return 0


def run_audit(options: argparse.Namespace, arguments: Sequence[str]) -> Audit:
    """Run the audit of the options.

    Raises:
        LoadError: for a factory, data or options that cannot be used; the message names the
            argument.
    """
    model, given = _load("factory", load_model, options.factory)
    rows = _load("--data", load_rows, options.data, model, options.rows)
    audited: dict[str, Any] = {
        "target": rows.targets, "labels": rows.labels, "feature_names": rows.feature_names,
        "attributions": options.attribution.split(","), **given,
    }  # fmt: skip
    if options.tolerance is not None:
        audited["tolerance"] = options.tolerance
    try:
        found: Audit = audit(
            model, rows.inputs, **audited, k=options.k, radius=options.radius,
            norm=options.norm, lower_bound=options.lower, upper_bound=options.upper,
            name=options.name, seed=options.seed, date=options.date,
            max_examples_per_batch=options.max_examples_per_batch,
            command=shlex.join(["captum-robust", *arguments]),
        )  # fmt: skip
    except ValueError as error:
        raise LoadError(str(error)) from error
    return found


def _load(argument: str, load: Any, *args: Any) -> Any:
    """Load something, with the name of the argument in the message of an error."""
    try:
        return load(*args)
    except LoadError as error:
        raise LoadError(f"argument {argument}: {error}") from error


def _radii(text: str) -> float | list[float]:
    """Read one or several radii, separated by commas."""
    try:
        radii = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"must be a number, or several separated by commas, got {text!r}"
        ) from error
    return radii[0] if len(radii) == 1 else radii
