"""Substitutions of words, categories and bits, against every substitution there is."""

from functools import partial
from itertools import combinations, product

import pytest
import torch
from captum.attr import FeatureAblation, InputXGradient, Saliency
from torch import nn

from captum_robust.metrics import precision_at_k
from captum_robust.robust import SubstitutionAttack, SubstitutionInfo

N, LENGTH, WIDTH, WORDS, K = 10, 4, 3, 5, 2
SUMS = torch.arange(LENGTH)[:, None].expand(LENGTH, WIDTH)  # one score per word


class Bag(nn.Module):
    """A classifier of texts, given by the embeddings of their words."""

    def __init__(self, activation=nn.Softplus):
        super().__init__()
        self.word = nn.Sequential(nn.Linear(WIDTH, 6), activation())
        self.text = nn.Sequential(nn.Linear(6, 6), activation(), nn.Linear(6, 2))

    def forward(self, embeddings):
        places = torch.linspace(1, 2, embeddings.shape[1]).to(embeddings)
        return self.text((self.word(embeddings) * places[:, None]).mean(dim=1))


def text(activation=nn.Softplus, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    model, table = Bag(activation).to(dtype).eval(), torch.randn(WORDS, WIDTH).to(dtype)
    ids = torch.randint(0, WORDS, (N, LENGTH))
    return model, table, ids


def attack_on(model, table, **options):
    given = {"feature_mask": SUMS, "absolute": True, "n_candidates": LENGTH * WORDS, **options}
    return SubstitutionAttack(InputXGradient(model), K, table, **given)


def precision(attribution, moved, x, mask=SUMS):
    moved, x = (t.detach().clone().requires_grad_() for t in (moved, x))
    maps, reference = (attribution.attribute(t, target=0) for t in (moved, x))
    return precision_at_k(maps, reference, K, absolute=True, feature_mask=mask).double()


def lowest(attribution, x, neighbours, mask=SUMS):
    """The lowest precision of all neighbours with the prediction of the example; (N,)."""
    model, least = attribution.forward_func, torch.ones(len(x)).double()
    for moved in neighbours:
        kept = model(moved).argmax(dim=1) == model(x).argmax(dim=1)
        found = precision(attribution, moved, x, mask).nan_to_num(1.0)
        least = torch.where(kept, torch.minimum(least, found), least)
    return least


def swaps(x, table, budget, allowed=None):
    """Every text with at most ``budget`` other words, of those that are allowed at a position."""
    for places in combinations(range(LENGTH), budget):
        choices = [range(WORDS) if allowed is None else allowed[p] for p in places]
        for words in product(*choices):
            moved = x.clone()
            for place, word in zip(places, words, strict=True):
                moved[:, place] = table[word]
            yield moved


@pytest.mark.parametrize("activation", [nn.Softplus, nn.LeakyReLU])
@pytest.mark.parametrize("budget", [1, 2])
def test_a_search_of_all_substitutions_finds_the_best_of_all(activation, budget):
    model, table, ids = text(activation)
    everything = attack_on(model, table, budget=budget, beam_width=LENGTH * WORDS)
    moved, info = everything.perturb(table[ids], target=0, seed=0, return_info=True)
    expected = lowest(InputXGradient(model), table[ids], swaps(table[ids], table, budget))
    assert torch.equal(info.precision, expected) and expected.mean() < 0.8
    assert torch.equal(precision(InputXGradient(model), moved, table[ids]), expected)


def test_a_narrow_search_is_nearly_as_good():
    least, found = [], {1: [], 3: []}
    for seed in range(3):
        model, table, ids = text(seed=seed)
        least.append(lowest(InputXGradient(model), table[ids], swaps(table[ids], table, 2)))
        for width, values in found.items():
            attack = attack_on(model, table, budget=2, n_candidates=4, beam_width=width)
            _, info = attack.perturb(table[ids], target=0, seed=0, return_info=True)
            assert (info.precision >= least[-1]).all(), "no search finds more than there is"
            values.append(info.precision)
    least, greedy, beams = (torch.cat(v).mean() for v in (least, found[1], found[3]))
    assert max(beams, greedy) <= least + 0.25


def test_one_hot_groups_take_any_category():
    torch.manual_seed(1)
    sizes = (3, 2, 4)
    model = nn.Sequential(nn.Linear(9, 8), nn.Softplus(), nn.Linear(8, 2)).double()
    columns = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    rows = torch.cat([torch.eye(s)[torch.randint(0, s, (N,))] for s in sizes], dim=1).double()

    def neighbours():
        for categories in product(*map(range, sizes)):
            moved = torch.cat([torch.eye(s)[c] for s, c in zip(sizes, categories, strict=True)])
            yield moved.double().expand(N, -1)

    attribution = InputXGradient(model)
    attack = SubstitutionAttack(
        attribution, K, None, 3, 9, 30, positions=columns, absolute=True, feature_mask=columns
    )
    moved, info = attack.perturb(rows, target=0, seed=0, return_info=True)
    assert torch.equal(info.precision, lowest(attribution, rows, neighbours(), columns))
    for part in moved.split(sizes, dim=1):
        assert ((part == 0) | (part == 1)).all() and (part.sum(dim=1) == 1).all()
    # Excluded features stay, with the whole of their group.
    fixed = columns.masked_fill(columns == 1, -1).masked_fill(columns == 2, 1)
    attack = SubstitutionAttack(attribution, K, None, 2, positions=fixed)
    assert torch.equal(attack.perturb(rows, target=0, seed=0)[:, 3:5], rows[:, 3:5])
    mask = torch.tensor([1, 1, 1, 1, 0, 1, 1, 1, 1])
    attack = SubstitutionAttack(attribution, K, None, 3, positions=columns)
    assert torch.equal(attack.perturb(rows, target=0, mask=mask, seed=0)[:, 3:5], rows[:, 3:5])


def test_every_form_of_candidates_says_the_same():
    model, table, ids = text()
    x = table[ids]
    everywhere = table.expand(LENGTH, WORDS, WIDTH)
    forms = (table, everywhere, everywhere.expand(N, -1, -1, -1), lambda examples: everywhere)
    found = [
        attack_on(model, form, budget=2, n_candidates=6).perturb(x, target=0, return_info=True)
        for form in forms
    ]
    for moved, info in found:
        assert torch.equal(moved, found[0][0])
        words = torch.where(info.choices >= 0, info.choices, ids)
        assert torch.equal(table[words], moved)
        assert torch.equal(info.n_substitutions, (moved != x).any(dim=2).sum(dim=1))


def test_candidates_of_an_example_are_its_own():
    model, table, ids = text()
    x, allowed = table[ids], torch.rand(N, LENGTH, WORDS) < 0.4
    own = torch.where(allowed[..., None], table, torch.nan)

    def of(examples):  # of any part of the batch
        rows = [(x == e).flatten(1).all(dim=1).nonzero()[0, 0] for e in examples]
        return own[torch.stack(rows)]

    for candidates in (own, of):
        attack = attack_on(model, candidates, budget=LENGTH)
        perturb = partial(attack.perturb, x, target=0, seed=0, return_info=True)
        moved, info = perturb() if candidates is own else perturb(max_examples_per_batch=3)
        example, place = (info.choices >= 0).nonzero(as_tuple=True)
        assert allowed[example, place, info.choices[example, place]].all() and len(example) > N
        assert torch.equal(moved[info.choices < 0], x[info.choices < 0])
        if candidates is own:
            whole = moved
    assert torch.equal(moved, whole)


def test_neither_chunks_nor_order_change_anything():
    model, table, ids = text(nn.ReLU)
    attack = attack_on(model, table, budget=2, n_candidates=3, beam_width=2)
    perturb = partial(attack.perturb, target=0, seed=0, n_restarts=2)
    x, order = table[ids], torch.randperm(N)
    whole, info = perturb(x, return_info=True)
    assert torch.equal(whole, perturb(x, max_examples_per_batch=3))
    assert torch.equal(whole[order], perturb(x[order]))
    assert isinstance(info, SubstitutionInfo) and (info.precision < 1).any()


def test_a_larger_budget_and_restarts_are_never_weaker():
    model, table, ids = text()
    before = torch.ones(N).double()
    for budget in (0, 1, 2, 4):
        attack = attack_on(model, table, budget=1, n_candidates=3)
        perturb = partial(attack.perturb, table[ids], budget, target=0, seed=0, return_info=True)
        _, info = perturb()
        _, again = perturb(n_restarts=3)
        assert (info.precision <= before).all() and (again.precision <= info.precision).all()
        assert (info.n_substitutions <= budget).all()
        before = info.precision
    assert before.mean() < 0.7


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("limit", [1, 4, 9, 30])
def test_the_budget_of_queries_is_kept(limit, width):
    model, table, ids = text()
    calls = 0

    def counted(embeddings):
        nonlocal calls
        calls += len(embeddings)
        return model(embeddings)

    attack = SubstitutionAttack(
        InputXGradient(counted), K, table, 3, beam_width=width, max_queries=limit,
        feature_mask=SUMS, absolute=True, preserve_prediction="none",
    )  # fmt: skip
    _, info = attack.perturb(table[ids], target=0, seed=0, return_info=True)
    # Two forwards before the search show whether outputs depend on chance or on other examples.
    assert (info.n_queries <= limit).all() and calls <= 2 * N + 2 * limit * N
    assert (info.n_substitutions > 0).any() == (limit > 1 + width)


def test_it_finds_more_than_random_substitutions_at_as_many_queries():
    found = {True: [], False: []}
    for seed in range(4):
        model, table, ids = text(seed=seed)
        for at_random, values in found.items():
            attack = attack_on(
                model, table, budget=2, n_candidates=5, at_random=at_random, max_queries=13
            )
            _, info = attack.perturb(table[ids], target=0, seed=0, return_info=True)
            values.append(info.precision.mean())
            assert (info.n_queries <= 13).all()
    assert sum(found[False]) < sum(found[True])


def test_a_model_without_a_gradient_is_attacked_at_random():
    model, table, ids = text()
    steps = FeatureAblation(lambda embeddings: model(embeddings.round(decimals=1)).detach())
    attack = SubstitutionAttack(steps, K, table, 2, at_random=True, feature_mask=SUMS)
    _, info = attack.perturb(table[ids], target=0, seed=0, return_info=True)
    assert (info.precision < 1).any() and info.prediction_kept.all()


def test_words_under_the_mask_stay():
    model, table, ids = text()
    mask = torch.ones(LENGTH, 1)
    mask[[0, 2]] = 0
    moved = attack_on(model, table, budget=LENGTH).perturb(table[ids], target=0, mask=mask)
    assert torch.equal(moved[:, [0, 2]], table[ids][:, [0, 2]])
    assert not torch.equal(moved, table[ids])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_values_are_those_of_the_table_in_every_precision(dtype):
    model, table, ids = text(dtype=dtype)
    moved, info = attack_on(model, table, budget=2).perturb(
        table[ids], target=0, seed=0, return_info=True
    )
    words = torch.where(info.choices >= 0, info.choices, ids)
    assert moved.dtype == dtype and torch.equal(table[words], moved)


def test_several_tensors_have_one_budget():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Bag().double(), nn.Linear(6, 2).double()

        def forward(self, embeddings, bits):
            return self.first(embeddings) * self.second(bits).tanh()

    torch.manual_seed(0)
    table, model = torch.randn(WORDS, WIDTH).double(), Two()
    x = table[torch.randint(0, WORDS, (N, LENGTH))], torch.randint(0, 2, (N, 6)).double()
    candidates = table, torch.tensor([0.0, 1.0])
    attack = SubstitutionAttack(Saliency(model), 3, candidates, 2)
    moved, info = attack.perturb(x, target=0, return_info=True)
    n_words = (moved[0] != x[0]).any(dim=2).sum(dim=1)
    n_bits = (moved[1] != x[1]).sum(dim=1)
    assert torch.equal(info.n_substitutions, n_words + n_bits) and (n_words + n_bits).max() == 2
    assert n_words.any() and n_bits.any() and ((moved[1] == 0) | (moved[1] == 1)).all()
    assert (info.precision < 1).any()


WRONG = {
    "shape": ({"candidates": torch.ones(4, 7)}, "candidates for inputs of shape"),
    "number": ({"candidates": (torch.ones(4, 3),) * 2}, "one per input tensor"),
    "nothing": ({"candidates": None}, "candidates must be given"),
    "positions": ({"candidates": None, "positions": torch.arange(5)}, "positions must be"),
    "gap": ({"candidates": None, "positions": torch.arange(12) * 2}, "without a gap"),
    "tables": ({"candidates": [torch.eye(3)], "positions": torch.zeros(12).long()}, "one table"),
    "budget": ({"candidates": torch.ones(4, 3), "budget": -1}, "budget must be"),
    "beam": ({"candidates": torch.ones(4, 3), "beam_width": 0}, "beam_width must be"),
    "queries": ({"candidates": torch.ones(4, 3), "max_queries": 0}, "max_queries must be"),
    "bounds": ({"candidates": torch.ones(4, 3), "lower_bound": 0.0}, "lower_bound must not"),
    "mode": ({"candidates": torch.ones(4, 3), "preserve_prediction": "gda"}, "preserve_prediction"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_name_the_argument(name):
    arguments, message = WRONG[name]
    model, table, ids = text()
    with pytest.raises(ValueError, match=message):
        SubstitutionAttack(InputXGradient(model), K, **arguments).perturb(table[ids], target=0)


def test_token_ids_are_refused():
    _, table, ids = text()
    with pytest.raises(ValueError, match="floating point"):
        SubstitutionAttack(Saliency(lambda x: x), K, table).perturb(ids, target=0)
