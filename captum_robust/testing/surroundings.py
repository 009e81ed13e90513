"""Rules on what surrounds a call: smoothed networks, threads, and numbers that are none."""

import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from captum.attr import Saliency
from torch import Tensor

from captum_robust._utils.captum import as_tuple, format_like
from captum_robust.attr.smooth import smooth_relu
from captum_robust.testing.attack_case import AttackCase
from captum_robust.testing.fault_injection import refusal
from captum_robust.testing.loss_case import LossCase
from captum_robust.testing.metric_case import ModelCase
from captum_robust.testing.report import require, require_close
from captum_robust.testing.snapshot import changes, random_state

__all__ = [
    "check_attack_counts_are_integers",
    "check_attack_refuses_nan",
    "check_attacks_in_threads_are_independent",
    "check_metric_counts_are_integers",
    "check_metrics_in_threads_are_independent",
    "check_smoothing_changes_no_attack_arithmetic",
    "check_smoothing_changes_no_loss_arithmetic",
    "check_smoothing_changes_no_metric_arithmetic",
]

_BETA = 5.0
_N_THREADS = 3


def check_smoothing_changes_no_attack_arithmetic(case: AttackCase) -> None:
    """Inside ``smooth_relu``, an attack on a model without ReLU returns the same points."""
    outside = as_tuple(case.perturb())
    with smooth_relu(_BETA):
        inside = as_tuple(case.perturb())
    require_close(inside, outside, "smooth_relu around the attack changed its own arithmetic")


def check_smoothing_changes_no_metric_arithmetic(case: ModelCase) -> None:
    """Inside ``smooth_relu``, a metric of a model without ReLU has the same values."""
    outside = case.value()
    with smooth_relu(_BETA):
        inside = case.value()
    require_close(inside, outside, "smooth_relu around the metric changed its own arithmetic")


def check_smoothing_changes_no_loss_arithmetic(case: LossCase) -> None:
    """Inside ``smooth_relu``, the loss of a model without ReLU has the same value."""
    outside = case.value(case.model.build()).detach()
    with smooth_relu(_BETA):
        inside = case.value(case.model.build()).detach()
    require_close(inside, outside, "smooth_relu around the loss changed its own arithmetic")


def check_attacks_in_threads_are_independent(case: AttackCase) -> None:
    """Attacks in several threads give the results of attacks in turn, and leave no random state."""
    attack = case.attack()
    _check_threads(lambda seed: as_tuple(case.perturb(attack, seed=seed)))


def check_metrics_in_threads_are_independent(case: ModelCase) -> None:
    """Metrics in several threads have the values of calls in turn, and leave no random state."""
    network, takes_seed = case.model.build(), case.traits.seed
    _check_threads(lambda seed: (case.value(network, seed=seed if takes_seed else None),))


def check_attack_refuses_nan(case: AttackCase) -> None:
    """NaN in a bound, a mask or a start raises a ValueError that names the argument."""
    inputs = case.model.inputs
    nan = format_like(inputs, tuple(_with_nan(t) for t in as_tuple(inputs)))
    calls: dict[str, Callable[[], Any]] = {}
    if case.traits.bounds:
        for name in ("lower_bound", "upper_bound"):
            calls[name] = partial(_attack_within, case, name)
    if case.traits.mask:
        calls["mask"] = partial(case.perturb, mask=nan)
    if case.traits.warm_start:
        calls["start"] = partial(case.perturb, start=nan)
    for name, call in calls.items():
        message = refusal(call)
        require(
            message is not None and name in message,
            f"NaN in {name} must raise a ValueError that names it, got {message}",
        )


def check_attack_counts_are_integers(case: AttackCase) -> None:
    """Numbers of steps, restarts, chunks and features that are no integers raise a ValueError."""
    names = ["max_examples_per_batch"]
    if case.traits.restarts:
        names.append("n_restarts")
    for name in names:
        message = refusal(partial(case.perturb, **{name: 2.5}))
        require(
            message is not None and name in message,
            f"{name}=2.5 must raise a ValueError that names it, got {message}",
        )
    for name in (name for name in case.effort(2) if name in _COUNTS):
        message = refusal(partial(case.perturb, **{name: 2.5}))
        require(message is not None, f"{name}=2.5 must raise a ValueError, got none")
    if case.traits.aims_at_top_k:
        message = refusal(partial(_attack_with, case, 2.5))
        require(message is not None, "k=2.5 must raise a ValueError, got none")


def check_metric_counts_are_integers(case: ModelCase) -> None:
    """Numbers of features and chunks that are no integers raise a ValueError that names them."""
    names = [case.traits.k] if case.traits.k is not None else []
    if case.traits.chunks:
        names.append("max_examples_per_batch")
    for name in names:
        message = refusal(partial(case.value, **{name: 2.5}))
        require(
            message is not None and name in message.replace(",", " ").split(),
            f"{name}=2.5 must raise a ValueError that names it, got {message}",
        )


_COUNTS = ("step_num", "budget")


def _attack_within(case: AttackCase, name: str) -> None:
    bound: dict[str, Any] = {name: float("nan")}
    case.perturb(case.attack(**bound))


def _attack_with(case: AttackCase, k: Any) -> None:
    case.perturb(case.factory(Saliency(case.model.build()), k))


def _with_nan(tensor: Tensor) -> Tensor:
    broken = torch.ones_like(tensor)
    broken.view(-1)[0] = float("nan")
    return broken


def _check_threads(call: Callable[[int], tuple[Tensor, ...]]) -> None:
    expected = [call(seed) for seed in range(_N_THREADS)]
    before = random_state()
    found: list[tuple[Tensor, ...] | None] = [None] * _N_THREADS
    errors: list[Exception] = []
    ready = threading.Barrier(_N_THREADS)

    def work(seed: int) -> None:
        ready.wait()
        try:
            found[seed] = call(seed)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(_N_THREADS)]
    with warnings.catch_warnings():  # filters of warnings belong to all threads
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    changed = changes(before, random_state())
    require(not changed, f"changed by {_N_THREADS} threads: {', '.join(changed)}")
    for alone, together in zip(expected, found, strict=True):
        require(not errors, f"a call in a thread raised {errors[:1]}")
        require_close(together or (), alone, "a call in a thread had another result than alone")
