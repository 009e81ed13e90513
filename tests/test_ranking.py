"""Every function of captum_robust.ranking beside its definition, written out in plain Python.

The scores of the property tests are multiples of 1/8, mostly tied, so that sums in any order are
exact in float64 and results can be compared with ``==``.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from captum_robust.ranking import (
    check_k,
    flatten_attributions,
    gap_sum,
    invalid_rows,
    log_exp_gap_sum,
    min_gap,
    non_finite_rows,
    ranking,
    tied_rows,
    top_k_indices,
    top_k_mask,
    win_counts,
)

many = settings(max_examples=150, deadline=None, derandomize=True)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PAIRS = ["all", "anchor", "mm"]
LONG = 3000  # above the number of features from which win_counts discards instead of sorting


# --- the definitions ---------------------------------------------------------------------------


def by_rank(row):
    """Features by decreasing score, lowest index first at ties."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


def pairs_by_definition(reference_row, k, pairs, k_prime):
    """The pairs (i, j) of arXiv 2212.14106: i above the boundary of the top-k, j below it."""
    order, n = by_rank(reference_row), len(reference_row)
    if pairs == "all":
        return [(i, j) for i in order[:k] for j in order[k:]]
    if pairs == "anchor":
        upper = [(order[q], order[k - 1]) for q in range(k - k_prime, k - 1)]
        return upper + [(order[k - 1], order[q]) for q in range(k, min(k + k_prime, n))]
    return [(order[k - 1 - q], order[k + q]) for q in range(k_prime) if k + q < n]


def gap_sum_by_definition(row, reference_row, k, pairs, k_prime):
    chosen = pairs_by_definition(reference_row, k, pairs, k_prime)
    return float(sum(Fraction(row[i]) - Fraction(row[j]) for i, j in chosen))


def log_exp_gap_sum_by_definition(row, reference_row, k, pairs, k_prime):
    chosen = pairs_by_definition(reference_row, k, pairs, k_prime)
    exponents = [row[j] - row[i] for i, j in chosen]
    largest = max(exponents)
    return largest + math.log(math.fsum(math.exp(e - largest) for e in exponents))


def wins_by_definition(row, top):
    rest = [j for j in range(len(row)) if j not in set(top)]
    return sum(row[i] >= row[j] for i in top for j in rest)


def groups_by_definition(maps, masks, absolute):
    """Sum of each group of each example in the order of their ids, without negative ones.

    The masks have full shape.
    """
    rows = []
    for example in range(len(maps[0])):
        sums: dict[int, Fraction] = {}
        for one_map, mask in zip(maps, masks, strict=True):
            values, ids = one_map[example].flatten().tolist(), mask[example].flatten().tolist()
            for value, group in zip(values, ids, strict=True):
                value = abs(Fraction(value)) if absolute else Fraction(value)
                sums[group] = sums.get(group, Fraction(0)) + value
        rows.append([float(sums[group]) for group in sorted(sums) if group >= 0])
    return rows


# --- what they are compared on -----------------------------------------------------------------


@st.composite
def eighths(draw, shape):
    whole = draw(arrays(np.int64, shape, elements=st.integers(-12, 12)))
    return torch.from_numpy(whole / 8)


@st.composite
def scores_and_k(draw):
    n = draw(st.integers(2, 12))
    scores = draw(eighths((draw(st.integers(0, 3)), n)))
    return in_some_layout(draw, scores), draw(st.integers(1, n - 1))


@st.composite
def scores_reference_and_k(draw):
    scores, k = draw(scores_and_k())
    return scores, draw(eighths(tuple(scores.shape))), k


def in_some_layout(draw, scores):
    layout = draw(st.sampled_from(["contiguous", "transposed", "every second", "expanded"]))
    if layout == "transposed":
        return scores.T.contiguous().T
    if layout == "every second":
        return torch.stack([scores, scores + 1], dim=2)[:, :, 0]
    if layout == "expanded" and len(scores):
        return scores[:1].expand(len(scores), -1)
    return scores


def relu_scores(n_examples=3, n=LONG, dtype=torch.float32):
    """More than half of them zeros, and many ties among the others."""
    noise = torch.randn(n_examples, n, generator=torch.Generator().manual_seed(0))
    return (noise.clamp(min=0) * 16).round().div(16).to(dtype)


