"""Explanations that hold still: measure, attack and train the ranking of Captum attributions.

The three doors are those of Captum, plus training:

* :mod:`captum_robust.metrics` measures how stable the top-k features of an attribution are,
* :mod:`captum_robust.robust` looks for the perturbation that changes them most,
* :mod:`captum_robust.loss` trains models whose explanations resist it,
* :mod:`captum_robust.attr` makes any Captum attribution differentiable, which all three need.
"""

from captum_robust import attr, loss, metrics, robust

__version__ = "0.1.0"
__all__ = ["__version__", "attr", "loss", "metrics", "robust"]
