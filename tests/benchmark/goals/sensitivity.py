"""Goal 12: max-sensitivity on our chunked path, against Captum's and Quantus'."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from captum_robust.metrics._explainer import Explainer
from captum_robust.metrics._neighbours import neighbour_scores
from captum_robust.robust import UniformNoise
from tests.benchmark.cases import Case, cnn_case, mlp_case
from tests.benchmark.peers.sensitivity import captum_sensitivity, has_quantus, quantus_sensitivity
from tests.benchmark.row import Effort, Measure, Spread, at_least
from tests.benchmark.timing import ratio

__all__ = ["MEASURES"]

_RADIUS, _N_DRAWS = 0.02, 50


def _ours(case: Case, perturb_func: Callable[..., Any]) -> Callable[[], Tensor]:
    r"""max over draws of :math:`\|I(x') - I(x)\| / \|I(x)\|`: the metric of the peers, (B,)."""

    def run() -> Tensor:
        arguments = {"target": case.target}
        with Explainer(case.attribute, case.inputs, arguments, False, None, None, 0) as explainer:
            reference, broken = explainer.reference(None)
            worst, ends = torch.zeros_like(reference[:, 0]), torch.ones(1)
            for rows, _, scores, invalid in neighbour_scores(
                explainer, perturb_func, _RADIUS, _N_DRAWS, ends, show_progress=False
            ):
                moved = (scores - reference[rows]).norm(dim=1)
                worst.scatter_reduce_(0, rows, moved, "amax")
                broken[rows[invalid]] = True
        return (worst / reference.norm(dim=1)).masked_fill(broken, float("nan"))

    return run


def _gain(
    peer: Callable[..., Callable[[], Tensor]],
    make: Callable[[int], Case],
    batch: int,
    effort: Effort,
) -> Spread | None:
    """Checked on shared noise; timed each with its own."""
    if peer is quantus_sensitivity and not has_quantus():
        return None
    case = make(batch)
    shape = (batch, _N_DRAWS, *case.inputs.shape[1:])
    noise = _RADIUS * (2 * torch.rand(shape, generator=torch.Generator().manual_seed(0)) - 1)
    noise = noise.to(case.inputs.device)
    draws = iter(noise.unbind(dim=1))
    shared = _ours(case, lambda inputs: inputs + next(draws))()
    assert_close(shared, peer(case, _RADIUS, _N_DRAWS, noise)().to(shared), rtol=1e-4, atol=1e-6)
    return ratio(peer(case, _RADIUS, _N_DRAWS), _ours(case, UniformNoise()), effort)


def _measures(
    what: str, make: Callable[[int], Case], batch: int, captum: float, quantus: float
) -> list[Measure]:
    return [
        Measure(
            12, "sensitivity", what, f"{name} / ours", at_least(goal),
            partial(_gain, peer, make, batch), cpu_only=reason,
        )
        for name, peer, goal, reason in (
            ("captum", captum_sensitivity, captum, ""),
            ("quantus", quantus_sensitivity, quantus, "Quantus computes in NumPy"),
        )
    ]  # fmt: skip


MEASURES = [
    *_measures("MLP, B = 128, 50 draws", mlp_case, 128, 5, 30),
    *_measures("CNN, B = 64, 50 draws", cnn_case, 64, 1.5, 1.6),
]
