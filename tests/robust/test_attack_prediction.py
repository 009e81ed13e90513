"""The constraint on the prediction: reject, early_stop, none; and the forms of predictions."""

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.robust import ERAttack
from tests.robust.targets import TARGETS, Quadratic, linear, mlp, normal, stock_scores

every_target = pytest.mark.parametrize("target", TARGETS, ids=str)
RADIUS, STEPS = 3.0, {"step_size": 0.4, "step_num": 10}


def labels(model, inputs):
    return model(*inputs if isinstance(inputs, tuple) else (inputs,)).argmax(dim=1)


@every_target
def test_no_returned_input_has_another_prediction(target):
    model, inputs = target.network.build(), target.network.inputs
    for preserve in ("reject", "early_stop"):
        moved, info = target.perturb(
            model,
            radius=RADIUS,
            preserve_prediction=preserve,
            n_restarts=2,
            return_info=True,
            **STEPS,
        )
        assert torch.equal(labels(model, moved), labels(model, inputs))
        assert info.prediction_kept.all()


def test_labels_do_flip_inside_the_ball_where_nothing_forbids_it():
    flipped = 0
    for target in TARGETS:
        model = target.network.build()
        moved, info = target.perturb(
            model, radius=RADIUS, preserve_prediction="none", return_info=True, **STEPS
        )
        kept = labels(model, moved) == labels(model, target.network.inputs)
        assert torch.equal(info.prediction_kept, kept)
        flipped += int((~kept).any())
    assert flipped > len(TARGETS) / 3


class Border(nn.Module):
    """Quadratic score; class 1 wherever the first feature has fallen below ``edge``."""

    def __init__(self, edge):
        super().__init__()
        self.score, self.edge = Quadratic(4), edge

    def forward(self, x):
        score = self.score(x)
        beyond = (x[:, 0] < self.edge).to(x) * 1e6
        return torch.stack([score, score.detach() + beyond - 1], dim=1)


def along_the_first_feature(edge):
    """A model, an input and an attack that lowers the first feature by 0.1 per step."""
    model = Border(edge)
    model.score.A = torch.eye(4, dtype=torch.float64)
    model.score.b = torch.zeros(4, dtype=torch.float64)
    x = torch.tensor([[2.0, 1.0, 0.5, 0.25]]).double()  # the map is x itself
    mask = torch.tensor([1.0, 0.0, 0.0, 0.0])
    arguments = {
        "radius": 0.6,
        "step_size": 0.1,
        "step_num": 6,
        "mask": mask,
        "target": 0,
        "abs": False,
    }
    return model, x, arguments


@pytest.mark.parametrize("preserve, end", [("reject", 1.7), ("early_stop", 1.7), ("none", 1.4)])
def test_the_last_allowed_point_is_returned(preserve, end):
    model, x, arguments = along_the_first_feature(edge=1.65)
    moved, info = ERAttack(Saliency(model), k=1, preserve_prediction=preserve).perturb(
        x, return_info=True, **arguments
    )
    assert torch.allclose(moved, torch.tensor([[end, 1.0, 0.5, 0.25]]).double(), atol=1e-9)
    assert info.prediction_kept.item() is (preserve != "none")
    walked = torch.tensor([4.25, 3.95, 3.65, 3.35, 3.05, 2.75, 2.45]).double()
    if preserve == "early_stop":
        assert torch.allclose(info.trace[0, :5, 0], walked[:5]) and info.trace[0, 5:].isnan().all()
    else:
        assert torch.allclose(info.trace[0, :, 0], walked)


