"""The prediction of a regression is kept by a tolerance, that of dense outputs at their target."""

from functools import partial

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.metrics import (
    decision_flip_fraction,
    precision_at_k,
    prediction_change_rate,
)
from captum_robust.robust import (
    AutoERAttack,
    CenterOfMassAttack,
    ERAttack,
    ExplanationComparator,
    MinRadius,
    MSEAttack,
    ParetoERAttack,
    RandomSearchAttack,
    SubstitutionAttack,
    TopKAttack,
)
from captum_robust.robust.constraints import violations_of

ATTACKS = {
    "AutoERAttack": partial(AutoERAttack, k=2),
    "CenterOfMassAttack": CenterOfMassAttack,
    "ERAttack": partial(ERAttack, k=2),
    "MSEAttack": MSEAttack,
    "RandomSearchAttack": partial(RandomSearchAttack, k=2),
    "TopKAttack": partial(TopKAttack, k=2),
}
every_attack = pytest.mark.parametrize("make", ATTACKS.values(), ids=ATTACKS)
RADIUS, TOLERANCE = 0.5, 0.01


def regression(n_outputs=1):
    """Prices around 100, whose sign never changes."""
    torch.manual_seed(0)
    layers = nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, n_outputs)
    model = nn.Sequential(*layers).double()
    nn.init.constant_(model[2].bias, 100.0)
    return model


def rows(n=6):
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def change(model, moved):
    return (model(moved) - model(rows(len(moved)))).abs().amax(dim=1)


@every_attack
def test_no_output_moves_by_more_than_the_tolerance(make):
    model = regression()
    free = make(Saliency(model)).perturb(rows(), RADIUS, target=0, seed=0)
    kept = make(Saliency(model), tolerance=TOLERANCE).perturb(rows(), RADIUS, target=0, seed=0)
    assert change(model, free).max() > TOLERANCE, "the sign of a price is no constraint"
    assert change(model, kept).max() <= TOLERANCE
    assert not torch.equal(kept, rows())


def test_several_outputs_have_one_tolerance_each():
    model, limits = regression(3), torch.tensor([0.02, 0.1, 1e9])
    attack = RandomSearchAttack(Saliency(model), k=2, tolerance=limits)
    moved, info = attack.perturb(rows(), RADIUS, target=0, seed=0, return_info=True)
    moves = (model(moved) - model(rows())).abs()
    assert (moves <= limits).all() and info.prediction_kept.all()
    assert moves[:, 2].max() > 0.02
    with pytest.raises(ValueError, match=r"tolerance must be a number, or one per output.*\(3,\)"):
        ERAttack(Saliency(model), k=2, tolerance=torch.ones(2)).perturb(rows(), RADIUS, target=0)


@pytest.mark.parametrize("constraint", ["kl", "label", "boundary"])
@pytest.mark.parametrize("mode", ["fixed", "gda", "hedge", "qp"])
def test_soft_constraints_descend_along_the_tolerance(mode, constraint):
    """They never leave the tolerance, and sliding along it finds more than rejection."""
    model, found = regression(), {}
    for preserve in ("reject", mode):
        attack = ERAttack(
            Saliency(model), k=2, preserve_prediction=preserve, constraint=constraint,
            tolerance=TOLERANCE,
        )  # fmt: skip
        moved, info = attack.perturb(rows(), RADIUS, target=0, return_info=True)
        assert change(model, moved).max() <= TOLERANCE
        found[preserve] = float(info.objective.mean())
    assert (mode, constraint) != ("qp", "boundary") or found[mode] < found["reject"]


def test_violations_are_fractions_of_the_tolerance():
    decision = ERAttack(Saliency(regression()), k=2, tolerance=0.5).decision
    before, after = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [2.25], [2.0]])
    for constraint in ("kl", "label"):
        found = violations_of(constraint, before, decision)(after)
        assert found[:, 0].tolist() == [0.0, 0.5, 2.0]
    beyond = violations_of("boundary", before, decision)(after)[:, 0]
    torch.testing.assert_close(beyond, torch.tensor([0.0, 0.0, 1.05]).double())


def test_the_smallest_radius_and_the_substitutions_take_it():
    model = regression()
    attack = ERAttack(Saliency(model), k=2, tolerance=TOLERANCE)
    _, moved = MinRadius(attack, n_bisections=2).evaluate(rows(), 0, return_perturbed=True)
    assert change(model, moved).max() <= TOLERANCE
    values = torch.linspace(-1, 1, 5).double()
    attack = SubstitutionAttack(Saliency(model), 2, values, budget=2, tolerance=TOLERANCE)
    assert change(model, attack.perturb(rows(), target=0)).max() <= TOLERANCE


def test_the_comparator_counts_moves_beyond_the_tolerance():
    model = regression()
    comparator = ExplanationComparator(
        {"s": Saliency(model)},
        {"er": partial(ERAttack, k=2), "kept": partial(ERAttack, k=2, tolerance=TOLERANCE)},
        {"P@2": partial(precision_at_k, k=2)},
        tolerance=TOLERANCE,
    )
    table = comparator.evaluate(rows(), RADIUS, target=0, seed=0, return_perturbed=True)
    for attack in ("er", "kept", "noise"):
        found = table["s", attack]
        expected = (change(model, found.perturbed) > TOLERANCE).double()
        assert torch.equal(found.values["prediction changed"], expected)
    assert table["s", "er"].values["prediction changed"].any()


