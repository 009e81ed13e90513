"""Every attack, metric and loss that is exported passes the checks that others can use."""

import inspect

import pytest
from torch import nn

from captum_robust import loss, metrics, robust
from captum_robust._captum import Perturbation
from captum_robust.noise import Noise
from captum_robust.testing import attack_checks, loss_checks, metric_checks
from tests.testing.subjects import ATTACKS, LOSSES, METRICS, exported, one_of_each


def every(subjects, checks_of, one):
    """Parameters (subject, check): each rule on one model, or on all."""
    parameters = []
    for turn, (name, s) in enumerate(subjects.items()):
        checks = checks_of(models=s.models, **s.traits)
        for check_name, check in one_of_each(checks, turn) if one else checks:
            parameters.append(pytest.param(s.subject, check, id=f"{name}-{check_name}"))
    return pytest.mark.parametrize("subject, check", parameters)


@every(ATTACKS, attack_checks, one=True)
def test_our_attacks(subject, check):
    check(subject)


@every(METRICS, metric_checks, one=True)
def test_our_metrics(subject, check):
    check(subject)


@every(LOSSES, loss_checks, one=True)
def test_our_losses(subject, check):
    check(subject)


@pytest.mark.slow
@every(ATTACKS, lambda **traits: attack_checks(every_norm=True, **traits), one=False)
def test_our_attacks_on_every_model_in_every_norm(subject, check):
    check(subject)


@pytest.mark.slow
@every(METRICS, metric_checks, one=False)
def test_our_metrics_on_every_model(subject, check):
    check(subject)


@pytest.mark.slow
@every(LOSSES, loss_checks, one=False)
def test_our_losses_on_every_model(subject, check):
    check(subject)


def is_attack(thing):
    return (
        inspect.isclass(thing) and issubclass(thing, Perturbation) and not issubclass(thing, Noise)
    )


@pytest.mark.parametrize(
    "subjects, module, is_checked",
    [
        (ATTACKS, robust, is_attack),
        (METRICS, metrics, inspect.isfunction),
        (LOSSES, loss, lambda c: inspect.isclass(c) and issubclass(c, nn.Module)),
    ],
    ids=["attacks", "metrics", "losses"],
)
def test_nothing_that_is_exported_is_left_out(subjects, module, is_checked):
    assert {s.exported for s in subjects.values()} == exported(module, is_checked)
