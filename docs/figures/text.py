"""Tables of docs/text.md: ``python docs/figures/text.py``, which needs ``transformers``.

A DistilBERT of two layers is trained on made-up sentences, and the words that explain its
predictions are attacked.
"""

from __future__ import annotations

import itertools
import random
import time
from functools import partial
from typing import Any

import torch
import transformers
from captum.attr import Attribution, IntegratedGradients, Saliency
from torch import Tensor
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from captum_robust._utils.tables import Table, markdown
from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.ranking import flatten_attributions
from captum_robust.robust import ERAttack, SubstitutionAttack
from captum_robust.text import (
    EmbeddedModel,
    TokenAttribution,
    TokenNoise,
    nearest_tokens,
    neighbour_embeddings,
    token_ball,
    token_mask,
    word_groups,
)

SEED, K, N_STEPS = 0, 3, 20
N_TRAIN, N_TEST, N_EXPLAINED, N_EPOCHS = 1500, 500, 40, 12
RADII = (0.02, 0.05, 0.1)
SPECIAL = ("[PAD]", "[CLS]", "[SEP]")
GOOD = ["good", "fine", "superb", "charming", "delightful", "lovely", "pleasant", "clever"]
BAD = ["bad", "poor", "awful", "boring", "disappointing", "ugly", "dreadful", "clumsy"]
NOUNS = ["film", "book", "meal", "room", "phone", "garden", "concert", "museum"]
PARTS = ["price", "story", "design", "service", "ending", "sound", "view", "staff"]
PEOPLE = ["everyone", "nobody", "grandmother", "someone"]
ADVERBS = {"really": 1, "quite": 1, "hardly": -1, "never": -1, "always": 1}
TIMES = ["week", "evening", "journey", "start"]
LONGEST = 9  # letters; longer words are two tokens

Batch = tuple[Tensor, Tensor]  # ids and attention mask


def sentence(source: random.Random) -> tuple[str, int]:
    """Return a sentence of ten words and its label: 1 if its judgement is good."""
    (first, left), (second, right) = (
        (source.choice(words), sign)
        for words, sign in (source.choice(((GOOD, 1), (BAD, -1))) for _ in range(2))
    )
    noun = source.choice(NOUNS)
    if source.random() < 0.5:
        adverb = source.choice(list(ADVERBS))
        link = "and" if ADVERBS[adverb] * left == right else "but"
        text = f"the {noun} was {adverb} {first} {link} its {source.choice(PARTS)} was {second}"
        return text, int(right > 0)  # what is said last counts
    person, moment = source.choice(PEOPLE), source.choice(TIMES)
    text = f"{person} said the {noun} seemed {first} after a {second} {moment}"
    return text, int((left < 0) == (person == "nobody"))


class Tokenizer:
    """One token per word, and two for a long word."""

    def __init__(self) -> None:
        words = " ".join(sentence(random.Random(n))[0] for n in range(5_000)).split()
        pieces = sorted({piece for word in words for piece in self.pieces(word)})
        self.tokens = [*SPECIAL, *pieces]
        self.ids = {token: number for number, token in enumerate(self.tokens)}

    @staticmethod
    def pieces(word: str) -> list[str]:
        """Return the tokens of a word."""
        return [word] if len(word) <= LONGEST else [word[:LONGEST], "##" + word[LONGEST:]]

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor, list[list[int | None]]]:
        """Return ids, attention mask, and the word of every token."""
        ids, words = [], []
        for text in texts:
            pieces = [(p, n) for n, w in enumerate(text.split()) for p in self.pieces(w)]
            ids.append([1, *(self.ids[piece] for piece, _ in pieces), 2])
            words.append([None, *(number for _, number in pieces), None])
        length = max(map(len, ids))
        padded = torch.tensor([row + [0] * (length - len(row)) for row in ids])
        return padded, (padded != 0).long(), [w + [None] * (length - len(w)) for w in words]


