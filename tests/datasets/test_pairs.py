"""Pairs of graphs for cross-validation, by the words of the paper."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from captum_robust.datasets import BrainGraphs, Pairs, pair_graphs, synthetic_connectomes


def numbered(classes: list[int]) -> BrainGraphs:
    """Graphs of three nodes whose first edge is their number."""
    edges = torch.zeros(len(classes), 3)
    edges[:, 0] = torch.arange(len(classes))
    return BrainGraphs(edges, torch.tensor(classes), 3, "numbered")


def members(pairs: Pairs) -> list[tuple[int, int]]:
    return list(
        zip(pairs.first[:, 0].int().tolist(), pairs.second[:, 0].int().tolist(), strict=True)
    )


CLASSES = [0] * 13 + [1] * 22 + [2] * 6


@pytest.mark.parametrize("n_folds", [3, 5])
def test_the_protocol(n_folds: int) -> None:
    graphs = numbered(CLASSES)
    tested: list[int] = []
    held_out = []
    for fold in range(n_folds):
        train, validation, test = pair_graphs(graphs, fold, n_folds, partners=2, seed=3)
        groups = [{first for first, _ in members(part)} for part in (train, validation, test)]
        assert sorted(groups[0] | groups[1] | groups[2]) == list(range(41))
        assert sum(len(group) for group in groups) == 41
        for part, group in zip((train, validation, test), groups, strict=True):
            assert {second for _, second in members(part)} <= groups[0]
            assert all(first != second for first, second in members(part))
            assert len(set(members(part))) == len(part)
            for first, second in members(part):
                index = members(part).index((first, second))
                assert part.classes_first[index] == CLASSES[first]
                assert part.classes_second[index] == CLASSES[second]
                assert part.targets[index] == (CLASSES[first] == CLASSES[second])
            for row in group:
                labels = part.targets[[first == row for first, _ in members(part)]]
                # Of the six of class 2, two train in three folds: each has one partner of its own.
                few = n_folds == 3 and CLASSES[row] == 2
                count = 2 if part is train and not few else 1
                assert labels.tolist() == [1] * count + [0] * count
        tested += groups[2]
        held_out.append(groups[1:])
    assert sorted(tested) == list(range(41))
    for fold in range(n_folds):
        assert held_out[fold][0] == held_out[(fold + 1) % n_folds][1]


def test_folds_have_the_same_mix_and_size() -> None:
    graphs = numbered(CLASSES)
    for fold in range(5):
        test = pair_graphs(graphs, fold).test
        rows = {first for first, _ in members(test)}
        assert len(rows) in (8, 9)
        counts = [sum(CLASSES[row] == c for row in rows) for c in range(3)]
        assert all(
            n / 5 - 1 < count < n / 5 + 1 for n, count in zip((13, 22, 6), counts, strict=True)
        )


def test_a_class_with_few_graphs_gives_all_its_partners() -> None:
    train = pair_graphs(numbered([0] * 5 + [1] * 20), 0, partners=10).train
    # Three of class 0 train: two partners of the same class each, and as many of the other.
    small = [pair for pair, c in zip(members(train), train.classes_first, strict=True) if c == 0]
    assert len(small) == 3 * 4
    assert train.targets.float().mean() == 0.5


def test_the_seed_decides() -> None:
    graphs = synthetic_connectomes(30, 8)
    state = torch.get_rng_state()
    one, again, other = (pair_graphs(graphs, 1, seed=seed) for seed in (0, 0, 1))
    for part, same, changed in zip(one, again, other, strict=True):
        assert torch.equal(part.first, same.first)
        assert torch.equal(part.second, same.second)
        assert not torch.equal(part.second, changed.second)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fold": 5}, "fold: got 5, accepted: 0 to 4"),
        ({"fold": -1}, "fold: got -1, accepted: 0 to 4"),
        ({"fold": 0, "n_folds": 2}, "n_folds: got 2, accepted: 3 or more"),
        ({"fold": 0, "partners": 0}, "partners: got 0, accepted: 1 or more"),
        ({"fold": 0, "n_folds": 7}, "graphs: got 6 of class 2, accepted: 7 or more"),
    ],
)
def test_refuses(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair_graphs(numbered(CLASSES), **options)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, torch.zeros(2, 4), r"second: got shape \(2, 4\), accepted: that of first, \(2, 3\)"),
        (2, torch.zeros(3), r"targets: got shape \(3,\), accepted: \(2,\)"),
        (3, torch.zeros(2, 1), r"classes_first: got shape \(2, 1\), accepted: \(2,\)"),
        (4, torch.tensor([1, 1]), "targets: got 1 for pair 0, accepted: 1 where"),
    ],
)
def test_pairs_refuse(position: int, value: Tensor, message: str) -> None:
    classes = torch.tensor([0, 1])
    parts = [torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([1, 0]), classes, classes * 0]
    assert len(Pairs(*parts)) == 2
    parts[position] = value
    with pytest.raises(ValueError, match=message):
        Pairs(*parts)


def test_subset_and_inputs() -> None:
    pairs = pair_graphs(synthetic_connectomes(10, 6), 0).train
    rows = torch.tensor([3, 0])
    part = pairs.subset(rows)
    assert part.inputs[0] is part.first
    for name in ("first", "second", "targets", "classes_first", "classes_second"):
        assert torch.equal(getattr(part, name), getattr(pairs, name)[rows])
    assert part.name == "synthetic-train"
