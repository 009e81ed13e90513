"""Pairs of digits and of brain networks; a row holds both members, one after the other."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor, nn

from captum_robust.benchmark.study.explanations import Explanation
from captum_robust.benchmark.study.pair_methods import PairGrids, pair_methods
from captum_robust.benchmark.study.settings import EvaluationSettings
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
from captum_robust.models import DenseGCN, MNISTEmbedding, SiameseNetwork

__all__ = ["PAIRS", "JoinedPairs", "PairNetwork", "brain_pairs", "fit_classifier"]

Activation = Callable[[], nn.Module]


@dataclass(frozen=True)
class JoinedPairs:
    """Pairs whose members are joined to a row.

    Attributes:
        inputs: both members of each pair, (N, 2 m).
        targets: 1 where the members have the same class, else 0, (N,).
        classes: classes of both members, (N, 2).
    """

    inputs: Tensor
    targets: Tensor
    classes: Tensor

    @classmethod
    def of(cls, pairs: Pairs) -> "JoinedPairs":
        """Join the flattened members of each pair."""
        rows = torch.cat([member.flatten(1) for member in pairs.inputs], dim=1)
        classes = torch.stack([pairs.classes_first, pairs.classes_second], dim=1)
        return cls(rows, pairs.targets, classes)

    def __len__(self) -> int:
        return len(self.inputs)


class PairNetwork(nn.Module):
    """A Siamese network whose input is a row, so that both members share one ranking and one ball.

    Args:
        siamese: network for pairs.
        unfold: makes inputs of the network from rows of members, (N, m).
    """

    def __init__(self, siamese: SiameseNetwork, unfold: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.siamese = siamese
        self.unfold = unfold

    def members(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return both members as inputs of the Siamese network."""
        first, second = rows.chunk(2, dim=1)
        return self.unfold(first), self.unfold(second)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the logit of "same class", (N, 1)."""
        logits: Tensor = self.siamese(*self.members(rows))
        return logits

    def predictions(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the three predictions of each pair."""
        return tuple(self.siamese.predictions(*self.members(rows)))


def fit_classifier(model: PairNetwork, data: JoinedPairs) -> None:
    """Fit the classifier of the network, a logistic regression on its fixed embeddings."""
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

    parts(0)  # raises an error for missing or damaged files at once
    return Data(2 * 28 * 28, parts)


def _graphs(load: Callable[[Root], BrainGraphs]) -> Callable[[Root], Data]:
    def read(root: Root) -> Data:
        graphs = load(root)
        return Data(
            2 * graphs.edges.shape[1],
            lambda seed: Parts(*map(JoinedPairs.of, pair_graphs(graphs, fold=seed % N_FOLDS))),
        )

    return read


#: Number of pairs on which the networks for digits are trained.
N_PAIRS_OF_DIGITS = 4000
#: Number of folds of brain networks; the seed of a run chooses the fold.
N_FOLDS = 5


def _settings(
    attribution: Callable[[nn.Module], Any], radii: tuple[float, ...], chunk: int | None = None
) -> EvaluationSettings:
    """Return the settings for pairs, whose maps are costly: 10 draws of SmoothGrad, 10 steps of IG.

    The paper has 50 draws and 100 steps. ``attribution`` takes the place of the saliency.
    """
    explanations = {
        "saliency": Explanation(attribution, {}, is_costly=False),
        "smoothgrad": Explanation(
            lambda model: NoiseTunnel(attribution(model)),
            {"nt_type": "smoothgrad", "nt_samples": 10, "stdevs": 0.1},
            is_costly=True,
        ),
        "ig": Explanation(IntegratedGradients, {"n_steps": 10}, is_costly=True),
    }
    return EvaluationSettings(
        explanations, radii, bounds=(0.0, 1.0), fractions=(0.01, 0.05, 0.1, 0.2, 0.5),
        exact_hessian=False, chunk=chunk,
    )  # fmt: skip


_BRAIN_GRIDS = PairGrids(
    weights=(0.1,), curvatures=(0.03,), betas=(100.0,), radius=0.5, hessian_fraction=0.3,
    delayed_weights=(0.3,), n_plain_steps=118, far_curvature=0.1,
)  # fmt: skip
_DIGIT_GRIDS = PairGrids(
    weights=(0.05, 0.15), curvatures=(0.01, 0.1), betas=(2.0, 5.0), radius=0.2,
    hessian_fraction=0.1, delayed_weights=(0.1, 0.3), n_plain_steps=189, far_curvature=0.1,
)  # fmt: skip


def brain_pairs(load: Callable[[Root], BrainGraphs], n_nodes: int = 190) -> Task:
    """Return the task of pairs of brain networks with this number of regions."""
    return Task(
        _graphs(load), n_epochs=8, batch_size=32, learning_rate=1e-3,
        network=partial(_of_graphs, n_nodes), finish=fit_classifier,
        methods=pair_methods(_BRAIN_GRIDS, InputXGradient),
        # An edge that appears or vanishes moves the input by 1.
        settings=_settings(InputXGradient, (0.25, 0.5, 1.0), chunk=8),
        k=(50, 30, 10), rows=(8, 8, 24),
    )  # fmt: skip


PAIRS: dict[str, Task] = {
    "mnist-pairs": Task(
        _digits, n_epochs=6, batch_size=64, network=_of_digits, finish=fit_classifier,
        methods=pair_methods(_DIGIT_GRIDS),
        # Two pairs of digits are 0.2 apart if each of the 1,568 pixels differs by 1.3 of 255.
        settings=_settings(Saliency, (0.1, 0.2, 0.4)),
        k=(50, 30, 10), rows=(24, 12, 12),
    ),
    "adhd200-site": brain_pairs(load_adhd200_site),
    "adhd200": brain_pairs(lambda root: load_adhd200(root, site="NYU")),
    "kki": brain_pairs(lambda root: load_tu_brain("KKI", root)),
    "ohsu": brain_pairs(lambda root: load_tu_brain("OHSU", root)),
    "peking": brain_pairs(lambda root: load_tu_brain("Peking_1", root)),
}  # fmt: skip
