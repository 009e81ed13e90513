"""AdversarialRankingLoss beside an attack written out example by example."""

import pytest
import torch
from captum.attr import DeepLift, InputXGradient, Saliency
from torch import nn
from torch.nn import functional as F

from captum_robust.attr import NotDifferentiableError, smooth_relu
from captum_robust.loss import AdversarialRankingLoss
from captum_robust.robust import ERAttack
from tests.loss.losses import Counting, Gated
from tests.loss.r2et_by_definition import (
    CLASSES,
    FORMS,
    TwoInputs,
    class_loss,
    drawn,
    labels,
    mlp,
    normal,
    pairs_by_definition,
    parameter_gradients,
    score,
)


class Recording(nn.Module):
    """Remember the inputs, and the mode, of every forward."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen, self.modes = [], []

    def forward(self, *inputs):
        self.seen.append(tuple(x.detach().clone() for x in inputs))
        self.modes.append(self.training)
        return self.model(*inputs)


def attacked(criterion, x, y, *arguments):
    """The inputs of the last forward, at which the loss is computed."""
    criterion.forward_func = Recording(criterion.forward_func)
    criterion(x, y, *arguments)
    recording = criterion.forward_func
    criterion.forward_func = recording.model
    found = recording.seen[-1]
    return found if isinstance(x, tuple) else found[0]


def gaps(model, row, label, order, options):
    """The gaps at a row of the pairs that ``order``, a map, chooses; with a graph."""
    value = score(model(row[None]), label, options.get("explain", "probability"))
    maps = torch.autograd.grad(value, row, create_graph=True)[0].abs()
    if options.get("normalize"):
        maps = maps / maps.sum()
    reference = maps.tolist() if order is None else order
    pairs = pairs_by_definition(reference, 2, options.get("pairs", "all"), options["k_prime"])
    h = torch.stack([maps[i] - maps[j] for i, j in pairs])
    return (h.sum() if options.get("gap") != "exp" else -(-h).exp().sum().log()), maps.tolist()


def attacked_by_definition(model, x, y, radius, step_num, step_size, norm, **options):
    results = []
    for start, label in zip(x, y, strict=True):
        row, order = start, None
        for _ in range(step_num):
            row = row.detach().requires_grad_()
            objective, maps = gaps(model, row, int(label), order, options)
            order = maps if order is None else order
            slope = torch.autograd.grad(objective, row)[0]
            if norm == "L2":
                shift = row - step_size * slope / slope.norm() - start
                shift = shift * min(1.0, radius / shift.norm().item())
            else:
                shift = (row - step_size * slope.sign() - start).clamp(-radius, radius)
            row = start + shift
        results.append(row.detach())
    return torch.stack(results)


@pytest.mark.parametrize("step_num", [1, 4])
@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pairs": "anchor"},
        {"pairs": "mm", "k_prime": 1, "gap": "exp"},
        {"explain": "logit"},
        {"normalize": True},
    ],
    ids=str,
)
def test_the_loss_at_the_end_of_the_attack(options, form, norm, step_num):
    model, x, y = mlp(form), normal(4, 6), labels(form)
    criterion = AdversarialRankingLoss(
        model, 2, radius=0.4, step_num=step_num, norm=norm, reduction="none", **options
    )
    step_size = 2.5 * 0.4 / step_num
    moved = attacked_by_definition(
        model, x, y, 0.4, step_num, step_size, norm, **{"k_prime": 2, **options}
    )
    torch.testing.assert_close(attacked(criterion, x, y), moved, rtol=0, atol=1e-6)
    loss = criterion(x, y)
    expected = torch.stack([class_loss(model(moved[i : i + 1]), int(y[i])) for i in range(len(y))])
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        parameter_gradients(loss.sum(), model),
        parameter_gradients(expected.sum(), model),
        rtol=0, atol=1e-6,
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("step_size", [0.1, 5.0])
def test_it_stays_in_the_ball_and_reaches_its_border(step_size, norm):
    criterion = AdversarialRankingLoss(
        mlp(), 2, radius=0.3, step_num=5, step_size=step_size, norm=norm
    )
    way = attacked(criterion, normal(4, 6), labels()) - normal(4, 6)
    length = way.norm(dim=1) if norm == "L2" else way.abs().amax(dim=1)
    assert (length <= 0.3 + 1e-12).all() and (length > 0.29).all()


def test_a_small_step_is_as_long_as_it_says():
    criterion = AdversarialRankingLoss(mlp(), 2, radius=1.0, step_size=0.2)
    way = attacked(criterion, normal(4, 6), labels()) - normal(4, 6)
    torch.testing.assert_close(way.norm(dim=1), torch.full((4,), 0.2).double())


@pytest.mark.parametrize("norm", ["L2", "Linf"])
def test_every_input_tensor_has_its_ball(norm):
    inputs = normal(4, 3), normal(4, 1, 2, seed=1)
    criterion = AdversarialRankingLoss(TwoInputs(), 2, radius=0.3, norm=norm)
    for moved, start in zip(attacked(criterion, inputs, labels()), inputs, strict=True):
        way = (moved - start).flatten(1)
        length = way.norm(dim=1) if norm == "L2" else way.abs().amax(dim=1)
        torch.testing.assert_close(length, torch.full((4,), 0.3).double(), atol=1e-6, rtol=0)


def test_the_steps_are_those_of_the_public_attack():
    # One step of it leaves no choice of a best iterate but the start.
    model, x, y = mlp(), normal(16, 6), labels(n_examples=16)
    criterion = AdversarialRankingLoss(model, 2, radius=0.05, norm="Linf", explain="logit")
    moved = attacked(criterion, x, y)
    attack = ERAttack(Saliency(model), k=2, preserve_prediction="none")
    public = attack.perturb(x, radius=0.05, step_num=1, target=y, norm="Linf")
    went = (public != x).any(dim=1)
    assert went.sum() > 8
    torch.testing.assert_close(moved[went], public[went])


def test_more_steps_attack_better():
    model, x, y = mlp(), normal(64, 6), labels(n_examples=64)

    def held(step_num):
        criterion = AdversarialRankingLoss(model, 2, radius=1.0, step_num=step_num)
        total = 0.0
        for start, end, label in zip(x, attacked(criterion, x, y), y, strict=True):
            order = gaps(model, start.clone().requires_grad_(), int(label), None, {"k_prime": 2})[1]
            end = end.clone().requires_grad_()
            total += gaps(model, end, int(label), order, {"k_prime": 2})[0].item()
        return total

    assert held(10) < held(1)


def test_forwards_of_a_step():
    for step_num in (1, 3):
        model = Counting(mlp())
        AdversarialRankingLoss(model, 2, 0.3, step_num=step_num)(normal(4, 6), labels())
        assert model.calls == step_num + 1


def test_the_attack_sees_evaluation_mode_and_the_loss_the_mode_that_was():
    model = Recording(mlp()).train()
    criterion = AdversarialRankingLoss(model, 2, 0.3, step_num=2)
    criterion(normal(4, 6), labels())
    assert model.modes == [False, False, True]
    model.eval()
    criterion(normal(4, 6), labels())
    assert model.modes[3:] == [False, False, False]


def test_dropout_and_batch_statistics_do_not_disturb_the_attack():
    model = drawn(
        nn.Sequential(
            nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Softplus(), nn.Dropout(0.5), nn.Linear(5, 3)
        )
    )
    criterion = AdversarialRankingLoss(model, 2, 0.3, step_num=2)
    x, y = normal(4, 6), labels()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(0)
    in_training = attacked(criterion, x, y)
    # One forward moved the statistics: that at the attacked inputs.
    assert int(model[1].num_batches_tracked) == 1
    hidden = model[0](in_training).mean(dim=0)
    torch.testing.assert_close(model[1].running_mean, 0.1 * hidden)
    model.load_state_dict({**model.state_dict(), **before})
    torch.testing.assert_close(attacked(criterion, x, y), in_training)
    model.load_state_dict({**model.state_dict(), **before})
    model.eval()
    torch.testing.assert_close(attacked(criterion, x, y), in_training)


def relu_network():
    return drawn(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))


def test_a_relu_network_is_attacked_through_its_smooth_stand_in_and_trained_as_it_is():
    model, x, y = relu_network(), normal(4, 6), labels()
    blind = AdversarialRankingLoss(model, 2, 0.3, explain="logit")
    assert torch.equal(attacked(blind, x, y), x)
    seeing = AdversarialRankingLoss(model, 2, 0.3, explain="logit", smooth_relu=5.0)
    moved = attacked(seeing, x, y)
    torch.testing.assert_close((moved - x).norm(dim=1), torch.full((4,), 0.3).double())
    torch.testing.assert_close(seeing(x, y), F.cross_entropy(model(moved), y))
    with smooth_relu(5.0):
        torch.testing.assert_close(attacked(blind, x, y), moved)


def test_groups_and_other_attributions():
    model, x, y = mlp(), normal(4, 6), labels()
    grouped = AdversarialRankingLoss(model, 2, 0.3, feature_mask=torch.tensor([0, 1, 0, 2, 3, 3]))
    assert not torch.allclose(
        attacked(grouped, x, y), attacked(AdversarialRankingLoss(model, 2, 0.3), x, y)
    )
    with pytest.raises(ValueError, match=r"k must be .* < 2, .*; got 2"):
        mask = torch.tensor([0, 0, 0, 1, 1, 1])
        AdversarialRankingLoss(model, 2, 0.3, feature_mask=mask)(x, y)
    own, captum = (
        attacked(AdversarialRankingLoss(model, 2, 0.3, explain="logit", attribution=a), x, y)
        for a in (None, Saliency(model))
    )
    torch.testing.assert_close(own, captum)
    other = AdversarialRankingLoss(model, 2, 0.3, attribution=InputXGradient(model))
    assert not torch.allclose(attacked(other, x, y), own)
    with pytest.raises(NotDifferentiableError, match="DeepLift"):
        AdversarialRankingLoss(model, 2, 0.3, attribution=DeepLift(model))


def test_gradients_whose_squares_underflow_still_point_somewhere():
    model = mlp(CLASSES).float()
    with torch.no_grad():
        model[2].weight.mul_(1e-35)
    criterion = AdversarialRankingLoss(model, 2, 0.3)
    way = attacked(criterion, normal(4, 6).float(), labels()) - normal(4, 6).float()
    torch.testing.assert_close(way.norm(dim=1), torch.full((4,), 0.3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_steps_add_up_in_half_precision(dtype):
    # A step of 0.001 from 1.0 rounds to nothing in bfloat16.
    model, x = mlp().to(dtype), torch.ones(4, 6, dtype=dtype)
    criterion = AdversarialRankingLoss(
        model, 2, 1.0, step_num=20, step_size=2e-3, norm="Linf", gap="exp"
    )
    way = (attacked(criterion, x, labels()) - x).abs().amax(dim=1)
    assert (way > 0.03).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_without_a_slope_stay_where_they_are_in_half_precision(dtype):
    model, x = Gated(mlp()).to(dtype), normal(4, 6).to(dtype)
    x[:, 0] = torch.tensor([-1.0, 1.0, -2.0, 2.0])
    moved = attacked(AdversarialRankingLoss(model, 2, 0.3), x, labels())
    assert torch.equal(moved[::2], x[::2]) and not torch.equal(moved[1::2], x[1::2])
