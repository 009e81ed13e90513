"""The study of pairs, on made-up brain networks and images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from captum.attr import InputXGradient

from captum_robust import cli
from captum_robust.benchmark.measure.attacks import attack_rows, validation_precision
from captum_robust.benchmark.measure.experiment import Experiment
from captum_robust.benchmark.measure.properties import N_MAGNITUDES, measure_properties
from captum_robust.benchmark.plan.plan import Plan
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.runner import run
from captum_robust.benchmark.plan.store import Store
from captum_robust.benchmark.plan.units import Part
from captum_robust.benchmark.study.methods import METHODS
from captum_robust.benchmark.study.pair_methods import DelayedRegularisation
from captum_robust.benchmark.study.pairs import (
    PAIRS,
    JoinedPairs,
    PairNetwork,
    brain_pairs,
    fit_classifier,
)
from captum_robust.benchmark.study.tasks import TASKS, in_common
from captum_robust.benchmark.tables.report import report
from captum_robust.datasets import Pairs, load_mnist_pairs, pair_graphs, synthetic_connectomes
from captum_robust.graph import adjacency
from captum_robust.metrics import precision_at_k
from tests.datasets.graph_files import mnist_files

N_NODES = 8
N_EDGES = 28


def toy_task():
    graphs = synthetic_connectomes(n_graphs=30, n_regions=N_NODES)
    task = brain_pairs(lambda root: graphs, N_NODES)
    return replace(task, n_epochs=2, batch_size=16)


def toy() -> tuple[PairNetwork, JoinedPairs]:
    torch.manual_seed(0)
    pairs = pair_graphs(synthetic_connectomes(n_graphs=30, n_regions=N_NODES), fold=0)
    return toy_task().network(2 * N_EDGES, torch.nn.Softplus), JoinedPairs.of(pairs.test)


def test_a_row_is_both_members() -> None:
    model, data = toy()
    first, second = data.inputs[:, :N_EDGES], data.inputs[:, N_EDGES:]
    members = [adjacency(member, N_NODES) for member in (first, second)]
    torch.testing.assert_close(model(data.inputs), model.siamese(*members))
    expected = model.siamese.predictions(*members)
    for got, result in zip(model.predictions(data.inputs), expected, strict=True):
        torch.testing.assert_close(got, result)
    same = data.classes[:, 0] == data.classes[:, 1]
    assert data.targets.tolist() == same.tolist()


def test_digits_are_unfolded() -> None:
    images = torch.rand(3, 1, 28, 28), torch.rand(3, 1, 28, 28)
    zero = torch.zeros(3, dtype=torch.long)
    data = JoinedPairs.of(Pairs(*images, zero + 1, zero, zero))
    torch.manual_seed(0)
    model = PAIRS["mnist-pairs"].network(2 * 784, torch.nn.Softplus)
    torch.testing.assert_close(model(data.inputs), model.siamese(*images))
    for got, image in zip(model.members(data.inputs), images, strict=True):
        assert torch.equal(got, image)


def test_the_classifier_is_a_regression_on_embeddings_that_stay() -> None:
    model, data = toy()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    fit_classifier(model, data)
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {"siamese.classifier.weight", "siamese.classifier.bias"}
    first = model.members(data.inputs)[0]
    logits = model.siamese.classify(first)
    loss = torch.nn.functional.cross_entropy(logits, data.classes[:, 0])
    gradient = torch.autograd.grad(loss, model.siamese.classifier.weight)[0]
    assert float(loss.detach()) < 0.6931 and float(gradient.norm()) < 0.05


@pytest.mark.parametrize("attack", ["er", "mse", "auto"])
def test_attacks_keep_three_results_and_the_range(attack: str) -> None:
    model, data = toy()
    fit_classifier(model, data)
    settings = toy_task().settings
    # Of weighted graphs, in double precision: where edges are 0, or alone, features are tied at 0,
    # and rounding orders them.
    rows = torch.rand(4, 2 * N_EDGES, generator=torch.Generator().manual_seed(0)).double()
    model.double()
    precision, moved = attack_rows(model, rows, attack, "saliency", 5, 0, settings)
    reference = InputXGradient(model).attribute(rows.clone().requires_grad_(), target=0)
    for r, radius in enumerate(settings.radii):
        assert bool(((moved[r] - rows).norm(dim=1) <= radius * (1 + 1e-5)).all())
        assert bool(((moved[r] >= 0) & (moved[r] <= 1)).all())
        before, after = model.predictions(rows), model.predictions(moved[r])
        assert torch.equal(before[0] > 0, after[0] > 0)
        for one, other in zip(before[1:], after[1:], strict=True):
            assert torch.equal(one.argmax(dim=1), other.argmax(dim=1))
        maps = InputXGradient(model).attribute(moved[r].clone().requires_grad_(), target=0)
        found = precision_at_k(maps.detach(), reference.detach(), 5, absolute=True)
        assert torch.equal(precision[r], found)
    assert attack == "mse" or float(precision[-1].mean()) < 1


def test_the_selection_attacks_the_first_explanation() -> None:
    model, data = toy()
    found = validation_precision(model, data.inputs[:4], 5, 0, toy_task().settings)
    assert found.shape == (3, 4)
    assert float(found[-1].nanmean()) < 1  # one row has a tie


def test_properties_of_pairs() -> None:
    model, data = toy()
    found = measure_properties(model, data.inputs[:3], 5, 0, toy_task().settings)
    assert found["magnitudes"].shape == (3, min(N_MAGNITUDES, 2 * N_EDGES))
    for name in ("thickness", "adversarial thickness", "gaussian thickness"):
        assert bool(((found[name] >= 0) & (found[name] <= 1)).all())
    assert all(values.isfinite().all() for values in found.values())


@pytest.mark.parametrize("task", ["mnist-pairs", "adhd200-site"])
def test_every_method_trains_a_network_for_pairs(task: str) -> None:
    methods = PAIRS[task].methods
    tried = {
        "r2et-late", "r2et-late-sp", "r2et-heavy", "r2et-flat", "r2et-far", "r2et-logit",
        "est-h-sp", "est-h-far",
    }  # fmt: skip
    assert {name for name, method in methods.items() if method.role == "idea"} == tried
    for name in set(methods) - tried:
        assert methods[name].by_default and methods[name].role == METHODS[name].role
    assert not {"exact-h", "ssr"} & set(methods)
    if task == "mnist-pairs":
        network, inputs = PAIRS[task].network, torch.rand(4, 2 * 784)
    else:
        network, inputs = toy_task().network, torch.rand(4, 2 * N_EDGES)
    targets = torch.tensor([0, 1, 0, 1])
    for name, method in methods.items():
        for setting in method.grid.values():
            torch.manual_seed(0)
            model = method.network(inputs.shape[1], setting, network)
            loss = method.criterion(model, 5, setting)(inputs, targets)
            loss.backward()
            touched = [p for n, p in model.named_parameters() if "classifier" not in n]
            assert loss.isfinite() and all(p.grad.isfinite().all() for p in touched), name


def test_regularisation_is_delayed() -> None:
    calls: list[str] = []

    def loss(name: str):
        return lambda inputs, targets: calls.append(name) or torch.zeros(())

    criterion = DelayedRegularisation(loss("complete"), loss("first"), 2)
    for _ in range(4):
        criterion(torch.zeros(1), torch.zeros(1))
    assert calls == ["first", "first", "complete", "complete"]


def test_a_run_on_pairs_and_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "adhd200-site", toy_task())
    plan = Plan(
        datasets=("adhd200-site",),
        methods=("vanilla",),
        seeds=(0, 1),
        starts=("random",),
        attacks=("er",),
        explanations=("saliency",),
        k=5,
    )
    radii = TASKS["adhd200-site"].settings.radii
    protocol = Protocol(5, 3, 2, 3, None, radii)
    run(plan, protocol, tmp_path, lambda store: Experiment(store, protocol, None))
    store = Store(tmp_path)
    assert store.protocol["radii"] == list(radii)
    found = store.results(part=Part("er", "saliency", 5))
    assert len(found) == 2
    for result in found.values():
        assert [len(rows) for rows in result["precision"]] == [3] * 3
        assert result["changed"] == [0] * 3
    text = report(tmp_path)
    assert "adhd200-site" in text and "vanilla" in text


def test_folds_are_the_seeds() -> None:
    graphs = synthetic_connectomes(n_graphs=30, n_regions=N_NODES)
    data = toy_task().load(None)
    for seed in (0, 4, 7):
        expected = pair_graphs(graphs, fold=seed % 5)
        for got, part in zip(data.parts(seed), expected, strict=True):
            assert torch.equal(got.inputs, JoinedPairs.of(part).inputs)


def test_digits_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_robust.benchmark.study.pairs.N_PAIRS_OF_DIGITS", 8)
    small = lambda root, n_train, seed: load_mnist_pairs(root, (3, 8), n_train, 4, 4, seed)  # noqa: E731
    monkeypatch.setattr("captum_robust.benchmark.study.pairs.load_mnist_pairs", small)
    for part in ("train", "test"):
        mnist_files(tmp_path, part, [3, 8] * 8)
    data = PAIRS["mnist-pairs"].load(tmp_path)
    assert data.n_features == 1568
    train, validation, test = data.parts(3)
    assert [len(part) for part in (train, validation, test)] == [8, 4, 4]
    assert train.inputs.shape == (8, 1568)


def test_kinds_of_data_do_not_mix() -> None:
    assert in_common(("kki", "adhd200-site")).k == (50, 30, 10)
    assert in_common(("adult", "compas")).rows == (150, 25, 100)
    with pytest.raises(ValueError, match="got adult, kki, accepted: either tables, or pairs"):
        in_common(("adult", "kki"))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "store")
    options = ["run", "--dry-run", "--seeds", "1", "--starts", "random", "--out", out]
    assert cli.main([*options, "--dataset", "kki"]) == 0
    text = capsys.readouterr().out
    assert "kki, r2et-sp, " in text and "auto saliency 50" in text and "auto saliency 10" in text
    assert "exact-h" not in text and "ssr" not in text
    with pytest.raises(SystemExit):
        cli.main([*options, "--dataset", "kki,adult"])
    assert "argument --dataset: got kki, adult, accepted" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*options, "--dataset", "kki", "--methods", "ssr"])
    assert "--methods: got 'ssr', accepted: vanilla" in capsys.readouterr().err
