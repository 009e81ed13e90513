"""The mass-centre attack of Ghorbani, Abid and Zou."""

from typing import Any

from captum.attr import Attribution

from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import CenterOfMassObjective

__all__ = ["CenterOfMassAttack"]


class CenterOfMassAttack(ExplanationAttack):
    r"""Move the centre of mass of the attribution map as far as possible.

    .. math::
        \max_\delta \|C(x + \delta) - C(x)\|_2, \qquad
        C(x) = \frac{\sum_{p} |I_p(x)| \, p}{\sum_{p} |I_p(x)|}

    with the positions p of the features on the map: the rows and columns of maps of shape (N, H,
    W) or, with their channels summed, (N, C, H, W), and the index of the feature for maps (N, F).
    The distance is that of :func:`captum_robust.metrics.center_of_mass_shift`. The objective is
    stationary at the example, so the search starts at a random point of the ball. The centre can
    move in more than one direction, so several ``n_restarts`` find more. Source: Ghorbani, Abid,
    Zou 2019, "Interpretation of neural networks is fragile" (arXiv 1710.10547), Algorithm 1.

    Args:
        attribution (Attribution): any Captum attribution whose maps have one of these shapes.
        k (int, optional): size of the top set whose first change is reported in the info.
        **options: as in :class:`ExplanationAttack`, without ``feature_mask``: a group has no
            position.

    Examples::

        >>> import torch
        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(64, 2))
        >>> image, attack = torch.rand(1, 1, 6, 6), CenterOfMassAttack(Saliency(model))
        >>> _, info = attack.perturb(image, radius=0.3, target=0, seed=0, return_info=True)
        >>> bool(info.objective < -0.02)    # by 0.02 pixels at least
        True
    """

    random_start = True

    def __init__(self, attribution: Attribution, k: int | None = None, **options: Any) -> None:
        if options.get("feature_mask") is not None:
            raise ValueError(
                "feature_mask must be None, got groups of features, which have no position"
            )
        super().__init__(attribution, CenterOfMassObjective(k=k), **options)
