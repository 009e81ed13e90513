"""R2ET written out from its definition: example by example, pair lists, a Hessian by its rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = "(N, C)"
VECTOR = "(N,)"
COLUMN = "(N, 1)"
FORMS = [CLASSES, VECTOR, COLUMN]


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def drawn(model: nn.Module) -> Any:
    """The model in float64, its parameters drawn so that activations are of order one."""
    for seed, parameter in enumerate(model.double().parameters()):
        parameter.data = normal(*parameter.shape, seed=seed) / max(1, parameter[0].numel()) ** 0.5
    return model


def mlp(form: str = CLASSES, n_features: int = 6, hidden: int = 5) -> Any:
    """A softplus network that returns logits in one of the three forms."""
    out = nn.Linear(hidden, 3 if form == CLASSES else 1)
    tail = [nn.Flatten(0)] if form == VECTOR else []
    return drawn(nn.Sequential(nn.Linear(n_features, hidden), nn.Softplus(), out, *tail))


def labels(form: str = CLASSES, n_examples: int = 4) -> Tensor:
    """All classes in turn."""
    return torch.arange(n_examples) % (3 if form == CLASSES else 2)


class TwoInputs(nn.Module):
    """(N, 3), (N, 1, 2) and arguments of the forward -> (N, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 3)
        drawn(self)

    def forward(
        self, a: Tensor, b: Tensor, shift: Tensor | float = 0.0, scale: float = 1.0
    ) -> Tensor:
        hidden = F.softplus(self.left(a) + shift) * torch.tanh(self.right(b.flatten(1)))
        return self.out(scale * hidden)  # type: ignore[no-any-return]


