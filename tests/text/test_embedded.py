"""A token model as a function of its embeddings: values, gradients, and the model left as found."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict

import pytest
import torch
from captum.attr import (
    IntegratedGradients,
    LayerIntegratedGradients,
    Saliency,
    configure_interpretable_embedding_layer,
    remove_interpretable_embedding_layer,
)
from torch import nn

from captum_robust.loss import R2ETLoss
from captum_robust.text import EmbeddedModel, word_groups
from tests.text.models import IDS, MASK, recurrent, transformer


def embedded_transformer() -> EmbeddedModel:
    model = transformer()
    return EmbeddedModel(model, model.tokens)


@pytest.mark.parametrize("make", [embedded_transformer, lambda: EmbeddedModel(recurrent())])
def test_with_the_embeddings_of_the_ids_it_is_the_model(make):
    embedded = make()
    further = (MASK,) if embedded.arguments else ()
    embeddings = embedded.embed(IDS)
    assert embeddings.is_leaf and embeddings.requires_grad
    assert torch.equal(embeddings, embedded.embedding.weight[IDS])
    assert torch.equal(embedded(embeddings, IDS, *further), embedded.model(IDS, *further))


def test_other_embeddings_are_those_of_a_model_with_another_table():
    # The table is changed at the ids of one example only, where every id occurs once.
    embedded, ids = EmbeddedModel(recurrent()), IDS[1:2]
    moved = embedded.embed(ids).detach() + torch.randn(1, 8, 8, dtype=torch.float64)
    other = copy.deepcopy(embedded.model)
    with torch.no_grad():
        other.tokens.weight[ids[0]] = moved[0]
    assert torch.allclose(embedded(moved, ids), other(ids), rtol=1e-12)
    assert not torch.allclose(embedded(moved, ids), embedded.model(ids), atol=1e-3)


def test_gradients_are_those_of_central_differences():
    embedded = embedded_transformer()
    assert torch.autograd.gradcheck(lambda e: embedded(e, IDS, MASK), embedded.embed(IDS))


class Shared(nn.Module):
    """A layer that is called for the tokens, and for the same tokens shifted by one."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(30, 3).double()

    def forward(self, ids):
        return torch.stack(
            [self.tokens(ids).sum((1, 2)), self.tokens(ids.roll(1, 1)).sum((1, 2))], 1
        )


def test_only_the_call_with_the_ids_is_replaced():
    embedded = EmbeddedModel(Shared())
    before, after = embedded.model(IDS), embedded(embedded.embed(IDS) + 1, IDS)
    assert torch.allclose(after[:, 0], before[:, 0] + 24)
    assert torch.equal(after[:, 1], before[:, 1])


class Result(OrderedDict):
    """A dictionary with attributes, as the models of transformers return."""


