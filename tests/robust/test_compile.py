"""Compiled steps against the steps as they are written."""

import shutil
import warnings

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import nn

from captum_robust.robust import CompileWarning, ERAttack, MSEAttack, ParetoERAttack
from tests.robust.targets import convnet, drawn, mlp, normal, relu_mlp

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="torch compiles with a C++ compiler, and there is none"
)


def both(make, x, **arguments):
    """The result of an attack as it is written, and compiled."""
    given = {"target": 1, "seed": 0, "step_num": 8, "return_info": True, **arguments}
    return [make(compile=how).perturb(x, 0.3, **given) for how in (False, True)]


@needs_compiler
@pytest.mark.filterwarnings("error::captum_robust.robust.CompileWarning")
@pytest.mark.parametrize(
    "make, x",
    [
        (lambda **o: ERAttack(Saliency(mlp()), k=2, **o), normal(5, 6)),
        (lambda **o: ERAttack(Saliency(relu_mlp()), k=2, smooth_relu=5.0, **o), normal(5, 6)),
        (lambda **o: MSEAttack(InputXGradient(mlp()), k=2, **o), normal(5, 6)),
        pytest.param(
            lambda **o: ERAttack(IntegratedGradients(mlp()), k=2, preserve_prediction="qp", **o),
            normal(5, 6),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda **o: ERAttack(Saliency(convnet()), k=3, absolute=True, path_points=2, **o),
            normal(3, 1, 4, 4),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["saliency", "smoothed", "random start", "integrated gradients", "images"],
)
def test_a_compiled_attack_finds_the_same(make, x):
    (moved, info), (compiled, told) = both(make, x)
    assert torch.allclose(compiled, moved, rtol=0, atol=1e-9)
    assert torch.allclose(told.trace, info.trace, rtol=1e-9, atol=1e-12)
    # The last point comes with the gradient of the smoothed network, which is not used.
    assert ((told.n_queries - info.n_queries) <= 1).all()
    assert torch.equal(told.prediction_kept, info.prediction_kept)
    assert not torch.equal(moved, x)


@needs_compiler
def test_another_network_of_the_same_form_is_not_taken_for_the_first():
    x, models = normal(5, 6), [mlp(), mlp()]
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.mul_(1.5)
    for model in models:
        (moved, _), (compiled, _) = both(
            lambda model=model, **o: ERAttack(Saliency(model), k=2, **o), x
        )
        assert torch.allclose(compiled, moved, rtol=0, atol=1e-9)


class Branching(nn.Module):
    """(N, 6) -> (N, 3), by a branch that depends on the values."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return self.inner(x) if x.sum() > 0 else self.inner(-x)


CANNOT = {
    "a branch on values": (lambda **o: ERAttack(Saliency(Branching()), k=2, **o), {}),
    "random": (
        lambda **o: ERAttack(NoiseTunnel(Saliency(mlp())), k=2, **o),
        {"nt_samples": 2, "stdevs": 0.1},
    ),
    "differences": (
        lambda **o: ERAttack(Saliency(mlp()), k=2, gradient="finite_difference", **o),
        {},
    ),
    "growing beta": (
        lambda **o: ERAttack(Saliency(relu_mlp()), k=2, smooth_relu=(2.0, 20.0), **o),
        {},
    ),
    "another search": (lambda **o: ParetoERAttack(Saliency(mlp()), k=2, **o), {}),
}


@pytest.mark.parametrize("make, arguments", CANNOT.values(), ids=CANNOT)
def test_what_cannot_be_compiled_says_why_and_finds_the_same(make, arguments):
    x = normal(5, 6)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CompileWarning)
        (moved, _), (other, _) = both(make, x, **arguments)
    (note,) = [w for w in caught if w.category is CompileWarning]
    assert "compile=True" in str(note.message) and note.filename == __file__
    assert torch.allclose(other, moved, rtol=0, atol=1e-12)


def test_a_compiler_that_computes_something_else_is_not_followed(monkeypatch):
    def wrong(graph, given):
        return lambda *tensors: tuple(1.01 * t for t in graph(*tensors))

    monkeypatch.setattr("torch._inductor.compile", wrong)
    network = drawn(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)))
    with pytest.warns(CompileWarning, match="another result"):
        (moved, _), (other, _) = both(
            lambda **o: ERAttack(Saliency(network), k=2, **o), normal(5, 6)
        )
    assert torch.allclose(other, moved, rtol=0, atol=1e-12)


def test_without_it_nothing_is_said():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ERAttack(Saliency(mlp()), k=2).perturb(normal(5, 6), 0.3, step_num=2, target=1)
