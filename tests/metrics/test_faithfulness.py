"""Faithfulness against its definitions, written out over Python numbers and single examples."""

import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_robust.metrics import comprehensiveness, decision_flip_fraction, sufficiency
from tests.metrics.definitions import many, mean, normal, softplus_conv_net, softplus_net, some

NAN, INF = float("nan"), float("inf")
NET = softplus_net(6)
METRICS = {
    "DFFOT": decision_flip_fraction,
    "COMP": comprehensiveness,
    "SUFF": sufficiency,
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


# --- the definitions ---------------------------------------------------------------------------


def order_of(scores):
    """Groups by decreasing score, the lowest index first at ties."""
    return sorted(range(len(scores)), key=lambda g: (-scores[g], g))


def replaced(x, fill, groups, chosen):
    return [f if g in chosen else v for v, f, g in zip(x, fill, groups, strict=True)]


def prediction(logits):
    if len(logits) == 1:
        return int(logits[0] > 0)
    return max(range(len(logits)), key=lambda c: (logits[c], -c))


def probability(logits, c):
    if len(logits) == 1:
        return 1 / (1 + math.exp(-logits[0] if c else logits[0]))
    return math.exp(logits[c]) / sum(math.exp(z) for z in logits)


def by_definition(name, model, x, scores, ks, fill, groups, c=None):
    """One example: lists of values, of scores of the groups, of fills and of groups."""
    order = order_of(scores)

    def logits_of(values):
        return model(torch.tensor([values], dtype=torch.float64)).flatten().tolist()

    logits = logits_of(x)
    c = prediction(logits) if c is None else c
    flips, changes = [], []
    for k in ks:
        chosen = order[k:] if name == "SUFF" else order[:k]
        there = logits_of(replaced(x, fill, groups, chosen))
        flips.append(k / len(order) if prediction(there) != prediction(logits) else 1.0)
        changes.append(abs(probability(logits, c) - probability(there, c)))
    return min(flips) if name == "DFFOT" else mean(changes)


@many
@given(
    st.sampled_from(list(METRICS)), st.integers(0, 10**6), st.sampled_from([1, 2, 3]),
    st.sampled_from([None, [1], [3, 2, 5], range(2, 4)]), st.booleans(), st.booleans(),
    st.sampled_from([None, 1, 7]),
)  # fmt: skip
def test_metrics_of_random_models(name, seed, n_outputs, ks, grouped, ties, chunk):
    model = nn.Linear(6, n_outputs).double()
    for parameter in model.parameters():
        parameter.data = normal(*parameter.shape, seed=seed)
    inputs, maps, fill = (normal(3, 6, seed=seed + i) for i in range(1, 4))
    if ties:
        maps = maps.round()
        maps[:, 0] = 9  # not constant
    groups = [2, 7, 2, 0, 7, 0] if grouped else range(6)
    ids = sorted(set(groups))
    ks = None if grouped else ks
    found = METRICS[name](
        model, inputs, maps, fill, ks=ks, max_examples_per_batch=chunk,
        feature_mask=torch.tensor([list(groups)]) if grouped else None,
    )  # fmt: skip
    assert found.shape == (3,)
    for row in range(3):
        scores = [sum(maps[row][f].item() for f in range(6) if groups[f] == g) for g in ids]
        expected = by_definition(
            name, model, inputs[row].tolist(), scores,
            range(1, len(ids) + 1) if ks is None else ks, fill[row].tolist(),
            [ids.index(g) for g in groups],
        )  # fmt: skip
        assert found[row].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("target", [None, 0, 2, (1,), [2, 0, 1], torch.tensor([2, 0, 1])], ids=str)
@pytest.mark.parametrize("name", ["COMP", "SUFF"])
def test_every_form_of_target(name, target):
    inputs, maps = normal(3, 6), normal(3, 6, seed=1)
    arguments = {} if target is None else {"target": target}
    classes = {None: [None] * 3, 0: [0] * 3, 2: [2] * 3, (1,): [1] * 3}.get(
        target if not isinstance(target, (list, torch.Tensor)) else "each", [2, 0, 1]
    )
    found = METRICS[name](NET, inputs, maps, max_examples_per_batch=4, **arguments)
    expected = [
        by_definition(name, NET, x, m, range(1, 7), [0.0] * 6, range(6), c)
        for x, m, c in zip(inputs.tolist(), maps.tolist(), classes, strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)


@every_metric
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_a_single_logit_is_a_model_of_two_classes(metric, shape):
    inputs, maps = normal(4, 6), normal(4, 6, seed=1)

    def single(x):
        return NET(x)[:, 0].view(-1, *shape[1:])

    def double(x):
        z = NET(x)[:, 0]
        return torch.stack([-z / 2, z / 2], dim=1)

    found = metric(single, inputs, maps)
    torch.testing.assert_close(found, metric(double, inputs, maps))
    if metric is not decision_flip_fraction:
        for target in (0, torch.tensor([1, 0, 1, 1])):
            torch.testing.assert_close(metric(single, inputs, maps, target=target), found)


# --- closed forms ------------------------------------------------------------------------------


def test_the_fraction_counts_the_features_until_the_flip():
    def count(x):  # positive while more than half are left
        return x.sum(dim=1) - 5.5

    inputs, maps = torch.ones(2, 10), torch.arange(10.0).expand(2, 10)
    assert decision_flip_fraction(count, inputs, maps).tolist() == pytest.approx([0.5, 0.5])
    assert decision_flip_fraction(count, inputs, maps, ks=[9, 7, 8]).tolist() == pytest.approx(
        [0.7, 0.7]
    )
    assert decision_flip_fraction(count, inputs, maps, ks=[0.2, 0.6]).tolist() == pytest.approx(
        [0.6, 0.6]
    )


def test_a_prediction_that_never_changes_is_the_worst():
    inputs, maps = torch.ones(2, 4), torch.arange(4.0).expand(2, 4)
    assert decision_flip_fraction(lambda x: x.sum(dim=1) + 1, inputs, maps).tolist() == [1, 1]
    # That a flip at 3 of 4 was not looked for does not make it one.
    found = decision_flip_fraction(lambda x: x.sum(dim=1) - 1.5, inputs, maps, ks=[1, 2])
    assert found.tolist() == [1, 1]


def test_the_right_order_is_more_faithful_than_the_wrong_one():
    weight = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.0])

    def model(x):
        return x @ weight - 2

    inputs = torch.ones(1, 5)
    right, wrong = weight[None], -weight[None]
    assert decision_flip_fraction(model, inputs, right) < decision_flip_fraction(
        model, inputs, wrong
    )
    assert comprehensiveness(model, inputs, right) > comprehensiveness(model, inputs, wrong)
    assert sufficiency(model, inputs, right) < sufficiency(model, inputs, wrong)
    # By magnitude, the wrong order is the right one.
    for metric in METRICS.values():
        found = metric(model, inputs, wrong, absolute=True)
        torch.testing.assert_close(found, metric(model, inputs, right))


