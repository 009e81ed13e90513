"""Attacks on explanations: change the map as much as possible, and the prediction not at all."""

from captum_robust.noise import GaussianNoise, UniformNoise
from captum_robust.robust.adapters import as_perturb_func
from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.center_of_mass import CenterOfMassAttack
from captum_robust.robust.er import ERAttack
from captum_robust.robust.info import AttackInfo, ZeroGradientWarning
from captum_robust.robust.mse import MSEAttack
from captum_robust.robust.top_k import TopKAttack

__all__ = [
    "AttackInfo",
    "CenterOfMassAttack",
    "ERAttack",
    "ExplanationAttack",
    "GaussianNoise",
    "MSEAttack",
    "TopKAttack",
    "UniformNoise",
    "ZeroGradientWarning",
    "as_perturb_func",
]
