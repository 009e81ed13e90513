"""SSR: the largest eigenvalue of the loss's input Hessian, in closed form."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from captum_robust.curvature import flatten
from captum_robust.loss._checks import check_weights
from captum_robust.loss._fused import FusedForward
from captum_robust.loss._regularised import Reduction, RegularisedLoss, Terms
from captum_robust.loss._score import input_gradient, is_binary

__all__ = ["SSRLoss"]


class SSRLoss(RegularisedLoss):
    r"""Classification loss with a smooth surface (smooth surface regularisation, SSR).

    .. math::
        L = L_{cls} + \lambda \, \lambda_{max}\big( J (diag(p) - p p^T) J^T \big)

    with the probabilities p and the Jacobian J, (n, C), of the logits by the input. On a piecewise
    linear network (ReLU, LeakyReLU, max-pooling) that matrix is the Hessian of the cross-entropy
    by the input, whatever the label; on others it is its Gauss-Newton part. A single logit z is two
    classes, :math:`p (1 - p) \|\nabla z\|^2`. It vanishes where the network is certain: a small
    eigenvalue does not mean that the kinks of the network are far.

    Source: Wang et al. 2020 (arXiv 2006.06643), whose loss is
    :math:`(1 - \alpha) L_{cls} + \alpha s \lambda_{max}`; a baseline of arXiv 2212.14106, section
    5.

    Cost: one backward for every class but one, and an eigenvalue of a C × C matrix. What
    :class:`R2ETLoss` says of training mode, batch normalisation and distributed training holds
    here too.

    Args:
        forward_func (Callable): the model; returns logits (N, C), or (N,) or (N, 1) for a binary
            one.
        base_loss (Callable, optional): ``base_loss(outputs, target)``, one value an example or a
            reduced scalar. Default: cross-entropy, or binary cross-entropy with logits for a
            single logit. The eigenvalue is that of the default in any case.
        weight (float, optional): :math:`\lambda`, not negative. Default: 0.1.
        adaptive (bool, optional): scale the term to :math:`\lambda (L_{cls} + 1)` at every step, as
            the authors of R2ET do. Default: False.
        reduction (str, optional): ``"mean"``, ``"sum"`` or ``"none"`` over the examples.

    Attributes:
        last_terms (dict[str, Tensor]): detached batch means of the last call: ``"base"`` and, with
            a positive weight, ``"eigenvalue"``.

    Raises:
        ValueError: for arguments outside their ranges.

    Examples::

        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        >>> criterion = SSRLoss(model)
        >>> criterion(torch.randn(8, 6), torch.randint(3, (8,))).backward()
        >>> sorted(criterion.last_terms)
        ['base', 'eigenvalue']
    """

    def __init__(
        self,
        forward_func: Callable[..., Tensor],
        base_loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        weight: float = 0.1,
        adaptive: bool = False,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(forward_func, base_loss, "logit", adaptive, reduction)
        check_weights(weight=weight)
        self.weight = weight

    def _is_plain(self) -> bool:
        return self.weight == 0

    def _terms(self, batch: FusedForward) -> Terms:
        return {"eigenvalue": (self.weight, _largest_eigenvalue(batch.outputs, batch.leaves))}


def _largest_eigenvalue(outputs: Tensor, inputs: tuple[Tensor, ...]) -> Tensor:
    """Of J (diag(p) − p pᵀ) Jᵀ = F Fᵀ, F = (J − J p 1ᵀ) diag(√p): that of the small FᵀF; (N,)."""
    if outputs.dim() not in (1, 2):
        raise ValueError(
            f"forward_func must return (N, C), (N, 1) or (N,), got {tuple(outputs.shape)}"
        )
    # Only differences of logits count: those to the first class, which a single logit is itself.
    logits = outputs.reshape(-1, 1) if is_binary(outputs) else outputs[:, 1:] - outputs[:, :1]
    rows = [flatten(input_gradient(logit, inputs)) for logit in logits.unbind(dim=1)]
    jacobian = torch.stack([torch.zeros_like(rows[0]), *rows], dim=1)  # (N, C, n)
    log_p = torch.nn.functional.pad(logits.to(jacobian), (1, 0)).log_softmax(dim=1)[:, :, None]
    centred = jacobian - (log_p.exp() * jacobian).sum(dim=1, keepdim=True)
    factor = (log_p / 2).exp() * centred
    gram = factor @ factor.mT
    broken = ~gram.isfinite().flatten(1).all(dim=1)
    gram = gram.masked_fill(broken[:, None, None], 0)
    largest: Tensor = torch.linalg.eigvalsh(gram)[:, -1]
    return largest.masked_fill(broken, math.nan)