def distinct_scores(n_examples=2, n=7):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n_examples, n, dtype=torch.float64, generator=generator)


# --- the order of features ---------------------------------------------------------------------


@many
@given(scores_and_k())
def test_ranking_is_the_stable_sort_by_decreasing_score(case):
    scores, k = case
    expected = [by_rank(row)[:k] for row in scores.tolist()]
    assert ranking(scores, k).tolist() == expected
    assert expected == np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :k].tolist()


@many
@given(scores_and_k())
def test_ranking_of_all_features_is_a_permutation(case):
    scores, _ = case
    assert ranking(scores, scores.shape[1]).tolist() == [by_rank(row) for row in scores.tolist()]


@many
@given(scores_and_k())
def test_top_k_are_the_k_first_of_the_ranking_lowest_index_first_at_ties(case):
    scores, k = case
    expected = [sorted(by_rank(row)[:k]) for row in scores.tolist()]
    assert top_k_indices(scores, k).tolist() == expected
    mask = top_k_mask(scores, k)
    assert mask.shape == scores.shape and mask.dtype == torch.bool
    assert [[i for i, on in enumerate(row) if on] for row in mask.tolist()] == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 50, 1400, 1600, LONG - 1])
def test_top_k_of_many_features_with_most_of_them_zero(dtype, k):
    scores = relu_scores(dtype=dtype)
    expected = [by_rank(row)[:k] for row in scores.tolist()]
    assert ranking(scores, k).tolist() == expected
    assert top_k_indices(scores, k).tolist() == [sorted(row) for row in expected]


def test_infinite_scores_rank_first_and_last():
    scores = torch.tensor([[0.0, float("inf"), float("-inf"), float("inf"), 1.0]])
    assert ranking(scores, 5).tolist() == [[1, 3, 4, 0, 2]]
    assert top_k_indices(scores, 1).tolist() == [[1]]


def test_negative_zero_ties_with_zero():
    scores = torch.tensor([[-0.0, 0.0, -0.0, 0.0]])
    assert ranking(scores, 4).tolist() == [[0, 1, 2, 3]]
    assert win_counts(scores, torch.tensor([[0, 2]])).tolist() == [4]


def test_the_worked_example_of_the_paper():
    # arXiv 2212.14106: (savings, income, education, spouse, race, age) at x, x' and x''
    at_x, near, far = top_k_indices(
        torch.tensor(
            [
                [1.2, 0.8, 0.7, 0.4, 0.1, 0.2],
                [2.5, 1.2, 1.0, 0.6, 0.2, 0.4],
                [1.2, 0.1, 0.7, 1.2, 0.1, 0.2],
            ]
        ),
        k=3,
    ).tolist()
    assert len({*at_x} & {*near}) / 3 == 1
    assert round(100 * len({*at_x} & {*far}) / 3) == 67


# --- gaps --------------------------------------------------------------------------------------


@many
@given(scores_reference_and_k())
def test_min_gap_is_the_smallest_gap_of_a_top_and_a_lower_feature(case):
    scores, reference, k = case
    expected = [
        min(row[i] - row[j] for i, j in pairs_by_definition(other, k, "all", k))
        for row, other in zip(scores.tolist(), reference.tolist(), strict=True)
    ]
    assert min_gap(scores, top_k_indices(reference, k)).tolist() == expected


@many
@given(scores_reference_and_k(), st.sampled_from(PAIRS), st.data())
def test_gap_sum_is_the_sum_over_the_pairs_ranked_by_the_reference(case, pairs, data):
    scores, reference, k = case
    k_prime = data.draw(st.none() | st.integers(1, k))
    expected = [
        gap_sum_by_definition(row, other, k, pairs, k if k_prime is None else k_prime)
        for row, other in zip(scores.tolist(), reference.tolist(), strict=True)
    ]
    assert gap_sum(scores, reference, k, pairs, k_prime).tolist() == expected


@many
@given(scores_reference_and_k(), st.sampled_from(PAIRS), st.data())
def test_log_exp_gap_sum_is_the_logarithm_of_the_sum_over_the_pairs(case, pairs, data):
    scores, reference, k = case
    k_prime = data.draw(st.none() | st.integers(1, k))
    expected = [
        log_exp_gap_sum_by_definition(row, other, k, pairs, k if k_prime is None else k_prime)
        for row, other in zip(scores.tolist(), reference.tolist(), strict=True)
    ]
    found = log_exp_gap_sum(scores, reference, k, pairs, k_prime).tolist()
    assert found == pytest.approx(expected, rel=1e-13, abs=1e-13)


