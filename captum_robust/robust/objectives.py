"""What an attack minimises: a number an example, from the scores of now and of the start."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, get_args

from torch import Tensor

from captum_robust.ranking import Gap, Pairs, check_k, gap_sum, log_exp_gap_sum, pair_features

__all__ = ["MSEObjective", "Objective", "RankingObjective"]


class Objective(Protocol):
    """Any function of the scores (N, n) and of the unperturbed scores (N, n) that returns (N,).

    The attack minimises it. Scores are the attributions, flattened, joined and grouped. An
    objective with an attribute ``k`` lets the attack report when a top-k feature is lost; one with
    a method ``against(reference)`` that returns a function of the scores is prepared once.
    """

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class RankingObjective:
    r"""The gaps between the top-k features of the start and the others (arXiv 2212.14106, Eq. 22).

    ``gap="linear"``: :math:`\sum (I_i - I_j)`. ``gap="exp"``: :math:`-\log \sum e^{-(I_i - I_j)}`,
    which looks at the smallest gaps first and cannot overflow.
    """

    k: int
    pairs: Pairs = "all"
    gap: Gap = "linear"
    k_prime: int | None = None

    def __post_init__(self) -> None:
        if self.pairs not in get_args(Pairs):
            raise ValueError(f"pairs must be one of {get_args(Pairs)}, got {self.pairs!r}")
        if self.gap not in get_args(Gap):
            raise ValueError(f"gap must be one of {get_args(Gap)}, got {self.gap!r}")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k must be an integer of at least 1, got {self.k}")
        if self.k_prime is not None and not 1 <= self.k_prime <= self.k:
            raise ValueError(f"k_prime must lie in 1 … k = {self.k}, got {self.k_prime}")

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """The gaps of each row of scores, (N,)."""
        return self.against(reference)(scores)

    def against(self, reference: Tensor) -> Callable[[Tensor], Tensor]:
        """The objective for one reference, whose ranking is found once."""
        check_k(self.k, reference.shape[1])
        features = pair_features(reference, self.k, self.pairs, self.k_prime)
        chosen = (reference, self.k, self.pairs, self.k_prime, features)
        if self.gap == "linear":
            return lambda scores: gap_sum(scores, *chosen)
        return lambda scores: -log_exp_gap_sum(scores, *chosen)


@dataclass(frozen=True)
class MSEObjective:
    r"""Minus the mean squared change of the map, :math:`-\frac{1}{n} \sum (I_i - I_i(x))^2`."""

    k: int | None = None

    def __call__(self, scores: Tensor, reference: Tensor, /) -> Tensor:
        """Minus the mean squared change of each row of scores, (N,)."""
        return -(scores - reference).square().mean(dim=1)
