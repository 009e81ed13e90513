"""Pairs of digits and of brain networks: a row is both members, one after the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_robust.benchmark.study import recipes
from captum_robust.benchmark.study.explanations import Explanation
from captum_robust.benchmark.study.recipes import Criterion, Method, grid
from captum_robust.benchmark.study.settings import Terms
from captum_robust.benchmark.study.task import Data, Parts, Root, Task
from captum_robust.datasets import (
    BrainGraphs,
    Pairs,
    load_adhd200,
    load_adhd200_site,
    load_mnist_pairs,
    load_tu_brain,
    pair_graphs,
)
from captum_robust.graph import adjacency
from captum_robust.loss import R2ETLoss
from captum_robust.models import DenseGCN, MNISTEmbedding, SiameseNetwork
from captum_robust.ranking import Pairs as PairsOfFeatures

__all__ = ["PAIRS", "JoinedPairs", "Late", "PairNetwork", "brain", "fit_classifier"]

Activation = Callable[[], nn.Module]


@dataclass(frozen=True)
class JoinedPairs:
    """Rows of both members of each pair, (N, 2 m), whether they are alike, and their classes."""

    inputs: Tensor
    targets: Tensor
    classes: Tensor

    @classmethod
    def of(cls, pairs: Pairs) -> "JoinedPairs":
        """The pairs, flattened."""
        rows = torch.cat([member.flatten(1) for member in pairs.inputs], dim=1)
        classes = torch.stack([pairs.classes_first, pairs.classes_second], dim=1)
        return cls(rows, pairs.targets, classes)

    def __len__(self) -> int:
        return len(self.inputs)


class PairNetwork(nn.Module):
    """A Siamese network whose input is a row; so one ranking, and one ball, is over the pair.

    Args:
        siamese: the network for pairs.
        unfold: from rows of members, (N, m), to what the network takes.
    """

    def __init__(self, siamese: SiameseNetwork, unfold: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.siamese = siamese
        self.unfold = unfold

    def members(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Both members, as the network takes them."""
        first, second = rows.chunk(2, dim=1)
        return self.unfold(first), self.unfold(second)

    def forward(self, rows: Tensor) -> Tensor:
        """The logit of "same class", (N, 1)."""
        logits: Tensor = self.siamese(*self.members(rows))
        return logits

    def predictions(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The three results of each pair."""
        return tuple(self.siamese.predictions(*self.members(rows)))


def fit_classifier(model: PairNetwork, data: JoinedPairs) -> None:
    """Logistic regression of the classes on the embeddings, which stay as they are."""
    siamese = model.siamese
    with torch.no_grad():
        embeddings = torch.cat(
            [siamese.embedding(model.members(rows)[0]) for rows in data.inputs.split(64)]
        )
    optimizer = torch.optim.LBFGS(
        siamese.classifier.parameters(), max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(siamese.classifier(embeddings), data.classes[:, 0])
        value.backward()
        return value

    optimizer.step(loss)


def _of_digits(n_features: int, activation: Activation) -> PairNetwork:
    siamese = SiameseNetwork(MNISTEmbedding(activation), MNISTEmbedding.size)
    return PairNetwork(siamese, partial(torch.unflatten, dim=1, sizes=(1, 28, 28)))


def _of_graphs(n_nodes: int, n_features: int, activation: Activation) -> PairNetwork:
    siamese = SiameseNetwork(DenseGCN(n_nodes, activation=activation), embedding_size=128)
    return PairNetwork(siamese, partial(adjacency, n_nodes=n_nodes))


def _digits(root: Root) -> Data:
    def parts(seed: int) -> Parts:
        pairs = load_mnist_pairs(root, n_train=N_PAIRS_OF_DIGITS, seed=seed)
        return Parts(*map(JoinedPairs.of, pairs))

    parts(0)  # what is wrong with the files shows at once
    return Data(2 * 28 * 28, parts)


def _graphs(load: Callable[[Root], BrainGraphs]) -> Callable[[Root], Data]:
    def read(root: Root) -> Data:
        graphs = load(root)
        return Data(
            2 * graphs.edges.shape[1],
            lambda seed: Parts(*map(JoinedPairs.of, pair_graphs(graphs, fold=seed % N_FOLDS))),
        )

    return read


#: Pairs of which the networks for digits are trained.
N_PAIRS_OF_DIGITS = 4000
#: Seeds of brain networks are the folds.
N_FOLDS = 5


def _explanations(attribution: Callable[[nn.Module], Any], sigma: float) -> dict[str, Explanation]:
    """Of pairs; the paper's SmoothGrad has 50 draws, and integrates over 100 points."""
    return {
        "saliency": Explanation(attribution, {}, costly=False),
        "smoothgrad": Explanation(
            lambda model: NoiseTunnel(attribution(model)),
            {"nt_type": "smoothgrad", "nt_samples": 10, "stdevs": sigma},
            costly=True,
        ),
        "ig": Explanation(IntegratedGradients, {"n_steps": 10}, costly=True),
    }


_TERMS: dict[str, Any] = {
    "bounds": (0.0, 1.0),
    "shares": (0.01, 0.05, 0.1, 0.2, 0.5),
    "exact_hessian": False,
}
#: Length of the finite difference, longer than for tables: rounding of so many features drowns a
#: step of 0.01.
_KAPPA = 0.1


class Late:
    """The classification loss alone for the first steps, then the whole loss.

    Gaps of normalised maps can be widened by a network that knows nothing yet, and then never will.
    """

    def __init__(self, whole: Criterion, first: Criterion, n_steps: int) -> None:
        self.whole = whole
        self.first = first
        self.n_steps = n_steps

    def __call__(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The loss of a step."""
        self.n_steps -= 1
        return (self.first if self.n_steps >= 0 else self.whole)(inputs, targets)


def _methods(
    attribution: Callable[[nn.Module], Any] | None,
    weights: tuple[float, ...],
    curvatures: tuple[float, ...],
    betas: tuple[float, ...],
    radius: float,
    share: float,
    late_weights: tuple[float, ...],
    warm_up: int,
    far_curvature: float,
) -> Mapping[str, Method]:
    """Those that apply to pairs. Maps are divided by their sum, as the paper does for images.

    R2ET weighs the Hessian norm by a ``share`` of the weight of the gaps.
    """

    def ranking(
        model: nn.Module,
        k: int,
        weight: float,
        pairs: PairsOfFeatures,
        curvature: float,
        kappa: float = _KAPPA,
        explain: Literal["probability", "logit"] = "probability",
    ) -> R2ETLoss:
        explained = attribution(model) if attribution else None
        # R2ET-mm takes half the pairs: with as many it would be R2ET.
        return R2ETLoss(
            model, k, lambda1=weight, lambda2=weight * curvature, pairs=pairs,
            k_prime=max(1, k // 2) if pairs == "mm" else None, normalize=True,
            attribution=explained, kappa=kappa, explain=explain,
        )  # fmt: skip

    def adversarial(model: nn.Module, k: int, radius: float) -> Any:
        explained = attribution(model) if attribution else None
        return recipes.adversarial(model, k, radius=radius, normalize=True, attribution=explained)

    methods = {
        "vanilla": Method(recipes.plain, {"": {}}),
        "wd": Method(recipes.plain, grid(weight_decay=(1e-3,))),
        "sp": Method(recipes.plain, grid(beta=betas), "softplus"),
        "est-h": Method(partial(recipes.curvature, kappa=_KAPPA), grid(weight=curvatures)),
        "at": Method(adversarial, grid(radius=(radius,))),
    }
    variants: tuple[tuple[str, PairsOfFeatures, float], ...] = (
        ("r2et", "anchor", share),
        ("r2et-mm", "mm", share),
        ("r2et-no-h", "anchor", 0.0),
        ("r2et-mm-no-h", "mm", 0.0),
    )
    for name, pairs, curved in variants:
        loss = partial(ranking, pairs=pairs, curvature=curved)
        methods[name] = Method(loss, grid(weight=weights))
        methods[f"{name}-sp"] = Method(loss, grid(weight=weights, beta=betas[:1]), "softplus")

    def late(model: nn.Module, k: int, weight: float) -> Late:
        whole = ranking(model, k, weight, "anchor", curvatures[-1] / weight)
        return Late(whole, recipes.plain(model, k), warm_up)

    methods["r2et-late"] = Method(late, grid(weight=late_weights))
    methods["r2et-late-sp"] = Method(late, grid(weight=late_weights, beta=betas[:1]), "softplus")
    # What was tried beyond them, on a smooth network from the first step: as much weight on the
    # Hessian norm as on the gaps; more than on the gaps; that norm alone.
    heavy = partial(ranking, pairs="anchor", curvature=1.0)
    methods["r2et-heavy"] = Method(heavy, grid(weight=curvatures[-1:], beta=betas), "softplus")
    flat = partial(ranking, pairs="anchor", curvature=5.0)
    methods["r2et-flat"] = Method(
        flat, grid(weight=(curvatures[-1] / 5,), beta=betas[:1]), "softplus"
    )
    methods["est-h-sp"] = Method(
        partial(recipes.curvature, kappa=_KAPPA),
        grid(weight=curvatures[-1:], beta=betas),
        "softplus",
    )
    # The curvature that an attack meets: over the length of its ball.
    methods["est-h-far"] = Method(
        partial(recipes.curvature, kappa=radius), grid(weight=(far_curvature,))
    )
    far = partial(ranking, pairs="anchor", curvature=far_curvature / weights[-1], kappa=radius)
    methods["r2et-far"] = Method(far, grid(weight=weights[-1:]))
    # The logit, whose curvature does not vanish where the network is certain.
    logit = partial(ranking, pairs="anchor", curvature=0.01, explain="logit")
    methods["r2et-logit"] = Method(logit, grid(weight=late_weights))
    return methods


# Two pairs of digits are 0.2 apart if each of the 1,568 pixels differs by 1.3 of 255.
_DIGITS = Terms(_explanations(Saliency, 0.1), radii=(0.1, 0.2, 0.4), **_TERMS)
# An edge more or less is 1 away.
_GRAPHS = Terms(_explanations(InputXGradient, 0.1), radii=(0.25, 0.5, 1.0), chunk=8, **_TERMS)


def brain(load: Callable[[Root], BrainGraphs], n_nodes: int = 190) -> Task:
    """Pairs of brain networks with so many regions."""
    return Task(
        _graphs(load), n_epochs=8, batch_size=32, learning_rate=1e-3,
        network=partial(_of_graphs, n_nodes), finish=fit_classifier,
        methods=_methods(
            InputXGradient, (0.1,), (0.03,), (100.0,), radius=0.5, share=0.3,
            late_weights=(0.3,), warm_up=118, far_curvature=0.1,
        ),
        terms=_GRAPHS, k=(50, 30, 10), rows=(8, 8, 24),
    )  # fmt: skip


PAIRS: dict[str, Task] = {
    "mnist-pairs": Task(
        _digits, n_epochs=6, batch_size=64, network=_of_digits, finish=fit_classifier,
        methods=_methods(
            None, (0.05, 0.15), (0.01, 0.1), (2.0, 5.0), radius=0.2, share=0.1,
            late_weights=(0.1, 0.3), warm_up=189, far_curvature=0.1,
        ),
        terms=_DIGITS, k=(50, 30, 10), rows=(24, 12, 12),
    ),
    "adhd200-site": brain(load_adhd200_site),
    "adhd200": brain(lambda root: load_adhd200(root, site="NYU")),
    "kki": brain(lambda root: load_tu_brain("KKI", root)),
    "ohsu": brain(lambda root: load_tu_brain("OHSU", root)),
    "peking": brain(lambda root: load_tu_brain("Peking_1", root)),
}  # fmt: skip