@many
@given(scores_and_k(), st.data())
def test_linear_anchor_and_mm_are_the_same_telescoped_sum(case, data):
    scores, k = case
    k_prime = data.draw(st.integers(1, min(k, scores.shape[1] - k)))
    telescoped = []
    for row in scores.tolist():
        order = by_rank(row)
        last_of_top, first_of_rest = order[k - k_prime : k], order[k : k + k_prime]
        telescoped.append(sum(row[i] for i in last_of_top) - sum(row[j] for j in first_of_rest))
    assert gap_sum(scores, scores, k, "anchor", k_prime).tolist() == telescoped
    assert gap_sum(scores, scores, k, "mm", k_prime).tolist() == telescoped


@many
@given(scores_and_k())
def test_the_first_mm_pair_has_the_smallest_gap_of_all(case):
    scores, k = case
    smallest = min_gap(scores, top_k_indices(scores, k))
    assert torch.equal(gap_sum(scores, scores, k, "mm", k_prime=1), smallest)


def test_exponential_anchor_and_mm_differ():
    scores = torch.tensor([[5.0, 3.0, 2.0, 1.0]])
    found = [log_exp_gap_sum(scores, scores, 2, pairs).exp().item() for pairs in ("anchor", "mm")]
    anchor = math.exp(-2) + math.exp(-1) + math.exp(-2)  # 5-3, 3-2, 3-1
    mm = math.exp(-1) + math.exp(-4)  # 3-2, 5-1
    assert found == pytest.approx([anchor, mm], rel=1e-6)


@pytest.mark.parametrize("pairs", PAIRS)
def test_log_exp_gap_sum_does_not_overflow(pairs):
    scores = torch.tensor([[1e4, 9e3, -1e4, -9e3, 0.0]], dtype=torch.float64)
    for ranked_by in (scores, -scores):
        expected = log_exp_gap_sum_by_definition(
            scores[0].tolist(), ranked_by[0].tolist(), 2, pairs, 2
        )
        found = log_exp_gap_sum(scores, ranked_by, 2, pairs).item()
        assert found == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("pairs", PAIRS)
def test_sums_of_half_precision_scores_are_those_of_their_values_in_float32(dtype, pairs):
    scores, k = relu_scores(dtype=dtype) + 8, 100  # n·Σtop is far above the largest float16
    for function in (gap_sum, log_exp_gap_sum):
        found = function(scores, scores, k, pairs)
        assert found.dtype == torch.float32 and torch.isfinite(found).all()
        assert torch.equal(found, function(scores.float(), scores.float(), k, pairs))


@pytest.mark.parametrize("function", [gap_sum, log_exp_gap_sum])
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("ranked_by", ["the scores", "others"])
def test_gradients_of_pair_sums(function, pairs, ranked_by):
    scores = distinct_scores().requires_grad_()
    others = distinct_scores().flip(1)
    for k, k_prime in ((1, 1), (3, 2), (3, 3), (5, 5), (6, 4)):
        assert torch.autograd.gradcheck(
            lambda s, k=k, k_prime=k_prime: function(
                s, s if ranked_by == "the scores" else others, k, pairs, k_prime
            ),
            scores,
        )


def test_gradient_of_min_gap():
    scores, top = distinct_scores().requires_grad_(), torch.tensor([[0, 4], [1, 2]])
    assert torch.autograd.gradcheck(lambda s: min_gap(s, top), scores)


@pytest.mark.parametrize("function", [gap_sum, log_exp_gap_sum])
@pytest.mark.parametrize("pairs", ["anchor", "mm"])
@pytest.mark.parametrize("k_prime", [0, 3, -1])
def test_k_prime_outside_one_to_k_is_refused(function, pairs, k_prime):
    scores = distinct_scores()
    with pytest.raises(ValueError, match=rf"k_prime .* k = 2, got {k_prime}"):
        function(scores, scores, 2, pairs, k_prime)


@pytest.mark.parametrize("function", [gap_sum, log_exp_gap_sum])
def test_unknown_pairs_are_refused(function):
    with pytest.raises(ValueError, match=r"pairs .*anchor.*mm.*all.* got 'min'"):
        function(distinct_scores(), distinct_scores(), 2, "min")