def parameter_gradients(loss: Tensor, model: nn.Module) -> Tensor:
    """All of them in one vector; zeros where the loss does not depend on a parameter."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            torch.zeros_like(p).flatten() if g is None else g.flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def pairs_by_definition(reference: list[float], k: int, pairs: str, k_prime: int) -> list[Any]:
    """arXiv 2212.14106: (i, j) with i above the boundary of the top-k or at it, j below."""
    n = len(reference)
    order = sorted(range(n), key=lambda i: (-reference[i], i))
    top, rest = order[:k], order[k:]
    if pairs == "all":
        return [(i, j) for i in top for j in rest]
    if pairs == "mm":
        return list(zip(reversed(top[k - k_prime :]), rest[:k_prime], strict=False))
    anchor = top[-1]
    return [(i, anchor) for i in top[k - k_prime : -1]] + [(anchor, j) for j in rest[:k_prime]]


def class_loss(logits: Tensor, label: int) -> Tensor:
    """Cross-entropy, or binary cross-entropy, of the outputs for one example."""
    logits = logits.flatten()
    if len(logits) > 1:
        return logits.exp().sum().log() - logits[label]
    return (1 + (-logits[0] if label == 1 else logits[0]).exp()).log()


def score(logits: Tensor, label: int, explain: str) -> Tensor:
    """What the labelled class of one example scores."""
    logits = logits.flatten()
    if len(logits) > 1:
        probability = logits[label].exp() / logits.exp().sum()
        return probability if explain == "probability" else logits[label]
    probability = 1 / (1 + (-logits[0]).exp())
    if label == 0:
        return 1 - probability if explain == "probability" else -logits[0]
    return probability if explain == "probability" else logits[0]


def flatten(tensors: Any) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


class OneExample:
    """The terms of R2ET for one example."""

    def __init__(
        self, model: Any, inputs: tuple[Tensor, ...], label: int, explain: str, arguments: Any
    ) -> None:
        self.model, self.label, self.explain, self.arguments = model, label, explain, arguments
        self.inputs = tuple(x if x.requires_grad else x.clone().requires_grad_() for x in inputs)

    def base(self) -> Tensor:
        return class_loss(self.model(*self.inputs, *self.arguments), self.label)

    def gradient(self, at: tuple[Tensor, ...]) -> Tensor:
        value = score(self.model(*at, *self.arguments), self.label, self.explain)
        return flatten(torch.autograd.grad(value, at, create_graph=True))

    def gaps(
        self, k: int, pairs: str, k_prime: int | None, gap: str, normalize: bool, groups: Any,
        reference: list[float] | None,
    ) -> Tensor:  # fmt: skip
        saliency = self.gradient(self.inputs).abs()
        if groups is not None:
            ids = flatten(groups).tolist()
            saliency = torch.stack(
                [
                    sum(saliency[i] for i, group in enumerate(ids) if group == wanted)
                    for wanted in sorted(set(ids))
                ]
            )
        if normalize:
            saliency = saliency / saliency.sum()
        ranked_by = saliency.tolist() if reference is None else reference
        chosen = pairs_by_definition(ranked_by, k, pairs, k if k_prime is None else k_prime)
        total = torch.zeros((), dtype=saliency.dtype)
        for i, j in chosen:
            h = saliency[i] - saliency[j]
            total = total + (h if gap == "linear" else (-h).exp())
        return total

    def hessian(self) -> Tensor:
        gradient = self.gradient(self.inputs)
        rows = [torch.autograd.grad(g, self.inputs, create_graph=True) for g in gradient]
        return torch.stack([flatten(row) for row in rows])

    def curvature(self, hessian: str, kappa: float) -> Tensor:
        if hessian == "exact":
            return self.hessian().square().sum().sqrt()
        signs = self.gradient(self.inputs).detach().sign()
        direction = signs / signs.abs().sum().sqrt()
        if hessian == "hvp":
            return (self.hessian() @ direction).square().sum().sqrt()
        parts = direction.split([x.numel() for x in self.inputs])
        ahead = tuple(
            x + kappa * part.view_as(x) for x, part in zip(self.inputs, parts, strict=True)
        )
        difference = (self.gradient(ahead) - self.gradient(self.inputs)) / kappa
        return difference.square().sum().sqrt()


def r2et_by_definition(
    model: Any,
    inputs: Any,
    target: Tensor,
    k: int,
    lambda1: float = 0.1,
    lambda2: float = 0.1,
    pairs: str = "anchor",
    k_prime: int | None = None,
    gap: str = "linear",
    hessian: str = "finite_difference",
    kappa: float = 1e-2,
    explain: str = "probability",
    normalize: bool = False,
    adaptive: bool = False,
    feature_mask: Any = None,
    reduction: str = "mean",
    additional_forward_args: tuple[Any, ...] = (),
    reference_attributions: Any = None,
) -> Tensor:
    """The loss; ``model`` must treat examples independently."""
    tensors = (inputs,) if isinstance(inputs, Tensor) else inputs
    masks = (feature_mask,) if isinstance(feature_mask, Tensor) else feature_mask
    n_examples = len(target)
    bases, gaps, curvatures = [], [], []
    for e in range(n_examples):
        arguments = [
            a[e : e + 1] if isinstance(a, Tensor) and a.dim() and len(a) == n_examples else a
            for a in additional_forward_args
        ]
        example = OneExample(
            model, tuple(t[e : e + 1] for t in tensors), int(target[e]), explain, arguments
        )
        groups = None if masks is None else [m[e if len(m) > 1 else 0] for m in masks]
        reference = None if reference_attributions is None else reference_attributions[e].tolist()
        bases.append(example.base())
        gaps.append(example.gaps(k, pairs, k_prime, gap, normalize, groups, reference))
        curvatures.append(example.curvature(hessian, kappa))
    reduce = {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction]
    base, h, curvature = (reduce(torch.stack(v)) for v in (bases, gaps, curvatures))
    regulariser = -h if gap == "linear" else h
    weight1: Any = lambda1
    weight2: Any = lambda2
    if adaptive:  # as the authors' code weighs its terms
        weight1 = (lambda1 * (base.detach() + 1) / regulariser.detach()).abs()
        weight2 = (lambda2 * (base.detach() + 1) / curvature.detach()).abs()
    return base + weight1 * regulariser + weight2 * curvature
