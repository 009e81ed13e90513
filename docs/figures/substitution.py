"""SubstitutionAttack beside random swaps and the order of importance, on text and on a table.

``python docs/figures/substitution.py`` trains two classifiers of sentences from the docstrings of
torch and numpy, and one of the binary features of Bank, and attacks examples that were not trained
on. Every method has the same number of attributions per example. Prints mean precision at k.

The order of importance is that of attacks on predictions (TextFooler, arXiv 1907.11932): positions
are replaced in the order of their importance, each by the best of its candidates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from captum.attr import InputXGradient
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from captum_robust.datasets import load_bank, split
from captum_robust.metrics import precision_at_k
from captum_robust.robust import SubstitutionAttack

LENGTH, WIDTH, N_WORDS, N_NEAREST, N_ATTACKED, BUDGETS, SEEDS = 12, 16, 1500, 20, 60, (1, 2, 3), 3


class Task(NamedTuple):
    """A trained model, examples that it has not seen, and what they may become."""

    name: str
    model: nn.Module
    inputs: Tensor  #: (N, P, W) embeddings or (N, P) bits
    candidates: Tensor  #: (N, P, C, W) or (N, P, C)
    k: int
    groups: Tensor | None  #: features that are summed


class Words(nn.Module):
    """A transformer or a bag of words, as a function of embeddings."""

    def __init__(self, attends: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(N_WORDS, WIDTH)
        self.mix: nn.Module = nn.Identity()
        if attends:
            self.mix = nn.TransformerEncoderLayer(
                WIDTH, 2, 32, dropout=0.0, activation="gelu", batch_first=True
            )
        self.out = nn.Sequential(nn.Linear(WIDTH, 32), nn.Softplus(), nn.Linear(32, 2))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return logits, (N, 2)."""
        return self.out(self.mix(embeddings).mean(dim=1))


def sentences(module: object) -> list[list[str]]:
    """Return the sentences of the docstrings of a module's functions, as words."""
    found = []
    for name in sorted(dir(module)):
        document = getattr(getattr(module, name), "__doc__", None)
        for sentence in re.split(r"[.:]\s", document) if isinstance(document, str) else ():
            words = re.findall(r"[a-z]+", sentence.lower())
            if len(words) >= LENGTH and not {"torch", "numpy", "np"} & set(words):
                found.append(words[:LENGTH])
    return [list(words) for words in dict.fromkeys(map(tuple, found))]


