"""Classifiers of transformers, built from tiny configurations, where the package is installed."""

from __future__ import annotations

import warnings

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients, Saliency

from captum_robust.loss import R2ETLoss
from captum_robust.metrics import ranking_thickness
from captum_robust.robust import ERAttack
from captum_robust.text import EmbeddedModel, TokenNoise, token_ball, token_mask
from tests.text.models import IDS, MASK

pytestmark = pytest.mark.models

COMMON = {"vocab_size": 30, "pad_token_id": 0, "num_labels": 3}
HEADS = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16}
CONFIGURATIONS = {
    "Bert": {**HEADS, "intermediate_size": 16, "max_position_embeddings": 16},
    "Roberta": {**HEADS, "intermediate_size": 16, "max_position_embeddings": 16},
    "DistilBert": {
        "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "max_position_embeddings": 16,
    },
    "GPT2": {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 16},
}  # fmt: skip
TOKENS = torch.arange(8)[None, :, None]


def classifier(name, **configuration):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it imports
        transformers = pytest.importorskip("transformers", reason="needs the extra [models]")
    torch.manual_seed(0)
    make = getattr(transformers, f"{name}ForSequenceClassification")
    config = getattr(transformers, f"{name}Config")(**COMMON, **configuration)
    model = make(config).double().eval()
    with torch.no_grad():  # at their usual scale the outputs hardly depend on the input
        for parameter in model.parameters():
            parameter.mul_(5 if parameter.dim() > 1 else 1)
    return model


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def embedded(request):
    return EmbeddedModel(classifier(request.param, **CONFIGURATIONS[request.param]))


def arguments():
    return {"target": torch.tensor([0, 1, 2]), "additional_forward_args": (IDS, MASK)}


def test_the_logits_are_those_of_the_model(embedded):
    expected = embedded.model(input_ids=IDS, attention_mask=MASK).logits
    embeddings = embedded.embed(IDS)
    assert torch.allclose(embedded(embeddings, IDS, MASK), expected, rtol=1e-10)
    moved = embeddings + torch.linspace(-1, 1, 16)
    assert not torch.allclose(embedded(moved, IDS, MASK), expected, atol=1e-4)
    # Padding is no input: neither the mask nor the place of the last token is lost.
    padding = embeddings + (1 - MASK)[..., None]
    assert torch.allclose(embedded(padding, IDS, MASK), expected, rtol=1e-10)


def test_the_logits_are_those_of_inputs_embeds(embedded):
    # Without padding, so that a GPT-2 finds the last token without ids.
    ids, mask = IDS[1:2], MASK[1:2]
    moved = embedded.embed(ids) + torch.linspace(-1, 1, 16)
    expected = embedded.model(inputs_embeds=moved, attention_mask=mask).logits
    assert torch.allclose(embedded(moved, ids, mask), expected, rtol=1e-10)


def test_integrated_gradients_are_captums_on_the_layer(embedded):
    baseline = torch.zeros_like(IDS)
    layer = LayerIntegratedGradients(
        lambda ids, mask: embedded.model(input_ids=ids, attention_mask=mask).logits,
        embedded.embedding,
    )
    target = torch.tensor([0, 1, 2])
    expected = layer.attribute(
        IDS, baseline, target=target, additional_forward_args=(MASK,), n_steps=8
    )
    found = IntegratedGradients(embedded).attribute(
        embedded.embed(IDS), embedded.embed(baseline).detach(), n_steps=8, **arguments()
    )
    assert expected.abs().max() > 1e-4
    assert torch.allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_attacks_and_metrics(embedded):
    embeddings, mask = embedded.embed(IDS).detach(), token_mask(IDS, MASK, (0, 1, 2))
    saliency = Saliency(embedded)
    moved, info = ERAttack(saliency, 3, feature_mask=TOKENS, preserve_prediction="none").perturb(
        embeddings, 0.5, mask=mask, project=token_ball, step_num=5, return_info=True, **arguments()
    )
    assert (info.objective < info.trace[0, 0]).all() and "zero_gradient" not in info.flags
    lengths = (moved - embeddings).norm(dim=-1)
    assert (lengths <= 0.5).all() and (lengths[~mask[..., 0]] == 0).all()
    thickness = ranking_thickness(
        saliency.attribute, embeddings, 3, TokenNoise(mask), 0.1, 2, 2, feature_mask=TOKENS,
        seed=0, **arguments(),
    )  # fmt: skip
    assert ((thickness > 0) & (thickness <= 1)).all()


def test_the_loss_trains_every_parameter(embedded):
    labels = torch.tensor([0, 1, 2])
    embedded.zero_grad()
    criterion = R2ETLoss(embedded, 3, feature_mask=TOKENS)
    criterion(embedded.embedding(IDS), labels, additional_forward_args=(IDS, MASK)).backward()
    assert [n for n, p in embedded.named_parameters() if p.grad is None] == []
    assert criterion.last_terms["hessian"] > 0


def test_encoder_and_decoder_need_the_layer_of_the_encoder():
    model = classifier(
        "Bart", d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16,
        max_position_embeddings=16, eos_token_id=2, bos_token_id=1, decoder_start_token_id=2,
    )  # fmt: skip
    ids = torch.tensor([[1, 7, 8, 9, 2], [1, 12, 13, 14, 2]])
    shared = EmbeddedModel(model)
    with pytest.raises(ValueError, match="pass another layer, such as that of the encoder"):
        shared(shared.embed(ids), ids)
    embedded = EmbeddedModel(model, model.model.encoder.embed_tokens)
    embeddings = embedded.embed(ids)
    expected = model(input_ids=ids).logits
    assert torch.allclose(embedded(embeddings, ids), expected, rtol=1e-10)
    assert not torch.allclose(embedded(embeddings + embeddings.flip(1), ids), expected, atol=1e-4)
