"""The explanations that are attacked, of the logit of a single-logit network."""

from collections.abc import Callable
from typing import Any, NamedTuple

from captum.attr import Attribution, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_robust._utils.random import seeded

__all__ = ["EXPLANATIONS", "Explanation", "Probability"]


class Explanation(NamedTuple):
    """How an explanation is made and called.

    Attributes:
        attribution: makes Captum's attribution of a model.
        arguments: of its ``attribute``, beside the target.
        costly: whether each map takes many gradients, so that fewer rows are attacked.
    """

    attribution: Callable[[nn.Module], Attribution]
    arguments: dict[str, Any]
    costly: bool

    def magnitudes(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Importance of each feature, (N, n); noise is the same at every call."""
        with seeded(0):
            maps: Tensor = self.attribution(model).attribute(
                inputs.detach().requires_grad_(), target=0, **self.arguments
            )
        return maps.detach().abs()


#: SmoothGrad as in the paper (C.4.3): 50 draws, variance 0.5 on tables. The paper integrates over
#: 100 points; 50, by Gauss and Legendre, are Captum's default.
EXPLANATIONS = {
    "saliency": Explanation(Saliency, {}, costly=False),
    "smoothgrad": Explanation(
        lambda model: NoiseTunnel(Saliency(model)),
        {"nt_type": "smoothgrad", "nt_samples": 50, "stdevs": 0.5**0.5},
        costly=True,
    ),
    "ig": Explanation(IntegratedGradients, {"n_steps": 50}, costly=True),
}


class Probability(nn.Module):
    r"""The probability of class 1 less ½, so that its sign is the prediction, as the logit's is.

    On a network of the ReLU family the gradient of a logit's saliency is zero, that of a
    probability's is not.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Shape (N, 1)."""
        logits: Tensor = self.model(inputs)
        return (logits / 2).tanh() / 2
