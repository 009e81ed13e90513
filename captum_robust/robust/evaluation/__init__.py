"""Evaluation of attributions under attack: tables of several attacks, and smallest radii."""