# --- win counts --------------------------------------------------------------------------------


@many
@given(scores_and_k(), st.sampled_from(DTYPES), st.randoms(use_true_random=False))
def test_win_counts_are_the_pairs_in_which_a_top_feature_is_not_smaller(case, dtype, random):
    scores, k = case
    scores = scores.to(dtype)
    tops = [random.sample(range(scores.shape[1]), k) for _ in scores]
    expected = [wins_by_definition(r, t) for r, t in zip(scores.tolist(), tops, strict=True)]
    found = win_counts(scores, torch.tensor(tops, dtype=torch.int64).view(-1, k))
    assert found.dtype == torch.int64 and found.tolist() == expected


@many
@given(
    arrays(np.float64, (2, 5), elements=st.floats(allow_nan=False, allow_infinity=False)).map(
        torch.from_numpy
    ),
    st.sampled_from([torch.float64, torch.float32]),
    st.permutations(range(5)),
    st.integers(1, 4),
)
def test_win_counts_of_any_finite_scores(scores, dtype, order, k):
    # beyond the range of the dtype: its largest number
    scores = scores.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max).to(dtype)
    expected = [wins_by_definition(row, order[:k]) for row in scores.tolist()]
    assert win_counts(scores, torch.tensor([order[:k]] * 2)).tolist() == expected


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [2047, 2048, LONG])  # both sides of the threshold
@pytest.mark.parametrize("k", [1, 40])
@pytest.mark.parametrize("layout", ["contiguous", "transposed"])
def test_win_counts_of_many_features_with_ties(dtype, n, k, layout):
    scores = relu_scores(n=n, dtype=dtype)
    top = top_k_indices(scores.roll(1, dims=1), k)  # of other scores: half of them are zero here
    if layout == "transposed":
        scores = scores.T.contiguous().T
    expected = [
        wins_by_definition(r, t) for r, t in zip(scores.tolist(), top.tolist(), strict=True)
    ]
    assert win_counts(scores, top).tolist() == expected


@pytest.mark.parametrize("n", [5, LONG])
@pytest.mark.parametrize("k", [1, 4])
def test_the_top_k_of_the_scores_win_every_pair(n, k):
    scores = relu_scores(n=n)
    assert win_counts(scores, top_k_indices(scores, k)).tolist() == [k * (n - k)] * len(scores)


@pytest.mark.parametrize("n", [5, LONG])
def test_no_examples_no_counts(n):
    scores = torch.zeros(0, n)
    assert win_counts(scores, top_k_indices(scores, 2)).shape == (0,)


@pytest.mark.parametrize("n", [6, LONG])
def test_nothing_is_written_to_the_scores(n):
    scores = relu_scores(n=n).requires_grad_()
    before, top = scores.detach().clone(), top_k_indices(scores, 3)
    for result in (
        win_counts(scores, top),
        ranking(scores, 3),
        top_k_mask(scores, 3),
        min_gap(scores, top),
        log_exp_gap_sum(scores, scores, 3),
    ):
        assert result.shape[0] == len(scores)
    assert torch.equal(scores.detach(), before)


# --- attributions to scores --------------------------------------------------------------------

SHAPES = ((2, 3), (4,), ())  # of one example: a matrix, a vector, a number


@st.composite
def maps_of_one_batch(draw):
    n_examples = draw(st.integers(0, 3))
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    return tuple(draw(eighths((n_examples, *shape))) for shape in shapes)


@many
@given(maps_of_one_batch(), st.booleans())
def test_features_of_all_tensors_are_laid_side_by_side(maps, absolute):
    expected = [
        [abs(v) if absolute else v for m in maps for v in m[example].flatten().tolist()]
        for example in range(len(maps[0]))
    ]
    scores = flatten_attributions(maps, absolute=absolute)
    assert scores.shape == (len(maps[0]), sum(math.prod(m.shape[1:]) for m in maps))
    assert scores.tolist() == expected


