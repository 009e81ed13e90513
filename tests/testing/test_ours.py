"""Every attack, metric and loss that is exported passes the checks that others can use."""

import inspect

import pytest
from torch import nn

from captum_robust import loss, metrics, robust
from captum_robust._utils.captum import Perturbation
from captum_robust.noise import Noise
from captum_robust.testing import (
    attack_checks,
    check_attack,
    check_loss,
    check_metric,
    loss_checks,
    metric_checks,
)
from tests.testing.subjects import ATTACKS, LOSSES, METRICS, exported, one_of_each


def every(subjects, checks_of):
    """Parameters (subject, check): each rule on one model, half of them for a variant."""
    parameters, seen = [], set()
    for turn, (name, s) in enumerate(subjects.items()):
        checks = one_of_each(checks_of(models=s.models, **s.traits), turn)
        checks = checks[turn % 2 :: 2] if s.exported in seen else checks
        seen.add(s.exported)
        parameters += [
            pytest.param(s.subject, check, id=f"{name}-{check_name}")
            for check_name, check in checks
        ]
    return pytest.mark.parametrize("subject, check", parameters)


def whole(subjects):
    return pytest.mark.parametrize("subject", subjects.values(), ids=subjects)


@every(ATTACKS, attack_checks)
def test_our_attacks(subject, check):
    check(subject)


@every(METRICS, metric_checks)
def test_our_metrics(subject, check):
    check(subject)


@every(LOSSES, loss_checks)
def test_our_losses(subject, check):
    check(subject)


@pytest.mark.slow
@whole(ATTACKS)
def test_our_attacks_on_every_model_in_every_norm(subject):
    check_attack(subject.subject, models=subject.models, every_norm=True, **subject.traits)


@pytest.mark.slow
@whole(METRICS)
def test_our_metrics_on_every_model(subject):
    check_metric(subject.subject, models=subject.models, **subject.traits)


@pytest.mark.slow
@whole(LOSSES)
def test_our_losses_on_every_model(subject):
    check_loss(subject.subject, models=subject.models, **subject.traits)


def is_attack(thing):
    # Substitutions have no radius; tests/graph/test_edge_flip_contract.py gives them one.
    no_attacks = Noise, robust.SubstitutionAttack
    return (
        inspect.isclass(thing)
        and issubclass(thing, Perturbation)
        and not issubclass(thing, no_attacks)
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