class Wrapped(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.inner, self.wrap = recurrent(), wrap

    def forward(self, ids):
        return self.wrap(self.inner(ids))


class Named:
    def __init__(self, logits) -> None:
        self.logits = logits


@pytest.mark.parametrize(
    "wrap, output",
    [
        (lambda y: Result(loss=None, logits=y), None),
        (Named, None),
        (lambda y: {"scores": y}, "scores"),
        (lambda y: (None, y), lambda result: result[1]),
    ],
)
def test_outputs_of_several_kinds(wrap, output):
    embedded = EmbeddedModel(Wrapped(wrap), output=output)
    assert torch.equal(embedded(embedded.embed(IDS), IDS), embedded.model.inner(IDS))


def test_errors_say_what_to_pass():
    model = transformer()
    with pytest.raises(ValueError, match=r"not exactly one nn.Embedding \(tokens, positions\)"):
        EmbeddedModel(model)
    with pytest.raises(ValueError, match="must be a layer of the model"):
        EmbeddedModel(model, nn.Embedding(3, 3))
    embedded = EmbeddedModel(model, model.tokens)
    embeddings = embedded.embed(IDS)
    with pytest.raises(ValueError, match=r"ids must be the integer ids .* shape \(3, 8\)"):
        embedded(embeddings, IDS[:2], MASK)
    with pytest.raises(ValueError, match=r"ids must be the integer ids .* got torch.float32"):
        embedded(embeddings, MASK.float(), IDS)
    with pytest.raises(ValueError, match="the shape of the embedding layer's output"):
        embedded(embeddings[..., :4], IDS, MASK)
    with pytest.raises(ValueError, match="2 arguments after the ids, but arguments names 1"):
        embedded(embeddings, IDS, MASK, MASK)
    wrong = EmbeddedModel(model, model.positions)
    with pytest.raises(ValueError, match="'positions' was not called"):
        wrong(embeddings, IDS, MASK)
    tupled = EmbeddedModel(Wrapped(lambda y: (y,)))
    with pytest.raises(ValueError, match="'logits', got tuple: pass output="):
        tupled(tupled.embed(IDS), IDS)


def test_the_model_is_left_as_found_also_after_an_error():
    embedded = EmbeddedModel(Wrapped(lambda y: (y,)))
    embeddings = embedded.embed(IDS)
    with pytest.raises(ValueError):
        embedded(embeddings, IDS)
    assert not any(module._forward_hooks for module in embedded.modules())


def test_threads_do_not_see_the_embeddings_of_each_other():
    embedded = EmbeddedModel(recurrent())
    embeddings = [embedded.embed(IDS).detach() + shift for shift in range(5)]
    alone = [embedded(e, IDS) for e in embeddings]
    barrier, errors = threading.Barrier(5), []

    def run(number: int) -> None:
        barrier.wait()
        for _ in range(50):
            if not torch.equal(embedded(embeddings[number], IDS), alone[number]):
                errors.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_copy_uses_its_own_layer():
    embedded = EmbeddedModel(recurrent())
    other = copy.deepcopy(embedded)
    with torch.no_grad():
        embedded.embedding.weight.zero_()
    assert other.embedding is other.model.tokens is not embedded.model.tokens
    assert torch.equal(other(other.embed(IDS), IDS), recurrent()(IDS))
    assert list(embedded.state_dict()) == [f"model.{name}" for name in embedded.model.state_dict()]


# --- Captum's own ways to attribute to tokens ----------------------------------------------------

WORDS = word_groups([[None, 0, 0, 1, 2, 3, None, None]] * 3)


def words(maps):
    """Sums over dimensions and tokens, written out."""
    return torch.stack([maps[:, WORDS[0, :, 0] == w].sum(dim=(1, 2)) for w in range(4)], dim=1)


def test_word_scores_are_those_of_layer_integrated_gradients():
    embedded = embedded_transformer()
    baseline = torch.zeros_like(IDS)
    layer = LayerIntegratedGradients(embedded.model, embedded.embedding)
    expected = layer.attribute(IDS, baseline, target=1, additional_forward_args=(MASK,), n_steps=12)
    found = IntegratedGradients(embedded).attribute(
        embedded.embed(IDS), embedded.embed(baseline).detach(), target=1,
        additional_forward_args=(IDS, MASK), n_steps=12,
    )  # fmt: skip
    assert words(found).abs().max() > 1e-3
    assert torch.allclose(words(found), words(expected), atol=1e-10)


@pytest.mark.filterwarnings("ignore:In order to make embedding layers more interpretable")
def test_the_interpretable_embedding_layer_gives_the_same_saliency():
    embedded = embedded_transformer()
    model, embeddings = embedded.model, embedded.embed(IDS)
    layer = configure_interpretable_embedding_layer(model, "tokens")
    try:
        expected = Saliency(model).attribute(
            layer.indices_to_embeddings(IDS).requires_grad_(), target=1,
            additional_forward_args=(MASK,),
        )  # fmt: skip
    finally:
        remove_interpretable_embedding_layer(model, layer)
    found = Saliency(embedded).attribute(embeddings, target=1, additional_forward_args=(IDS, MASK))
    assert torch.allclose(found, expected, atol=1e-12)


# --- training ------------------------------------------------------------------------------------


def without_gradient(model: nn.Module) -> list[str]:
    return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_r2et_reaches_all_parameters_and_the_table_through_a_graph():
    labels = torch.tensor([0, 1, 1])
    embedded = EmbeddedModel(recurrent())
    criterion = R2ETLoss(embedded, 3)
    criterion(embedded.embed(IDS), labels, additional_forward_args=(IDS,)).backward()
    assert without_gradient(embedded) == ["model.tokens.weight"]
    embedded.zero_grad()
    criterion(embedded.embedding(IDS), labels, additional_forward_args=(IDS,)).backward()
    assert without_gradient(embedded) == []


def test_the_gradient_of_the_table_is_that_of_central_differences():
    embedded, labels = EmbeddedModel(recurrent()), torch.tensor([0, 1, 1])
    criterion = R2ETLoss(embedded, 3, hessian="hvp")
    weight = embedded.embedding.weight

    def loss():
        return criterion(embedded.embedding(IDS), labels, additional_forward_args=(IDS,))

    loss().backward()
    torch.manual_seed(1)
    direction, step = torch.randn_like(weight), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * step)
        values.append(float(loss().detach()))
        with torch.no_grad():
            weight.sub_(direction, alpha=sign * step)
    slope = float((weight.grad * direction).sum())
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)
