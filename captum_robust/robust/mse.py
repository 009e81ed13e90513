"""The attack on the mean squared change of the attribution map."""

from typing import Any

from captum.attr import Attribution

from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import MSEObjective

__all__ = ["MSEAttack"]


class MSEAttack(ExplanationAttack):
    r"""Maximise the mean squared change of the attribution map.

    .. math:: \max_\delta \frac{1}{n} \sum_i (I_i(x + \delta) - I_i(x))^2

    A baseline of the R2ET papers. A large change of the map need not change the ranking; whether
    this attack or :class:`ERAttack` removes more of the top-k features depends on the model and the
    data. The gradient is zero at the example, so the search starts at a random point of the ball.
    The change grows in two opposite directions, so several ``n_restarts`` find more. Source: arXiv
    2212.14106, section 5.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int, optional): size of the top set whose first change is reported in the info.
        **options: as in :class:`ExplanationAttack`.

    Examples::

        >>> import torch
        >>> from captum.attr import Saliency
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Softplus(), nn.Linear(8, 2))
        >>> x, attack = torch.zeros(2, 4), MSEAttack(Saliency(model))
        >>> _, info = attack.perturb(x, radius=1.0, target=0, seed=0, return_info=True)
        >>> bool((info.objective < 0).all())
        True
    """

    random_start = True

    def __init__(self, attribution: Attribution, k: int | None = None, **options: Any) -> None:
        super().__init__(attribution, MSEObjective(k), **options)
