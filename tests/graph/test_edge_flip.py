"""Flips of edges, against every set of flips there is and against the search written out."""

import copy
import re
from functools import partial
from itertools import combinations, pairwise

import pytest
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_robust.graph import EdgeFlipAttack, FlipInfo, UndirectedModel, adjacency
from captum_robust.metrics import precision_at_k, prediction_change_rate
from captum_robust.robust import UnmovedWarning, ZeroGradientWarning
from captum_robust.robust.objectives import RankingObjective
from tests.graph.brains import binary, siamese

N_NODES, M, K = 5, 10, 4
ALL = 2 * M


def pair_model(activation=nn.Softplus):
    return UndirectedModel(siamese(N_NODES, activation), N_NODES, n_graphs=2)


def binary_pairs(n):
    return binary(n, M), binary(n, M, seed=1)


def leaves(inputs):
    return tuple(t.detach().clone().requires_grad_() for t in inputs)


def joined(inputs):
    return torch.cat(inputs, dim=1)


def apart(rows):
    return tuple(part.contiguous() for part in rows.split(M, dim=1))


def flipped(x, edges):
    rows = joined(x).clone()
    rows[:, list(edges)] = 1 - rows[:, list(edges)]
    return apart(rows)


def precision(attribution, moved, x, absolute):
    maps, reference = (attribution.attribute(leaves(p), target=0) for p in (moved, x))
    return precision_at_k(maps, reference, K, absolute=absolute).double()


def lowest(attribution, model, x, budget, absolute):
    """The lowest precision of all sets of flips that keep the three predictions; (N,)."""
    before, least = model.predictions(*x), torch.ones(len(x[0])).double()
    for n_flips in range(1, budget + 1):
        for edges in combinations(range(ALL), n_flips):
            moved = flipped(x, edges)
            found = precision(attribution, moved, x, absolute).nan_to_num(1.0)
            changed = prediction_change_rate(model.predictions(*moved), before) > 0
            least = torch.where(changed, least, torch.minimum(least, found))
    return least


every_map = pytest.mark.parametrize("kind", [Saliency, InputXGradient])
every_network = pytest.mark.parametrize("activation", [nn.Softplus, nn.LeakyReLU])


@every_map
@every_network
def test_one_flip_is_the_best_of_all(kind, activation):
    model, x = pair_model(activation), binary_pairs(20)
    absolute = kind is InputXGradient
    attack = EdgeFlipAttack(
        kind(model), K, n_candidates=ALL, absolute=absolute, predictions=model.predictions
    )
    moved, info = attack.perturb(x, 1, target=0, return_info=True)
    expected = lowest(kind(model), model, x, 1, absolute)
    assert torch.equal(info.precision, expected) and expected.mean() < 0.6
    assert torch.equal(precision(kind(model), moved, x, absolute), expected)
    assert not prediction_change_rate(model.predictions(*moved), model.predictions(*x)).any()


@every_map
@every_network
def test_two_flips_are_nearly_always_the_best_of_all(kind, activation):
    model, x = pair_model(activation), binary_pairs(20)
    absolute = kind is InputXGradient
    attack = EdgeFlipAttack(
        kind(model), K, n_candidates=ALL, absolute=absolute, predictions=model.predictions
    )
    _, info = attack.perturb(x, 2, target=0, return_info=True)
    least = lowest(kind(model), model, x, 2, absolute)
    assert (info.precision >= least).all(), "no search finds more than there is"
    assert (info.precision == least).double().mean() >= 0.75
    assert (info.precision - least).mean() <= 0.07


# --- the search written out ----------------------------------------------------------------------


