"""Norms of the input Hessian of the explained score, one value per example.

Every function takes a tuple of inputs, whose features form one vector, and the gradient of the
score with its graph. The norms have a graph of their own unless gradients are switched off.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from captum_robust._utils.derivatives import NotDifferentiableError, differentiate

__all__ = [
    "exact_norm",
    "exact_spectral_norm",
    "finite_difference_norm",
    "flatten",
    "hessian_operator",
    "hessian_vector_norm",
    "sign_direction",
    "spectral_norm",
    "unflatten",
]

Tensors = tuple[Tensor, ...]

#: Numbers in the vectors of one backward.
_BLOCK = 2**18


def sign_direction(gradients: Tensors) -> Tensors:
    r"""Direction :math:`v = sign(\nabla f) / \|sign(\nabla f)\|_2` of each example, detached.

    Curvature is high along it (Moosavi-Dezfooli et al. 2019, arXiv 1811.09716).
    Zero where the gradient is zero.

        >>> sign_direction((torch.tensor([[3.0, -4.0, 0.0, 1.0, -1.0]]),))
        (tensor([[ 0.5000, -0.5000,  0.0000,  0.5000, -0.5000]]),)
    """
    signs, length = _signs(gradients)
    return tuple((s / _for_examples(length, s)).to(s) for s in signs)


def _signs(gradients: Tensors) -> tuple[Tensors, Tensor]:
    """The signs of the gradient, detached, and their Euclidean norm, (N,); 1 where it is zero."""
    signs = tuple(g.detach().sign() for g in gradients)
    return signs, joint_norm(signs).clamp_min(1)


def _for_examples(values: Tensor, tensor: Tensor) -> Tensor:
    """One value per example in the shape that broadcasts to the tensor (N, …)."""
    return values.view(-1, *(1,) * (tensor.dim() - 1))


def flatten(tensors: Tensors) -> Tensor:
    """All features of each example in one row; (N, n), float32 for half precision."""
    rows = [t.reshape(t.shape[0], math.prod(t.shape[1:])) for t in tensors]
    flat = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def unflatten(rows: Tensor, like: Tensors) -> Tensors:
    """The inverse of :func:`flatten`: rows (N, n) in the shapes and types of ``like``."""
    parts = rows.split([math.prod(t.shape[1:]) for t in like], dim=1)
    return tuple(part.reshape(t.shape).to(t) for part, t in zip(parts, like, strict=True))


def joint_norm(tensors: Tensors) -> Tensor:
    """Euclidean norm of each example over all tensors; (N,), float32 for half precision.

    Its derivative at zero is zero.
    """
    norm: Tensor = torch.linalg.vector_norm(flatten(tensors), dim=1)
    return norm


def finite_difference_norm(
    gradient_at: Callable[[Tensors], Tensors], inputs: Tensors, gradients: Tensors, kappa: float
) -> Tensor:
    r"""Estimate :math:`\|\nabla f(x + \kappa v) - \nabla f(x)\|_2 / \kappa`; (N,).

    Along :func:`sign_direction`; one more forward and backward. Source: arXiv 2212.14106, section
    4. On a piecewise linear network it sees the kinks within :math:`\kappa`, where the Hessian
    itself is zero.

    Args:
        gradient_at: maps inputs to the gradient of the score, with its graph.
        inputs: x; a graph behind it is kept.
        gradients: the gradient at x, with its graph.
        kappa: length :math:`\kappa > 0` of the step, in units of the inputs.
    """
    signs, length = _signs(gradients)
    moved = tuple(
        torch.addcdiv(x, s, _for_examples(length, s).to(s), value=kappa)
        for x, s in zip(inputs, signs, strict=True)
    )
    ahead = gradient_at(moved)
    change = joint_norm(tuple(a - g for a, g in zip(ahead, gradients, strict=True)))
    return change / kappa


def hessian_vector_norm(inputs: Tensors, gradients: Tensors) -> Tensor:
    r"""Exact :math:`\|H v\|_2` along :func:`sign_direction`; (N,). One more backward."""
    return joint_norm(_hessian_product(inputs, gradients, sign_direction(gradients)))


def exact_norm(inputs: Tensors, gradients: Tensors, interact: bool = False) -> Tensor:
    r"""Exact Frobenius norm :math:`\|H\|_F`; (N,). A backward for each feature, many at once.

    Where examples ``interact``, a gradient depends on the other inputs too; H is then the block of
    each example's own inputs, by a backward for each example and feature.
    """
    blocks = _hessian_rows(inputs, gradients, interact)
    return joint_norm(tuple(joint_norm((rows,)) for rows in blocks))


def exact_spectral_norm(inputs: Tensors, gradients: Tensors, interact: bool = False) -> Tensor:
    r"""Exact :math:`\|H\|_2 = \max |\lambda(H)|`; (N,). A backward for each feature, many at once.

    From the eigenvector v of the Hessian, which is held whole, as :math:`|v^T H v|`: that has the
    derivative of a simple eigenvalue, for one product with a graph. ``interact`` as for
    :func:`exact_norm`.
    """
    product = hessian_operator(inputs, gradients, interact)
    with torch.no_grad():
        hessian = torch.cat(list(_hessian_rows(inputs, gradients, interact)), dim=1)
        broken = ~hessian.isfinite().flatten(1).all(dim=1)  # which eigh would refuse
        values, vectors = torch.linalg.eigh(hessian.masked_fill(broken[:, None, None], 0))
        leading = values.abs().argmax(dim=1).view(-1, 1, 1).expand(-1, hessian.shape[1], 1)
        vector = vectors.gather(2, leading).squeeze(2)
    quotient: Tensor = (vector * product(vector)).sum(dim=1)  # NaN where the Hessian is not finite
    return quotient.abs()


def hessian_operator(
    inputs: Tensors, gradients: Tensors, interact: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return the function from flattened vectors (N, n) to the products H v, (N, n).

    ``interact`` as for :func:`exact_norm`.
    """
    multiply = _product_of(interact)

    def product(vectors: Tensor) -> Tensor:
        return flatten(multiply(inputs, gradients, unflatten(vectors, gradients)))

    return product


