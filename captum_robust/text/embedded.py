"""A token model as a function of its input embeddings."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from captum_robust._utils.exclusive import EXCLUSIVE

__all__ = ["EmbeddedModel"]

_ATTENTION_MASK = "attention_mask"


class EmbeddedModel(nn.Module):
    r"""A token model as a function of the embeddings of its tokens.

    Token ids are integers: no small change exists, and no gradient. This module takes the output of
    the embedding layer as its input, so that every attribution, metric, attack and loss for
    floating point inputs can be used. The ids remain an argument, because models take positions
    and padding from them:

    .. code-block:: python

        embedded(embeddings, ids, *further) == model(ids, *further)

    where ``embeddings`` are those of the ids. The model runs as it is, and the output of its
    embedding layer is replaced in the forward pass. Whatever it adds to the embeddings (positions,
    token types, normalisation) stays part of the model. Calls in several threads take turns; the
    wrapped model itself must not be called in one thread while another calls this module.

    The wrapped model is a submodule: the wrapper has its parameters, mode and device. The embedding
    table gets a gradient only if the ``embeddings`` have a graph that reaches it
    (``embedded.embedding(ids)``); those of :meth:`embed` have none.

    Args:
        model (nn.Module): called as ``model(ids, *further)``; a classifier of ``transformers``, for
            example.
        embedding (nn.Module, optional): the layer of the model whose output is the input of this
            module. Default: ``model.get_input_embeddings()`` if there is such a method, else the
            only ``nn.Embedding`` of the model.
        output (str or Callable, optional): key or attribute of the model's result that is returned,
            or a function from the result to a Tensor. Default: the result itself if it is a Tensor,
            else its ``"logits"``.
        arguments (Sequence[str], optional): names of the arguments after the ids, for models whose
            further arguments must be given by name. Default: ``("attention_mask",)`` if the model's
            ``forward`` has such a parameter, else further arguments are passed by position.

    Raises:
        ValueError: if the embedding layer is not known, and in the forward pass for shapes and
            results that do not fit.

    Examples::

        >>> from captum.attr import Saliency
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Embedding(20, 4), nn.Flatten(), nn.Linear(12, 2))
        >>> embedded, ids = EmbeddedModel(model), torch.tensor([[3, 1, 4], [1, 5, 9]])
        >>> embeddings = embedded.embed(ids)
        >>> torch.equal(embedded(embeddings, ids), model(ids))
        True
        >>> Saliency(embedded).attribute(embeddings, target=1, additional_forward_args=(ids,)).shape
        torch.Size([2, 3, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        embedding: nn.Module | None = None,
        output: str | Callable[[Any], Tensor] | None = None,
        arguments: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.output = output
        self._layer = _name_of(_embedding_of(model) if embedding is None else embedding, model)
        self.arguments = _default_arguments(model) if arguments is None else tuple(arguments)

    @property
    def embedding(self) -> nn.Module:
        """The embedding layer of the model."""
        return self.model.get_submodule(self._layer)

    def embed(self, ids: Tensor) -> Tensor:
        """Return the embeddings of token ids, as a leaf that requires gradients.

        Args:
            ids (Tensor): integer token ids, shape (N, L).

        Returns:
            - **embeddings** (*Tensor*): shape (N, L, D).
        """
        with torch.no_grad():
            found: Tensor = self.embedding(ids)
        return found.detach().clone().requires_grad_()

    def forward(self, embeddings: Tensor, ids: Tensor, *further: Any) -> Tensor:
        """Call the model on ``ids`` with other embeddings.

        Args:
            embeddings (Tensor): output of the embedding layer, shape (N, L, D).
            ids (Tensor): integer token ids, shape (N, L).
            *further: further arguments of the model, such as the attention mask; by name if there
                are ``arguments``, in their order.

        Returns:
            - **outputs** (*Tensor*): the output of the model.
        """
        if ids.is_floating_point() or embeddings.shape[:-1] != ids.shape:
            raise ValueError(
                f"ids must be the integer ids of the tokens, shape {tuple(embeddings.shape[:-1])} "
                f"for embeddings of shape {tuple(embeddings.shape)}, got {ids.dtype} of shape "
                f"{tuple(ids.shape)}"
            )
        named: dict[str, Any] = {}
        if self.arguments is not None:
            if len(further) > len(self.arguments):
                raise ValueError(
                    f"{len(further)} arguments after the ids, but arguments names "
                    f"{len(self.arguments)} of them: {self.arguments}"
                )
            named, further = dict(zip(self.arguments, further, strict=False)), ()
        with _replaced_output(self.embedding, ids, embeddings) as used:
            result = self.model(ids, *further, **named)
        if not used:
            raise ValueError(
                f"embedding must be a layer that the model calls with the ids, but {self._layer!r} "
                "was not called with them: pass another layer, such as that of the encoder"
            )
        return _selected(result, self.output)


@contextmanager
def _replaced_output(layer: nn.Module, ids: Tensor, values: Tensor) -> Iterator[list[bool]]:
    """Let ``layer`` return ``values`` for ``ids`` in this thread; the list is empty if unused.

    Other calls of the layer, with the tokens of a decoder for example, are left alone.
    """
    owner, used = threading.get_ident(), list[bool]()

    def replace(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
        tokens = next(iter((*args, *kwargs.values())), None)
        if threading.get_ident() != owner or not _equal(tokens, ids):
            return None
        if output.shape != values.shape:
            raise ValueError(
                f"embeddings must have the shape of the embedding layer's output, "
                f"{tuple(output.shape)}, got {tuple(values.shape)}"
            )
        used.append(True)
        return values

    with EXCLUSIVE:  # torch's registry of hooks must not change while a layer is called
        handle = layer.register_forward_hook(replace, with_kwargs=True)
        try:
            yield used
        finally:
            handle.remove()


def _equal(tokens: Any, ids: Tensor) -> bool:
    if tokens is ids:
        return True
    return isinstance(tokens, Tensor) and tokens.shape == ids.shape and torch.equal(tokens, ids)


def _embedding_of(model: nn.Module) -> nn.Module:
    """Return the embedding layer of a model that names it, or has only one."""
    if callable(getattr(model, "get_input_embeddings", None)):
        return cast(nn.Module, model.get_input_embeddings())  # type: ignore[operator]
    found = {name: m for name, m in model.named_modules() if isinstance(m, nn.Embedding)}
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise ValueError(
            f"embedding must be given for a {type(model).__name__}: it has no method "
            f"get_input_embeddings, and not exactly one nn.Embedding ({names})"
        )
    return next(iter(found.values()))


def _name_of(layer: nn.Module, model: nn.Module) -> str:
    """Return the name of a layer in its model, by which copies of the model find theirs."""
    names: list[str] = [name for name, module in model.named_modules() if module is layer]
    if not names:
        raise ValueError(
            f"embedding must be a layer of the model, got a {type(layer).__name__} outside of it"
        )
    return names[0]


def _default_arguments(model: nn.Module) -> tuple[str, ...] | None:
    named = _ATTENTION_MASK in inspect.signature(model.forward).parameters
    return (_ATTENTION_MASK,) if named else None


def _selected(result: Any, output: str | Callable[[Any], Tensor] | None) -> Tensor:
    """Return the tensor that ``output`` selects from the result of a model."""
    if not (output is None or isinstance(output, str)):
        chosen: Tensor = output(result)
        return chosen
    if output is None and isinstance(result, Tensor):
        return result
    name = "logits" if output is None else output
    value = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
    if not isinstance(value, Tensor):
        raise ValueError(
            f"the model must return a Tensor or a result with {name!r}, got "
            f"{type(result).__name__}: pass output=, a name or a function of the result"
        )
    return value
