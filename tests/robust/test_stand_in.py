"""Arguments of an attribution that its stand-in does not take."""

import pytest
import torch
from captum.attr import (
    DeepLift,
    InputXGradient,
    IntegratedGradients,
    KernelShap,
    Lime,
    NoiseTunnel,
    Saliency,
)

from captum_robust import audit
from captum_robust._utils.captum import accepted_arguments
from captum_robust.robust import AutoERAttack, ERAttack
from tests.robust.targets import mlp, normal, relu_mlp

pytestmark = [
    pytest.mark.filterwarnings("ignore:Setting forward, backward hooks"),  # Captum's own
    pytest.mark.filterwarnings("ignore:You are providing multiple inputs"),
]

BASELINE = normal(1, 6, seed=5)
ARGUMENTS = {
    "baselines": (DeepLift, {"baselines": BASELINE}),
    "samples": (KernelShap, {"n_samples": 30}),
    "samples of lime": (Lime, {"n_samples": 30}),
    "noise": (
        lambda model: NoiseTunnel(DeepLift(model)),
        {"nt_samples": 2, "stdevs": 0.1, "baselines": BASELINE},
    ),
}


@pytest.mark.parametrize("make, arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("budget", [40, 110])
def test_the_ensemble_attacks_any_attribution_with_arguments_of_its_own(make, arguments, budget):
    x = normal(2, 6)
    _, info = AutoERAttack(make(relu_mlp()), 2).perturb(
        x, 0.5, target=1, seed=0, budget=budget, return_info=True, **arguments
    )
    assert "not_attacked" not in info.flags
    assert any("InputXGradient" in name for name in info.members)


@pytest.mark.parametrize("make, arguments", ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_surrogate_gets_what_it_takes(make, arguments):
    x, model = normal(2, 6), relu_mlp()
    given = {"target": 1, "seed": 0, "step_num": 3, **arguments}
    for surrogate in (InputXGradient(model), IntegratedGradients(model)):
        attack = ERAttack(make(model), 2, surrogate=surrogate, smooth_relu=5.0)
        assert not torch.equal(attack.perturb(x, 0.5, **given), x)


def test_the_audit_attacks_it_too():
    given = {"DeepLift": (DeepLift(relu_mlp()), {"baselines": BASELINE})}
    found = audit(relu_mlp(), normal(4, 6), attributions=given, k=2, radius=[0.5],
                  show_progress=False)  # fmt: skip
    assert found.explanations[0].worst.precision


def test_accepted_arguments():
    given = {"target": 1, "n_steps": 5, "nt_samples": 2, "baselines": BASELINE, "other": 0}
    wrapped = NoiseTunnel(IntegratedGradients(mlp()))
    for attribution, names in (
        (Saliency(mlp()), {"target"}),
        (DeepLift(mlp()), {"target", "baselines"}),
        (wrapped, {"target", "n_steps", "nt_samples", "baselines"}),
    ):
        assert accepted_arguments(attribution, given).keys() == names
