"""Figure at the top of the README: `python docs/figures/teaser.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from captum.attr import Saliency
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from captum_robust.metrics import precision_at_k
from captum_robust.robust import AutoERAttack
from captum_robust.visualization import visualize_image_rankings

SEED, K, RADIUS, N_ATTACKED = 0, 8, 0.05, 100
IMAGE = Path(__file__).parents[1] / "images" / "teaser.png"


def network() -> nn.Sequential:
    """Return a small convolutional network; nothing was tuned."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


def train() -> tuple[nn.Sequential, Tensor, Tensor]:
    """Train the network for 20 epochs on 1,397 digits; return it with the other 400, in [0, 1]."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    targets = torch.tensor(labels)
    torch.manual_seed(SEED)
    order = torch.randperm(len(images))
    images, targets = images[order], targets[order]
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(20):
        for rows in torch.randperm(len(images) - 400).split(64):
            optimizer.zero_grad()
            cross_entropy(model(images[rows]), targets[rows]).backward()
            optimizer.step()
    return model.eval(), images[-400:], targets[-400:]


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, images, targets = train()
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    print(f"accuracy on {len(images)} test images: {(labels == targets).float().mean():.3f}")

    x, y = images[:N_ATTACKED], labels[:N_ATTACKED]
    saliency = Saliency(model)
    attack = AutoERAttack(saliency, K, lower_bound=0.0, upper_bound=1.0)
    moved = attack.perturb(x, RADIUS, target=y, seed=SEED)
    before, after = (saliency.attribute(t.clone().requires_grad_(), target=y) for t in (x, moved))
    precision = precision_at_k(after, before, K)
    with torch.no_grad():
        confidence = [model(t).softmax(dim=1).gather(1, y[:, None])[:, 0] for t in (x, moved)]
        kept = (model(moved).argmax(dim=1) == y).sum()
    print(f"predictions kept: {kept} of {N_ATTACKED}")
    print(
        f"P@{K}: mean {precision.mean():.3f}, quartiles "
        f"{precision.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()}"
    )
    # Show the first image with the median precision.
    shown = int((precision == precision.quantile(0.5, interpolation="lower")).nonzero()[0])
    pixels = [t[shown].permute(1, 2, 0) for t in (after, before, x, moved)]
    figure, axes = visualize_image_rankings(
        pixels[0], pixels[1], K, pixels[2], pixels[3],
        title="Same digit, same prediction, different explanation", fig_size=(5.0, 5.7),
        use_pyplot=False,
    )  # fmt: skip
    for axis, name, of in zip(axes, ("the input", "attacked"), confidence, strict=False):
        axis.set_title(f"{name}: “{y[shown]}”, {100 * of[shown]:.0f} % sure")
    axes[2].set_title(f"top {K} pixels")
    axes[3].set_title(axes[3].get_title().replace("after", "now"))
    figure.savefig(IMAGE, dpi=150)
    probabilities = ", ".join(f"{of[shown]:.4f}" for of in confidence)
    print(f"image {shown}: P@{K} {precision[shown]:.3f}, probabilities {probabilities}")
