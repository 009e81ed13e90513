"""The radius within which the top k of an explanation provably stays."""

from typing import Any

from captum.attr import Attribution, Saliency
from torch import Tensor

from captum_robust.auditing.configuration import AuditConfig
from captum_robust.certify.network import read_network
from captum_robust.metrics import certified_top_k_radius

__all__ = ["certify"]

#: Number of hidden units from which on a certificate of 100 rows takes minutes.
_MAX_HIDDEN_UNITS = 256


def certify(
    attribution: Attribution, arguments: dict[str, Any], config: AuditConfig
) -> tuple[Tensor | None, str]:
    """Return the certified radii (N,) on the CPU, or None and the reason why there are none."""
    reason = _reason_against(attribution, arguments, config)
    if reason:
        return None, reason
    assert isinstance(config.inputs, Tensor)
    absolute = config.absolute or bool(arguments.get("abs", True))
    radii = certified_top_k_radius(
        config.model, config.inputs, config.k, config.target, config.norm,
        max_radius=config.radii[-1], absolute=absolute,
    )  # fmt: skip
    return radii.cpu(), ""


def _reason_against(
    attribution: Attribution, arguments: dict[str, Any], config: AuditConfig
) -> str:
    """Return why there is no certificate; empty where there is one."""
    if type(attribution) is not Saliency:
        return f"only Saliency can be proven, and this is {type(attribution).__name__}"
    if set(arguments) - {"abs"}:
        return f"Saliency was called with {', '.join(arguments)}"
    if attribution.forward_func is not config.model:
        return "the attribution explains a function around the model"
    if config.feature_mask is not None or isinstance(config.inputs, tuple):
        return "there is a proof only for single features of a single input tensor"
    if config.additional_forward_args is not None:
        return "there is a proof only for models without further arguments"
    try:
        _, *hidden, _ = read_network(config.model).widths
    except ValueError as error:
        return str(error)
    if sum(hidden) > _MAX_HIDDEN_UNITS:
        return (
            f"the network has {sum(hidden)} hidden units, and from {_MAX_HIDDEN_UNITS} on a proof "
            "takes minutes: call captum_robust.metrics.certified_top_k_radius"
        )
    return ""
