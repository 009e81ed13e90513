"""Est-H and Exact-H: a classification loss with a penalty on the input Hessian."""

from collections.abc import Callable

from torch import Tensor

from captum_robust.loss._checks import check_choices, check_positive, check_weights
from captum_robust.loss._fused import FusedForward, Hessian, order_of
from captum_robust.loss._regularised import Reduction, RegularisedLoss, Terms
from captum_robust.loss._score import Explain

__all__ = ["HessianNormLoss"]


class HessianNormLoss(RegularisedLoss):
    r"""Classification loss with a penalty on the input Hessian of the explained score.

    .. math::
        L = L_{cls} + \lambda \, \|\nabla_x^2 f_y(x)\|

    The baselines Est-H (``hessian="finite_difference"``) and Exact-H (``"exact"``) of arXiv
    2212.14106, section 5; the estimate is its section 4, after Moosavi-Dezfooli et al. 2019 (arXiv
    1811.09716). R2ET without its gaps, :class:`R2ETLoss` with ``lambda1=0``, is the same loss.

    On networks of the ReLU family the exact Hessian of a logit is zero almost everywhere; the
    finite difference measures the kinks within ``kappa``. The remarks of :class:`R2ETLoss` on
    training mode, batch normalisation, dropout and distributed training apply here as well.

    Args:
        forward_func (Callable): the model; returns logits (N, C), or (N,) or (N, 1) if it is
            binary.
        base_loss (Callable, optional): ``base_loss(outputs, target)``, one value per example or a
            reduced scalar. Default: cross-entropy, or binary cross-entropy with logits for a
            single logit.
        weight (float, optional): :math:`\lambda`, not negative. Default: 0.1.
        hessian (str, optional): ``"finite_difference"``: difference of two gradients, ``kappa``
            apart along the sign of the gradient, by one more forward pass; ``"hvp"``: exact product
            with that direction, by one more backward pass; ``"exact"``: Frobenius norm, and
            ``"spectral"``: largest absolute eigenvalue, by one backward pass per feature.
        kappa (float, optional): length of the finite step in units of the inputs. In half precision
            and under autocast, where rounding errors are larger than the difference, it is taken in
            single precision, by one more forward pass. Default: 1e-2.
        explain (str, optional): ``"probability"``: softmax or sigmoid of the labelled class;
            ``"logit"``. Default: ``"probability"``.
        adaptive (bool, optional): scale the term to :math:`\lambda (L_{cls} + 1)` at every step, as
            the authors' code does. Default: False.
        reduction (str, optional): ``"mean"``, ``"sum"`` or ``"none"`` over the examples.

    Attributes:
        last_terms (dict[str, Tensor]): detached batch means of the last call: ``"base"`` and, with
            a positive weight, ``"hessian"``.

    Raises:
        ValueError: for arguments outside their ranges.

    Examples::

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 2))
        >>> criterion = HessianNormLoss(model, hessian="exact")
        >>> criterion(torch.randn(8, 6), torch.randint(2, (8,))).backward()
        >>> sorted(criterion.last_terms)
        ['base', 'hessian']
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        base_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight: float = 0.1,
        hessian: Hessian = "finite_difference",
        kappa: float = 1e-2,
        explain: Explain = "probability",
        adaptive: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(forward_func, base_loss, explain, adaptive, reduction)
        check_choices(Hessian, hessian=hessian)
        check_weights(weight=weight)
        check_positive(kappa=kappa)
        self.weight = weight
        self.hessian = hessian
        self.kappa = kappa

    def _is_plain(self) -> bool:
        return self.weight == 0

    def _order(self) -> int:
        return order_of(self.hessian)

    def _terms(self, batch: FusedForward) -> Terms:
        return {"hessian": (self.weight, batch.hessian_norm(self.hessian, self.kappa))}
