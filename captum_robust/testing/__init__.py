"""Checks that an attack, a metric or a loss, of this library or your own, follows its rules.

``check_attack(factory)``, ``check_metric(metric)`` and ``check_loss(factory)`` run every check that
applies to the declared properties on a registry of small models, and raise one AssertionError that
names each broken rule with the reason. ``attack_checks``, ``metric_checks`` and ``loss_checks``
yield the same checks one by one, for ``pytest.mark.parametrize``. pytest itself is not required.
"""

from captum_robust.testing.attack_case import AttackCase, AttackTraits
from captum_robust.testing.attacks import ATTACK_RULES, attack_checks, check_attack
from captum_robust.testing.loss_case import LossCase, LossTraits
from captum_robust.testing.losses import LOSS_RULES, check_loss, loss_checks
from captum_robust.testing.metric_case import MapsCase, MetricTraits, ModelCase
from captum_robust.testing.metrics import MAPS_RULES, MODEL_RULES, check_metric, metric_checks
from captum_robust.testing.models import SmallModel, small_models
from captum_robust.testing.report import CheckFailure

__all__ = [
    "ATTACK_RULES",
    "LOSS_RULES",
    "MAPS_RULES",
    "MODEL_RULES",
    "AttackCase",
    "AttackTraits",
    "CheckFailure",
    "LossCase",
    "LossTraits",
    "MapsCase",
    "MetricTraits",
    "ModelCase",
    "SmallModel",
    "attack_checks",
    "check_attack",
    "check_loss",
    "check_metric",
    "loss_checks",
    "metric_checks",
    "small_models",
]
