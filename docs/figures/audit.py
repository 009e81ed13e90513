"""Audits of three untuned models, and their cost.

``python docs/figures/audit.py FOLDER`` trains a network on Adult, an attention network on Wine and
a convolutional network on the digits of scikit-learn, writes the three reports into the folder, and
prints the processor time of each audit.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.datasets import load_digits, load_wine
from torch import Tensor, nn

import captum_robust
from captum_robust.datasets import distinct, load_adult, split
from captum_robust.models import TabularMLP

Case = tuple[nn.Module, Tensor, Tensor, dict[str, object]]


def train(model: nn.Module, inputs: Tensor, targets: Tensor, n_epochs: int) -> nn.Module:
    """Train with Adam on the cross-entropy, or the binary one for a single output."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(n_epochs):
        for rows in torch.randperm(len(inputs)).split(128):
            outputs = model(inputs[rows])
            if outputs.shape[1] == 1:
                loss = nn.functional.binary_cross_entropy_with_logits(
                    outputs[:, 0], targets[rows].float()
                )
            else:
                loss = nn.functional.cross_entropy(outputs, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def adult() -> Case:
    """Return a network with one hidden layer and 100 distinct test rows."""
    data = split(load_adult(), seed=0)
    model = train(TabularMLP(data.train.n_features), data.train.inputs, data.train.targets, 1)
    inputs = distinct(data.test.inputs)[:100]
    first = (data.test.inputs == inputs[:, None]).all(dim=2).int().argmax(dim=1)
    names = {"feature_names": data.test.feature_names}
    return model, inputs, data.test.targets[first], names


class Attention(nn.Module):
    """Self-attention with one token per feature."""

    def __init__(self, n_features: int, n_classes: int, width: int = 16) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_features, width) / 3)
        self.bias = nn.Parameter(torch.randn(n_features, width) / 3)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.output = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_classes))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (N, n_classes)."""
        tokens = inputs[..., None] * self.weight + self.bias
        seen, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: Tensor = self.output((tokens + seen).mean(dim=1))
        return logits


def wine() -> Case:
    """Return a self-attention network and 13 standardised features."""
    data = load_wine()
    inputs = torch.tensor((data.data - data.data.mean(0)) / data.data.std(0)).float()
    targets, order = torch.tensor(data.target), torch.randperm(len(inputs))
    inputs, targets = inputs[order], targets[order]
    model = train(Attention(13, 3), inputs[:120], targets[:120], 60)
    return model, inputs[120:], targets[120:], {"feature_names": data.feature_names}


def digits() -> Case:
    """Return a network with two convolutions and 50 images of 8 × 8 pixels."""
    data = load_digits()
    inputs, targets = torch.tensor(data.images[:, None] / 16).float(), torch.tensor(data.target)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    train(model, inputs[:1400], targets[:1400], 10)
    rows = slice(1400, 1450)
    return model, inputs[rows], targets[rows], {"lower_bound": 0.0, "upper_bound": 1.0}


def main(folder: Path) -> None:
    """Audit all three models."""
    cases: dict[str, tuple[Callable[[], Case], float]] = {
        "adult": (adult, 0.1), "wine": (wine, 0.1), "digits": (digits, 0.05),
    }  # fmt: skip
    for name, (make, radius) in cases.items():
        torch.manual_seed(0)
        model, inputs, targets, options = make()
        started = time.process_time()
        result = captum_robust.audit(
            model, inputs, targets, radius=radius, name=name, labels=targets, **options
        )
        seconds = time.process_time() - started
        result.save(folder / name)
        print(f"{name}: {len(inputs)} rows, {seconds:.0f} s\n{result}\n", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
