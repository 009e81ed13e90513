"""The networks of the papers, small enough to train on a laptop."""

from captum_robust.models.mlp import TabularMLP

__all__ = ["TabularMLP"]