def test_metrics_count_moves_beyond_the_tolerance():
    before, after = torch.tensor([[1.0, 5.0], [2.0, 6.0]]), torch.tensor([[1.4, 5.0], [2.6, 6.0]])
    assert prediction_change_rate(after, before, 0.5).tolist() == [0, 1]
    assert prediction_change_rate(after, before).tolist() == [0, 0]
    limits = torch.tensor([0.1, 9.0])
    assert prediction_change_rate(after, before, limits).tolist() == [1, 1]
    x, weights = torch.ones(1, 4), torch.tensor([8.0, 4.0, 2.0, 1.0])
    price = lambda x: 100 + x @ weights  # noqa: E731
    for tolerance, fraction in ((7.9, 0.25), (8.1, 0.5), (12.1, 0.75), (99.0, 1.0)):
        found = decision_flip_fraction(price, x, weights[None], tolerance=tolerance)
        assert found.tolist() == [fraction]
    assert decision_flip_fraction(price, x, weights[None]).tolist() == [1]  # the sign stays


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan"), float("inf"), torch.tensor([1, 0])])
def test_a_tolerance_is_positive_and_finite(tolerance):
    calls = [
        lambda: ERAttack(Saliency(regression()), k=2, tolerance=tolerance),
        lambda: AutoERAttack(Saliency(regression()), k=2, tolerance=tolerance),
        lambda: ExplanationComparator({"s": Saliency(regression())}, {}, {}, tolerance=tolerance),
        lambda: prediction_change_rate(torch.ones(2), torch.ones(2), tolerance),
        lambda: decision_flip_fraction(lambda x: x, rows(), rows(), tolerance=tolerance),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="tolerance must be positive and finite"):
            call()


def test_a_tolerance_and_a_decision_func_exclude_each_other():
    with pytest.raises(ValueError, match="decision_func and tolerance exclude each other"):
        ERAttack(Saliency(regression()), k=2, decision_func=lambda p: p > 0.5, tolerance=1.0)


# --- dense outputs --------------------------------------------------------------------------------


class Segmentation(nn.Module):
    """(N, 1, 4, 4) -> (N, 3, 4, 4); every pixel is near its boundary."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x):
        return self.last(nn.functional.softplus(self.first(x)))


class Tagger(nn.Module):
    """(N, 7, 2) -> (N, 7, 3): a class per token."""

    def __init__(self):
        super().__init__()
        self.mix, self.out = nn.Linear(7, 7), nn.Linear(2, 3, bias=False)

    def forward(self, x):
        return self.out(torch.tanh(self.mix(x.mT).mT))


def dense(kind):
    torch.manual_seed(0)
    if kind is Segmentation:
        x, target = torch.randn(5, 1, 4, 4).double(), (1, 2, 3)
        return kind().double(), x, target, lambda o: o[:, :, 2, 3].argmax(dim=1)
    return (
        kind().double(),
        2 * torch.randn(5, 7, 2).double(),
        (4, 1),
        lambda o: o[:, 4].argmax(dim=1),
    )


@pytest.mark.parametrize("kind", [Segmentation, Tagger])
@pytest.mark.parametrize(
    "make", [ATTACKS["ERAttack"], ATTACKS["RandomSearchAttack"], ParetoERAttack]
)
def test_the_prediction_of_dense_outputs_is_that_of_the_explained_position(make, kind):
    model, x, target, label = dense(kind)
    make = partial(make, k=2)
    call = {"target": target, "seed": 0, "step_num": 10}
    found = make(Saliency(model)).perturb(x, 4 * RADIUS, **call)
    expected = make(Saliency(model), decision_func=label).perturb(x, 4 * RADIUS, **call)
    assert torch.equal(found, expected)
    assert torch.equal(label(model(found)), label(model(x)))
    classes = 1 if kind is Segmentation else 2
    elsewhere = model(found).argmax(dim=classes) != model(x).argmax(dim=classes)
    assert elsewhere.any(), "other positions may change"


@pytest.mark.parametrize("kind", [Segmentation, Tagger])
def test_every_example_may_have_a_position_of_its_own(kind):
    model, x, target, _ = dense(kind)
    places = [tuple((t + i) % 3 for t in target) for i in range(5)]
    attack = ERAttack(Saliency(model), k=2, preserve_prediction="qp")
    moved, info = attack.perturb(x, RADIUS, target=places, return_info=True)
    for i, place in enumerate(places):
        one, alone = attack.perturb(x[i : i + 1], RADIUS, target=place, return_info=True)
        torch.testing.assert_close(moved[i : i + 1], one, rtol=0, atol=1e-9)
        assert alone.prediction_kept[0] == info.prediction_kept[i]


def test_a_tolerance_of_dense_outputs_is_about_the_explained_position():
    model, x, target, _ = dense(Segmentation)
    attack = ERAttack(Saliency(model), k=2, tolerance=0.05)
    moves = (model(attack.perturb(x, RADIUS, target=target)) - model(x)).abs()
    assert moves[:, :, 2, 3].max() <= 0.05 < moves.max()
    assert moves[:, :, 2, 3].max() > 0


def test_the_comparator_reads_dense_outputs_as_the_attack_does():
    model, x, target, _ = dense(Segmentation)
    comparator = ExplanationComparator(
        {"s": Saliency(model)},
        {"er": partial(ERAttack, k=2)},
        {"P@2": partial(precision_at_k, k=2)},
    )
    table = comparator.evaluate(x, RADIUS, target=target, seed=0)
    assert not table["s", "er"].values["prediction changed"].any()
    assert table.estimate("s", "er", "P@2").mean < 0.9