def test_ties_go_to_the_lowest_index():
    def first(x):
        return x[:, 0] - 0.5

    inputs, maps = torch.ones(2, 40), torch.ones(2, 40)
    maps[1, 0], maps[0, 39] = 0, 2
    assert decision_flip_fraction(first, inputs, maps).tolist() == pytest.approx([2 / 40, 1])


@every_metric
def test_the_baseline_itself_changes_nothing(metric):
    inputs, maps = normal(3, 6), normal(3, 6, seed=1)
    found = metric(NET, inputs, maps, inputs)
    expected = 1.0 if metric is decision_flip_fraction else 0.0
    assert found.tolist() == pytest.approx([expected] * 3, abs=1e-12)


# --- what stands for a removed feature ---------------------------------------------------------


@every_metric
def test_forms_of_the_baseline(metric):
    inputs, maps = normal(6, 6), normal(6, 6, seed=1)
    expected = metric(NET, inputs, maps, torch.full((6, 6), 0.7).double())
    for baseline in (0.7, torch.tensor(0.7), torch.full((1, 6), 0.7), torch.full((6,), 0.7)):
        torch.testing.assert_close(metric(NET, inputs, maps, baseline), expected)
        torch.testing.assert_close(metric(NET, inputs, maps, (baseline,)), expected)
    torch.testing.assert_close(metric(NET, inputs, maps), metric(NET, inputs, maps, 0))
    own = normal(6, 6, seed=2)
    rows = [metric(NET, inputs[i : i + 1], maps[i : i + 1], own[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(metric(NET, inputs, maps, own), torch.cat(rows))


@every_metric
def test_tuples_are_ranked_jointly(metric):
    inputs, maps, fill = normal(4, 6), normal(4, 6, seed=1), normal(4, 6, seed=2)
    expected = metric(NET, inputs, maps, fill)

    def split(a, b, shift):
        return NET(torch.cat([a, b.flatten(1)], dim=1) - shift[:, None])

    def parts(t):
        return t[:, :2], t[:, 2:].reshape(4, 2, 2)

    shift = torch.arange(4).double()
    for size in (None, 1, 5):
        found = metric(
            split, parts(inputs + shift[:, None]), parts(maps), parts(fill + shift[:, None]),
            (shift,), max_examples_per_batch=size,
        )  # fmt: skip
        torch.testing.assert_close(found, expected)


@every_metric
def test_groups_across_the_inputs_of_a_tuple_go_together(metric):
    inputs, maps = normal(4, 6), normal(4, 6, seed=1)
    groups = torch.tensor([[0, 1, 1, 0, 2, 2]])
    expected = metric(NET, inputs, maps, feature_mask=groups)
    found = metric(
        lambda a, b: NET(torch.cat([a, b], dim=1)), (inputs[:, :2], inputs[:, 2:]),
        (maps[:, :2], maps[:, 2:]), feature_mask=(groups[:, :2], groups[:, 2:]),
    )  # fmt: skip
    torch.testing.assert_close(found, expected)


@every_metric
def test_masks_of_each_example(metric):
    inputs, maps = normal(5, 6), normal(5, 6, seed=1)
    masks = torch.stack([torch.arange(6).roll(i) // 2 for i in range(5)])
    alone = [
        metric(NET, inputs[i : i + 1], maps[i : i + 1], feature_mask=masks[i : i + 1])
        for i in range(5)
    ]
    found = metric(NET, inputs, maps, feature_mask=masks, max_examples_per_batch=4)
    torch.testing.assert_close(found, torch.cat(alone))


@every_metric
def test_features_that_are_not_ranked_are_never_removed(metric):
    inputs, maps = normal(4, 6), normal(4, 6, seed=1)
    fixed = inputs[:, [1, 4]]

    def rest(points, fixed):
        return NET(
            torch.stack(
                [*points.T[:1], fixed[:, 0], *points.T[1:3], fixed[:, 1], points.T[3]], dim=1
            )
        )

    ranked = [0, 2, 3, 5]
    expected = metric(rest, inputs[:, ranked], maps[:, ranked], additional_forward_args=(fixed,))
    found = metric(NET, inputs, maps, feature_mask=torch.tensor([[0, -1, 1, 2, -1, 3]]))
    torch.testing.assert_close(found, expected)


@every_metric
def test_all_channels_of_a_pixel_are_removed_as_one(metric):
    net, inputs, maps = softplus_conv_net(), normal(2, 2, 4, 4), normal(2, 2, 4, 4, seed=1)
    found = metric(net, inputs, maps, feature_mask=torch.arange(16).view(1, 1, 4, 4), ks=[3])
    pixels = maps.sum(dim=1).flatten(1)
    for row in range(2):
        expected = by_definition(
            {v: n for n, v in METRICS.items()}[metric], lambda v: net(v.view(1, 2, 4, 4)),
            inputs[row].flatten().tolist(), pixels[row].tolist(), [3], [0.0] * 32,
            list(range(16)) * 2,
        )  # fmt: skip
        assert found[row].item() == pytest.approx(expected, abs=1e-12)


@every_metric
def test_integer_inputs_keep_their_type(metric):
    embedding = nn.Embedding(9, 3, dtype=torch.float64)
    embedding.weight.data = normal(9, 3)

    def model(tokens):
        assert tokens.dtype == torch.int64
        return embedding(tokens).mean(dim=1)

    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    maps = normal(2, 4)
    found = metric(model, tokens, maps, baselines=0)
    name = {v: n for n, v in METRICS.items()}[metric]
    for row in range(2):
        expected = by_definition(
            name, lambda v: model(v.long()), tokens[row].tolist(), maps[row].tolist(), range(1, 5),
            [0] * 4, range(4),
        )  # fmt: skip
        assert found[row].item() == pytest.approx(expected, abs=1e-12)


# --- the numbers of features -------------------------------------------------------------------


@every_metric
def test_shares_are_rounded_counts(metric):
    inputs, maps = normal(3, 6), normal(3, 6, seed=1)
    for shares, counts in [
        ([0.5, 1.0], [3, 6]), ([0.01], [1]), ([0.01, 0.05], [1, 1]), ([0.25], [2]), ([0.2], [1]),
        ((1, 1.0), (1, 6)),
    ]:  # fmt: skip
        expected = metric(NET, inputs, maps, ks=counts)
        torch.testing.assert_close(metric(NET, inputs, maps, ks=shares), expected)
    torch.testing.assert_close(metric(NET, inputs, maps), metric(NET, inputs, maps, ks=range(1, 7)))


def test_means_weigh_every_k_as_often_as_it_is_given():
    inputs, maps = normal(3, 6), normal(3, 6, seed=1)
    one, two = (comprehensiveness(NET, inputs, maps, ks=[k]) for k in (1, 2))
    found = comprehensiveness(NET, inputs, maps, ks=[1, 1, 2])
    torch.testing.assert_close(found, (2 * one + two) / 3)


def test_the_model_is_called_in_chunks():
    sizes = []

    def model(x):
        sizes.append(len(x))
        return NET(x)

    comprehensiveness(model, normal(3, 6), normal(3, 6), ks=[1, 2, 3], max_examples_per_batch=4)
    assert sizes == [3, 4, 4, 1]
    sizes.clear()
    comprehensiveness(model, normal(100, 6), normal(100, 6))
    assert sizes == [100, 256, 256, 88]


@some
@given(st.sampled_from(list(METRICS)), st.integers(1, 40))
def test_chunks_and_order_change_nothing(name, size):
    inputs, maps, shift = normal(5, 6), normal(5, 6, seed=1), torch.arange(5).double()

    def model(x, shift):
        return NET(x) + shift[:, None] * x[:, :3]

    whole = METRICS[name](model, inputs, maps, 0.3, shift)
    found = METRICS[name](model, inputs, maps, 0.3, shift, max_examples_per_batch=size)
    torch.testing.assert_close(found, whole, rtol=1e-9, atol=1e-12)
    order = [3, 1, 4, 0, 2]
    found = METRICS[name](model, inputs[order], maps[order], 0.3, shift[order])
    torch.testing.assert_close(found, whole[order], rtol=1e-9, atol=1e-12)


# --- broken input ------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize("broken", [[0.5, NAN, 1.0, 2.0], [0.5, INF, 1.0, 2.0], [0.3] * 4])
def test_a_broken_map_gives_one_nan(metric, broken):
    net, inputs, maps = softplus_net(4), normal(3, 4), normal(3, 4, seed=1)
    whole = metric(net, inputs, maps)
    assert whole.isfinite().all()
    maps[1] = torch.tensor(broken)
    found = metric(net, inputs, maps)
    assert found.isnan().tolist() == [False, True, False]
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


@every_metric
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_broken_input_gives_one_nan(metric, value):
    inputs = normal(3, 6)
    inputs[1, 2] = value

    def model(x):  # finite in any case
        return NET(x.nan_to_num(0, 0, 0))

    found = metric(model, inputs, normal(3, 6, seed=1))
    assert found.isnan().tolist() == [False, True, False]


@every_metric
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_broken_output_gives_one_nan(metric, value):
    inputs = normal(3, 6)
    inputs[1, 0] = 50
    for spoilt in (lambda x: x[:, 0] == 50, lambda x: (x[:, 3] == 0) & (x[:, 1] == inputs[1, 1])):

        def model(x, spoilt=spoilt):
            return torch.where(spoilt(x)[:, None], value, NET(x))

        maps = torch.tensor([[0.0, 1.0, 2.0, 9.0, 4.0, 3.0]]).expand(3, 6)
        if metric is sufficiency:
            maps = -maps
        found = metric(model, inputs, maps)
        assert found.isnan().tolist() == [False, True, False]


@every_metric
def test_an_output_that_breaks_at_the_example_itself_gives_one_nan(metric):
    inputs = normal(3, 6)

    def model(x):
        return torch.where((x == inputs[1]).all(dim=1)[:, None], NAN, NET(x))

    found = metric(model, inputs, normal(3, 6, seed=1), ks=[1])
    assert found.isnan().tolist() == [False, True, False]


# --- what is left ------------------------------------------------------------------------------


@every_metric
def test_nothing_is_left_behind(metric):
    net = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2)
    ).double()
    inputs, maps = normal(6, 6).requires_grad_(), normal(6, 6, seed=1).requires_grad_()
    before = inputs.detach().clone(), maps.detach().clone()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random_states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    first = metric(net, inputs, maps)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name])
    assert all(p.grad is None for p in net.parameters()) and net.training
    assert torch.equal(inputs, before[0]) and torch.equal(maps, before[1])
    assert inputs.grad is None and not first.requires_grad and torch.is_grad_enabled()
    assert torch.equal(random_states[0], torch.get_rng_state())
    assert random_states[1:] == (str(np.random.get_state()), random.getstate())  # noqa: NPY002
    assert torch.equal(metric(net, inputs, maps), first)


def test_all_calls_see_the_same_dropout_masks():
    net = nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 2)).double()
    inputs, maps = normal(3, 6), normal(3, 6, seed=1)
    assert comprehensiveness(net, inputs, maps, inputs, ks=[1]).tolist() == [0.0] * 3