def train(vocabulary: int, batch: Batch, labels: Tensor) -> EmbeddedModel:
    """Train a classifier."""
    torch.manual_seed(SEED)
    config = DistilBertConfig(
        vocab_size=vocabulary, dim=32, n_layers=2, n_heads=4, hidden_dim=64,
        max_position_embeddings=32, pad_token_id=0, num_labels=2,
    )  # fmt: skip
    model = DistilBertForSequenceClassification(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(N_EPOCHS):
        for rows in torch.randperm(len(labels)).split(64):
            outputs = model(batch[0][rows], attention_mask=batch[1][rows], labels=labels[rows])
            optimizer.zero_grad()
            outputs.loss.backward()
            optimizer.step()
    return EmbeddedModel(model.eval())


def top_words(scores: Tensor, text: str) -> str:
    """Return the text with its top words in bold."""
    top = set(scores.topk(K).indices.tolist())
    return " ".join(f"**{w}**" if n in top else w for n, w in enumerate(text.split()))


def attack_words(embedded: EmbeddedModel, tokenizer: Tokenizer, texts: list[str]) -> None:
    """Print the stability of the top words, and some sentences before and after."""
    ids, mask, word_ids = tokenizer(texts)
    embeddings, weight = embedded.embed(ids).detach(), embedded.embedding.weight.detach()
    groups, movable = word_groups(word_ids), token_mask(ids, mask, range(len(SPECIAL)))
    with torch.no_grad():
        target = embedded(embeddings, ids, mask).argmax(dim=1)
    call = {"target": target, "additional_forward_args": (ids, mask)}
    pieces = [n for n, t in enumerate(tokenizer.tokens) if n < len(SPECIAL) or t[:2] == "##"]
    whole = movable & torch.tensor(
        [[[row.count(word) == 1] for word in row] for row in word_ids]
    )  # swapped are words of one token
    attributions: dict[str, tuple[Attribution, dict[str, int]]] = {
        "Saliency, sum of magnitudes": (Saliency(embedded), {}),
        "Integrated Gradients, magnitude of the sum": (
            TokenAttribution(IntegratedGradients(embedded)), {"n_steps": 8},
        ),
    }  # fmt: skip
    rows: list[list[str]] = []
    shown: dict[str, tuple[Tensor, Tensor]] = {}  # points and precision
    for label, (attribution, options) in attributions.items():
        ranked = {"absolute": True, "feature_mask": groups}
        for radius in RADII:
            noise = {"perturb_func": TokenNoise(movable), "perturb_radius": radius, "seed": SEED}
            explain = partial(attribution.attribute, **options)  # both have an n_steps
            thickness = ranking_thickness(
                explain, embeddings, K, n_perturb_samples=4, n_steps=4,
                **noise, **ranked, **call,
            )  # fmt: skip
            random_change = precision_at_k_min(
                explain, embeddings, K, n_perturb_samples=10, **noise, **ranked, **call
            )
            moved, info = ERAttack(attribution, K, **ranked).perturb(
                embeddings, radius, mask=movable, project=token_ball, step_num=N_STEPS, seed=SEED,
                step_size=5 * radius / (N_STEPS * embeddings.shape[2] ** 0.5),
                return_info=True, **call, **options,
            )  # fmt: skip
            changed = (nearest_tokens(moved, weight) != ids)[movable[..., 0]].float().mean()
            means = [float(v.mean()) for v in (thickness, random_change, info.precision, changed)]
            rows.append([label, f"radius {radius:g}", *(f"{m:.3f}" for m in means)])
            if radius == RADII[0]:
                shown.setdefault("embeddings", (moved, info.precision))
        for budget in (1, 2):
            attack = SubstitutionAttack(
                attribution, K, budget=budget, n_candidates=8, **ranked,
                candidates=lambda e: neighbour_embeddings(e, weight, 8, pieces),
            )  # fmt: skip
            swapped, info = attack.perturb(
                embeddings, mask=whole, seed=SEED, return_info=True, **call, **options
            )
            changed = (nearest_tokens(swapped, weight) != ids)[movable[..., 0]].float().mean()
            cells = [f"{float(info.precision.mean()):.3f}", f"{float(changed):.3f}"]
            rows.append([label, f"{budget} word{'s' * (budget > 1)} swapped", "–", "–", *cells])
            shown.setdefault("words", (swapped, info.precision))
    header = [
        "attribution",
        "change",
        "thickness",
        "P@3 noise",
        "P@3 attack",
        "tokens nearest to another",
    ]
    print(f"{markdown(Table(header, rows))}\n")
    show_examples(embedded, tokenizer, texts, groups, call, shown)


def show_examples(
    embedded: EmbeddedModel,
    tokenizer: Tokenizer,
    texts: list[str],
    groups: Tensor,
    call: dict[str, Any],
    shown: dict[str, tuple[Tensor, Tensor]],
) -> None:
    """Print the sentences that lose the most words to each attack, by Saliency."""
    saliency, weight = Saliency(embedded), embedded.embedding.weight.detach()
    ids = call["additional_forward_args"][0]

    def scores(points: Tensor) -> Tensor:
        maps = saliency.attribute(points.clone().requires_grad_(), **call)
        return flatten_attributions(maps, groups)

    before = scores(embedded.embed(ids).detach())
    for title, (points, precision) in shown.items():
        after, new = scores(points), nearest_tokens(points, weight)
        for n in precision.argsort(stable=True)[:2].tolist():
            words = texts[n].split()
            for place in (new[n] != ids[n]).nonzero()[:, 0].tolist():
                words[int(groups[n, place, 0])] = tokenizer.tokens[int(new[n, place])]
            print(f"{title}: {top_words(before[n], texts[n])}")
            print(f"{' ' * len(title)}  {top_words(after[n], ' '.join(words))}")


def main() -> None:
    """Train both classifiers and print the tables."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, seed {SEED}")
    tokenizer, source = Tokenizer(), random.Random(SEED)
    pairs = list(itertools.islice(iter(lambda: sentence(source), None), N_TRAIN + N_TEST))
    texts, labels = [text for text, _ in pairs], torch.tensor([label for _, label in pairs])
    ids, mask, _ = tokenizer(texts)
    seconds = time.process_time()
    embedded = train(len(tokenizer.tokens), (ids[:N_TRAIN], mask[:N_TRAIN]), labels[:N_TRAIN])
    seconds = time.process_time() - seconds
    with torch.no_grad():
        found = embedded(embedded.embed(ids[N_TRAIN:]), ids[N_TRAIN:], mask[N_TRAIN:])
    accuracy = float((found.argmax(dim=1) == labels[N_TRAIN:]).float().mean())
    weight = embedded.embedding.weight.detach()
    nearest = (neighbour_embeddings(weight, weight, 1)[:, 0] - weight).norm(dim=1)
    print(f"accuracy {accuracy:.3f} on {N_TEST} sentences, trained in {seconds:.0f} s")
    print(f"distance to the nearest other token: {nearest.min():.2f} to {nearest.max():.2f}\n")
    attack_words(embedded, tokenizer, texts[N_TRAIN : N_TRAIN + N_EXPLAINED])


if __name__ == "__main__":
    main()
