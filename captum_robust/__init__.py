"""Stable explanations: measure, attack and train the ranking of Captum attributions.

The namespaces are those of Captum, and one for training:

* :mod:`captum_robust.metrics` measures how stable the top-k features of an attribution are,
* :mod:`captum_robust.robust` searches for the perturbation that changes them most,
* :mod:`captum_robust.loss` trains models whose explanations are stable,
* :mod:`captum_robust.attr` makes Captum attributions differentiable, as the others require.

:func:`captum_robust.audit` measures and attacks a model on data of your own, and writes a report.
"""

from typing import TYPE_CHECKING, Any

from captum_robust import attr, loss, metrics, robust
from captum_robust._version import __version__

if TYPE_CHECKING:
    from captum_robust.auditing import audit

__all__ = ["__version__", "attr", "audit", "loss", "metrics", "robust"]


def __getattr__(name: str) -> Any:
    if name == "audit":  # imported on first use
        from captum_robust.auditing import audit

        return audit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
