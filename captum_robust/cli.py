"""The command line: ``captum-robust demo``, ``run``, ``audit`` and ``report``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_robust._html.page import write_page
from captum_robust._utils.command_line import Parser, one_line, require
from captum_robust._version import __version__
from captum_robust.auditing.command import add_audit
from captum_robust.auditing.page import audit_page
from captum_robust.auditing.result import FILE, Audit, AuditError
from captum_robust.benchmark.command import add_demo, add_run
from captum_robust.benchmark.plan.store import StoreError
from captum_robust.benchmark.tables.page import run_page
from captum_robust.benchmark.tables.report import report

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    The code is 0, 2 for an option that cannot be used, and 130 for a run that the user interrupts.
    """
    parser = Parser(
        prog="captum-robust", description="Measure and attack the stability of explanations."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    for add in (add_demo, add_run, add_audit, _add_report):
        add(commands)
    options = parser.parse_args(arguments)
    options.arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        code: int = options.do(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as ``head``, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
        return 0
    return code


def _add_report(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="show the results of a run or an audit",
        description=(
            "Print the results of a run so far as Markdown tables, or the verdicts of an audit; "
            "or write either as one HTML file."
        ),
    )
    parser.add_argument("folder", type=Path, help="the --out of the run or of the audit")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page, and print nothing")
    parser.set_defaults(do=lambda options: _report(parser, options))


def _report(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    folder, path = options.folder, options.html
    is_audit = (folder / FILE).is_file()
    require(parser, *([] if is_audit else ["scipy"]), *(["jinja2"] if path else []))
    try:
        if path is None:
            print(Audit.load(folder) if is_audit else report(folder))
        else:
            write_page(audit_page(Audit.load(folder)) if is_audit else run_page(folder), path)
    except (AuditError, StoreError) as error:
        parser.error(one_line(error))
    except BrokenPipeError:
        raise
    except OSError as error:
        parser.error(f"cannot write to {path}: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
