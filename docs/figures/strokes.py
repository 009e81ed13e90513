"""Fraction of the top pixels of digits that lie on ink.

``python docs/figures/strokes.py runs/digits`` prints the table and draws the attributions.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from captum.attr import Saliency
from matplotlib.figure import Figure
from torch import Tensor

from captum_robust._utils.tables import Table, markdown
from captum_robust.benchmark.measure.experiment import Experiment
from captum_robust.benchmark.measure.rows import ExplainedRows
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.store import Store
from captum_robust.benchmark.plan.units import Unit
from captum_robust.benchmark.tables.cells import mean_and_spread
from captum_robust.benchmark.tables.results import VANILLA, StudyResults
from captum_robust.ranking import top_k_mask

DATASET, INK, SHOWN = "mnist-pairs", 0.5, ("vanilla", "wd", "sp", "r2et", "r2et-late-sp")
IMAGE = Path(__file__).parents[1] / "images" / "strokes.png"


def main() -> None:
    """Print the fractions, and draw the attributions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the --out of a run on mnist-pairs")
    folder = parser.parse_args().folder
    results, store = StudyResults(folder), Store(folder)
    k, n_rows = results.protocol["k"], results.protocol["rows"]
    work = Experiment(store, Protocol(k=k), Path(os.environ["CAPTUM_ROBUST_DATA"]))
    drawn: dict[str, Tensor] = {}
    lines, on_ink = [], {}
    for model in results.models(DATASET):
        shares = {}
        for seed, selected in results.settings(DATASET, model).items():
            unit = Unit(DATASET, model.method, selected.setting, seed, model.start)
            rows = ExplainedRows.of(work.parts(DATASET, seed).test, n_rows).inputs
            maps = Saliency(work.model(unit)).attribute(rows.requires_grad_(), target=0)
            ink = rows.detach() > INK
            on_ink[seed] = float(ink.double().mean())
            shares[seed] = float(ink[top_k_mask(maps, k)].double().mean())
            if seed == min(results.settings(DATASET, VANILLA)):
                drawn["input"], drawn[str(model)] = rows[:2].detach(), maps[:2]
        lines.append([str(model), mean_and_spread(shares)])
    lines.append(["all pixels", mean_and_spread(on_ink)])
    print(markdown(Table(["method", f"top {k} on ink (> {INK:g})"], lines)))
    draw({name: drawn[name] for name in ("input", *SHOWN) if name in drawn})


def draw(rows: dict[str, Tensor]) -> None:
    """Draw two pairs and their attributions, one column per method."""
    figure = Figure(figsize=(1.6 * len(rows), 6.2), layout="constrained")
    for column, (name, maps) in enumerate(rows.items()):
        for place, member in enumerate(maps.view(4, 28, 28)):
            axis = figure.add_subplot(4, len(rows), 1 + place * len(rows) + column)
            axis.imshow(member.numpy(), cmap="gray_r")
            axis.set_axis_off()
            if place == 0:
                axis.set_title(name, fontsize=9)
    figure.savefig(IMAGE, dpi=100)


if __name__ == "__main__":
    main()
