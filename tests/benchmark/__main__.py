"""Print the table: ``python -m tests.benchmark [--quick] [--full] [--only NAME] [--json FILE]``.

``--device cuda`` measures on a GPU, with larger batches beside.
"""

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from tqdm import tqdm

from tests.benchmark import device
from tests.benchmark.goals import MEASURES
from tests.benchmark.row import Effort, Measure, Row

_NORMAL = Effort(seconds=3, min_rounds=5, max_rounds=25)
_QUICK = Effort(seconds=0.2, min_rounds=3, max_rounds=9, quick=True)
_TITLES = ("goal", "group", "what", "ratio", "measured (quartiles)", "asked", "")


def main() -> int:
    """Measure what was asked for and print a line each; 1 where sides differ or a row failed."""
    options = _options()
    device.choose(options.device)
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # no second thread
    effort = _QUICK if options.quick else _NORMAL
    measures = selected(options.full, options.only)
    rows = []
    with tqdm(measures, unit="row", file=sys.stderr) as bar:
        for measure in bar:
            bar.set_description(f"{measure.group}: {measure.what}")
            rows.append(measure.row(effort))
            if options.json:  # what is there if the run is cut off
                options.json.write_text(json.dumps(_report(rows, options.quick), indent=2) + "\n")
    print(_table(rows))
    wrong = [row for row in rows if row.differs or row.failed]
    for row in wrong:
        what = f"{row.measure.group}, {row.measure.what}, {row.measure.ratio}"
        print(f"\n{what}: {row.differs or row.failed}", file=sys.stderr)
    return 1 if wrong else 0


def selected(full: bool, groups: list[str] | None) -> list[Measure]:
    """The measures of these groups, or of all, that belong to a run on the chosen device."""
    runs = {"always": True, "full": full, "gpu": device.on_gpu()}
    return [m for m in MEASURES if runs[m.when] and (not groups or m.group in groups)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and smaller batches")
    parser.add_argument("--full", action="store_true", help="ResNet9 as well")
    groups = sorted({m.group for m in MEASURES})
    parser.add_argument(
        "--only", action="append", choices=groups, metavar="NAME", help=f"one of {groups}"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU here")
    return options


def _table(rows: list[Row]) -> str:
    cells = [_TITLES] + [
        (
            str(row.measure.goal),
            row.measure.group,
            row.measure.what,
            row.measure.ratio,
            "–" if row.found is None else str(row.found),
            str(row.measure.bound),
            row.verdict,
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    missed = sum(row.verdict == "missed" for row in rows)
    return "\n".join([*lines, "", f"{len(rows)} rows, {missed} missed, on {device.name()}"])


def _report(rows: list[Row], quick: bool) -> dict[str, object]:
    return {
        "quick": quick,
        "device": device.name(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "captum", "numpy")},
        "rows": [row.as_dict() for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
