"""Half precision and autocast on the device."""

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency

from captum_robust.loss import HessianNormLoss, R2ETLoss
from captum_robust.metrics import hessian_norm, ranking_thickness
from captum_robust.robust import AutoERAttack, ERAttack, RandomSearchAttack
from tests.gpu.device import DEVICE, assert_same, moved
from tests.robust.targets import convnet, mlp, normal

HALF = [torch.float32, torch.bfloat16, torch.float16]
LABELS = torch.arange(5) % 3


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("make", [ERAttack, RandomSearchAttack])
def test_attacks(make, norm, dtype):
    model, x = moved(convnet()).to(dtype), moved(normal(5, 1, 4, 4)).to(dtype)
    found, info = make(Saliency(model), 2).perturb(
        x, 0.5, target=moved(LABELS), norm=norm, step_num=4, seed=0, return_info=True
    )
    assert found.device == DEVICE and found.dtype == dtype
    length = (found.double() - x.double()).flatten(1)
    length = length.abs().amax(1) if norm == "Linf" else length.norm(dim=1)
    rounding = 8 * torch.finfo(dtype).eps * (1 + x.abs().max())  # of the sum of input and step
    assert (length <= 0.5 + rounding).all() and length.any()
    assert torch.equal(model(found).argmax(1), model(x).argmax(1))
    assert info.objective.isfinite().all()


@pytest.mark.parametrize("dtype", HALF)
def test_metrics(dtype):
    few = {"n_perturb_samples": 3, "n_steps": 4, "perturb_radius": 0.3, "k": 2}
    found = []
    for device in (DEVICE, "cpu"):
        model, x = moved(mlp(), device).to(dtype), moved(normal(5, 6), device).to(dtype)
        arguments = {"target": moved(LABELS, device), "seed": 0}
        values = (
            ranking_thickness(Saliency(model).attribute, x, **few, **arguments),
            hessian_norm(model, x, **arguments),
        )
        assert all(value.isfinite().all() for value in values)
        found.append(values)
    # The noise is the same. In half precision the last of 8 or 11 bits decides some close pairs.
    half = {"rtol": 0.1, "atol": 0.1}
    assert_same(*found, **({"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else half))


@pytest.mark.parametrize("loss", [R2ETLoss, HessianNormLoss])
@pytest.mark.parametrize("hessian", ["finite_difference", "hvp"])
def test_a_loss_under_autocast(hessian, loss):
    model = moved(mlp()).float()
    criterion = loss(model, *([2] if loss is R2ETLoss else []), hessian=hessian)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert model(moved(normal(5, 6)).float()).dtype == torch.bfloat16
        value = criterion(moved(normal(5, 6)).float(), moved(LABELS))
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    # The loss of the labels has two digits; the regulariser is of their rounding.
    plain = torch.nn.functional.cross_entropy(model(moved(normal(5, 6)).float()), moved(LABELS))
    assert criterion.last_terms["base"].item() == pytest.approx(plain.item(), rel=0.05)


@pytest.mark.parametrize("make", [ERAttack, AutoERAttack])
def test_an_attack_under_autocast(make):
    model, x = moved(mlp()).float(), moved(normal(5, 6)).float()
    effort = {"budget": 60} if make is AutoERAttack else {"step_num": 4}
    with torch.autocast(DEVICE.type, torch.bfloat16):
        found = make(Saliency(model), 2).perturb(x, 0.5, target=moved(LABELS), seed=0, **effort)
        assert torch.equal(model(found).argmax(1), model(x).argmax(1))
    assert found.dtype == torch.float32 and found.device == DEVICE
    assert 0 < (found - x).abs().max() <= 0.5 * (1 + 1e-6)


@pytest.mark.parametrize("noisy", [False, True])
def test_an_attack_on_integrated_gradients_in_float32(noisy):
    model, x = moved(mlp()).float(), moved(normal(5, 6)).float()
    attribution = IntegratedGradients(model)
    arguments = {"n_steps": 5}
    if noisy:
        attribution, arguments = NoiseTunnel(attribution), {"n_steps": 5, "nt_samples": 2}
    call = {"target": moved(LABELS), "step_num": 3, "seed": 0, **arguments}
    found = [ERAttack(attribution, 2).perturb(x, 0.5, **call) for _ in range(2)]
    assert torch.equal(*found) and not torch.equal(found[0], x)
