"""Words as features: their groups, and the two usual scores of a token."""

from __future__ import annotations

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, Saliency

from captum_robust.attr import attribution_gradcheck
from captum_robust.metrics import ranking_thickness
from captum_robust.ranking import flatten_attributions
from captum_robust.robust import ERAttack
from captum_robust.text import EmbeddedModel, TokenAttribution, word_groups, word_ids_of_offsets
from tests.text.models import IDS, recurrent

WORD_IDS = [[None, 0, 1, 1, 2, None], [None, 0, 0, 0, 1, 2]]


def test_neighbours_of_equal_id_are_one_word():
    groups = word_groups(WORD_IDS)
    assert groups.shape == (2, 6, 1)
    assert groups[..., 0].tolist() == [[-1, 0, 1, 1, 2, -1], [-1, 0, 0, 0, 1, 2]]


def test_the_ids_of_a_second_sentence_start_again():
    assert word_groups([[None, 0, 1, None, 0, 0, 1]]).flatten().tolist() == [-1, 0, 1, -1, 2, 2, 3]
    assert word_groups([[None, 0, None, 0]]).flatten().tolist() == [-1, 0, -1, 1]


def test_word_ids_must_be_padded():
    with pytest.raises(ValueError, match=r"padded, got lengths \[6, 5\]"):
        word_groups([WORD_IDS[0], WORD_IDS[1][:5]])


@pytest.mark.parametrize(
    "offsets, expected",
    [
        ([(0, 0), (0, 2), (2, 5), (6, 8), (8, 9), (0, 0)], [None, 0, 0, 1, 1, None]),
        ([(0, 5), (5, 8), (8, 9)], [0, 1, 1]),  # the space is part of the next token
        ([(0, 9)], [0]),
    ],
)
def test_words_from_offsets(offsets, expected):
    assert word_ids_of_offsets(offsets, "plain ok!") == expected


def test_punctuation_can_be_a_word():
    assert word_ids_of_offsets([(0, 2), (2, 3)], "ok!", r"\w+|[^\w\s]") == [0, 1]


def test_the_two_scores_of_a_token():
    embedded = EmbeddedModel(recurrent())
    embeddings, arguments = embedded.embed(IDS), {"target": 1, "additional_forward_args": (IDS,)}
    plain = InputXGradient(embedded)
    maps = plain.attribute(embeddings, **arguments).detach()
    summed = TokenAttribution(plain).attribute(embeddings, **arguments).detach()
    every = torch.tensor([0, 1, 1, 2, 3, 4, 5, 6])[:, None]
    of_sum = flatten_attributions(summed, every, absolute=True)
    of_magnitudes = flatten_attributions(maps, every, absolute=True)
    for example in range(3):
        tokens = [[1, 2] if w == 1 else [w if w < 1 else w + 1] for w in range(7)]
        for word, places in enumerate(tokens):
            part = [maps[example, t] for t in places]
            expected = sum(float(p.sum().abs()) for p in part)
            assert float(of_sum[example, word]) == pytest.approx(expected)
            expected = sum(float(p.abs().sum()) for p in part)
            assert float(of_magnitudes[example, word]) == pytest.approx(expected)
    assert not torch.allclose(of_sum, of_magnitudes, rtol=0.1)


def test_the_attribution_of_tokens_is_differentiable():
    embedded = EmbeddedModel(recurrent())
    tokens = TokenAttribution(IntegratedGradients(embedded))
    arguments = {"target": 1, "additional_forward_args": (IDS,), "n_steps": 3}
    assert attribution_gradcheck(tokens, embedded.embed(IDS), **arguments) < 1e-6


def test_the_attribution_of_tokens_can_be_attacked():
    embedded = EmbeddedModel(recurrent())
    embeddings = embedded.embed(IDS).detach()
    tokens = TokenAttribution(Saliency(embedded))
    arguments = {"target": 1, "additional_forward_args": (IDS,), "abs": False}
    moved, info = ERAttack(tokens, 2, absolute=True).perturb(
        embeddings, 0.5, step_num=10, return_info=True, **arguments
    )
    before, after = (
        flatten_attributions(tokens.attribute(p.requires_grad_(), **arguments), absolute=True)
        for p in (embeddings, moved)
    )
    kept = [
        len(set(b.topk(2).indices.tolist()) & set(a.topk(2).indices.tolist())) / 2
        for b, a in zip(before, after, strict=True)
    ]
    assert info.precision.tolist() == kept and min(kept) < 1


def test_sentences_of_different_numbers_of_words_are_as_one_by_one():
    embedded = EmbeddedModel(recurrent())
    embeddings, saliency = embedded.embed(IDS).detach(), Saliency(embedded)
    groups = word_groups(
        [
            [None, 0, 0, 1, 2, 3, None, None],
            [None, 0, 1, 2, 3, 4, 5, 6],
            [None, 0, 1, 1, 2, None, None, None],
        ]
    )

    def judged(rows):
        call = {"target": 1, "additional_forward_args": (IDS[rows],), "seed": 0}
        thickness = ranking_thickness(
            saliency.attribute, embeddings[rows], 2, perturb_radius=2.0, n_steps=4,
            feature_mask=groups[rows], **call,
        )  # fmt: skip
        _, info = ERAttack(saliency, 2, feature_mask=groups[rows]).perturb(
            embeddings[rows], 0.5, step_num=10, return_info=True, **call
        )
        return torch.stack([thickness, info.precision])

    together = judged(slice(None))
    alone = torch.cat([judged(slice(n, n + 1)) for n in range(3)], dim=1)
    torch.testing.assert_close(together, alone)
    assert (together < 1).any(dim=1).all()
