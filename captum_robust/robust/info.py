"""Results of an attack besides the perturbed inputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from captum_robust.robust._search.search import Search
from captum_robust.robust.flags import count_flags

__all__ = ["AttackInfo", "ZeroGradientWarning"]


class ZeroGradientWarning(UserWarning):
    """Warning of a gradient that is zero for every example: the result proves no robustness."""


@dataclass(frozen=True)
class AttackInfo:
    """Results of an attack, one value per example.

    Attributes:
        objective (Tensor): the objective at the returned inputs, on the real model; (N,). NaN
            where the map of the unperturbed example is not finite or constant, and where the
            example cannot move within the radius.
        prediction_kept (Tensor): whether the prediction of the returned input is that of the
            example; (N,) bool.
        first_change_step (Tensor, optional): first step at which a top-k feature was lost while
            the prediction was allowed, over all restarts (the manipulation epoch of the paper); −1
            for never; (N,) int64. None where the objective has no k.
        gradient_found (Tensor): whether any gradient was not zero; (N,) bool.
        trace (Tensor): objective of every iterate, shape (n_restarts, step_num + 1, N); NaN after
            all examples were stopped early.
        n_queries (Tensor): attributions computed for each example; (N,) int64.
        precision (Tensor, optional): precision at k of the returned inputs, on the real model, in
            [0, 1]; (N,). NaN as in ``objective``; None where the objective has no k.
        noise_floor (Tensor, optional): for a random attribution, precision at k between the maps of
            two seeds at the unperturbed input, mean over pairs of four other seeds than that of
            the attack; (N,). A precision near it is no more than the attribution's own noise. None
            for an attribution that draws no random numbers, or an
            objective without a k.
        precision_over_seeds (Tensor, optional): for a random attribution, the precision of the
            returned inputs with other seeds: for each of the four, between its maps at the
            returned and at the unperturbed input; the mean, (N,). None as ``noise_floor``.
        flags (dict[str, int]): reasons for caution, with the number of examples that each concerns;
            :data:`~captum_robust.robust.FLAGS` says what they mean.
    """

    objective: Tensor
    prediction_kept: Tensor
    first_change_step: Tensor | None
    gradient_found: Tensor
    trace: Tensor
    n_queries: Tensor
    precision: Tensor | None
    flags: dict[str, int]
    noise_floor: Tensor | None = field(default=None, kw_only=True)
    precision_over_seeds: Tensor | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, searches: Sequence[Search], n_restarts: int, step_num: int) -> "AttackInfo":
        """Join what the searches of the chunks found; none for an empty batch."""
        if not searches:
            none = torch.zeros(0)
            trace = torch.zeros(n_restarts, step_num + 1, 0)
            return cls(none, none.bool(), none.long(), none.bool(), trace, none.long(), none, {})
        changes = [s.first_change_step for s in searches if s.first_change_step is not None]
        seeds = [s.over_seeds for s in searches if s.over_seeds is not None]
        precisions = [s.best_precision for s in searches if s.best_precision is not None]
        return cls(
            objective=torch.cat([s.best.loss for s in searches]),
            prediction_kept=torch.cat([s.best.kept for s in searches]),
            first_change_step=torch.cat(changes) if changes else None,
            gradient_found=torch.cat([s.gradient_found for s in searches]),
            trace=torch.cat([s.full_trace() for s in searches], dim=2),
            n_queries=torch.cat([s.n_queries for s in searches]),
            precision=torch.cat(precisions) if precisions else None,
            flags=flags_of(searches),
            noise_floor=torch.cat([s.noise_floor for s in seeds]) if seeds else None,
            precision_over_seeds=torch.cat([s.precision for s in seeds]) if seeds else None,
        )

    def of_examples(self, rows: Tensor) -> "AttackInfo":
        """Return the values of examples in another order."""
        chosen: dict[str, Tensor] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Tensor):
                dim = 2 if each.name == "trace" else 0
                chosen[each.name] = value.index_select(dim, rows.to(value.device))
        return replace(self, **chosen)  # type: ignore[arg-type]


def flags_of(searches: Sequence[Search]) -> dict[str, int]:
    """Return the flags of an attack that concern at least one example."""
    each = [search.concerned for search in searches]
    return count_flags({name: sum(int(e[name].sum()) for e in each) for name in each[0]})