def written_out(model, x, budget, n_candidates):
    """The flips of one pair, in order, by raw autograd; kept features and gaps after each of them.

    Third, the smallest margin by which anything was decided, relative to what was compared. Where
    it is above the rounding of float64, the search makes the same flips on every machine.
    """
    margins = []

    def lowest(values, n):
        order = sorted(range(len(values)), key=values.__getitem__)
        if n < len(values):
            last, next_ = values[order[n - 1]], values[order[n]]
            margins.append((next_ - last) / max(abs(next_), abs(last)))
        return order[:n]

    def saliency(rows, graph=False):
        leaf = rows.clone().requires_grad_()
        value = model(*apart(leaf)).sum()
        return leaf, torch.autograd.grad(value, leaf, create_graph=graph)[0].abs()

    def labels(rows):
        results = [r[0].detach() for r in model.predictions(*apart(rows))]
        margins.extend(float((r[0] - r[-1] if len(r) > 1 else r).abs()) for r in results)
        return [int(r.argmax()) if len(r) > 1 else bool(r > 0) for r in results]

    def top(scores):
        return set(lowest((-scores[0]).tolist(), K))

    rows = joined(x)
    before, wanted = top(saliency(rows)[1]), labels(rows)

    def gaps(scores):
        first = scores[0, sorted(before)].sum()
        return (ALL - K) * first - K * (scores.sum() - first)

    flips, found = [], []
    for _ in range(budget):
        leaf, scores = saliency(rows, graph=True)
        (slope,) = torch.autograd.grad(gaps(scores), leaf)
        promised = ((1 - 2 * rows) * slope)[0].tolist()
        left = [e for e in range(ALL) if e not in flips]
        trials = []
        for i in lowest([promised[e] for e in left], n_candidates):
            trial = rows.clone()
            trial[0, left[i]] = 1 - trial[0, left[i]]
            if labels(trial) == wanted:
                scores = saliency(trial)[1]
                trials.append((len(before & top(scores)), float(gaps(scores)), left[i]))
        if not trials:
            break
        fewest = [t for t in trials if t[0] == min(trials)[0]]
        best = fewest[lowest([t[1] for t in fewest], 1)[0]]
        flips.append(best[2])
        found.append(best[:2])
        rows[0, best[2]] = 1 - rows[0, best[2]]
        if best[0] == 0:
            break
    best = min(range(len(found)), key=lambda i: found[i], default=-1)
    return flips[: best + 1], found, min(margins)


@pytest.mark.parametrize("n_candidates", [1, 3, ALL])
def test_the_flips_are_those_of_the_search_written_out(n_candidates):
    model, x = pair_model(), binary_pairs(12)
    attack = EdgeFlipAttack(
        Saliency(model), K, n_candidates, RankingObjective(K), predictions=model.predictions
    )
    moved, info = attack.perturb(x, 3, target=0, return_info=True)
    for n in range(12):
        one = tuple(t[n : n + 1] for t in x)
        flips, found, margin = written_out(model, one, 3, n_candidates)
        assert margin > 1e-9, "rounding decides: choose other graphs"
        if found and found[len(flips) - 1][0] < K:
            expected = flipped(one, flips)
            assert all(torch.equal(m[n : n + 1], e) for m, e in zip(moved, expected, strict=True))
            assert info.n_flips[n] == len(flips)
            gaps = torch.tensor([g for _, g in found], dtype=torch.float64)
            assert torch.allclose(info.trace[0, 1 : 1 + len(found), n], gaps, rtol=1e-9)
    assert (info.precision < 1).sum() >= 4


# --- what it returns -----------------------------------------------------------------------------


def attack_on(model, **options):
    return EdgeFlipAttack(
        InputXGradient(model), K, **{"absolute": True, "n_candidates": 6, **options}
    )


@pytest.mark.parametrize("preserve", ["reject", "none"])
def test_the_report_is_true(preserve):
    model, x = pair_model(), binary_pairs(16)
    attack = attack_on(model, preserve_prediction=preserve, predictions=model.predictions)
    moved, info = attack.perturb(x, 3, target=0, return_info=True)
    assert isinstance(info, FlipInfo)
    for after, before in zip(moved, x, strict=True):
        assert ((after == 0) | (after == 1)).all() and after.dtype == before.dtype
        matrix = adjacency(after)
        assert torch.equal(matrix, matrix.mT) and not matrix.diagonal(dim1=1, dim2=2).any()
    n_flips = (joined(moved) != joined(x)).sum(dim=1)
    assert torch.equal(info.n_flips, n_flips) and n_flips.max() == 3
    assert torch.equal(info.precision, precision(InputXGradient(model), moved, x, True))
    changed = prediction_change_rate(model.predictions(*moved), model.predictions(*x)) > 0
    assert torch.equal(info.prediction_kept, ~changed)
    assert changed.any() == (preserve == "none")
    assert ("label_flips_rejected" in info.flags) == (preserve == "reject")
    first = info.first_change_step
    assert ((first >= 1) | (info.precision == 1)).all() and (first <= 3).all()


def test_no_flip_is_called_rejected_where_none_changes_the_prediction():
    x = binary_pairs(8)
    attack = attack_on(pair_model(), predictions=lambda *pair: (torch.ones(len(pair[0]), 1),))
    _, info = attack.perturb(x, 2, target=0, return_info=True)
    assert "label_flips_rejected" not in info.flags and (info.precision < 1).all()