@many
@given(maps_of_one_batch(), st.booleans(), st.booleans(), st.data())
def test_groups_are_summed_over_all_tensors_and_ordered_by_id(maps, absolute, per_example, data):
    n_examples = len(maps[0])
    sizes = [math.prod(m.shape[1:]) for m in maps]
    ids = data.draw(
        st.lists(st.sampled_from([-2, -1, 0, 3, 7, 40]), min_size=sum(sizes), max_size=sum(sizes))
    )
    n_rows = n_examples if per_example and n_examples else 1
    rows = [ids] + [data.draw(st.permutations(ids)) for _ in range(n_rows - 1)]
    masks = tuple(
        part.reshape(n_rows, *m.shape[1:])
        for part, m in zip(torch.tensor(rows).split(sizes, dim=1), maps, strict=True)
    )
    whole = tuple(mask.expand(m.shape) for mask, m in zip(masks, maps, strict=True))
    scores = flatten_attributions(maps, masks, absolute)
    assert scores.shape == (n_examples, len({i for i in ids if i >= 0}))
    assert scores.tolist() == groups_by_definition(maps, whole, absolute)


def test_a_mask_of_one_channel_sums_the_channels():
    maps = distinct_scores(2, 24).view(2, 3, 2, 4)
    pixels = torch.arange(8).view(1, 1, 2, 4)
    for mask in (pixels, pixels[0], pixels[0, 0], pixels.expand(2, 1, 2, 4)):
        scores = flatten_attributions(maps, mask)
        torch.testing.assert_close(scores, maps.sum(dim=1).flatten(1), rtol=1e-14, atol=1e-14)


def test_magnitudes_are_taken_before_groups_are_summed():
    maps, mask = torch.tensor([[1.0, -1.0, -3.0]]), torch.tensor([[0, 0, 1]])
    assert flatten_attributions(maps, mask).tolist() == [[0, -3]]
    assert flatten_attributions(maps, mask, absolute=True).tolist() == [[2, 3]]


def test_a_number_as_mask_makes_one_group():
    assert flatten_attributions(torch.ones(2, 3), torch.tensor(5)).tolist() == [[3], [3]]


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_features_of_negative_ids_are_not_ranked(dtype):
    maps = torch.tensor([[1.0, 2.0, 4.0, math.nan], [5.0, 6.0, 7.0, 8.0]])
    mask = torch.tensor([[3, 0, 3, -1], [-2, 3, 0, -1]], dtype=dtype)
    assert flatten_attributions(maps, mask).tolist() == [[2, 5], [7, 6]]
    pair = (maps[:, :2], maps[:, 2:])
    assert flatten_attributions(pair, (mask[:, :2], mask[:, 2:])).tolist() == [[2, 5], [7, 6]]
    # No example needs such a feature.
    assert flatten_attributions(maps, torch.tensor([[0, 1, 2, -1], [0, 1, 2, 2]])).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_groups_of_half_precision_maps_are_summed_in_float32(dtype):
    maps = torch.full((1, 30_000), 3.0, dtype=dtype)  # 90,000: above the largest float16
    maps[0, 0] = 4
    scores = flatten_attributions(maps, torch.zeros(1, 30_000, dtype=torch.int64))
    assert scores.dtype == torch.float32 and scores.tolist() == [[90_001]]
    assert flatten_attributions(maps).dtype == dtype


def test_groups_are_numbered_in_the_order_of_the_ids_of_their_example():
    maps = torch.tensor([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]])
    scores = flatten_attributions(maps, torch.tensor([[0, 0, 1], [7, 3, 7]]))
    assert scores.tolist() == [[3.0, 4.0], [2.0, 5.0]]


def test_gradient_of_grouped_magnitudes():
    maps = distinct_scores().view(2, 7).requires_grad_()
    mask = torch.tensor([[0, 4, 4, 2, 0, 2, 9]])
    assert torch.autograd.gradcheck(lambda m: flatten_attributions(m, mask, True), maps)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 4), r"feature_mask\[0\] .*\(2, 3\), got \(1, 4\)"),
        (torch.zeros(3, 3), r"feature_mask\[0\] .*\(2, 3\), got \(3, 3\)"),
        (torch.zeros(1, 1, 3), r"feature_mask\[0\] .*\(2, 3\), got \(1, 1, 3\)"),
        (
            (torch.zeros(1, 3), torch.zeros(1, 3)),
            r"feature_mask .*one mask per tensor \(1\), got 2",
        ),
        (torch.tensor([[0, 1, 2], [0, 1, 1]]), "feature_mask .*same number of groups .*got 2 to 3"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        flatten_attributions(torch.zeros(2, 3), mask)


def test_the_mask_that_does_not_fit_is_named_by_its_number():
    maps = (torch.zeros(2, 3), torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"feature_mask\[1\] .*\(2, 5\), got \(1, 3\)"):
        flatten_attributions(maps, (torch.zeros(1, 3), torch.zeros(1, 3)))


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ([torch.zeros(2, 3)], "attributions must be a Tensor or a tuple of Tensors, got list"),
        ((torch.zeros(2, 3), 1.0), "attributions must be a Tensor or a tuple of Tensors"),
        ((), "attributions must hold tensors"),
        (torch.tensor(1.0), "attributions must hold tensors whose first dimension"),
        ((torch.zeros(2, 3), torch.zeros(3, 3)), r"attributions .*number of examples.* \[2, 3\]"),
    ],
)
def test_maps_without_examples_in_common_are_refused(maps, message):
    with pytest.raises(ValueError, match=message):
        flatten_attributions(maps)


