"""The caller's tensors, model, attribution and random state are left as found, always."""

import copy
import random

import numpy as np
import pytest
import torch
from captum.attr import (
    DeepLift,
    FeatureAblation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from torch import nn

from captum_robust.robust import ERAttack, ExplanationAttack, MSEAttack
from tests.robust.targets import drawn, normal


class Net(nn.Module):
    """(N, 1, 4, 4) -> (N, 3), with running statistics, dropout and a frozen parameter."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Dropout(0.2)
        self.out = nn.Linear(27, 3)
        drawn(self)
        self.out.bias.requires_grad_(False)

    def forward(self, x, scale=1.0):
        hidden = nn.functional.softplus(self.norm(self.conv(x)))
        return scale * self.out(self.drop(hidden.flatten(1)))


def forward_of(model):
    """The model behind a function, as some users pass it."""
    return lambda x: model(x)


ATTRIBUTIONS = {
    "Saliency": Saliency,
    "InputXGradient": InputXGradient,
    "IntegratedGradients": IntegratedGradients,
    "NoiseTunnel": lambda m: NoiseTunnel(Saliency(m)),
    "LayerGradCam": lambda m: LayerGradCam(m, m.conv),
    "FeatureAblation": FeatureAblation,
    "GradientShap": GradientShap,
}
ARGUMENTS = {
    "IntegratedGradients": {"n_steps": 3},
    "NoiseTunnel": {"nt_samples": 2},
    "FeatureAblation": {"feature_mask": torch.arange(16).view(1, 1, 4, 4) // 4},
    "GradientShap": {"baselines": torch.zeros(1, 1, 4, 4).double(), "n_samples": 2},
}


class Snapshot:
    """Everything that must not change."""

    def __init__(self, model, attribution, tensors):
        self.model, self.attribution, self.tensors = model, attribution, tensors
        self.before = self.state()

    def state(self):
        modules = list(self.model.modules())
        return {
            "values": {n: t.clone() for n, t in self.model.state_dict().items()},
            "identities": [id(t) for t in (*self.model.parameters(), *self.model.buffers())],
            "grad": [p.grad for p in self.model.parameters()],
            "requires_grad": [p.requires_grad for p in self.model.parameters()],
            "training": [m.training for m in modules],
            "hooks": [
                len(hooks)
                for m in modules
                for hooks in (
                    m._forward_hooks, m._forward_pre_hooks, m._backward_hooks, m._backward_pre_hooks
                )
            ],
            "attribution": {
                n: copy.copy(v) if isinstance(v, list | dict) else v
                for n, v in self.attribution.__dict__.items()
            },
            "tensors": [
                (t.clone(), t.requires_grad, t.grad, t.is_leaf, t._version) for t in self.tensors
            ],
            "torch": torch.get_rng_state(),
            "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
            "python": random.getstate(),
            "grad mode": torch.is_grad_enabled(),
        }  # fmt: skip

    def unchanged(self):
        after = self.state()
        assert after.keys() == self.before.keys()
        for name, found in self.before.items():
            assert equal(found, after[name]), name
        return True


def equal(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool((a == b).all())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(p, q) for p, q in zip(a, b, strict=True))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    return bool(a == b)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_an_attack_leaves_everything_as_found(name, training):
    model = Net().train(training)
    x = normal(3, 1, 4, 4).requires_grad_()
    mask, start = torch.ones(4, 4).double(), (x + 0.01).detach()
    radius = torch.tensor([0.1, 0.2, 0.3])
    attribution = ATTRIBUTIONS[name](model)
    found = Snapshot(model, attribution, [x, mask, start, radius])
    moved = ERAttack(attribution, k=2, smooth_relu=5.0).perturb(
        x, radius, step_num=3, target=1, mask=mask, start=start, n_restarts=2, seed=0,
        **ARGUMENTS.get(name, {}),
    )  # fmt: skip
    assert not torch.equal(moved, x)
    assert found.unchanged()


@pytest.mark.parametrize("gradient", ["autograd", "finite_difference", "spsa"])
def test_every_gradient_leaves_everything_as_found(gradient):
    model = Net().train()
    x = normal(3, 1, 4, 4)
    attribution, surrogate = Saliency(model), Saliency(model)
    found = Snapshot(model, attribution, [x])
    MSEAttack(attribution, gradient=gradient, surrogate=surrogate).perturb(
        x, 0.3, step_num=3, target=1, seed=0, return_info=True
    )
    assert found.unchanged()


class Trouble(Exception):
    pass


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_an_exception_leaves_everything_as_found(name):
    model, x = Net().train(), normal(3, 1, 4, 4).requires_grad_()
    attribution = ATTRIBUTIONS[name](model)
    found = Snapshot(model, attribution, [x])
    calls = []

    def fails_later(scores, reference):
        calls.append(scores)
        if len(calls) == 3:
            raise Trouble
        return scores[:, 0]

    with pytest.raises(Trouble):
        ExplanationAttack(attribution, fails_later).perturb(
            x, 0.3, target=1, seed=0, **ARGUMENTS.get(name, {})
        )
    assert len(calls) == 3
    assert found.unchanged()


def test_an_exception_of_the_model_leaves_everything_as_found():
    model, x = Net().train(), normal(3, 1, 4, 4)
    found = Snapshot(model, Saliency(model), [x])
    with pytest.raises(ValueError, match="target must select"):
        ERAttack(Saliency(model), k=2).perturb(x, 0.3, target=7)
    assert found.unchanged()


def test_a_model_behind_a_function_keeps_its_parameters():
    model, x = Net().eval(), normal(3, 1, 4, 4)
    attribution = Saliency(forward_of(model))
    found = Snapshot(model, attribution, [x])
    ERAttack(attribution, k=2).perturb(x, 0.3, step_num=3, target=1)
    assert found.unchanged()


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_the_handles_of_deeplift_do_not_pile_up():
    model = drawn(nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 3)))
    attribution, x = DeepLift(model), normal(3, 1, 4, 4)
    found = Snapshot(model, attribution, [x])
    ERAttack(attribution, k=2, gradient="spsa").perturb(x, 0.3, step_num=2, target=1, seed=0)
    assert found.unchanged()


def test_the_attack_itself_does_not_change():
    attack = ERAttack(Saliency(Net().eval()), k=2, smooth_relu=5.0)
    before = copy.copy(attack.__dict__)
    attack.perturb(normal(3, 1, 4, 4), 0.3, step_num=2, target=1)
    assert attack.__dict__ == before


def test_the_result_shares_no_memory_with_the_callers_tensors():
    attack, x = ERAttack(Saliency(Net().eval()), k=2), normal(3, 1, 4, 4)
    start = x + 0.05
    before = start.clone()
    moved = attack.perturb(x, 0.3, step_num=0, target=1, start=start)
    moved.add_(1)
    assert torch.equal(start, before) and torch.equal(x, normal(3, 1, 4, 4))
