"""The problem of an attack: examples, their region, and the arguments of their explanation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor

from captum_robust._utils.batch import kwargs_of_examples
from captum_robust._utils.captum import Inputs, TargetType, run_forward
from captum_robust._utils.checks import (
    check_count,
    check_finite,
    matching,
)
from captum_robust._utils.groups import counts_of_examples, rows_by_count
from captum_robust._utils.movement import check_moved
from captum_robust._utils.random import resolve_seed
from captum_robust._utils.variation import output_varies
from captum_robust.noise import Norm
from captum_robust.robust._search.evaluator import Draws, Evaluator
from captum_robust.robust._search.region import Region

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """Examples in their region, the arguments of their explanation, and the seed."""

    region: Region
    arguments: dict[str, Any]
    seed: int
    start: tuple[Tensor, ...] | None
    #: Whether outputs vary, by the id of the forward function.
    _variation: dict[int, bool] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        inputs: Inputs,
        radius: float | Tensor,
        bounds: tuple[float | Tensor, float | Tensor],
        norm: Norm,
        mask: Inputs | None,
        project: Callable[[Any], Any] | None,
        start: Inputs | None,
        seed: int | None,
        target: TargetType,
        additional_forward_args: Any,
        kwargs: dict[str, Any],
    ) -> Problem:
        """Check the arguments of ``perturb``; targets and additional arguments may be None."""
        region = Region.around(inputs, radius, bounds, norm, mask, project)
        begin = None if start is None else matching("start", start, region.centre)
        if begin is not None:
            check_finite("start", begin, region.centre)
        check_moved(region.pinned, "radius")
        given = {"target": target, "additional_forward_args": additional_forward_args}
        arguments = {**kwargs, **{n: value for n, value in given.items() if value is not None}}
        return cls(region, arguments, resolve_seed(seed), begin)

    @property
    def n_examples(self) -> int:
        """Number of examples."""
        return len(self.region.centre[0])

    def chunks(
        self,
        rows: Tensor,
        max_examples_per_batch: int | None,
        feature_mask: Inputs | None = None,
    ) -> tuple[Tensor, ...]:
        """Split the examples ``rows`` into chunks of at most the given size; none if empty.

        The examples of a chunk have equal numbers of groups.
        """
        if max_examples_per_batch is not None:
            check_count("max_examples_per_batch", max_examples_per_batch, 1)
        counts = counts_of_examples(feature_mask, self.n_examples)
        return tuple(
            part
            for own in rows_by_count(counts, rows)
            if len(own)
            for part in own.split(max_examples_per_batch or len(own))
        )

    def evaluator(
        self,
        attribution: Attribution,
        rows: Tensor,
        absolute: bool,
        feature_mask: Inputs | None,
        smooth_beta: float | None = None,
        draws: Draws | None = None,
    ) -> Evaluator:
        """Return the evaluator of ``attribution`` for the examples ``rows``, indices on the CPU."""
        own = kwargs_of_examples(self.arguments, rows, self.n_examples, attribution)
        everything = torch.arange(self.n_examples)
        part = None if torch.equal(rows, everything) else rows  # which may repeat examples
        return Evaluator(
            attribution, self.region.given, own, absolute, feature_mask,
            draws or Draws(self.seed), smooth_beta, part, self.n_examples,
            self._output_varies(attribution, rows),
        )  # fmt: skip

    def _output_varies(self, attribution: Attribution, rows: Tensor) -> bool:
        """Return whether outputs depend on chance or on other examples, by those of the first rows.

        The model is evaluated once per problem.
        """
        method = getattr(attribution, "attribution_method", attribution)
        forward: Any = getattr(method, "forward_func", None)
        if forward is None:
            return False
        if id(forward) not in self._variation:
            arguments = {"extra": self.arguments.get("additional_forward_args")}

            def evaluate(part: Tensor) -> Tensor:
                chosen = rows[part]
                own = kwargs_of_examples(arguments, chosen, self.n_examples)
                points = tuple(c[chosen.to(c.device)] for c in self.region.centre)
                return run_forward(forward, points, own["extra"])

            self._variation[id(forward)] = output_varies(evaluate, len(rows), self.seed)
        return self._variation[id(forward)]
