"""The measurements of a unit against their definitions, on small networks and bundled data."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from sklearn.metrics import roc_auc_score
from torch import nn

from captum_robust.benchmark.measure.attacks import (
    ATTACKS,
    Probability,
    attack_rows,
    validation_precision,
)
from captum_robust.benchmark.measure.experiment import Experiment
from captum_robust.benchmark.measure.properties import measure_properties
from captum_robust.benchmark.measure.rows import ExplainedRows
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.store import Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Part, Unit
from captum_robust.benchmark.study.explanations import EXPLANATIONS
from captum_robust.benchmark.study.methods import METHODS
from captum_robust.benchmark.study.settings import RADII
from captum_robust.datasets import TabularDataset
from captum_robust.metrics import precision_at_k
from captum_robust.models import TabularMLP

VANILLA = Unit("breast-cancer", "vanilla", "", 0, "random")
PROTOCOL = Protocol(rows=6, costly_rows=3, validation_rows=5, epochs=2)


def network(activation: type[nn.Module] = nn.LeakyReLU) -> TabularMLP:
    torch.manual_seed(0)
    return TabularMLP(9, hidden=12, activation=activation)


def points(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 9, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("attack", ["er", "mse"])
def test_attacks_stay_in_their_balls_and_keep_the_prediction(attack: str) -> None:
    model, inputs = network(), points()
    precision, moved = attack_rows(model, inputs, attack, "saliency", 3, 0)
    saliency = EXPLANATIONS["saliency"]
    reference = saliency.magnitudes(model, inputs)
    for r, radius in enumerate(RADII):
        assert bool(((moved[r] - inputs).norm(dim=1) <= radius * (1 + 1e-5)).all())
        assert torch.equal(model(moved[r]) > 0, model(inputs) > 0)
        found = precision_at_k(saliency.magnitudes(model, moved[r]), reference, 3)
        assert torch.equal(precision[r], found)
    assert bool((precision[1:] <= precision[:-1]).all())
    assert float(precision[-1].mean()) < 1


def test_a_tie_at_the_boundary_is_no_loss() -> None:
    """Integrated gradients from 0 are 0 at every bit that is 0."""
    model = network()
    bits = (torch.arange(9) < torch.arange(1, 7)[:, None]).float()  # 1 to 6 bits are set
    k = 3
    magnitudes = EXPLANATIONS["ig"].magnitudes(model, bits)
    tied = (magnitudes > 0).sum(dim=1) < k
    assert tied.any() and not tied.all()
    precision, _ = attack_rows(model, bits, "er", "ig", k, 0)
    assert torch.equal(precision.isnan(), tied.expand_as(precision))


def test_auto_finds_no_less() -> None:
    model, inputs = network(), points(3)
    auto = attack_rows(model, inputs, "auto", "saliency", 3, 0)[0]
    for other in (
        attack_rows(model, inputs, "er", "saliency", 3, 0)[0],
        validation_precision(model, inputs, 3, 0),
    ):
        assert float(auto.mean()) <= float(other.mean())


def test_the_attack_of_the_selection_sees_through_kinks() -> None:
    """The saliency of a network of the ReLU family has no gradient."""
    assert float(validation_precision(network(), points(), 3, 0)[-1].mean()) < 0.9


@pytest.mark.parametrize("name", list(EXPLANATIONS))
def test_explanations_are_those_of_captum(name: str) -> None:
    model, inputs = network(nn.Softplus), points().requires_grad_()

    def smoothgrad(row: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        tunnel = NoiseTunnel(Saliency(model))
        return tunnel.attribute(row, target=0, nt_samples=50, stdevs=0.5**0.5)

    expected = {
        "saliency": lambda: Saliency(model).attribute(inputs, target=0),
        "smoothgrad": lambda: torch.cat([smoothgrad(row[None]) for row in inputs]),
        "ig": lambda: IntegratedGradients(model).attribute(inputs, target=0, n_steps=50).abs(),
    }
    maps = EXPLANATIONS[name].magnitudes(model, inputs)
    torch.testing.assert_close(maps, expected[name]().detach())
    assert set(ATTACKS) == {"er", "mse", "auto"}


def test_the_saliency_of_the_probability_ranks_as_that_of_the_logit() -> None:
    model, inputs = network(), points()
    maps = [EXPLANATIONS["saliency"].magnitudes(m, inputs) for m in (model, Probability(model))]
    assert torch.equal(*(m.argsort(dim=1) for m in maps))
    torch.testing.assert_close(Probability(model)(inputs), model(inputs).sigmoid() - 0.5)


def test_rows_are_weighted_by_the_examples_they_stand_for() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 2, (60, 3), generator=generator).float()
    targets = torch.randint(0, 2, (60,), generator=generator)
    data = TabularDataset("toy", inputs, targets, ("a", "b", "c"), "made up")
    rows = ExplainedRows.of(data, 5)
    model = torch.nn.Linear(3, 1)
    model.load_state_dict({"weight": torch.tensor([[4.0, 2.0, 1.0]]), "bias": torch.zeros(1)})
    there = [bool((row == rows.inputs).all(dim=1).any()) for row in inputs]
    expected = roc_auc_score(targets[there], model(inputs[there]).detach().squeeze(1))
    assert rows.area_under_curve(model(rows.inputs).detach()) == pytest.approx(expected)
    assert int((rows.positives + rows.negatives).sum()) == sum(there)
    broken = torch.full((5, 1), float("nan"))
    assert rows.area_under_curve(broken) != rows.area_under_curve(broken)


def test_properties_by_definition() -> None:
    model, inputs = network(nn.Softplus), points(3)
    found = measure_properties(model, inputs, 3, 0)

    def probability(x: torch.Tensor) -> torch.Tensor:
        return model(x[None]).sigmoid().squeeze()

    for i, x in enumerate(inputs):
        hessian = torch.autograd.functional.hessian(probability, x)
        torch.testing.assert_close(found["hessian norm"][i], hessian.norm())
        gradient = torch.autograd.functional.jacobian(probability, x).abs()
        torch.testing.assert_close(found["magnitudes"][i], gradient.sort(descending=True).values)
    for name in ("thickness", "gaussian thickness", "adversarial thickness"):
        assert bool(((found[name] >= 0) & (found[name] <= 1)).all())
    assert bool((found["gaussian minimum thickness"] <= found["gaussian thickness"] + 0.1).all())


def test_a_linear_network_is_never_manipulated() -> None:
    found = measure_properties(network(nn.Identity), points(3), 3, 0)
    assert found["manipulation step"].tolist() == [101] * 3
    for name in ("thickness", "gaussian thickness", "adversarial thickness"):
        assert found[name].tolist() == [1.0] * 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A trained vanilla model and its measurements."""
    with Store(tmp_path_factory.mktemp("store"), PROTOCOL.as_dict()) as store:
        experiment = Experiment(store, PROTOCOL, None)
        parts = (TRAINING, PROPERTIES, Part("er", "saliency", 8), Part("mse", "ig", 8))
        for unit in (VANILLA._replace(part=part) for part in parts):
            assert store.claim(unit)
            store.finish(unit, experiment.do(unit), 1.0)
    return Store(store.folder)


