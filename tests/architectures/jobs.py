"""What a practitioner does with a model: measure, attack, audit, train."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor

from captum_robust import audit
from captum_robust.loss import R2ETLoss
from captum_robust.metrics import ranking_thickness
from captum_robust.robust import AutoERAttack, ERAttack
from tests.architectures.registry import Case

__all__ = ["JOBS"]


@contextmanager
def _known_warnings() -> Iterator[None]:
    """A gradient of zero is a result here, as in ReLU networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _given(case: Case) -> dict[str, Any]:
    return {"target": 1, "additional_forward_args": case.arguments}


def _radius(case: Case) -> float:
    return 0.1 * float(case.inputs.std())


def thickness(case: Case) -> None:
    """Measure the stability under noise, which is 1 at radius 0."""
    for radius in (0.0, _radius(case)):
        found = ranking_thickness(
            Saliency(case.model).attribute, case.inputs, case.k, perturb_radius=radius, seed=0,
            n_perturb_samples=2, n_steps=2, feature_mask=case.feature_mask, **_given(case),
        )  # fmt: skip
        assert found.shape == (len(case.inputs),) and ((found >= 0) & (found <= 1)).all()
        assert radius > 0 or (found == 1).all()


def attack(case: Case) -> None:
    """Follow the gradient of the attribution itself."""
    perturb = ERAttack(Saliency(case.model), case.k, feature_mask=case.feature_mask).perturb
    _check(case, *perturb(case.inputs, _radius(case), step_num=3, return_info=True, **_given(case)))


def ensemble(case: Case) -> None:
    """Attack with the ensemble, within a budget of attributions."""
    perturb = AutoERAttack(Saliency(case.model), case.k, feature_mask=case.feature_mask).perturb
    moved, info = perturb(
        case.inputs, _radius(case), budget=20, seed=0, return_info=True, **_given(case)
    )
    _check(case, moved, info)
    assert (info.n_queries <= 20).all()


def whole_audit(case: Case) -> None:
    """Audit two examples."""
    rows = slice(0, 2)
    arguments = case.arguments and tuple(a[rows] for a in case.arguments)
    found = audit(
        case.model, case.inputs[rows], k=case.k, radius=[_radius(case)], show_progress=False,
        additional_forward_args=arguments, feature_mask=case.feature_mask,
    )  # fmt: skip
    assert str(found)


def training(case: Case) -> None:
    """Take three steps of R2ET, with every regulariser and with every eighth."""
    for every in (1, 8):
        optimizer = torch.optim.SGD(case.model.parameters(), lr=1e-3)
        criterion = R2ETLoss(case.model, case.k, every=every, feature_mask=case.feature_mask)
        for _ in range(3):
            optimizer.zero_grad()
            loss = criterion(
                case.inputs, torch.arange(len(case.inputs)) % 3,
                additional_forward_args=case.arguments,
            )  # fmt: skip
            loss.backward()
            optimizer.step()
        assert loss.isfinite()


def _check(case: Case, moved: Tensor, info: Any) -> None:
    assert ((moved - case.inputs).abs() <= _radius(case) * 1.001).all()
    assert ((info.precision >= 0) & (info.precision <= 1)).all()


#: Every job by the heading of its column.
JOBS: dict[str, Callable[[Case], None]] = {
    "thickness": thickness,
    "ERAttack": attack,
    "AutoERAttack": ensemble,
    "audit": whole_audit,
    "R2ETLoss": training,
}
