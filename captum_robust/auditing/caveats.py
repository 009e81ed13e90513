"""Caveats about an audit as a whole, whatever the attacks find."""

from torch import Tensor

from captum_robust._utils.captum import Inputs
from captum_robust.auditing.configuration import spreads_of
from captum_robust.auditing.output import ExplainedOutput

__all__ = ["caveats_of"]

#: Features whose standard deviations differ by a larger factor are in different units.
_SAME_UNITS = 100.0


def caveats_of(inputs: Inputs, output: ExplainedOutput, predicted: Tensor) -> dict[str, str]:
    """Return the caveats by their titles."""
    caveats = {}
    if output.guess is not None:
        title, text = output.guess
        caveats[title] = text
    if len(predicted) > 1 and bool((predicted == predicted[0]).all()):
        caveats["All rows have the same prediction"] = (
            "Every row has the same predicted class. Either the rows are of one class, or the "
            "prediction is not read as the model means it; for a regression pass tolerance."
        )
    spreads = spreads_of(inputs)
    if len(spreads) > 1 and float(spreads.max() / spreads.min()) > _SAME_UNITS:
        caveats["Features have different units"] = (
            f"Standard deviations of the features range from {float(spreads.min()):.2g} to "
            f"{float(spreads.max()):.2g}. A ball of one radius is large for some features and "
            "negligible for others: scale the inputs first."
        )
    return caveats
