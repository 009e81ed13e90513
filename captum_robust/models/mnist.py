"""The embedding for handwritten digits."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


class MNISTEmbedding(nn.Sequential):
    """The convolutional network of the R2ET paper: images (N, 1, 28, 28) to embeddings (N, 10).

    Conv2d 1 to 8, activation, max-pool 2; Conv2d 8 to 16, activation, max-pool 3; then, on the
    remaining 144 numbers, Linear 64, activation, Linear 32, activation, Linear 10. The paper does
    not state its kernel sizes; 3 by 3 without padding are the smallest that give 144 numbers.

    Args:
        activation: Returns the module after a layer, such as ``nn.LeakyReLU`` or ``nn.Softplus``;
            called once for each of the four, without arguments.

    Source:
        R2ET, arXiv 2212.14106, experiments on MNIST.

    Example:
        >>> import torch
        >>> from captum_robust.models import SiameseNetwork
        >>> MNISTEmbedding()(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
        >>> model = SiameseNetwork(MNISTEmbedding(torch.nn.Softplus), MNISTEmbedding.size)
    """

    #: Width of the embedding.
    size = 10

    def __init__(self, activation: Callable[[], nn.Module] = nn.LeakyReLU) -> None:
        super().__init__(
            nn.Conv2d(1, 8, 3),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3),
            activation(),
            nn.MaxPool2d(3),
            nn.Flatten(),
            nn.Linear(144, 64),
            activation(),
            nn.Linear(64, 32),
            activation(),
            nn.Linear(32, self.size),
        )