class Band(nn.Module):
    """As Border, but class 1 only within a band that the attack can cross."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        score = self.inner.score(x)
        within = ((x[:, 0] < 1.75) & (x[:, 0] > 1.55)).to(x) * 1e6
        return torch.stack([score, score.detach() + within - 1], dim=1)


def test_rejected_points_are_passed_through_but_early_stop_ends_there():
    inner, x, arguments = along_the_first_feature(edge=0.0)
    model = Band(inner)
    ends = {
        preserve: ERAttack(Saliency(model), k=1, preserve_prediction=preserve).perturb(
            x, **arguments
        )
        for preserve in ("reject", "early_stop")
    }
    assert ends["reject"][0, 0].item() == pytest.approx(1.4)
    assert ends["early_stop"][0, 0].item() == pytest.approx(1.8)


@pytest.mark.parametrize("preserve", ["reject", "early_stop"])
def test_the_input_comes_back_if_the_very_first_step_flips(preserve):
    model, x, arguments = along_the_first_feature(edge=1.95)
    batch = torch.cat([x, x - torch.tensor([0.2, 0.0, 0.0, 0.0])])  # the second is class 1 already
    attack = ERAttack(Saliency(model), k=1, preserve_prediction=preserve)
    moved, info = attack.perturb(batch, return_info=True, **arguments)
    assert torch.equal(moved[0], batch[0]) and info.prediction_kept.all()
    assert moved[1, 0] < batch[1, 0] - 0.5
    alone, info = attack.perturb(x, n_restarts=3, seed=0, return_info=True, **arguments)
    allowed = alone[:, 0] >= 1.95
    assert allowed.all() and info.prediction_kept.all()


def test_stopping_one_example_does_not_stop_the_others():
    model, x, arguments = along_the_first_feature(edge=1.65)
    batch = torch.cat([x, x + torch.tensor([0.4, 0.0, 0.0, 0.0])])
    moved = ERAttack(Saliency(model), k=1, preserve_prediction="early_stop").perturb(
        batch, **arguments
    )
    expected = torch.tensor([1.7, 1.8]).double()
    assert torch.allclose(moved[:, 0], expected, atol=1e-9)


# --- what counts as a prediction -----------------------------------------------------------------


class OneOutput(nn.Module):
    """A single logit, or its sigmoid, of shape (N,) or (N, 1)."""

    def __init__(self, sigmoid, column):
        super().__init__()
        self.inner, self.sigmoid, self.column = mlp(), sigmoid, column

    def forward(self, x):
        out = self.inner(x)[:, 0] - 1.7
        out = out.sigmoid() if self.sigmoid else out
        return out[:, None] if self.column else out


@pytest.mark.parametrize("column", [False, True])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_a_single_output_is_a_logit_unless_told_otherwise(sigmoid, column):
    model, x = OneOutput(sigmoid, column), normal(20, 6)
    threshold = 0.5 if sigmoid else 0.0
    options = {"decision_func": lambda p: p > 0.5} if sigmoid else {}
    target = 0 if column else None
    results = {}
    for preserve in ("reject", "none"):
        moved, info = ERAttack(
            Saliency(model), k=2, preserve_prediction=preserve, **options
        ).perturb(x, RADIUS, target=target, return_info=True, **STEPS)
        kept = ((model(moved) > threshold) == (model(x) > threshold)).flatten()
        assert torch.equal(info.prediction_kept, kept)
        results[preserve] = kept
    assert results["reject"].all() and not results["none"].all()


def test_a_decision_of_several_parts_keeps_them_all():
    model, x = mlp(), normal(20, 6)

    def signs(outputs):
        return outputs > 0

    moved, info = ERAttack(Saliency(model), k=2, decision_func=signs).perturb(
        x, RADIUS, target=1, return_info=True, **STEPS
    )
    assert torch.equal(signs(model(moved)), signs(model(x))) and info.prediction_kept.all()
    free = ERAttack(Saliency(model), k=2).perturb(x, RADIUS, target=1, **STEPS)
    assert not torch.equal(signs(model(free)), signs(model(x)))


def test_the_prediction_counts_not_the_explained_class():
    model, x = mlp(), normal(20, 6)
    other = (labels(model, x) + 1) % 3
    moved = ERAttack(Saliency(model), k=2).perturb(x, RADIUS, target=other, **STEPS)
    assert torch.equal(labels(model, moved), labels(model, x))
    start, end = (stock_scores(Saliency(model), p, other) for p in (x, moved))
    assert (linear(2)(end, start) < linear(2)(start, start) - 1e-2).any()
