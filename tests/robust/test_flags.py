"""Every flag on a model that deserves it, and none on one that does not."""

import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from captum_robust.robust import FLAGS, AutoERAttack, ERAttack, ExplanationAttack
from captum_robust.robust.flags import count_flags
from captum_robust.robust.swaps import NextSwapObjective
from tests.robust.targets import Quadratic, drawn, mlp, normal, relu_mlp

N = 5


def flags(attack, x=None, radius=0.3, target=1, **arguments):
    x = normal(N, 6) if x is None else x
    given = {"seed": 0, "target": target, "return_info": True, **arguments}
    return attack.perturb(x, radius, **given)[1].flags


class Sharp(nn.Module):
    """(N, 6) -> (N,), with an infinite slope of the saliency where the first feature is zero."""

    def forward(self, x):
        return (x * torch.arange(1.0, 7.0)).sum(dim=1) + x[:, 0].abs() ** 1.5


def test_a_quiet_attack_has_no_flags():
    steps = {"step_size": 0.3, "step_num": 6, "norm": "Linf"}
    assert flags(ERAttack(Saliency(Quadratic(6)), k=2), target=None, abs=False, **steps) == {}


@pytest.mark.filterwarnings("ignore::captum_robust.robust.ZeroGradientWarning")
def test_zero_gradient():
    assert flags(ERAttack(Saliency(relu_mlp()), k=2))["zero_gradient"] == N
    broken = torch.cat([normal(2, 6), torch.full((1, 6), torch.nan).double()])
    assert flags(ERAttack(Saliency(relu_mlp()), k=2), broken)["zero_gradient"] == 2
    assert "zero_gradient" not in flags(ERAttack(Saliency(relu_mlp()), k=2, smooth_relu=5.0))
    assert "zero_gradient" not in flags(ERAttack(Saliency(relu_mlp()), k=2), radius=0.0)


def test_non_finite_gradient():
    x = normal(N, 6).float()
    x[1, 0] = 0
    assert flags(ERAttack(Saliency(Sharp()), k=2), x, target=None)["non_finite_gradient"] == 1


def test_still_falling():
    small = {"step_size": 1e-3, "step_num": 3}
    assert flags(ERAttack(Saliency(mlp()), k=2), **small)["still_falling"] == N
    assert "still_falling" not in flags(ERAttack(Saliency(mlp()), k=2), step_num=0)


def test_label_flips_rejected():
    model = drawn(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), gain=1.5)
    reject = ERAttack(Saliency(model), k=2)
    assert flags(reject, radius=4.0)["label_flips_rejected"] > 0
    anything = ERAttack(Saliency(model), k=2, preserve_prediction="none")
    assert "label_flips_rejected" not in flags(anything, radius=4.0)


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(8)])
def test_training_mode(layer):
    model = nn.Sequential(nn.Linear(6, 8), layer, nn.Softplus(), nn.Linear(8, 3)).double()
    assert flags(ERAttack(Saliency(model.train()), k=2))["training_mode"] == N
    assert "training_mode" not in flags(ERAttack(Saliency(model.eval()), k=2))


def test_float16_underflow():
    model, x = drawn(nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3))), normal(N, 6)
    attack = ERAttack(Saliency(model.half()), k=2)
    assert "float16_underflow" not in flags(attack, x.half(), step_num=1)
    with torch.no_grad():
        model[-1].weight *= 1e-6
    assert flags(attack, x.half(), step_num=1)["float16_underflow"] == N
    assert "float16_underflow" not in flags(ERAttack(Saliency(model.float()), k=2), x.float())


def test_tied_reference():
    model = Quadratic(6)
    with torch.no_grad():
        for weight in (model.A, model.b):  # sums of few bits, which no order of summation rounds
            weight.copy_((8 * weight).round() / 8)
        model.A[:, 1], model.A[1], model.b[1] = model.A[:, 0], model.A[0], model.b[0]
        model.A[1, 1] = model.A[0, 0]
    x = (8 * normal(N, 6)).round() / 8
    scores = x @ model.A + model.b
    assert torch.equal(scores[:, 0], scores[:, 1])
    rank = (scores > scores[:, :1]).sum(dim=1)
    told = flags(ERAttack(Saliency(model), k=2), x, target=None, abs=False)
    assert told.get("tied_reference", 0) == int((rank == 1).sum()) > 0


# --- what only an ensemble can say ----------------------------------------------------------------


def test_randomised():
    noisy = NoiseTunnel(Saliency(mlp()))
    told = flags(AutoERAttack(noisy, k=2), budget=3, nt_samples=3, stdevs=0.5)
    assert told["randomised"] == N
    assert "randomised" not in flags(AutoERAttack(Saliency(mlp()), k=2), budget=3)


class Masked(Saliency):
    """A saliency whose own derivative is masked: it is rounded."""

    def attribute(self, *args, **kwargs):
        maps = super().attribute(*args, **kwargs)
        return (1e4 * maps).round() / 1e4


def test_black_box_beats_white_box():
    told = flags(AutoERAttack(Masked(mlp()), k=2), radius=0.5)
    assert told["black_box_beats_white_box"] > 0 and told["zero_gradient"] == N
    assert "black_box_beats_white_box" not in flags(AutoERAttack(Saliency(mlp()), k=2), radius=0.5)


def test_black_box_is_judged_by_all_gradients_also_those_that_ran_later():
    model = drawn(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)))
    attack = AutoERAttack(Saliency(model), k=2)
    _, info = attack.perturb(normal(40, 6), 0.2, target=0, seed=0, return_info=True)
    found = info.member_precision.nan_to_num(nan=2.0)
    chance = torch.tensor([name.endswith("random search · example") for name in info.members])
    refined = torch.tensor([name.endswith("best point so far") for name in info.members])
    by_chance = found[chance].amin(dim=0)
    masked = by_chance < found[~chance & ~refined].amin(dim=0)
    before = by_chance < found[: chance.nonzero()[0, 0]].amin(dim=0)
    assert info.flags["black_box_beats_white_box"] == masked.sum() < before.sum()


def test_not_attacked():
    assert flags(AutoERAttack(Masked(mlp()), k=2), budget=5)["not_attacked"] == N
    assert "not_attacked" not in flags(AutoERAttack(Masked(mlp()), k=2), budget=200)
    broken = torch.cat([normal(2, 6), torch.full((1, 6), torch.nan).double()])
    assert flags(AutoERAttack(Masked(mlp()), k=2), broken, budget=5)["not_attacked"] == 2


def test_unconstrained_attack_fails():
    linear = drawn(nn.Sequential(nn.Linear(6, 3)))
    assert flags(AutoERAttack(Saliency(linear), k=2))["unconstrained_attack_fails"] == N
    assert (
        flags(AutoERAttack(Saliency(mlp()), k=2), radius=0.05)
        .keys()
        .isdisjoint({"unconstrained_attack_fails"})
    )


def test_every_flag_has_its_meaning():
    attack = ExplanationAttack(Saliency(mlp()), NextSwapObjective(2))
    assert set(flags(attack)) <= set(FLAGS)
    for flag in FLAGS.values():
        assert all(len(text) > 15 for text in (flag.meaning, flag.title, flag.text))
        assert str(flag) == flag.meaning


def test_no_flag_can_be_raised_that_the_table_does_not_explain():
    assert list(count_flags({"unmoved": 2, "zero_gradient": 1, "randomised": 0})) == [
        "zero_gradient",
        "unmoved",
    ]
    with pytest.raises(KeyError, match="unheard_of"):
        count_flags({"unheard_of": 1})
