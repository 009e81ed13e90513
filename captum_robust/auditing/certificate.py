"""The radius within which the top k of an explanation provably stays."""

from collections.abc import Callable
from typing import Any, NamedTuple

from captum.attr import Attribution, Saliency
from torch import Tensor

from captum_robust.auditing.configuration import AuditConfig
from captum_robust.certify.network import read_network
from captum_robust.metrics import certified_top_k_radius

__all__ = ["CERTIFICATES", "Certificate", "certify"]

#: Number of hidden units from which on a certificate of 100 rows takes minutes.
_MAX_HIDDEN_UNITS = 256


class Certificate(NamedTuple):
    """A proof for attributions of one kind.

    Both functions take an attribution, the arguments of its ``attribute`` and the configuration of
    the audit.

    Attributes:
        reason_against: why there is no proof for the attribution; empty where there is one.
        radii: the certified radii, (N,).
    """

    reason_against: Callable[[Attribution, dict[str, Any], AuditConfig], str]
    radii: Callable[[Attribution, dict[str, Any], AuditConfig], Tensor]


def certify(
    attribution: Attribution, arguments: dict[str, Any], config: AuditConfig
) -> tuple[Tensor | None, str]:
    """Return the certified radii (N,) on the CPU, or None and the reason why there are none."""
    reasons = []
    for certificate in CERTIFICATES:
        reason = certificate.reason_against(attribution, arguments, config)
        if not reason:
            try:
                return certificate.radii(attribution, arguments, config).cpu(), ""
            except (ValueError, RuntimeError) as error:  # the attacks must not be lost
                reason = f"there is no guarantee for this network and these inputs: {error}"
        reasons.append(reason)
    return None, "; ".join(reasons)


def _radii_of_saliency(
    attribution: Attribution, arguments: dict[str, Any], config: AuditConfig
) -> Tensor:
    assert isinstance(config.inputs, Tensor)
    absolute = config.absolute or bool(arguments.get("abs", True))
    return certified_top_k_radius(
        config.model, config.inputs, config.k, config.target, config.norm,
        max_radius=config.radii[-1], absolute=absolute,
    )  # fmt: skip


def _against_saliency(
    attribution: Attribution, arguments: dict[str, Any], config: AuditConfig
) -> str:
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


#: The certificates of an audit. The first that has no reason against an attribution is used.
CERTIFICATES = (Certificate(_against_saliency, _radii_of_saliency),)