def spectral_norm(product: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    r"""Largest absolute eigenvalue of a symmetric operator, by Lanczos iteration; (N,).

    An example has converged when the residual of its leading Ritz pair, relative to the Ritz value,
    is at most the square root of the machine precision: an eigenvalue is as close, as a rule much
    closer. After n steps it has in any case. NaN where a product is not finite. Source: Golub and
    Van Loan, Matrix Computations, section 10.1.

    Args:
        product: maps vectors (N, n) to their products (N, n).
        start: first vectors, shape (N, n); not orthogonal to the eigenvector that is sought.

    Examples::

        >>> eigenvalues = torch.tensor([[1.0, -3.0, 2.0]])
        >>> spectral_norm(lambda v: eigenvalues * v, torch.ones(1, 3)).round()
        tensor([3.])
    """
    precision = torch.finfo(start.dtype).eps
    tolerance, noise = precision**0.5, 100 * precision
    n_examples, n_features = start.shape
    vectors = torch.nn.functional.normalize(start, dim=1)
    basis = start.new_zeros(n_examples, 0, n_features)
    diagonal, beside = start.new_zeros(n_examples, 0), start.new_zeros(n_examples, 0)
    value = start.new_zeros(n_examples)
    running = torch.ones(n_examples, dtype=torch.bool, device=start.device)
    next_check = 8  # a start near to another eigenvector would seem to have converged before
    for step in range(1, n_features + 1):
        basis = torch.cat([basis, vectors[:, None]], dim=1)
        image = product(vectors)
        size = image.norm(dim=1)
        broken = ~size.isfinite()
        value, running = value.masked_fill(broken, math.nan), running & ~broken
        image = image.where(running[:, None], 0)
        diagonal = torch.cat([diagonal, (vectors * image).sum(dim=1, keepdim=True)], dim=1)
        for _ in range(2):  # once leaves rounding errors that grow
            image = image - (basis.mT @ (basis @ image[:, :, None])).squeeze(2)
        length = image.norm(dim=1)
        length = length.where(length > noise * size, 0)  # nothing new is left
        if step in (next_check, n_features):
            next_check += 1 + step // 4  # an eigendecomposition costs more than a small product
            tridiagonal = diagonal.diag_embed() + beside.diag_embed(1) + beside.diag_embed(-1)
            ritz, coordinates = torch.linalg.eigh(tridiagonal)
            leading = ritz.abs().argmax(dim=1, keepdim=True)
            found = ritz.gather(1, leading).squeeze(1).abs()
            residual = length * coordinates[:, -1].gather(1, leading).squeeze(1).abs()
            value = torch.where(running, found, value)
            running = running & (residual > tolerance * found)
            if not bool(running.any()):
                break
        beside = torch.cat([beside, length[:, None]], dim=1)
        vectors = image / length.where(length > 0, math.inf)[:, None]
    return value


def _hessian_rows(inputs: Tensors, gradients: Tensors, interact: bool) -> Iterator[Tensor]:
    """Rows of the Hessian of each example, in blocks (N, rows, n) that together are all n."""
    product = _product_of(interact)
    n_examples, n_features = flatten(gradients).shape
    unit = torch.eye(n_features, dtype=gradients[0].dtype, device=gradients[0].device)
    for block in unit.split(max(1, _BLOCK // max(1, n_examples * n_features))):
        vectors = tuple(
            part.to(g).view(-1, 1, *g.shape[1:]).expand(-1, *g.shape)
            for part, g in zip(
                block.split([math.prod(g.shape[1:]) for g in gradients], dim=1), gradients,
                strict=True,
            )
        )  # fmt: skip
        try:
            rows = product(inputs, gradients, vectors, batched=True)
        except NotDifferentiableError:
            raise
        except RuntimeError:  # an operation that cannot be vectorised
            each = [product(inputs, gradients, v) for v in zip(*vectors, strict=True)]
            rows = tuple(torch.stack(found) for found in zip(*each, strict=True))
        yield torch.stack([flatten(row) for row in zip(*rows, strict=True)], dim=1)


def _product_of(interact: bool) -> Callable[..., Tensors]:
    return _own_product if interact else _hessian_product


def _own_product(
    inputs: Tensors, gradients: Tensors, vectors: Tensors, batched: bool = False
) -> Tensors:
    """As :func:`_hessian_product`, of each example's own block of the Hessian, one after the other.

    Where examples interact, one product with the vectors of all examples would add up their blocks.
    """
    dim = int(batched)
    own = []
    for i in range(len(inputs[0])):
        alone = tuple(v.new_zeros(v.shape) for v in vectors)
        for only, vector in zip(alone, vectors, strict=True):
            only.select(dim, i).copy_(vector.select(dim, i))
        products = _hessian_product(inputs, gradients, alone, batched)
        own.append([product.select(dim, i) for product in products])
    return tuple(torch.stack(found, dim=dim) for found in zip(*own, strict=True))


def _hessian_product(
    inputs: Tensors, gradients: Tensors, vectors: Tensors, batched: bool = False
) -> Tensors:
    """H v in the shapes of the inputs; of vectors with one more dimension in front if batched."""
    attached = [(g, v) for g, v in zip(gradients, vectors, strict=True) if g.requires_grad]
    front = vectors[0].shape[:1] if batched else ()
    if not attached:
        return tuple(x.new_zeros((*front, *x.shape)) for x in inputs)
    outputs, directions = zip(*attached, strict=True)
    products = differentiate(
        outputs, inputs, directions, retain_graph=True, create_graph=torch.is_grad_enabled(),
        is_grads_batched=batched,
    )  # fmt: skip
    return tuple(
        x.new_zeros((*front, *x.shape)) if product is None else product
        for x, product in zip(inputs, products, strict=True)
    )
