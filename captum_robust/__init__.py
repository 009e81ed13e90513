"""Explanations that hold still: measure, attack and train the ranking of Captum attributions.

The three doors are those of Captum, plus training:

* :mod:`captum_robust.metrics` measures how stable the top-k features of an attribution are,
* :mod:`captum_robust.robust` looks for the perturbation that changes them most,
* :mod:`captum_robust.loss` trains models whose explanations resist it,
* :mod:`captum_robust.attr` makes any Captum attribution differentiable, which all three need.

:func:`captum_robust.audit` asks all of it of a model and data of your own, and writes a report.
"""

from typing import TYPE_CHECKING, Any

from captum_robust import attr, loss, metrics, robust
from captum_robust._version import __version__

if TYPE_CHECKING:
    from captum_robust.auditing import audit

__all__ = ["__version__", "attr", "audit", "loss", "metrics", "robust"]


def __getattr__(name: str) -> Any:
    if name == "audit":  # imported when it is first asked for
        from captum_robust.auditing import audit

        return audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