# --- validity ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_invalid_rows_hold_a_non_finite_score_or_equal_scores(dtype):
    nan, inf = float("nan"), float("inf")
    rows = {
        (0.0, 1.0, 2.0): False,
        (1.0, 1.0, 1.5): False,
        (-1.0, -2.0, 0.0): False,
        (nan, 1.0, 2.0): True,
        (0.0, 1.0, nan): True,
        (nan, nan, nan): True,
        (0.0, inf, 1.0): True,
        (0.0, -inf, 1.0): True,
        (inf, -inf, nan): True,
        (inf, inf, inf): True,
        (-0.0, 0.0, -0.0): True,
        (2.5, 2.5, 2.5): True,
    }
    scores = torch.tensor(list(rows)).to(dtype)
    assert invalid_rows(scores).tolist() == list(rows.values())
    assert [bool(invalid_rows(row[None])) for row in scores] == list(rows.values())
    assert invalid_rows(scores[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_finite_scores_whose_sum_is_not_are_valid(dtype):
    largest = torch.finfo(dtype).max
    scores = torch.tensor([[largest, largest, 0.0], [1.0, 2.0, 1.0]], dtype=dtype)
    assert invalid_rows(scores).tolist() == [False, False]
    assert non_finite_rows((scores,)).tolist() == [False, False]
    scores[1, 2] = float("nan")
    assert invalid_rows(scores).tolist() == non_finite_rows((scores,)).tolist() == [False, True]


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64, torch.bool])
def test_non_finite_rows_of_several_tensors(dtype):
    image, row = torch.ones(3, 2, 2), torch.arange(6).view(3, 2).to(dtype)
    assert non_finite_rows((image, row)).tolist() == [False] * 3
    image[1, 0, 1] = float("inf")
    assert non_finite_rows((image, row)).tolist() == [False, True, False]
    if dtype.is_floating_point:
        row[2] = torch.tensor([float("inf"), -float("inf")])
        assert non_finite_rows((image, row)).tolist() == [False, True, True]


@pytest.mark.parametrize("k", [0, -1, 5, 6, 2.0, True, None, "2"])
def test_a_bad_k_is_named_with_its_value_and_its_range(k):
    with pytest.raises(ValueError, match=rf"^k must .*1 <= k < 5.* got {k!r}$"):
        check_k(k, 5)


def test_every_k_below_the_number_of_features_is_taken():
    assert [check_k(k, 5) for k in (1, 2, 3, 4)] == [None] * 4


def test_rows_are_ranked_independently():
    scores = relu_scores(5, 40)
    alone = [top_k_indices(row[None], 9) for row in scores]
    assert torch.equal(top_k_indices(scores, 9), torch.cat(alone))
    assert torch.equal(
        gap_sum(scores, scores, 9, "mm"),
        torch.cat([gap_sum(r[None], r[None], 9, "mm") for r in scores]),
    )


def test_tied_rows_have_no_unique_top_k():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (200, 6), generator=generator).double()
    for k in range(1, 6):
        for row, tied in zip(scores, tied_rows(scores, k).tolist(), strict=True):
            ordered = sorted(row.tolist(), reverse=True)
            assert tied == (ordered[k - 1] == ordered[k] and len(set(ordered)) > 1)
    broken = torch.tensor([[1.0, 1, 1], [math.nan, 0, 0], [math.inf, 1, 1]])
    assert tied_rows(broken, 2).tolist() == [False] * 3
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 6"):
        tied_rows(scores, 6)
