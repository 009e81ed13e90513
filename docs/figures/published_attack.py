"""ERAttack with the step sizes of the R2ET paper and with those of this library.

``python docs/figures/published_attack.py`` trains vanilla networks on Adult and Bank as in
docs/reproduction.md and prints the mean P@8 within an L2 ball of radius 1 under both attacks. The
paper takes up to 1,000 steps of length 1e-3 and weighs the change of the prediction by gradient
descent-ascent (GDA). The study takes 40 steps of 2.5 / 40 and discards iterates with another
prediction.
"""

from __future__ import annotations

import math

import torch
from captum.attr import Saliency
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from captum_robust.datasets import Split, distinct, load_adult, load_bank, split
from captum_robust.metrics import precision_at_k
from captum_robust.models import TabularMLP
from captum_robust.robust import ERAttack

K, RADIUS, N_ROWS, N_EPOCHS, BATCH, SEEDS = 8, 1.0, 150, 12, 512, range(3)


class Probability(nn.Module):
    """The probability of class 1 minus one half, so that its sign is the prediction."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the probability minus one half, (N, 1)."""
        return self.model(inputs).sigmoid() - 0.5


def train(data: Split, seed: int) -> nn.Module:
    """Train an n → 32 → 1 network by Adam, whose learning rate falls from 3e-3 to 0."""
    torch.manual_seed(seed)
    model = TabularMLP(data.train.n_features)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    n_steps = N_EPOCHS * math.ceil(len(data.train) / BATCH)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / n_steps)
    for _ in range(N_EPOCHS):
        for rows in torch.randperm(len(data.train)).split(BATCH):
            logits = model(data.train.inputs[rows]).squeeze(1)
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(logits, data.train.targets[rows].float()).backward()
            optimizer.step()
            rate.step()
    return model.eval()


def precision(model: nn.Module, rows: Tensor, options: dict, steps: dict) -> float:
    """Attack along the gradient of the probability and return the mean P@8 for the logit."""
    saliency = Saliency(model)
    attack = ERAttack(saliency, K, surrogate=Saliency(Probability(model)), **options)
    moved = attack.perturb(rows, RADIUS, target=0, norm="L2", seed=0, **steps)
    after, before = (
        saliency.attribute(x.clone().requires_grad_(), target=0) for x in (moved, rows)
    )
    return float(precision_at_k(after, before, K).mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| data | seed | steps and constraint of the paper | steps and constraint of the study |")
    print("| --- | --- | --- | --- |")
    for name, load in (("adult", load_adult), ("bank", load_bank)):
        for seed in SEEDS:
            data = split(load(), seed)
            model = train(data, seed)
            rows = distinct(data.test.inputs)[:N_ROWS]
            published = precision(
                model, rows, {"preserve_prediction": "gda"}, {"step_num": 1000, "step_size": 1e-3}
            )
            ours = precision(model, rows, {}, {})
            print(f"| {name} | {seed} | {published:.3f} | {ours:.3f} |", flush=True)