def test_a_larger_budget_goes_on_and_never_finds_less():
    model, x = pair_model(), binary_pairs(16)
    infos = [
        attack_on(model, keep=keep).perturb(x, budget, target=0, return_info=True)[1]
        for keep in ("precision", "objective")
        for budget in (0, 1, 2, 4)
    ]
    for smaller, larger in pairwise(infos[:4]):
        assert (larger.precision <= smaller.precision).all()
        n = smaller.trace.shape[1]
        same = (larger.trace[0, :n] == smaller.trace[0]) | smaller.trace[0].isnan()
        assert same.all()
    for smaller, larger in pairwise(infos[4:]):
        assert (larger.objective <= smaller.objective).all()
    assert infos[3].precision.mean() < infos[1].precision.mean() < infos[0].precision.mean()
    assert (infos[0].n_flips == 0).all() and (infos[0].precision == 1).all()


def test_it_finds_more_than_random_flips():
    model, x = UndirectedModel(siamese(12), 12, 2), (binary(6, 66), binary(6, 66, seed=1))
    attribution = InputXGradient(model)
    attack = EdgeFlipAttack(attribution, K, absolute=True, preserve_prediction="none")
    _, info = attack.perturb(x, 2, target=0, return_info=True)
    generator, least = torch.Generator().manual_seed(0), torch.ones(6).double()
    for _ in range(100):  # three times as many evaluations
        drawn = torch.stack([torch.randperm(132, generator=generator)[:2] for _ in range(6)])
        rows = joined(x).scatter(1, drawn, 1 - joined(x).gather(1, drawn))
        found = precision(attribution, rows.split(66, dim=1), x, True)
        least = torch.minimum(least, found.nan_to_num(1.0))
    assert info.precision.mean() < least.mean()


def test_edges_under_the_mask_stay():
    model, x = pair_model(), binary_pairs(8)
    mask = torch.zeros(1, M), (torch.arange(M) % 2 == 0).double()[None]
    moved, info = attack_on(model, n_candidates=M).perturb(
        x, 6, target=0, mask=mask, return_info=True
    )
    assert torch.equal(moved[0], x[0])
    assert torch.equal(moved[1][:, 1::2], x[1][:, 1::2]) and (info.n_flips > 0).all()
    with pytest.raises(ValueError, match="moves 8 of 8 examples nowhere"):
        attack_on(model).perturb(x, 6, target=0, mask=(torch.zeros(1, M),) * 2)


