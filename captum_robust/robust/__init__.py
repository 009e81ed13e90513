"""Attacks on explanations: change the attribution while the prediction stays the same."""

from captum_robust._utils.compile_warning import CompileWarning
from captum_robust._utils.estimate import Estimate
from captum_robust._utils.movement import UnmovedWarning
from captum_robust.noise import GaussianNoise, UniformNoise
from captum_robust.robust._ensemble.ensemble import AutoAttackInfo
from captum_robust.robust.adapters import as_perturb_func
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.auto import AutoERAttack
from captum_robust.robust.center_of_mass import CenterOfMassAttack
from captum_robust.robust.er import ERAttack
from captum_robust.robust.evaluation.comparator import ExplanationComparator
from captum_robust.robust.evaluation.min_radius import MinRadius
from captum_robust.robust.evaluation.robustness_table import Measurement, RobustnessTable
from captum_robust.robust.flags import FLAGS, Flag
from captum_robust.robust.info import AttackInfo, ZeroGradientWarning
from captum_robust.robust.mse import MSEAttack
from captum_robust.robust.pareto import ParetoERAttack, ParetoInfo
from captum_robust.robust.random_search import RandomSearchAttack
from captum_robust.robust.substitution import SubstitutionAttack, SubstitutionInfo
from captum_robust.robust.target_map import TargetMapAttack
from captum_robust.robust.top_k import TopKAttack

__all__ = [
    "FLAGS",
    "AttackInfo",
    "AutoAttackInfo",
    "AutoERAttack",
    "CenterOfMassAttack",
    "CompileWarning",
    "ERAttack",
    "Estimate",
    "ExplanationAttack",
    "ExplanationComparator",
    "Flag",
    "GaussianNoise",
    "MSEAttack",
    "Measurement",
    "MinRadius",
    "ParetoERAttack",
    "ParetoInfo",
    "RandomSearchAttack",
    "RobustnessTable",
    "SubstitutionAttack",
    "SubstitutionInfo",
    "TargetMapAttack",
    "TopKAttack",
    "UniformNoise",
    "UnmovedWarning",
    "ZeroGradientWarning",
    "as_perturb_func",
]
