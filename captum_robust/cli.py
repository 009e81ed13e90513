"""The command line: ``captum-robust demo``, ``run``, ``audit`` and ``report``."""

import argparse
import importlib
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from captum_robust import __version__

__all__ = ["main"]

_DEMO_DATASETS = ("adult", "bank", "breast-cancer")
_MAX_SEED = 2**32 - 1


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 for a bad option.

    130 where the user interrupts a run.
    """
    parser = _Parser(prog="captum-robust", description="Explanations that hold still.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    for add in (_add_demo, _add_run, _add_audit, _add_report):
        add(commands)
    options = parser.parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code: int = options.do(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, ``head`` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 0
    return code


def _add_demo(commands: Any) -> None:
    demo = commands.add_parser(
        "demo",
        help="train three models and attack their explanations",
        description="Train a vanilla, a softplus and an R2ET network and attack their maps.",
    )
    demo.add_argument("--dataset", choices=_DEMO_DATASETS, default="adult", help="default: adult")
    demo.add_argument("--seed", type=_seed, default=0, help="of split, training and attacks")
    demo.add_argument(
        "--out", type=Path, default=Path("captum-robust-demo"), help="folder of figure and CSV"
    )
    demo.set_defaults(do=lambda options: _demo(demo, options))


def _demo(parser: _Parser, options: argparse.Namespace) -> int:
    _check_folder(parser, options.out)
    _require(parser, "matplotlib", "sklearn")
    from captum_robust.benchmark.demo import run

    try:
        run(options.dataset, options.seed, options.out)
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error.strerror}")
    return 0


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        help="train and attack all methods; continues where it was stopped",
        description=(
            "Train every method in every setting, select one on validation rows, and attack it on "
            "test rows. Each finished unit is kept in the folder: stop it anywhere, and the same "
            "command goes on. Start it once for each core; runners share the work."
        ),
    )
    run.add_argument(
        "--dataset",
        required=True,
        help=(
            "adult, bank, compas, compas-recid, breast-cancer; or pairs of digits, mnist-pairs; or "
            "of brain networks, adhd200-site, adhd200, kki, ohsu, peking; commas"
        ),
    )
    run.add_argument("--methods", help="default: those of the paper; commas")
    run.add_argument("--seeds", type=_count, default=5, help="how many (default: 5)")
    run.add_argument("--first-seed", type=_seed, default=0, help="default: 0")
    run.add_argument("--starts", default="random,vanilla", help="default: random,vanilla")
    run.add_argument("--attacks", default="er,mse,auto", help="default: er,mse,auto")
    run.add_argument(
        "--explanations", default="saliency,smoothgrad,ig", help="default: saliency,smoothgrad,ig"
    )
    run.add_argument(
        "--k",
        type=_counts,
        help=(
            "size of the top set that is trained for, then others to attack (default: 8,5,2; for "
            "pairs 50,30,10)"
        ),
    )
    run.add_argument(
        "--rows",
        type=_count,
        help="distinct test rows (default: 150; 24 pairs of digits, 8 of brain networks)",
    )
    run.add_argument("--epochs", type=_count, help="default: that of the data set")
    run.add_argument("--device", type=_device, default="cpu", help="cpu (default), cuda, cuda:1 …")
    run.add_argument("--data-root", type=Path, help="folder of the original files")
    run.add_argument("--dry-run", action="store_true", help="list the units and an estimate")
    run.add_argument("--out", type=Path, required=True, help="folder of the results")
    run.set_defaults(do=lambda options: _run(run, options))


def _run(parser: _Parser, options: argparse.Namespace) -> int:
    _check_folder(parser, options.out)
    _require(parser, "sklearn")
    from captum_robust.benchmark.measure.attacks import ATTACKS
    from captum_robust.benchmark.measure.experiment import Protocol
    from captum_robust.benchmark.plan import runner, units
    from captum_robust.benchmark.plan.store import StoreError
    from captum_robust.benchmark.study.explanations import EXPLANATIONS
    from captum_robust.benchmark.study.methods import DEFAULT
    from captum_robust.benchmark.study.tasks import TASKS, in_common

    def chosen(option: str, text: str | None, known: Collection[str]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys((text or "").split(",")))
        for name in names:
            if name not in known:
                parser.error(f"argument {option}: got {name!r}, accepted: {', '.join(known)}")
        return names

    datasets = chosen("--dataset", options.dataset, TASKS)
    try:
        task = in_common(datasets)
    except ValueError as error:
        parser.error(f"argument --dataset: {error}")
    ks = options.k or task.k
    plan = units.Plan(
        datasets=datasets,
        methods=tuple(name for name in DEFAULT if name in task.methods)
        if options.methods is None
        else chosen("--methods", options.methods, task.methods),
        seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
        starts=chosen("--starts", options.starts, units.STARTS),
        attacks=chosen("--attacks", options.attacks, ATTACKS),
        explanations=chosen("--explanations", options.explanations, EXPLANATIONS),
        k=ks[0],
        other_ks=ks[1:],
    )  # fmt: skip
    rows, costly_rows, validation_rows = task.rows
    protocol = Protocol(
        plan.k, options.rows or rows, costly_rows, validation_rows, options.epochs,
        task.terms.radii, options.device,
    )  # fmt: skip
    try:
        if options.dry_run:
            print(runner.dry_run(plan, options.out), flush=True)
        else:
            runner.run(plan, protocol, options.out, options.data_root)
    except (StoreError, runner.RunError) as error:
        parser.error(_one_line(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error.strerror}")
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted: the same command goes on from here\n")
    return 0


def _add_audit(commands: Any) -> None:
    from captum_robust.auditing.command import add_options

    audit = commands.add_parser(
        "audit",
        help="attack the explanations of your own model, and write a report",
        description=(
            "Attack the explanations of a model of yours on rows of yours, and write what was "
            "found, why to doubt it, and how to get the same numbers into one HTML file."
        ),
    )
    add_options(audit)
    audit.set_defaults(do=lambda options: _audit(audit, options))


def _audit(parser: _Parser, options: argparse.Namespace) -> int:
    _check_folder(parser, options.out)
    _require(parser, "jinja2")
    from captum_robust.auditing.command import made
    from captum_robust.auditing.load import LoadError

    try:
        found = made(options, options.arguments)
    except LoadError as error:
        parser.error(_one_line(error))
    try:
        found.save(options.out)
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error.strerror}")
    print(f"{found}\n\nReport: {options.out / 'audit.html'}")
    return 0


def _add_report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="show what a run or an audit has found",
        description=(
            "Print what a run has found so far as Markdown tables, or the verdicts of an audit; "
            "or write either as one HTML file."
        ),
    )
    report.add_argument("folder", type=Path, help="the --out of the run or of the audit")
    report.add_argument("--html", type=Path, metavar="FILE", help="write a page, and print nothing")
    report.set_defaults(do=lambda options: _report(report, options))


def _report(parser: _Parser, options: argparse.Namespace) -> int:
    _require(parser, "scipy", *(["jinja2"] if options.html else []))
    from captum_robust.auditing.result import AuditError
    from captum_robust.benchmark.folder import as_html, as_text
    from captum_robust.benchmark.plan.store import StoreError

    try:
        if options.html is None:
            print(as_text(options.folder))
        else:
            as_html(options.folder, options.html)
    except (AuditError, StoreError) as error:
        parser.error(_one_line(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        parser.error(f"cannot write to {options.html}: {error.strerror}")
    return 0


def _check_folder(parser: _Parser, folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        parser.error(f"argument --out: {folder} is not a folder")


def _require(parser: _Parser, *modules: str) -> None:
    try:
        for module in modules:
            importlib.import_module(module)
    except ImportError as error:
        parser.error(f"{error.name} is missing: pip install 'captum-robust[benchmark]'")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _seed(text: str) -> int:
    return _integer(text, 0, _MAX_SEED, "must be an integer from 0 to 2**32 - 1")


def _device(text: str) -> str:
    import torch

    try:
        torch.zeros(1, device=text)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        said = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"torch cannot use {text!r} here: {said}") from error
    return text


def _count(text: str) -> int:
    return _integer(text, 1, _MAX_SEED, "must be an integer of at least 1")


def _counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_count(part) for part in text.split(",")))


def _integer(text: str, lowest: int, highest: int, must: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = lowest - 1
    if not lowest <= number <= highest:
        raise argparse.ArgumentTypeError(f"{must}, got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
