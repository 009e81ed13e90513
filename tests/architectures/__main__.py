"""Print the table of docs/models-and-data.md.

``python -m tests.architectures`` tries every job on every architecture, and measures a step of
ERAttack over one saliency of the same examples.
"""

import importlib.util
import warnings

import torch
from captum.attr import Saliency

from captum_robust.robust import ERAttack
from tests.architectures.jobs import JOBS
from tests.architectures.registry import ARCHITECTURES, Case
from tests.benchmark.row import Effort
from tests.benchmark.timing import difference_ratio


def cost(case: Case) -> str:
    """Return the time of a step of ERAttack, in saliencies."""
    given = {"target": 1, "additional_forward_args": case.arguments}
    attack = ERAttack(Saliency(case.model), case.k, feature_mask=case.feature_mask)

    def steps(n: int) -> None:
        attack.perturb(case.inputs, 0.1, step_num=n, **given)

    def saliency() -> None:
        leaf = case.inputs.detach().requires_grad_()
        extra = case.arguments or ()
        torch.autograd.grad(case.model(leaf, *extra)[:, 1].sum(), leaf)

    time = difference_ratio(lambda: steps(6), lambda: steps(1), saliency, Effort(0.5, 5, 20))
    return f"{time.median / 5:.1f}"


def main() -> None:
    """Print one row per architecture."""
    columns = [*JOBS, "step / saliency"]
    print("| architecture | inputs | library | " + " | ".join(columns) + " |")
    print("|---" * (3 + len(columns)) + "|")
    for name, (modality, library, build) in ARCHITECTURES.items():
        cells = []
        if importlib.util.find_spec(library) is None:
            print(f"| {name} | {modality} | {library} | not installed |")
            continue
        for work in JOBS.values():
            torch.manual_seed(0)
            try:
                work(build())
                cells.append("works")
            except (ValueError, RuntimeError, TypeError, AssertionError) as error:
                cells.append(f"{type(error).__name__}: {error}")
        cells.append(cost(build()))
        print(f"| {name} | {modality} | {library} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main()