OPTIONS = {
    "autograd": {},
    "differences": {"gradient": "finite_difference"},
    "probes": {"gradient": "spsa", "n_directions": 3},
    "smooth": {"smooth_relu": 5.0},
    "path": {"path_points": 2},
    "grouped": {"feature_mask": (torch.arange(M), torch.arange(M))},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_neither_chunks_nor_order_change_anything(name):
    model, x = pair_model(nn.LeakyReLU), binary_pairs(7)
    attack = EdgeFlipAttack(
        Saliency(model), K, n_candidates=3, predictions=model.predictions, **OPTIONS[name]
    )
    perturb = partial(attack.perturb, budget=2, target=0, seed=0)
    whole, info = perturb(x, return_info=True)
    assert (info.precision < 1).any() and (info.n_flips <= 2).all()
    parts, other = perturb(x, return_info=True, max_examples_per_batch=3)
    order = torch.tensor([3, 1, 6, 0, 5, 2, 4])
    turned = perturb(tuple(t[order] for t in x))
    for w, p, t in zip(whole, parts, turned, strict=True):
        assert torch.equal(w, p) and torch.equal(w[order], t)
    assert torch.equal(info.n_queries, other.n_queries)


def test_an_example_that_drops_out_takes_its_random_numbers_along():
    model, x = pair_model(), binary_pairs(5)
    attack = EdgeFlipAttack(Saliency(model), K, 1, gradient="spsa", n_directions=2)
    free = torch.ones(5, M)
    free[:2] = 0  # nothing can be flipped in the first two
    perturb = partial(attack.perturb, budget=3, target=0, seed=1)
    with pytest.warns(UnmovedWarning, match="2 of 5"):
        moved = perturb(x, mask=(free, free))
    assert all(torch.equal(m[:2], t[:2]) for m, t in zip(moved, x, strict=True))
    alone = perturb(tuple(t[2:] for t in x))
    assert all(torch.equal(m[2:], a) for m, a in zip(moved, alone, strict=True))
    assert (joined(alone) != joined(x)[2:]).sum(dim=1).max() > 1


def test_maps_without_a_derivative_are_attacked_by_probes():
    model, x = pair_model(), binary_pairs(5)
    for attribution in (FeatureAblation(model), IntegratedGradients(model)):
        gradient = "spsa" if isinstance(attribution, FeatureAblation) else "autograd"
        arguments = {} if gradient == "spsa" else {"n_steps": 4}
        attack = EdgeFlipAttack(
            attribution, K, n_candidates=2, gradient=gradient, n_directions=2, absolute=True
        )
        _, info = attack.perturb(x, 2, target=0, seed=0, return_info=True, **arguments)
        assert (info.precision < 1).any()


def test_the_cost_is_what_it_says_and_examples_that_lost_everything_cost_no_more():
    model, x = pair_model(), binary_pairs(20)
    attack = attack_on(model, n_candidates=5, preserve_prediction="none")
    _, info = attack.perturb(x, 3, target=0, return_info=True)
    steps = info.trace[0].isfinite().sum(dim=0) - 1  # flips made until nothing was left
    assert torch.equal(info.n_queries, 1 + (5 + 1) * steps)
    assert (steps == 3).any() and (steps < 3).any()
    assert (info.precision[steps < 3] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions(dtype):
    model = pair_model().to(dtype)
    x = tuple(t.to(dtype) for t in binary_pairs(6))
    moved, info = attack_on(model).perturb(x, 2, target=0, return_info=True)
    assert all(m.dtype == dtype and ((m == 0) | (m == 1)).all() for m in moved)
    assert (info.precision < 1).any()


def test_a_single_graph_and_additional_arguments():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = siamese(N_NODES)

        def forward(self, graphs, scale):
            return scale[:, None] * self.inner.classify(graphs)

    model, x = UndirectedModel(Scaled(), N_NODES), binary(8, M)
    scale = torch.linspace(1, 2, 8).double()
    moved, info = EdgeFlipAttack(Saliency(model), K).perturb(
        x, 2, target=1, additional_forward_args=(scale,), return_info=True, max_examples_per_batch=3
    )
    assert moved.shape == x.shape and (info.precision < 1).any()
    assert torch.equal(model(moved, scale).argmax(dim=1), model(x, scale).argmax(dim=1))


# --- what is left as found, and what is refused --------------------------------------------------


def test_everything_is_left_as_found():
    model = pair_model()
    before = copy.deepcopy(model.state_dict())
    x = leaves(binary_pairs(4))
    values = [t.detach().clone() for t in x]
    state = torch.random.get_rng_state()
    attack_on(model).perturb(x, 2, target=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(t, v) and t.grad is None for t, v in zip(x, values, strict=True))


def test_a_broken_graph_stays_broken_and_alone():
    model, x = pair_model(nn.ReLU), binary_pairs(4)
    spoilt = tuple(t.clone() for t in x)
    spoilt[1][2, 3] = float("nan")
    attack = attack_on(model, smooth_relu=5.0)
    moved, info = attack.perturb(spoilt, 2, target=0, return_info=True)
    whole = attack.perturb(x, 2, target=0)
    assert info.precision.isnan().tolist() == [False, False, True, False]
    assert info.n_flips[2] == 0
    others = [0, 1, 3]
    for m, w in zip(moved, whole, strict=True):
        assert torch.equal(m[others], w[others])


def test_no_gradient_is_no_robustness():
    class Count(nn.Module):
        def forward(self, graphs):
            return (graphs.sum(dim=-1) @ torch.arange(5.0).double()).relu()

    with pytest.warns(ZeroGradientWarning):
        EdgeFlipAttack(Saliency(UndirectedModel(Count(), 5)), K).perturb(binary(4, M) + 0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_candidates": 0}, "n_candidates must be an integer of at least 1, got 0"),
        ({"lower_bound": 0.0}, "lower_bound must not be given"),
        ({"step_rule": "halving"}, "step_rule must not be given"),
        ({"preserve_prediction": "gda"}, "preserve_prediction must be one of ('reject', 'none')"),
        ({"gradient": "newton"}, "gradient must be one of"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        attack_on(pair_model(), **options)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"budget": -1}, "budget must be an integer of at least 0, got -1"),
        ({"budget": 1.5}, "budget must be an integer of at least 0, got 1.5"),
        ({"inputs": (torch.full((2, M), 0.5), torch.zeros(2, M))}, "0 or 1, got 0.5"),
        ({"mask": torch.ones(1, M)}, "mask must have shapes that broadcast to those of the inputs"),
    ],
)
def test_calls_out_of_range_are_refused(changed, message):
    given = {"inputs": binary_pairs(2), "budget": 1, "target": 0, **changed}
    with pytest.raises(ValueError, match=re.escape(message)):
        attack_on(pair_model()).perturb(**given)
