"""A network for pairs: one embedding for both members, a score of the pair, a class for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_robust.models._sizes import check_sizes

Similarity = Callable[[Tensor, Tensor], Tensor]


class PairPredictions(NamedTuple):
    """The three results of a pair.

    Attributes:
        pair: Logit of "same class", shape (N, 1).
        first: Logits of the class of the first member, shape (N, n_classes).
        second: Logits of the class of the second member, shape (N, n_classes).
    """

    pair: Tensor
    first: Tensor
    second: Tensor


def cosine_similarity(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the cosine of the angle between two embeddings, :math:`\sum_i u_i v_i / (|u| |v|)`.

    Each length is :math:`\sqrt{|u|^2 + 10^{-12}}`, which is smooth: at a zero embedding the cosine
    is 0 and all its derivatives are finite. (Half precision uses the square of its rounding unit
    instead of :math:`10^{-12}`.) ``torch.nn.functional.cosine_similarity`` clamps the length, so
    that its second derivative at a zero embedding is NaN.

    Args:
        first: Shape (N, d).
        second: Shape (N, d).

    Returns:
        Shape (N,), in [-1, 1] up to rounding.

    Example:
        >>> cosine_similarity(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))
        tensor([0.9600])
    """
    return (_unit(first) * _unit(second)).sum(dim=-1)


class SiameseNetwork(nn.Module):
    r"""A network that predicts whether two inputs belong to the same class.

    .. math:: f(x_s, x_t) = w \, \mathrm{sim}(e(x_s), e(x_t)) + b

    is the logit of "same class" (label 1); its sigmoid is the probability of the paper's Eq. 9. A
    linear classifier on the same embedding predicts the class of a single input. An attack on a
    pair must keep these three predictions: that of the pair and those of both classes. The scale
    ``w`` is 1 at first rather than random, because training would first have to reverse a negative
    scale.

    Args:
        embedding: Any module that maps an input to (N, embedding_size), such as
            :class:`MNISTEmbedding` or :class:`DenseGCN`.
        embedding_size: Width of the embedding, 1 or more.
        n_classes: Number of classes of a single input, 1 or more.
        similarity: ``"cosine"``, or a function of two embeddings, (N, d) and (N, d), to (N,).

    Raises:
        ValueError: If a size is less than 1, or ``similarity`` is another string.

    Source:
        R2ET, arXiv 2212.14106, Eq. 9, experiments on images and graphs.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = SiameseNetwork(nn.Linear(6, 4), embedding_size=4)
        >>> first, second = torch.randn(5, 6), torch.randn(5, 6)
        >>> model(first, second).shape, model.classify(first).shape
        (torch.Size([5, 1]), torch.Size([5, 2]))
        >>> pair, class_of_first, class_of_second = model.predictions(first, second)
        >>> torch.equal(pair, model(first, second))
        True
    """

    def __init__(
        self,
        embedding: nn.Module,
        embedding_size: int,
        n_classes: int = 2,
        similarity: str | Similarity = "cosine",
    ) -> None:
        super().__init__()
        check_sizes(embedding_size=embedding_size, n_classes=n_classes)
        if similarity != "cosine" and not callable(similarity):
            raise ValueError(
                f"similarity: got {similarity!r}, accepted: 'cosine' or a function of two "
                "embeddings"
            )
        self.embedding = embedding
        self.similarity = cosine_similarity if isinstance(similarity, str) else similarity
        self.output = nn.Linear(1, 1)
        nn.init.ones_(self.output.weight)
        self.classifier = nn.Linear(embedding_size, n_classes)

    def forward(self, first: Any, second: Any) -> Tensor:
        """Return the logit of "same class".

        Args:
            first: N inputs of the embedding; a tuple holds several arguments of it.
            second: The same for the other members.

        Returns:
            Shape (N, 1).
        """
        return self._compare(self._embed(first), self._embed(second))

    def classify(self, inputs: Any) -> Tensor:
        """Return the logits of the class of single inputs, shape (N, n_classes)."""
        logits: Tensor = self.classifier(self._embed(inputs))
        return logits

    def predictions(self, first: Any, second: Any) -> PairPredictions:
        """Return the three results of each pair, from one embedding of each member."""
        embeddings = self._embed(first), self._embed(second)
        classes = (self.classifier(embedding) for embedding in embeddings)
        return PairPredictions(self._compare(*embeddings), *classes)

    def _embed(self, inputs: Any) -> Tensor:
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        embedding: Tensor = self.embedding(*arguments)
        return embedding

    def _compare(self, first: Tensor, second: Tensor) -> Tensor:
        logits: Tensor = self.output(self.similarity(first, second).unsqueeze(-1))
        return logits


def _unit(vectors: Tensor) -> Tensor:
    precision = torch.finfo(vectors.dtype)
    # Powers of the floor overflow in half precision.
    wide = vectors.float() if precision.bits == 16 else vectors
    floor = max(1e-12, precision.eps**2)
    return (wide * (wide.square().sum(dim=-1, keepdim=True) + floor).rsqrt()).to(vectors.dtype)
