"""The settings that all results of a store share."""

from dataclasses import asdict, dataclass
from typing import Any

from captum_robust.benchmark.study.settings import RADII

__all__ = ["Protocol"]


@dataclass(frozen=True)
class Protocol:
    """The settings that all results of a store share.

    Attributes:
        k: size of the top set for which models are trained, attacked and measured.
        rows: number of distinct test rows whose saliency is attacked.
        costly_rows: number of them whose SmoothGrad and integrated gradients are attacked.
        validation_rows: number of distinct validation rows that are attacked to select a setting.
        epochs: passes over the training rows; None for the number of each data set.
        radii: L2 radii of the balls.
        device: device of training and attacks; the weights, the order of the rows and the noise
            of a seed are the same on all devices.
    """

    k: int = 8
    rows: int = 150
    costly_rows: int = 25
    validation_rows: int = 100
    epochs: int | None = None
    radii: tuple[float, ...] = RADII
    device: str = "cpu"

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as the store keeps and compares them."""
        return asdict(self)
