"""Curvature of the model around an example."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from captum_robust._utils.captum import Inputs, TargetType
from captum_robust._utils.checks import check_choice, check_count
from captum_robust._utils.random import example_generators, resolve_seed
from captum_robust.curvature import (
    exact_norm,
    finite_difference_norm,
    flatten,
    hessian_operator,
    spectral_norm,
)
from captum_robust.metrics._score_gradient import ScoreGradient
from captum_robust.metrics._scores import nan_where

__all__ = ["hessian_norm"]

Method = Literal["frobenius", "spectral", "hutchinson", "finite_difference"]


def hessian_norm(
    forward_func: Callable[..., Tensor],
    inputs: Inputs,
    target: TargetType = None,
    additional_forward_args: Any = None,
    method: Method = "frobenius",
    n_probes: int = 10,
    kappa: float = 1e-2,
    max_examples_per_batch: int | None = None,
    seed: int | None = None,
) -> Tensor:
    r"""Norm of the :term:`Hessian` :math:`H = \nabla_x^2 f(x)` of the explained output.

    Where the norm is low, gradients and the rankings that they give change little nearby. A small
    norm alone does not make a ranking stable: the gaps between features have to be wide as well. In
    units of the output divided by squared units of the input.

    - ``"frobenius"``: :math:`\|H\|_F = (\sum_{ij} H_{ij}^2)^{1/2}`, exact, by one Hessian-vector
      product for each of the n features.
    - ``"spectral"``: :math:`\|H\|_2 = \max |\lambda(H)|` by Lanczos iteration, to a relative
      residual of the square root of the machine precision; usually far fewer than n products.
    - ``"hutchinson"``: an estimate of :math:`\|H\|_F` by :math:`E \|H z\|_2^2 = \|H\|_F^2` over
      random signs z; n_probes products. Its relative error is below
      :math:`1 / \sqrt{2\,n_{probes}}` (one standard deviation), and smaller where no eigenvalue
      dominates.
    - ``"finite_difference"``: the estimate that the paper trains with,
      :math:`\|\nabla f(x + \kappa v) - \nabla f(x)\|_2 / \kappa` along the unit vector v of the
      signs of the gradient; one more gradient. About :math:`\|H v\|_2 \le \|H\|_2`.

    A network of ReLUs is piecewise linear: its Hessian is zero almost everywhere, which does not
    make its explanations stable. Only the finite difference sees kinks, those within
    :math:`\kappa`; or call the metric inside :class:`~captum_robust.attr.smooth_relu`.

    Source: arXiv 2212.14106, section 4 and C.2; Hutchinson 1990 for the random signs;
    Moosavi-Dezfooli et al. 2019 (arXiv 1811.09716) for the finite difference.

    Args:
        forward_func (Callable): the model, or any function of the inputs. The explained score is
            its output as it is: for the Hessian of a probability, return probabilities.
        inputs (Tensor or tuple[Tensor, ...]): floating point examples along dimension 0. The
            features of a tuple are taken as one vector.
        target (int, tuple, Tensor or list, optional): the output that is explained, as in Captum.
        additional_forward_args (Any, optional): further arguments of the model, as in Captum.
        method (str, optional): one of the above. Default: ``"frobenius"``.
        n_probes (int, optional): number of random vectors of ``"hutchinson"``. Default: 10.
        kappa (float, optional): length of the step of ``"finite_difference"``, in units of the
            inputs. Default: 0.01.
        max_examples_per_batch (int, optional): number of examples evaluated at once; changes the
            result by rounding at most. Default: about 30 MB of graphs or Hessians.
        seed (int, optional): seed of the random vectors. None: fresh entropy. Those of an example
            depend on its own values and the seed only.

    Returns:
        - **norm** (*Tensor*): shape (N,), not negative. NaN where the input, its gradient or the
          Hessian is not finite; for ``"finite_difference"`` also where the gradient is zero and has
          no signs.

    Raises:
        ValueError: for arguments outside their ranges, for a target that does not select one output
            per example, and where an output depends on other examples, as with batch normalisation
            in training mode; and for an input tensor that the model does not use.
        NotDifferentiableError: if the output has no gradient by the inputs, as in a part under
            ``torch.no_grad()``, or the gradient no derivative of its own.

    Examples::

        >>> def quadratic(x):                                   # its Hessian is diag(2, −6)
        ...     return x[:, 0] ** 2 - 3 * x[:, 1] ** 2
        >>> hessian_norm(quadratic, torch.ones(1, 2))           # √(2² + 6²)
        tensor([6.3246])
        >>> hessian_norm(quadratic, torch.ones(1, 2), method="spectral").round()
        tensor([6.])
    """
    check_choice("method", method, get_args(Method))
    check_count("n_probes", n_probes, 1)
    if not (math.isfinite(kappa) and kappa > 0):
        raise ValueError(f"kappa must be positive and finite, got {kappa}")
    seed = resolve_seed(seed)
    gradient = ScoreGradient(
        forward_func, inputs, target, additional_forward_args, max_examples_per_batch, seed,
        twice=method != "finite_difference",
    )  # fmt: skip

    def norms(points: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        leaves, gradients = gradient.at(points, rows)
        broken = ~flatten(leaves + gradients).isfinite().all(dim=1)
        product = hessian_operator(leaves, gradients)
        if method == "frobenius":
            norm = exact_norm(leaves, gradients)
        elif method == "spectral":
            norm = spectral_norm(product, _random_vectors(points, 1, seed)[:, 0])
        elif method == "hutchinson":
            probes = _random_vectors(points, n_probes, seed).sign()
            squares = [product(probe).square().sum(dim=1) for probe in probes.unbind(dim=1)]
            norm = torch.stack(squares).mean(dim=0).sqrt()
        else:
            broken = broken | (flatten(gradients) == 0).all(dim=1)
            norm = finite_difference_norm(
                lambda moved: gradient.at(moved, rows)[1], leaves, gradients, kappa
            )
        return nan_where(broken | ~norm.isfinite(), norm)

    with gradient.evaluation():
        return torch.cat([norms(points, rows) for rows, points in gradient.chunks()])


def _random_vectors(points: tuple[Tensor, ...], n_vectors: int, seed: int) -> Tensor:
    """Gaussian vectors over all features of each example; (N, n_vectors, n)."""
    rows = flatten(points)
    drawn = [
        torch.randn(n_vectors, rows.shape[1], dtype=torch.float64, generator=generator)
        for generator in example_generators(points, seed)
    ]
    return torch.stack(drawn).to(rows)