@every_metric
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_lower_precision_gives_single_precision(metric, dtype):
    inputs, maps = normal(3, 6).to(dtype), normal(3, 6, seed=1).to(dtype)
    found = metric(softplus_net(6).to(dtype), inputs, maps)
    assert found.dtype == torch.float32
    expected = metric(softplus_net(6).to(dtype).double(), inputs.double(), maps.double())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.02)


# --- refusals ----------------------------------------------------------------------------------


@every_metric
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": normal(0, 6)}, "inputs must hold at least one example, got none"),
        ({"inputs": [normal(3, 6)]}, "inputs must be a Tensor or a tuple of Tensors, got list"),
        (
            {"attributions": normal(3, 5)},
            r"attributions must have the shapes of inputs \[\(3, 6\)\], got \[\(3, 5\)\]",
        ),
        ({"attributions": (normal(3, 6),) * 2}, "attributions must have the shapes of inputs"),
        ({"attributions": None}, "attributions must be a Tensor or a tuple of Tensors"),
        ({"ks": [0]}, r"ks must hold integers in 1 … 6, .* or floats in \(0, 1\]; got \[0\]"),
        ({"ks": [7]}, r"ks must hold integers .* got \[7\]"),
        ({"ks": [1, -0.5]}, r"ks must hold integers .* got \[1, -0.5\]"),
        ({"ks": [1.5]}, r"ks must hold integers .* got \[1.5\]"),
        ({"ks": [True]}, r"ks must hold integers .* got \[True\]"),
        ({"ks": [NAN]}, r"ks must hold integers .* got \[nan\]"),
        ({"ks": []}, r"ks must hold integers .* got \[\]"),
        ({"ks": 3}, "ks must hold integers .* got 3"),
        ({"ks": "123"}, "ks must hold integers .* got '123'"),
        (
            {"baselines": torch.zeros(2, 6)},
            r"baselines must broadcast to the inputs \(3, 6\), got \(2, 6\)",
        ),
        ({"baselines": (0, 0)}, r"baselines must hold one per input \(1\), got 2"),
        (
            {"max_examples_per_batch": 0},
            "max_examples_per_batch must be an integer .* got 0",
        ),
        (
            {"forward_func": lambda x: x.sum()},
            r"the output of forward_func must have shape \(N, C\), \(N, 1\) or \(N,\) with N = 3",
        ),
        (
            {"forward_func": lambda x: x[:2]},
            r"the output of forward_func must have shape .* got \(2, 6\)",
        ),
        (
            {"forward_func": lambda x: x[:, None]},
            r"the output of forward_func must have shape .* got \(3, 1, 6\)",
        ),
        ({"feature_mask": torch.zeros(2, 3).long()}, r"feature_mask\[0\] must be broadcastable"),
    ],
)
def test_other_values_are_refused(metric, arguments, message):
    given = {"forward_func": NET, "inputs": normal(3, 6), "attributions": normal(3, 6, seed=1)}
    with pytest.raises(ValueError, match=message):
        metric(**{**given, **arguments})


@pytest.mark.parametrize("metric", [comprehensiveness, sufficiency])
@pytest.mark.parametrize("target", [3, -4, [0, 1], torch.tensor([0, 5, 1]), (0, 0), "cat"], ids=str)
def test_other_targets_are_refused(metric, target):
    with pytest.raises(ValueError, match=r"target must select one output per example .* \(3, 3\)"):
        metric(NET, normal(3, 6), normal(3, 6, seed=1), target=target)
