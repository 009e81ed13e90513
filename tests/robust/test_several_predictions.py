"""Attacks that must keep several predictions: of a pair, and of each of its members."""

import re
from functools import partial

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import nn
from torch.nn import functional as F

from captum_robust.metrics import precision_at_k, prediction_change_rate
from captum_robust.robust import (
    AutoERAttack,
    ERAttack,
    ExplanationAttack,
    ExplanationComparator,
    MinRadius,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
    TopKAttack,
)
from captum_robust.robust import constraints as soft
from tests.robust.targets import drawn, mlp, normal

MODES = ["reject", "early_stop", "fixed", "gda", "hedge", "qp"]
SOFT = MODES[2:]


class Siamese(nn.Module):
    """(N, 4) and (N, 4) -> (N, 1), smooth; ``scale`` may have one value per example."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 3))
        self.output, self.classifier = nn.Linear(1, 1), nn.Linear(3, 2)
        drawn(self)
        self._balance()

    @torch.no_grad()
    def _balance(self):
        """Half of the pairs alike, half of their members of either class."""
        pair, first, second = self.predictions(*pairs())
        self.output.bias -= pair.quantile(0.5)  # between two examples, on neither
        logits = torch.cat([first, second])
        self.classifier.bias[0] -= (logits[:, 0] - logits[:, 1]).quantile(0.5)

    def forward(self, first, second, scale=1.0):
        return self.predictions(first, second, scale)[0]

    def predictions(self, first, second, scale=1.0):
        u, v = self.embedding(first), self.embedding(second)
        pair = self.output(F.cosine_similarity(u, v)[:, None])
        scale = scale[:, None] if isinstance(scale, torch.Tensor) else scale
        return scale * pair, self.classifier(u), self.classifier(v)


def pairs(n=40):
    return normal(n, 4), normal(n, 4, seed=1)


def changed(model, moved, inputs):
    """Return whether each of the three predictions changed, (3, N)."""
    after, before = (model.predictions(*p) for p in (moved, inputs))
    pair = (after[0] > 0) != (before[0] > 0)
    labels = [o.argmax(dim=1) for o in (*after[1:], *before[1:])]
    return torch.stack([pair[:, 0], labels[0] != labels[2], labels[1] != labels[3]])


GENERAL = {"radius": 1.0, "target": 0, "step_num": 12, "seed": 0}


@pytest.mark.parametrize("mode", MODES)
def test_all_three_are_kept_in_every_mode(mode):
    model, x = Siamese(), pairs()
    make = partial(ERAttack, Saliency(model), k=2, preserve_prediction=mode)
    moved, info = make().perturb(x, return_info=True, **GENERAL)
    flips = changed(model, moved, x)
    assert not flips[0].any() and flips[1:].any(dim=1).all(), "the pair's label keeps no class"
    assert info.prediction_kept.all()
    moved, info = make(predictions=model.predictions).perturb(x, return_info=True, **GENERAL)
    assert not changed(model, moved, x).any() and info.prediction_kept.all()
    assert not prediction_change_rate(model.predictions(*moved), model.predictions(*x)).any()
    fell = info.objective < info.trace[0, 0] - 1e-3
    assert fell.double().mean() > (0.5 if mode == "early_stop" else 0.7), "it still attacks"


def test_without_a_constraint_the_report_counts_all_three():
    model, x = Siamese(), pairs()
    make = partial(ERAttack, Saliency(model), k=2, preserve_prediction="none")
    found = {}
    for predictions in (None, model.predictions):
        moved, info = make(predictions=predictions).perturb(x, return_info=True, **GENERAL)
        found[predictions is None] = moved, info
    assert all(torch.equal(a, b) for a, b in zip(found[True][0], found[False][0], strict=True))
    flips = changed(model, moved, x)
    assert torch.equal(found[True][1].prediction_kept, ~flips[0])
    assert torch.equal(found[False][1].prediction_kept, ~flips.any(dim=0))
    rate = prediction_change_rate(model.predictions(*moved), model.predictions(*x))
    assert torch.equal(rate, flips.any(dim=0).float())
    assert flips[0].sum() < flips.any(dim=0).sum()


# --- the same attack, with three results in one output ------------------------------------------


class InOne(nn.Module):
    """(N, 6) -> (N, 3): three single logits."""

    def __init__(self):
        super().__init__()
        self.inner = mlp()

    def forward(self, x):
        return self.inner(x) - 1.0

    def apart(self, x):
        return self(x)[:, :1], self(x)[:, 1], self(x)[:, 2:]


@pytest.mark.parametrize("gradient", ["autograd", "finite_difference", "spsa"])
@pytest.mark.parametrize("mode", MODES)
def test_several_results_are_constrained_as_parts_of_one_output_are(mode, gradient):
    model, x = InOne(), normal(8, 6)
    make = partial(
        ERAttack, Saliency(model), k=2, preserve_prediction=mode, gradient=gradient,
        n_directions=2,
    )  # fmt: skip

    def three(outputs, reference):
        parts = [soft.kl_divergence(outputs[:, p], reference[:, p]) for p in range(3)]
        return torch.cat(parts, dim=1)

    arguments = {"radius": 1.5, "step_num": 4, "target": 0, "seed": 0, "return_info": True}
    one, one_info = make(decision_func=lambda o: o > 0, constraint=three).perturb(x, **arguments)
    apart, info = make(predictions=model.apart).perturb(x, **arguments)
    assert torch.allclose(one, apart, rtol=0, atol=1e-12)
    assert torch.allclose(one_info.objective, info.objective, atol=1e-12)
    assert torch.equal(one_info.n_queries, info.n_queries)
    signs = [torch.cat([r.reshape(-1, 1) for r in model.apart(p)], dim=1) > 0 for p in (apart, x)]
    assert torch.equal(*signs)


def test_the_tolerance_of_a_pareto_attack_is_that_of_every_result():
    model, x, tolerance = Siamese(), pairs(10), 0.05

    def furthest(predictions):
        attack = ParetoERAttack(
            Saliency(model), k=2, output_tolerance=tolerance, predictions=predictions
        )
        moved = attack.perturb(x, 0.8, target=0, step_num=5)
        after, before = (model.predictions(*p) for p in (moved, x))
        pair = (after[0].sigmoid() - before[0].sigmoid())[:, 0].abs() * 2**0.5
        first, second = ((after[i].softmax(1) - before[i].softmax(1)).norm(dim=1) for i in (1, 2))
        return torch.stack([pair, first, second]).amax(dim=1), moved

    most, _ = furthest(None)
    assert most[0] <= tolerance * (1 + 1e-6) and most[1:].max() > 1.5 * tolerance
    most, moved = furthest(model.predictions)
    assert most.max() <= tolerance * (1 + 1e-6)
    assert not torch.allclose(moved[0], x[0], atol=0.05)


# --- everywhere ----------------------------------------------------------------------------------


ATTACKS = {
    "er": partial(ERAttack, k=2),
    "mse": MSEAttack,
    "top-k": partial(TopKAttack, k=2),
    "pareto": partial(ParetoERAttack, k=2),
    "random search": partial(RandomSearchAttack, k=2),
    "auto": partial(AutoERAttack, k=2),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_keeps_them(name):
    model, x = Siamese(), pairs(12)
    arguments = {"radius": 1.0, "target": 0, "seed": 0, "return_info": True}
    arguments |= {"budget": 60} if name == "auto" else {"step_num": 12}
    attack = ATTACKS[name](InputXGradient(model))
    moved, _ = attack.perturb(x, **arguments)
    assert changed(model, moved, x)[1:].any(), "without, a class changes"
    attack = ATTACKS[name](InputXGradient(model), predictions=model.predictions)
    moved, info = attack.perturb(x, **arguments)
    assert not changed(model, moved, x).any() and info.prediction_kept.all()
    assert not torch.equal(moved[0], x[0])


def test_the_ensemble_slides_along_all_boundaries():
    model = Siamese()
    attack = AutoERAttack(Saliency(model), k=2, predictions=model.predictions)
    x = pairs(12)
    _, info = attack.perturb(x, 1.0, target=0, seed=0, budget=100, return_info=True)
    plain = ERAttack(Saliency(model), k=2, predictions=model.predictions)
    _, single = plain.perturb(x, 1.0, target=0, return_info=True)
    assert (info.precision <= single.precision).double().mean() > 0.9
    assert info.precision.mean() < single.precision.mean()


def test_the_ensemble_takes_results_without_a_gradient():
    model, x = Siamese(), pairs(6)

    def labels(first, second):
        return tuple(r.detach() for r in model.predictions(first, second))

    attack = AutoERAttack(Saliency(model), k=2, predictions=labels)
    moved = attack.perturb(x, 1.0, target=0, seed=0, budget=35)
    assert not changed(model, moved, x).any()


def all_lost(maps, reference):
    return precision_at_k(maps, reference, k=2) == 0


def test_radii_and_tables_take_them_from_the_attack():
    model, x = Siamese(), pairs(12)
    attack = ERAttack(Saliency(model), k=2, predictions=model.predictions)

    def smallest(attack):
        gone = MinRadius(attack, all_lost, upper=2.0, n_radii=2, n_bisections=2)
        return gone.evaluate(x, target=0, step_num=12, return_perturbed=True)

    radius, moved = smallest(attack)
    free_radius, free_moved = smallest(ERAttack(Saliency(model), k=2))
    assert not changed(model, moved, x).any() and torch.isfinite(radius).any()
    assert changed(model, free_moved, x).any() and free_radius.isinf().sum() < radius.isinf().sum()
    never = ERAttack(Saliency(model), k=2, preserve_prediction="none")
    counted = {}
    for predictions in (None, model.predictions):
        comparator = ExplanationComparator(
            {"saliency": Saliency(model)},
            {"kept": attack, "free": never},
            {"P@2": partial(precision_at_k, k=2)},
            predictions=predictions,
        )
        table = comparator.evaluate(
            x, radius=1.0, target=0, seed=0, return_perturbed=True, max_examples_per_batch=3
        )
        counted[predictions is None] = {
            a: table["saliency", a].values["prediction changed"] for a in ("kept", "free")
        }
        ends = table["saliency", "free"].perturbed
    flips = changed(model, ends, x)
    assert not counted[True]["kept"].any() and not counted[False]["kept"].any()
    assert torch.equal(counted[True]["free"], flips[0].double())
    assert torch.equal(counted[False]["free"], flips.any(dim=0).double())
    assert flips[1:].any()


@pytest.mark.parametrize("mode", ["reject", "gda"])
def test_additional_arguments_and_chunks(mode):
    model, x = Siamese(), pairs(9)
    scale = 1 + normal(9, seed=3).abs()
    seen = []

    def predictions(first, second, scale):
        seen.append(scale)
        return model.predictions(first, second, scale)

    attack = ERAttack(Saliency(model), k=2, preserve_prediction=mode, predictions=predictions)
    arguments = {**GENERAL, "additional_forward_args": (scale,)}
    whole = attack.perturb(x, **arguments)
    assert all(torch.equal(s, scale) for s in seen)
    parts = attack.perturb(x, max_examples_per_batch=4, **arguments)
    for a, b in zip(whole, parts, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-10)


def test_one_tensor_is_one_result():
    model, x = mlp(), normal(6, 6)
    other = mlp()
    ends = [
        ERAttack(Saliency(model), k=2, predictions=p).perturb(x, 1.0, target=1)
        for p in (None, model, lambda x: (other(x),))
    ]
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])


def test_the_model_of_the_predictions_is_left_as_found():
    model, judge = mlp(), nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 2)).double().train()
    before = {name: value.clone() for name, value in judge.state_dict().items()}
    x = normal(6, 6)
    ERAttack(Saliency(model), k=2, predictions=judge).perturb(x, 0.5, target=1)
    AutoERAttack(Saliency(model), k=2, predictions=judge).perturb(x, 0.5, target=1, budget=6)
    assert all(torch.equal(v, before[n]) for n, v in judge.state_dict().items())
    assert judge.training and all(p.grad is None for p in judge.parameters())


@pytest.mark.parametrize("mode, forwards", [("reject", 8), ("gda", 8 + 7)])
def test_the_cost_is_a_forward_a_step_and_two_with_soft_constraints(mode, forwards):
    model, calls = mlp(), []

    def predictions(x):
        calls.append(len(x))
        return (model(x),)

    attack = ERAttack(Saliency(model), k=2, preserve_prediction=mode, predictions=predictions)
    attack.perturb(normal(5, 6), 0.3, step_num=7, target=1)
    assert calls == [5] * forwards


def test_what_predictions_must_return():
    x = normal(4, 6)

    def attacked_with(predictions):
        attack = ExplanationAttack(Saliency(mlp()), lambda s, r: s[:, 0], predictions=predictions)
        attack.perturb(x, 0.5, target=1)

    with pytest.raises(ValueError, match="predictions must be a Tensor or a tuple of Tensors, got"):
        attacked_with(lambda x: [x])
    message = "predictions must return tensors with one row per example, 4, got 3"
    with pytest.raises(ValueError, match=re.escape(message)):
        attacked_with(lambda x: (x[:3],))
    with pytest.raises(ValueError, match="predictions must have the same number of examples"):
        attacked_with(lambda x: (x, x[:3]))
