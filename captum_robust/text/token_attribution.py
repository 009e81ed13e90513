"""One signed score per token, from an attribution of embeddings."""

from __future__ import annotations

from typing import Any

from captum.attr import Attribution

from captum_robust._utils.captum import Inputs, as_tuple, format_like

__all__ = ["TokenAttribution"]


class TokenAttribution(Attribution):
    r"""Sum an attribution of embeddings over the embedding: one signed score per token.

    The two usual scores of a token t from the attributions :math:`a_{td}` of its embedding are

    - :math:`\sum_d |a_{td}|`, the sum of magnitudes: the attribution itself with ``absolute=True``
      and a ``feature_mask`` of tokens or words, or Saliency;
    - :math:`|\sum_d a_{td}|`, the magnitude of the sum, as in Captum's tutorial on BERT: this class
      with ``absolute=True``.

    Both take the same masks (:func:`word_groups`). Magnitudes are taken of each token, before
    the tokens of a word are summed.

    Args:
        attribution (Attribution): attribution of embeddings (N, L, D), such as
            ``IntegratedGradients(embedded)``. Pass ``abs=False`` to ``attribute`` of a Saliency,
            whose magnitudes would be summed otherwise.

    Examples::

        >>> import torch
        >>> from captum.attr import InputXGradient
        >>> from captum_robust.text import EmbeddedModel
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(
        ...     torch.nn.Embedding(20, 4), torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> embedded, ids = EmbeddedModel(net), torch.tensor([[3, 1, 4]])
        >>> tokens = TokenAttribution(InputXGradient(embedded))
        >>> tokens.attribute(embedded.embed(ids), target=1, additional_forward_args=(ids,)).shape
        torch.Size([1, 3, 1])
    """

    def __init__(self, attribution: Attribution) -> None:
        super().__init__(attribution.forward_func)
        self.attribution_method = attribution

    def attribute(self, inputs: Inputs, **kwargs: Any) -> Inputs:
        """Attribute to tokens.

        Args:
            inputs (Tensor or tuple[Tensor, ...]): embeddings, shape (N, L, D).
            **kwargs: passed to the ``attribute`` method of the attribution.

        Returns:
            - **attributions** (*Tensor* or *tuple[Tensor, ...]*): shape (N, L, 1).
        """
        maps = as_tuple(self.attribution_method.attribute(inputs, **kwargs), "attributions")
        summed: Inputs = format_like(inputs, tuple(m.sum(dim=-1, keepdim=True) for m in maps))
        return summed
