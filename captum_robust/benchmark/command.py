"""``captum-robust demo`` and ``captum-robust run``."""

import argparse
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from captum_robust._utils.command_line import (
    check_folder,
    count,
    counts,
    one_line,
    require,
    seed,
)
from captum_robust.auditing.explanations import OTHER_NAMES
from captum_robust.benchmark import demo
from captum_robust.benchmark.measure.attacks import ATTACKS
from captum_robust.benchmark.measure.experiment import Experiment
from captum_robust.benchmark.plan.plan import Plan
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.runner import RunError, dry_run, run
from captum_robust.benchmark.plan.store import StoreError
from captum_robust.benchmark.plan.units import STARTS
from captum_robust.benchmark.study.explanations import EXPLANATIONS
from captum_robust.benchmark.study.tasks import TASKS, in_common

__all__ = ["add_demo", "add_run"]


def add_demo(commands: Any) -> None:
    """Add the demonstration to the commands."""
    parser = commands.add_parser(
        "demo",
        help="train three models and attack their explanations",
        description=(
            "Train a vanilla, a softplus and an R2ET network and attack their explanations."
        ),
    )
    add = parser.add_argument
    add("--dataset", choices=tuple(demo.DATASETS), default="adult", help="default: adult")
    add("--seed", type=seed, default=0, help="seed of split, training and attacks; default: 0")
    add(
        "--out", type=Path, default=Path("captum-robust-demo"), help="folder of figure and CSV file"
    )
    parser.set_defaults(do=lambda options: _demo(parser, options))


def _demo(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    check_folder(parser, options.out)
    require(parser, "matplotlib", "sklearn")
    try:
        demo.run(options.dataset, options.seed, options.out)
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error.strerror}")
    return 0


def add_run(commands: Any) -> None:
    """Add the study to the commands."""
    parser = commands.add_parser(
        "run",
        help="train and attack all methods; continues where it was stopped",
        description=(
            "Train every method in every setting, select one setting on validation rows, and "
            "attack the model on test rows. Each finished unit of work is stored in the folder: "
            "you can stop at any time, and the same command continues. Start the command once for "
            "each core; the processes share the work."
        ),
    )
    add = parser.add_argument
    add("--dataset", required=True, help=f"any of {', '.join(TASKS)}; separate several by commas")
    add("--methods", help="training methods, separated by commas; default: those of the paper")
    add("--seeds", type=count, default=5, help="number of seeds; default: 5")
    add("--first-seed", type=seed, default=0, help="the first seed; default: 0")
    add("--starts", default=",".join(STARTS), help=f"initial weights; default: {','.join(STARTS)}")
    add(
        "--attacks",
        default=",".join(ATTACKS),
        help=f"separated by commas; default: {','.join(ATTACKS)}",
    )
    add(
        "--explanations",
        default=",".join(EXPLANATIONS),
        help=f"separated by commas; default: {','.join(EXPLANATIONS)}",
    )
    add("--k", type=counts, help="size of the top set for which models are trained, then other "
        "sizes to attack; default: 8,5,2, for pairs 50,30,10")  # fmt: skip
    add("--rows", type=count, help="number of distinct test rows; default: 150, for pairs of "
        "digits 24, for pairs of brain networks 8")  # fmt: skip
    add("--epochs", type=count, help="default: the number of the data set")
    add("--device", type=_device, default="cpu", help="cpu (default), cuda, cuda:1 …")
    add("--data-root", type=Path, help="folder of the original data files")
    add("--dry-run", action="store_true", help="list the units of work and estimate their time")
    add("--out", type=Path, required=True, help="folder of the results")
    parser.set_defaults(do=lambda options: _run(parser, options))


def _run(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    check_folder(parser, options.out)
    require(parser, "sklearn")
    plan, protocol = _plan(parser, options)
    try:
        if options.dry_run:
            print(dry_run(plan, options.out), flush=True)
        else:
            run(
                plan, protocol, options.out,
                lambda store: Experiment(store, protocol, options.data_root),
            )  # fmt: skip
    except (StoreError, RunError) as error:
        parser.error(one_line(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        parser.error(f"cannot write to {options.out}: {error.strerror}")
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted: the same command continues from here\n")
    return 0


def _plan(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[Plan, Protocol]:
    """Return the plan and the protocol of the options."""

    def chosen(
        option: str, text: str, accepted: Collection[str], other_names: Mapping[str, str] = {}
    ) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(other_names.get(name, name) for name in text.split(",")))
        for name in names:
            if name not in accepted:
                parser.error(f"argument {option}: got {name!r}, accepted: {', '.join(accepted)}")
        return names

    datasets = chosen("--dataset", options.dataset, TASKS)
    try:
        task = in_common(datasets)
    except ValueError as error:
        parser.error(f"argument --dataset: {error}")
    default_methods = tuple(name for name, method in task.methods.items() if method.by_default)
    k, *other_ks = options.k or task.k
    plan = Plan(
        datasets=datasets,
        methods=default_methods
        if options.methods is None
        else chosen("--methods", options.methods, task.methods),
        seeds=tuple(range(options.first_seed, options.first_seed + options.seeds)),
        starts=chosen("--starts", options.starts, STARTS),
        attacks=chosen("--attacks", options.attacks, ATTACKS),
        explanations=chosen("--explanations", options.explanations, EXPLANATIONS, OTHER_NAMES),
        k=k,
        other_ks=tuple(other_ks),
    )
    rows, costly_rows, validation_rows = task.rows
    protocol = Protocol(
        k, options.rows or rows, costly_rows, validation_rows, options.epochs,
        task.settings.radii, options.device,
    )  # fmt: skip
    return plan, protocol


def _device(text: str) -> str:
    """Read a device on which torch can make tensors."""
    import torch

    try:
        torch.zeros(1, device=text)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise argparse.ArgumentTypeError(f"torch cannot use {text!r} here: {reason}") from error
    return text
