"""Changes of a prediction, against comparisons of Python numbers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_robust._utils.prediction import class_probabilities, predicted_labels
from captum_robust.metrics import prediction_change_rate
from tests.metrics.definitions import many, normal

NAN, INF = float("nan"), float("inf")
values = st.sampled_from([-1.0, -0.5, -0.0, 0.0, 0.5, 1.0])


def label(row):
    if len(row) == 1:
        return int(row[0] > 0)
    return row.index(max(row))


@many
@given(
    st.integers(1, 5), st.lists(st.sampled_from([0, 1, 2, 3]), min_size=1, max_size=3), st.data()
)
def test_a_change_of_any_result_counts(n_examples, widths, data):
    """Width 0 stands for one logit an example without a second dimension."""

    def draw():
        rows = [
            [data.draw(st.lists(values, min_size=max(w, 1), max_size=max(w, 1))) for w in widths]
            for _ in range(n_examples)
        ]
        tensors = [torch.tensor([row[m] for row in rows]) for m in range(len(widths))]
        return rows, tuple(t if w else t[:, 0] for t, w in zip(tensors, widths, strict=True))

    (before, references), (after, outputs) = draw(), draw()
    expected = [
        float(any(label(a) != label(b) for a, b in zip(*rows, strict=True)))
        for rows in zip(after, before, strict=True)
    ]
    found = prediction_change_rate(outputs, references)
    assert found.tolist() == expected and found.dtype == torch.float32
    assert prediction_change_rate(references, outputs).tolist() == expected
    if len(widths) == 1:
        assert prediction_change_rate(outputs[0], references[0]).tolist() == expected


def test_three_results_of_a_pair():
    similarity = torch.tensor([0.3, 0.3, -0.2, 0.3])
    first, second = torch.eye(2)[[0, 0, 1, 1]], torch.eye(2)[[1, 1, 1, 0]]
    moved = (
        torch.tensor([0.1, -0.1, -0.9, 0.2]),
        torch.eye(2)[[0, 0, 0, 1]],
        torch.eye(2)[[1, 1, 1, 0]],
    )
    found = prediction_change_rate(moved, (similarity, first, second))
    assert found.tolist() == [0, 1, 1, 0]
    assert found.mean() == 0.5


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("shape", [(3, 4), (3, 1), (3,)])
def test_a_broken_output_gives_one_nan(value, shape):
    outputs, others = normal(*shape), normal(3, 2)
    spoilt = outputs.clone()
    spoilt.view(3, -1)[1, 0] = value
    for pair in (
        (spoilt, outputs),
        (outputs, spoilt),
        ((others, spoilt), (others, outputs)),
        ((spoilt, others), (outputs, others)),
    ):
        assert prediction_change_rate(*pair).isnan().tolist() == [False, True, False]


def test_no_examples_and_graphs():
    assert prediction_change_rate(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    outputs = normal(3, 2).requires_grad_()
    assert not prediction_change_rate(outputs, outputs).requires_grad
    half = normal(3, 2).half()
    assert prediction_change_rate(half, -half).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("outputs", "references", "message"),
    [
        (normal(3, 2), normal(3, 3), r"must have the same shape, got \[\(3, 2\)\] and \[\(3, 3\)"),
        (normal(3), normal(3, 1), "must have the same shape"),
        (normal(3), (normal(3), normal(3)), "must have the same shape"),
        ((normal(3), normal(2)), (normal(3), normal(2)), "outputs must have the same number of"),
        ([normal(3)], normal(3), "outputs must be a Tensor or a tuple of Tensors, got list"),
        (normal(3), [1.0], "reference_outputs must be a Tensor or a tuple of Tensors, got list"),
        (
            normal(3, 2, 2),
            normal(3, 2, 2),
            r"outputs must have shape \(N, C\), \(N, 1\) or \(N,\) with N = 3, got \(3, 2, 2\)",
        ),
        (normal(3, 0), normal(3, 0), "outputs must have shape"),
    ],
)
def test_other_outputs_are_refused(outputs, references, message):
    with pytest.raises(ValueError, match=message):
        prediction_change_rate(outputs, references)


@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 2), (50, 5)])
def test_labels_are_those_of_the_largest_probability(shape):
    outputs = normal(*shape).round()
    labels = predicted_labels(outputs)
    probabilities = class_probabilities(outputs)
    assert probabilities.shape == (50, max(2, *shape[1:], 2))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(50).double())
    assert torch.equal(probabilities.argmax(dim=1), labels.long())
