"""Allowed values of the positions of an example: tokens, categories, bits, edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, as_tuple
from captum_robust._utils.tensors import Points, flatten, wide_dtype

__all__ = ["CandidateValues", "Candidates", "candidate_values", "rows_of"]

#: Allowed values: a table, one for each input tensor, or a function of examples that returns them.
Candidates = Tensor | Sequence[Tensor] | Callable[[Any], Tensor | Sequence[Tensor]]


@dataclass(frozen=True)
class CandidateValues:
    """The allowed values of every position, for examples that are flattened to rows of n features.

    Attributes:
        features: the features of every position, filled up with n; (P, W).
        values: the values of the features, filled up with 0; (m or 1, P or 1, C, W).
        valid: whether a candidate exists; (m or 1, P or 1, C) bool.
    """

    features: Tensor
    values: Tensor
    valid: Tensor

    @property
    def n_positions(self) -> int:
        """Number of positions of an example."""
        return len(self.features)

    @property
    def n_values(self) -> int:
        """Largest number of candidates of a position."""
        return self.values.shape[2]

    def of(self, rows: Tensor) -> CandidateValues:
        """Return the candidates of the examples ``rows``."""
        values, valid = (t[rows] if len(t) > 1 else t for t in (self.values, self.valid))
        return CandidateValues(self.features, values, valid)

    def at(self, rows: Tensor) -> Tensor:
        """Return the features (m, n) of every position, (m, P, W)."""
        return _with_zero(rows)[:, self.features]

    def largest_change(self, rows: Tensor) -> Tensor:
        """Return the largest change of a feature of rows (m, n) by a substitution; (m,)."""
        now, missing = self.at(rows), ~self.valid[..., None]
        highest = self.values.masked_fill(missing, float("-inf")).amax(dim=2).to(now)
        lowest = self.values.masked_fill(missing, float("inf")).amin(dim=2).to(now)
        change = torch.maximum(highest - now, now - lowest)
        return change.nan_to_num(0.0, 0.0, 0.0).flatten(1).amax(dim=1)

    def promises(self, rows: Tensor, gradient: Tensor) -> Tensor:
        """Return the first-order change of an objective by every substitution; (m, P·C)."""
        slope = self.at(gradient)
        here = (slope * self.at(rows)).sum(dim=2)[:, :, None]
        shared_table = self.values.shape[:2] == (1, 1)
        if shared_table:  # one product instead of a table per position
            there = slope @ self.values[0, 0].to(slope).mT
        else:
            there = (slope[:, :, None] * self.values.to(slope)).sum(dim=3)
        return (there - here).flatten(1)

    def possible(self, rows: Tensor, closed: Tensor) -> Tensor:
        """Return the substitutions that change a feature, at positions that are not closed.

        Args:
            rows: features of the examples, (m, n).
            closed: positions that must not change, (m, P).

        Returns:
            (m, P·C) bool.
        """
        return (self.valid & ~closed[:, :, None] & ~self._equal(rows)).flatten(1)

    def substituted(self, rows: Tensor, moves: Tensor) -> Tensor:
        """Return the rows (m, n) after one substitution each; (m,) of 0 … P·C − 1."""
        position, choice = moves // self.n_values, moves % self.n_values
        every = torch.arange(len(rows), device=rows.device)
        values = self.values.expand(len(rows), self.n_positions, -1, -1)
        new = values[every, position, choice].to(rows)
        return _with_zero(rows).scatter(1, self.features[position], new)[:, :-1]

    def changed(self, rows: Tensor, others: Tensor) -> Tensor:
        """Return the positions at which rows (m, n) differ, (m, P); NaN is no difference."""
        return ((self.at(rows) - self.at(others)).abs() > 0).any(dim=2)

    def choices(self, rows: Tensor, originals: Tensor) -> Tensor:
        """Return the candidate at every position, −1 where the example is unchanged; (m, P)."""
        found = self._equal(rows).byte().max(dim=2)
        return found.indices.masked_fill(~self.changed(rows, originals), -1)

    def _equal(self, rows: Tensor) -> Tensor:
        """Return which candidates are the values of rows (m, n); (m, P, C) bool."""
        now = self.at(rows)
        values = self.values.expand(len(rows), self.n_positions, -1, -1)
        # A table can have as many rows as a language has words: compare one feature first.
        equal = values[..., 0].to(now) == now[..., :1]
        example, position, choice = equal.nonzero(as_tuple=True)
        there = values[example, position, choice].to(now)
        equal[example, position, choice] = (there == now[example, position]).all(dim=1)
        return equal


def candidate_values(
    candidates: Candidates | None, positions: Inputs | None, examples: Inputs
) -> CandidateValues:
    """Return the allowed values of the positions of some examples.

    Args:
        candidates: as in :class:`~captum_robust.robust.SubstitutionAttack`.
        positions: number of the position of every feature, −1 for none; None takes the entries
            along dimension 1 as positions.
        examples: the examples.

    Raises:
        ValueError: for tables that do not fit the examples.
    """
    tensors = as_tuple(examples)
    given = candidates(examples) if callable(candidates) else candidates
    if positions is not None:
        return _of_groups(given, positions, tensors)
    if given is None:
        raise ValueError("candidates must be given unless positions say which features are one-hot")
    tables = (given,) * len(tensors) if isinstance(given, Tensor) else tuple(given)
    if len(tables) != len(tensors):
        raise ValueError(
            f"candidates must be one table or one per input tensor ({len(tensors)}), "
            f"got {len(tables)}"
        )
    parts = [_of_table(table, tensor) for table, tensor in zip(tables, tensors, strict=True)]
    return _joined(parts, [math.prod(t.shape[1:]) for t in tensors])


def rows_of(points: Points) -> Tensor:
    """Return one row of features per example, in at least single precision; (m, n)."""
    return flatten(tuple(p.detach().to(wide_dtype(p)) for p in points))


@dataclass(frozen=True)
class _Part:
    """Features (P, W) of one input tensor, and values (m or 1, P or 1, C, W), NaN for none."""

    features: Tensor
    values: Tensor

    @cached_property
    def n_positions(self) -> int:
        return len(self.features)


def _of_table(table: Tensor, tensor: Tensor) -> _Part:
    """Read a table of the values of positions: entries along dimension 1, or single features."""
    if table.dim() == 1 or tensor.dim() == 1:  # values of single features
        tensor = tensor.reshape(len(tensor), -1)
    n_positions, shape = tensor.shape[1], tuple(tensor.shape[2:])
    width, leading = math.prod(shape), table.dim() - len(shape)
    expected = ((), (n_positions,), (len(tensor), n_positions))
    fits = 1 <= leading <= 3 and tuple(table.shape[: leading - 1]) == expected[leading - 1]
    if not fits or tuple(table.shape[leading:]) != shape or table.shape[leading - 1] == 0:
        forms = ", ".join(str((*e, "C", *shape)).replace("'", "") for e in expected)
        raise ValueError(
            f"candidates for inputs of shape {tuple(tensor.shape)} must have one of the shapes "
            f"{forms} with C values, got {tuple(table.shape)}"
        )
    values = table.detach().to(tensor.device).reshape(*table.shape[:leading], width)
    values = values.reshape(*(1,) * (3 - leading), *values.shape)
    features = torch.arange(n_positions * width, device=tensor.device)
    return _Part(features.reshape(n_positions, width), values)


def _of_groups(given: Any, positions: Inputs, tensors: Points) -> CandidateValues:
    """Read the values of groups of features, one table (C, W) each; unit vectors for None."""
    numbers = torch.cat([p.reshape(-1) for p in as_tuple(positions, "positions")])
    n_features = sum(math.prod(t.shape[1:]) for t in tensors)
    if numbers.is_floating_point() or numbers.numel() != n_features:
        raise ValueError(
            f"positions must be the integer number of the position of each of {n_features} "
            f"features, got {numbers.numel()} of {numbers.dtype}"
        )
    groups = [(numbers == n).nonzero()[:, 0] for n in range(int(numbers.max()) + 1)]
    if any(len(group) == 0 for group in groups) or not groups:
        raise ValueError("positions must be numbered 0, 1, …, without a gap, and −1 for none")
    tables = [torch.eye(len(group)) for group in groups] if given is None else list(given)
    if [t.shape[1] if t.dim() == 2 else None for t in tables] != [len(g) for g in groups]:
        raise ValueError(
            "candidates must be one table (C, W) per position, of widths "
            f"{[len(g) for g in groups]}, got shapes {[tuple(t.shape) for t in tables]}"
        )
    width, most = max(len(g) for g in groups), max(len(t) for t in tables)
    like = tensors[0]
    features = torch.full((len(groups), width), n_features, device=like.device)
    values = torch.full((1, len(groups), most, width), float("nan"), dtype=torch.float64)
    for position, (group, table) in enumerate(zip(groups, tables, strict=True)):
        features[position, : len(group)] = group
        values[0, position, : len(table)] = 0
        values[0, position, : len(table), : len(group)] = table
    return _complete(features, values.to(like.device))


def _joined(parts: Sequence[_Part], sizes: Sequence[int]) -> CandidateValues:
    """Join the positions of several input tensors."""
    n_features, first = sum(sizes), 0
    if len(parts) == 1:
        return _complete(parts[0].features, parts[0].values)
    width = max(p.features.shape[1] for p in parts)
    most, m = max(p.values.shape[2] for p in parts), max(len(p.values) for p in parts)
    features, values = [], []
    for part, size in zip(parts, sizes, strict=True):
        n, w = part.features.shape
        padded = part.features.new_full((n, width), n_features)
        padded[:, :w] = part.features + first
        table = part.values.expand(m, n, -1, w)
        filled = torch.full((m, n, most, width), float("nan"), dtype=torch.float64)
        filled = filled.to(table.device)
        filled[:, :, : table.shape[2]] = 0
        filled[:, :, : table.shape[2], :w] = table
        features.append(padded)
        values.append(filled)
        first += size
    return _complete(torch.cat(features), torch.cat(values, dim=1))


def _complete(features: Tensor, values: Tensor) -> CandidateValues:
    """Take candidates with a NaN for none."""
    valid = ~values.isnan().any(dim=3)
    known = values if bool(valid.all()) else values.nan_to_num(0.0)
    return CandidateValues(features, known, valid)


def _with_zero(rows: Tensor) -> Tensor:
    """Append the feature that fills up positions of fewer features than the largest."""
    return torch.nn.functional.pad(rows, (0, 1))
