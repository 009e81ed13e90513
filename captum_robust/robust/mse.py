"""The attack that moves the map as far as it can."""

from typing import Any

from captum.attr import Attribution

from captum_robust.robust.attack import ExplanationAttack
from captum_robust.robust.objectives import MSEObjective

__all__ = ["MSEAttack"]


class MSEAttack(ExplanationAttack):
    r"""Maximise the mean squared change of the map.

    .. math:: \max_\delta \frac{1}{n} \sum_i (I_i(x + \delta) - I_i(x))^2

    The baseline of the papers: a far map may keep its ranking, so it finds less than
    :class:`ERAttack` and flatters a model. Its gradient is zero at the example, so it starts at a
    random point of the ball; the change grows in two opposite directions, so give it some
    ``n_restarts``. Source: arXiv 2212.14106, section 5.

    Args:
        attribution (Attribution): any Captum attribution.
        k (int, optional): size of the top set whose first change the info reports.
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