def text_tasks(seed: int) -> Iterator[Task]:
    """Train on nine tenths of the sentences."""
    corpus = [(words, 0) for words in sentences(torch)] + [(w, 1) for w in sentences(np)]
    common = Counter(word for words, _ in corpus for word in words).most_common(N_WORDS - 1)
    number = {word: i + 1 for i, (word, _) in enumerate(common)}
    ids = torch.tensor([[number.get(w, 0) for w in words] for words, _ in corpus])
    labels = torch.tensor([label for _, label in corpus])
    order = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))
    train, test = order[: len(order) * 9 // 10], order[len(order) * 9 // 10 :][:N_ATTACKED]
    for name, attends in (("text, bag of words", False), ("text, transformer", True)):
        torch.manual_seed(seed)
        model = Words(attends)
        optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
        for _ in range(12):
            for rows in train[torch.randperm(len(train))].split(64):
                optimizer.zero_grad()
                cross_entropy(model(model.table(ids[rows])), labels[rows]).backward()
                optimizer.step()
        model.eval()
        table = model.table.weight.detach()
        near = (normalize(table) @ normalize(table).T).fill_diagonal_(-1).topk(N_NEAREST).indices
        accuracy = (model(table[ids[test]]).argmax(dim=1) == labels[test]).double().mean()
        groups = torch.arange(LENGTH)[:, None].expand(LENGTH, WIDTH)
        label = f"{name} ({len(train)} sentences, accuracy {accuracy:.2f})"
        yield Task(label, model, table[ids[test]], table[near[ids[test]]], 3, groups)


def table_task(seed: int) -> Task:
    """Train on Bank; any of the binary features may be flipped."""
    torch.manual_seed(seed)
    data = split(load_bank(), seed=0)
    model = nn.Sequential(nn.Linear(data.train.n_features, 32), nn.Softplus(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(10):
        for rows in torch.randperm(len(data.train)).split(512):
            optimizer.zero_grad()
            cross_entropy(model(data.train.inputs[rows]), data.train.targets[rows]).backward()
            optimizer.step()
    inputs, labels = data.test.inputs[:N_ATTACKED], data.test.targets[:N_ATTACKED]
    accuracy = (model(inputs).argmax(dim=1) == labels).double().mean()
    bits = torch.tensor([0.0, 1.0]).expand(*inputs.shape, 2)
    name = f"Bank, binary features ({len(data.train)} rows, accuracy {accuracy:.2f})"
    return Task(name, model.eval(), inputs, bits, 8, None)


def precision_of(task: Task) -> Callable[[Tensor], Tensor]:
    """Return the function from changed examples to precision at k, 1 for another prediction."""
    attribution, x = InputXGradient(task.model), task.inputs
    label = task.model(x).argmax(dim=1)

    def maps(points: Tensor) -> Tensor:
        return attribution.attribute(points.clone().requires_grad_(), target=label).detach()

    reference = maps(x)

    def precision(points: Tensor) -> Tensor:
        found = precision_at_k(
            maps(points), reference, task.k, absolute=True, feature_mask=task.groups
        )
        return found.nan_to_num(1.0).where(task.model(points).argmax(dim=1) == label, 1.0)

    return precision


def replaced(task: Task, points: Tensor, position: Tensor, choice: Tensor) -> Tensor:
    """Return points with one position each (N,) replaced by a candidate (N,)."""
    every, moved = torch.arange(len(points)), points.clone()
    moved[every, position] = task.candidates[every, position, choice]
    return moved


def by_chance(task: Task, budget: int, n_queries: int) -> Tensor:
    """Return the lowest precision of random replacements of ``budget`` positions."""
    generator, precision = torch.Generator().manual_seed(0), precision_of(task)
    (n, n_positions, n_choices), least = task.candidates.shape[:3], torch.ones(len(task.inputs))
    for _ in range(n_queries - 1):
        points = task.inputs
        places = torch.rand(n, n_positions, generator=generator).topk(budget).indices
        for position in places.unbind(dim=1):
            choice = torch.randint(0, n_choices, (n,), generator=generator)
            points = replaced(task, points, position, choice)
        least = torch.minimum(least, precision(points))
    return least


def by_importance(task: Task, budget: int, n_queries: int) -> Tensor:
    """Replace the most important positions in turn, each by the best of its candidates."""
    label, x = task.model(task.inputs).argmax(dim=1), task.inputs
    maps = InputXGradient(task.model).attribute(x.clone().requires_grad_(), target=label).detach()
    scores = maps.flatten(2).sum(dim=2).abs() if maps.dim() > 2 else maps.abs()
    order, precision, points = scores.argsort(dim=1, descending=True), precision_of(task), x
    least, n_changed, every = torch.ones(len(x)), torch.zeros(len(x)), torch.arange(len(x))
    n_choices = task.candidates.shape[2]
    for position in order[:, : (n_queries - 1) // n_choices].unbind(dim=1):
        choices = torch.arange(n_choices)[:, None].expand(-1, len(x))
        trials = torch.stack([replaced(task, points, position, choice) for choice in choices])
        found = torch.stack([precision(trial) for trial in trials])
        better = (found.amin(dim=0) < least) & (n_changed < budget)
        ahead = trials[found.argmin(dim=0), every]
        points = torch.where(better.view(-1, *(1,) * (x.dim() - 1)), ahead, points)
        least, n_changed = torch.where(better, found.amin(dim=0), least), n_changed + better
    return least


def ours(task: Task, budget: int, n_queries: int, width: int) -> Tensor:
    """Attack with a beam of some width."""
    attack = SubstitutionAttack(
        InputXGradient(task.model), task.k, task.candidates, n_candidates=N_NEAREST,
        beam_width=width, max_queries=n_queries, absolute=True, feature_mask=task.groups,
    )  # fmt: skip
    label = task.model(task.inputs).argmax(dim=1)
    _, info = attack.perturb(task.inputs, budget, target=label, seed=0, return_info=True)
    assert info.precision is not None and int(info.n_queries.max()) <= n_queries
    return info.precision


def main() -> None:
    """Print the table."""
    print("| task | budget | queries | random | importance order | greedy | beam of 3 |")
    print("|---|---|---|---|---|---|---|")
    tasks = [[*text_tasks(seed), table_task(seed)] for seed in range(SEEDS)]
    for several in zip(*tasks, strict=True):
        for budget in BUDGETS:
            n_queries = 2 + budget * (N_NEAREST + 1)
            columns = [
                torch.stack([method(task, budget, n_queries) for task in several]).double().mean()
                for method in (
                    by_chance,
                    by_importance,
                    lambda *given: ours(*given, width=1),
                    lambda *given: ours(*given, width=3),
                )
            ]
            figures = " | ".join(f"{float(c):.3f}" for c in columns)
            print(f"| {several[0].name} | {budget} | {n_queries} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
