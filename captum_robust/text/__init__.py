"""Explanations of text: embeddings as inputs, words as features."""

from captum_robust.text.embedded import EmbeddedModel
from captum_robust.text.perturbation import TokenNoise, token_ball, token_mask
from captum_robust.text.token_attribution import TokenAttribution
from captum_robust.text.vocabulary import nearest_tokens, neighbour_embeddings
from captum_robust.text.words import word_groups, word_ids_of_offsets

__all__ = [
    "EmbeddedModel",
    "TokenAttribution",
    "TokenNoise",
    "nearest_tokens",
    "neighbour_embeddings",
    "token_ball",
    "token_mask",
    "word_groups",
    "word_ids_of_offsets",
]
