"""The network for tables: one hidden layer, one logit."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class TabularMLP(nn.Module):
    """A two-layer perceptron, n_features -> hidden -> 1 logit, as in the R2ET paper for tables.

    The paper's sigmoid belongs to the loss (``binary_cross_entropy_with_logits``), which is exact
    for large logits.

    Args:
        n_features: Number of input features, 1 or more.
        hidden: Number of hidden units, 1 or more.
        activation: Returns the module between the layers, such as ``nn.LeakyReLU`` or
            ``nn.Softplus``; called once, without arguments.

    Raises:
        ValueError: If ``n_features`` or ``hidden`` is less than 1.

    Source:
        R2ET, arXiv 2212.14106, experiments on tabular data.

    Example:
        >>> import torch
        >>> model = TabularMLP(28)
        >>> model(torch.zeros(5, 28)).shape
        torch.Size([5, 1])
        >>> TabularMLP(28, activation=torch.nn.Softplus).activation
        Softplus(beta=1.0, threshold=20.0)
    """

    def __init__(
        self,
        n_features: int,
        hidden: int = 32,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
    ) -> None:
        super().__init__()
        for name, size in (("n_features", n_features), ("hidden", hidden)):
            if size < 1:
                raise ValueError(f"{name}: got {size}, accepted: 1 or more")
        self.hidden = nn.Linear(n_features, hidden)
        self.activation = activation()
        self.output = nn.Linear(hidden, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the logits, shape (N, 1), of ``inputs``, shape (N, n_features)."""
        logits: Tensor = self.output(self.activation(self.hidden(inputs)))
        return logits
