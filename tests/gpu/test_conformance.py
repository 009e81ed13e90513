"""The rules of every attack, metric and loss, on models that live on the device."""

import pytest

from captum_robust.testing import attack_checks, loss_checks, metric_checks
from tests.gpu.device import MODELS, OnDevice
from tests.testing.subjects import ATTACKS, LOSSES, METRICS, one_of_each

N_TURNS = 8  # of all subjects together, every rule meets several


def every(subjects, checks_of):
    """Parameters (subject, check): a part of the rules, each on one of its models."""
    parameters = []
    for turn, (name, subject) in enumerate(subjects.items()):
        models = tuple(map(OnDevice.of, subject.models)) if subject.models else MODELS
        checks = one_of_each(checks_of(models=models, **subject.traits), turn)
        # The rules take turns, so that a device is tried by all of them in little time.
        parameters += [
            pytest.param(subject.subject, check, id=f"{name}-{check_name}")
            for check_name, check in checks[turn % N_TURNS :: N_TURNS]
        ]
    return pytest.mark.parametrize("subject, check", parameters)


@every(ATTACKS, attack_checks)
def test_attacks(subject, check):
    check(subject)


# Metrics of maps call no model.
@every({n: s for n, s in METRICS.items() if s.traits["call"] != "maps"}, metric_checks)
def test_metrics(subject, check):
    check(subject)


@every(LOSSES, loss_checks)
def test_losses(subject, check):
    check(subject)
