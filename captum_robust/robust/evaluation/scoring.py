"""Attributions and results of the model at perturbed inputs, in chunks."""

from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.prediction import Decision
from captum_robust._utils.random import SameDraws, seeded
from captum_robust._utils.state import left_as_found
from captum_robust.robust._search.evaluator import Evaluator, Predictions

__all__ = ["Scorer"]


class Scorer:
    """Explanation of a batch at any perturbed inputs, by one attribution with its arguments.

    Every call uses the same random numbers, so that a stochastic attribution is a function of the
    inputs. The model and the random state are left as found.
    """

    def __init__(
        self,
        attribution: Attribution,
        arguments: dict[str, Any],
        seed: int,
        max_examples_per_batch: int | None = None,
    ) -> None:
        self.attribution = attribution
        self.arguments = arguments
        self.seed = seed
        self.max_examples_per_batch = max_examples_per_batch

    def maps(self, points: Inputs) -> Inputs:
        """Return the attributions at ``points``, detached."""
        return self._explain(points)[0]

    def maps_and_results(
        self, points: Inputs, predictions: Predictions | None, decision: Decision
    ) -> tuple[Inputs, tuple[Tensor, ...]]:
        """Return the attributions and the results of the model at ``points``, detached."""
        maps, results = self._explain(points, predictions, decision)
        return maps, tuple(torch.cat(result) for result in zip(*results, strict=True))

    def _explain(
        self,
        points: Inputs,
        predictions: Predictions | None = None,
        decision: Decision | None = None,
    ) -> tuple[Inputs, list[tuple[Tensor, ...]]]:
        tensors = as_tuple(points)
        n_examples = len(tensors[0])
        maps, results = [], []
        with left_as_found(self.attribution, predictions), seeded(self.seed), torch.enable_grad():
            for rows in torch.arange(n_examples).split(self.max_examples_per_batch or n_examples):
                own = kwargs_of_examples(self.arguments, rows, n_examples, self.attribution)
                draws = SameDraws(self.seed)
                part = Evaluator(self.attribution, points, own, False, None, draws)
                leaves = tuple(t.detach()[rows].requires_grad_() for t in tensors)
                maps.append(part.maps(leaves, graph=False))
                if decision is not None:
                    results.append(part.results(leaves, predictions, decision))
        return _joined(maps), results


def _joined(parts: list[Inputs]) -> Inputs:
    if isinstance(parts[0], Tensor):
        return torch.cat([part.detach() for part in parts if isinstance(part, Tensor)])
    return tuple(torch.cat([t.detach() for t in tensors]) for tensors in zip(*parts, strict=True))