def test_a_unit_gives_the_same_result_again(store: Store, tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL.as_dict()) as other:
        experiment = Experiment(other, PROTOCOL, None)
        for unit, result in store.results().items():
            if unit.part == TRAINING:
                assert other.claim(unit)
                again = experiment.do(unit)
                other.finish(unit, again, 1.0)
                result, again = ({**r, "epoch_seconds": 0} for r in (result, again))
                assert again == result
        for unit, result in store.results(part=Part("er", "saliency", 8)).items():
            assert experiment.do(unit) == result


def test_records_have_one_number_per_row(store: Store) -> None:
    (found,) = store.results(part=PROPERTIES).values()
    assert len(found["magnitudes"]) == 30 and 0.9 < found["auc"] <= 1
    assert all(len(v) == 6 for n, v in found.items() if n not in ("auc", "magnitudes"))
    for part, n_rows in ((Part("er", "saliency", 8), 6), (Part("mse", "ig", 8), 3)):
        (found,) = store.results(part=part).values()
        assert [len(rows) for rows in found["precision"]] == [n_rows] * len(RADII)
        assert len(found["changed"]) == len(found["attacked_auc"]) == len(RADII)
        assert found["changed"] == [0] * len(RADII)


def test_from_vanilla_begins_with_its_weights(store: Store, tmp_path: Path) -> None:
    """With a step too small to see."""
    unit = VANILLA._replace(method="wd", setting="weight_decay=0.001", start="vanilla")
    experiment = Experiment(store, PROTOCOL, None)
    experiment.do(unit)
    path = store.weights_path(unit)
    ours, theirs = torch.load(path, weights_only=True), store.load_weights(VANILLA)
    random = Experiment(store, PROTOCOL, None)
    random.do(unit._replace(start="random"))
    far = torch.load(store.weights_path(unit._replace(start="random")), weights_only=True)
    key = "hidden.weight"
    assert 0 < float((ours[key] - theirs[key]).norm()) < float((far[key] - ours[key]).norm())


def trained_by(monkeypatch: pytest.MonkeyPatch, name: str, criterion: Any) -> None:
    """Put another loss of a batch, ``criterion(model, inputs)``, in the place of a method's."""
    other = replace(METHODS[name], loss=lambda model, k: lambda x, y: criterion(model, x))
    monkeypatch.setitem(METHODS, name, other)


def test_a_model_that_diverged_is_not_measured(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_by(monkeypatch, "sp", lambda model, x: float("nan") * model(x).sum())
    found = Experiment(store, PROTOCOL, None).do(VANILLA._replace(method="sp", setting="beta=1.0"))
    assert found["auc"] != found["auc"] and found["precision"] != found["precision"]


def test_a_method_may_train_longer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    n_steps: Counter[str] = Counter()
    for name in ("sp", "sp-long"):

        def loss(model: nn.Module, x: torch.Tensor, name: str = name) -> torch.Tensor:
            n_steps[name] += 1
            return model(x).square().mean()

        trained_by(monkeypatch, name, loss)
        setting = next(iter(METHODS[name].grid))
        Experiment(store, PROTOCOL, None).do(VANILLA._replace(method=name, setting=setting))
    assert n_steps["sp-long"] == 4 * n_steps["sp"] > 0
