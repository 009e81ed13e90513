"""Attributions and results of the model at perturbed inputs, in chunks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.prediction import Decision
from captum_robust._utils.random import seeded
from captum_robust._utils.state import left_as_found
from captum_robust.robust._search.evaluator import Draws, Evaluator, Predictions
from captum_robust.robust._search.seeds import other_seeds

__all__ = ["OtherSeeds", "Scorer"]


class Scorer:
    """Explanation of a batch at any perturbed inputs, by one attribution with its arguments.

    Every example and call has the same random numbers, so that a random attribution is a function
    of one example and the seed. The model and the random state are left as found.
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
        self.draws = Draws(seed)
        self.max_examples_per_batch = max_examples_per_batch

    @property
    def is_random(self) -> bool:
        """Return whether a map has drawn random numbers so far."""
        return self.draws.of_maps.random

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
                part = Evaluator(self.attribution, points, own, False, None, self.draws)
                leaves = tuple(t.detach()[rows].requires_grad_() for t in tensors)
                maps.append(part.maps(leaves, graph=False))
                if decision is not None:
                    results.append(part.results(leaves, predictions, decision))
        return _joined(maps), results


def _joined(parts: list[Inputs]) -> Inputs:
    if isinstance(parts[0], Tensor):
        return torch.cat([part.detach() for part in parts if isinstance(part, Tensor)])
    return tuple(torch.cat([t.detach() for t in tensors]) for tensors in zip(*parts, strict=True))


class OtherSeeds:
    """A random attribution of a batch under other seeds than that of the comparison.

    Args:
        scorer: the attribution with the seed of the comparison.
        inputs: the unperturbed examples.
        measure: values of metrics, by name, from maps and reference maps.
    """

    def __init__(
        self, scorer: Scorer, inputs: Inputs, measure: Callable[[Inputs, Inputs], dict[str, Tensor]]
    ) -> None:
        self._measure = measure
        self._scorers = [
            Scorer(scorer.attribution, scorer.arguments, seed, scorer.max_examples_per_batch)
            for seed in other_seeds(scorer.seed)
        ]
        self._references = [one.maps(inputs) for one in self._scorers]

    @property
    def noise_floor(self) -> dict[str, Tensor]:
        """Mean of each metric over pairs of seeds, at the unperturbed examples."""
        return _means([self._measure(b, a) for a, b in combinations(self._references, 2)])

    def means(self, points: Inputs) -> dict[str, Tensor]:
        """Return the mean of each metric over seeds, of the examples and ``points``."""
        pairs = zip(self._scorers, self._references, strict=True)
        return _means([self._measure(one.maps(points), reference) for one, reference in pairs])


def _means(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in found]).mean(dim=0) for name in found[0]}
