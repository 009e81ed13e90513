"""Networks trained on real tables and images, with test examples; nothing was tuned on them."""

from collections.abc import Callable
from functools import cache

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from captum_robust.datasets import TabularDataset, distinct, load_bank, load_breast_cancer, split
from captum_robust.models import TabularMLP
from tests.benchmark.cases import Case

__all__ = ["bank_case", "breast_cancer_case", "digits_case"]


@cache
def bank_case() -> Case:
    """18 bits, ReLU."""
    return _table(load_bank(), nn.ReLU, n_epochs=4, k=6)


@cache
def breast_cancer_case() -> Case:
    """30 measurements, softplus."""
    return _table(load_breast_cancer(), nn.Softplus, n_epochs=60, k=8)


@cache
def digits_case() -> Case:
    """64 pixels; two convolutions with SiLU."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    target = torch.tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, stride=2), nn.SiLU(),
            nn.Flatten(), nn.Linear(16 * 9, 10),
        )  # fmt: skip
        _fit(model, inputs[:1400], target[:1400], cross_entropy, n_epochs=8)
    return Case(model, inputs[1400:1430], target[1400:1430], k=8)


def _table(data: TabularDataset, activation: type[nn.Module], n_epochs: int, k: int) -> Case:
    train, _, test = split(data, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TabularMLP(data.n_features, activation=activation)
        labels = train.targets[:, None].float()
        _fit(model, train.inputs, labels, binary_cross_entropy_with_logits, n_epochs)
    inputs = distinct(test.inputs)[:30]
    return Case(model, inputs, torch.zeros(len(inputs), dtype=torch.long), k)


def _fit(
    model: nn.Module,
    inputs: torch.Tensor,
    target: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    n_epochs: int,
) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            loss(model(inputs[rows]), target[rows]).backward()
            optimizer.step()
    model.eval()
