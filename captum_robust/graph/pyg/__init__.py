"""Adapters for PyTorch Geometric: its explainers, its batches, and graphs as ``edge_index``.

The public names are those of :mod:`captum_robust.graph`.
"""
