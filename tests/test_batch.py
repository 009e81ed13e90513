"""Arguments that belong to examples, and arguments for all of them."""

import pytest
import torch
from captum.attr import (
    DeepLiftShap,
    GradientShap,
    IntegratedGradients,
    LayerDeepLiftShap,
    LayerGradientShap,
    NeuronDeepLiftShap,
    NeuronGradientShap,
    NoiseTunnel,
    Saliency,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from captum_robust._utils.batch import (
    feature_mask_of_examples,
    kwargs_of_examples,
    of_examples,
)

N = 4
picked_rows = st.lists(st.integers(0, N - 1), max_size=6)
many = settings(max_examples=50, deadline=None, derandomize=True)


def rows_of(rows):
    return torch.tensor(rows, dtype=torch.int64)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Softplus(), nn.Linear(5, 2)).double()


# --- one value ---------------------------------------------------------------------------------


@many
@given(picked_rows)
def test_tensors_and_lists_with_one_entry_per_example_are_indexed(rows):
    matrix, vector = torch.arange(24).view(N, 2, 3), torch.arange(N)
    assert of_examples(matrix, rows_of(rows), N).tolist() == [matrix[r].tolist() for r in rows]
    assert of_examples(vector, rows_of(rows), N).tolist() == rows
    targets = [(0, 1), (1, 1), (2, 0), (3, 3)]
    assert of_examples(targets, rows_of(rows), N) == [targets[r] for r in rows]


@many
@given(picked_rows)
def test_tuples_are_searched_and_stay_tuples(rows):
    vector, edge_index = torch.arange(N), torch.arange(14).view(2, 7)
    found = of_examples((vector, 5, (edge_index, [*"abcd"]), None), rows_of(rows), N)
    assert isinstance(found, tuple) and isinstance(found[2], tuple)
    assert found[0].tolist() == rows and found[1] == 5 and found[3] is None
    assert found[2][0] is edge_index and found[2][1] == [("abcd")[r] for r in rows]


@pytest.mark.parametrize(
    "value",
    [
        torch.arange(14).view(2, 7),  # an edge_index
        torch.zeros(1, 3),  # a baseline for all
        torch.tensor(2.0),
        [1, 2, 3],
        "abcd",
        {"a": 1},
        3,
        0.5,
        None,
        len,
    ],
)
def test_other_arguments_are_returned_as_they_are(value):
    assert of_examples(value, rows_of([0, 0, 3]), N) is value


def test_a_tuple_is_never_indexed_even_with_as_many_items_as_examples():
    assert of_examples((0, 1, 1, 0), rows_of([2, 3]), N) == (0, 1, 1, 0)


# --- the arguments of an attribution -----------------------------------------------------------


@many
@given(picked_rows.filter(bool))
def test_attributions_of_some_examples_are_those_of_the_batch(rows):
    class Scaled(nn.Module):
        inner = model()

        def forward(self, x, scale, weights, power):
            # weights are for all, with any number of rows
            return (self.inner(x * scale) * weights.sum(dim=0)).pow(power)[:, None]

    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(N, 3, dtype=torch.float64, generator=generator)
    kwargs = {
        "target": [(0, 1), (0, 0), (0, 0), (0, 1)],
        "baselines": inputs.flip(1),
        "additional_forward_args": (inputs.sum(1, keepdim=True), torch.ones(7, 2).double(), 2),
        "n_steps": 5,
        "method": "gausslegendre",
    }
    explainer = IntegratedGradients(Scaled())
    whole = explainer.attribute(inputs, **kwargs)
    chosen = kwargs_of_examples(kwargs, rows_of(rows), N, explainer)
    torch.testing.assert_close(explainer.attribute(inputs[rows], **chosen), whole[rows])


@pytest.mark.parametrize("n_examples", [1, 2, N])
def test_nothing_is_touched_for_the_batch_itself(n_examples):
    kwargs = {"target": torch.arange(n_examples), "edges": torch.zeros(n_examples, 9)}
    chosen = kwargs_of_examples(kwargs, torch.arange(n_examples), n_examples)
    assert chosen.keys() == kwargs.keys()
    assert all(chosen[name] is kwargs[name] for name in kwargs)


def test_another_order_or_length_is_not_the_batch_itself():
    kwargs = {"target": torch.arange(N)}
    for rows in ([1, 0, 2, 3], [0, 1, 2], [0, 1, 2, 3, 3]):
        assert kwargs_of_examples(kwargs, rows_of(rows), N)["target"].tolist() == rows


def test_one_example_can_be_repeated():
    edge_index = torch.arange(14).view(2, 7)
    kwargs = {"target": torch.tensor([5]), "additional_forward_args": (edge_index,)}
    chosen = kwargs_of_examples(kwargs, rows_of([0, 0, 0]), 1)
    assert chosen["target"].tolist() == [5, 5, 5]
    assert chosen["additional_forward_args"][0] is edge_index


def test_the_callers_arguments_are_not_changed():
    targets = [0, 1, 1, 0]
    kwargs = {"target": targets, "baselines": 0}
    kwargs_of_examples(kwargs, rows_of([3, 3]), N)
    assert kwargs == {"target": [0, 1, 1, 0], "baselines": 0} and kwargs["target"] is targets


SHARED_BASELINES = {
    "GradientShap": lambda m: GradientShap(m),
    "bound GradientShap": lambda m: GradientShap(m).attribute,
    "NoiseTunnel of GradientShap": lambda m: NoiseTunnel(GradientShap(m)),
    "bound NoiseTunnel of GradientShap": lambda m: NoiseTunnel(GradientShap(m)).attribute,
    "DeepLiftShap": lambda m: DeepLiftShap(m),
    "LayerGradientShap": lambda m: LayerGradientShap(m, m[0]),
    "LayerDeepLiftShap": lambda m: LayerDeepLiftShap(m, m[0]),
    "NeuronGradientShap": lambda m: NeuronGradientShap(m, m[0]),
    "NeuronDeepLiftShap": lambda m: NeuronDeepLiftShap(m, m[0]),
}


@pytest.mark.parametrize("explainer", SHARED_BASELINES)
def test_a_distribution_of_baselines_belongs_to_no_example(explainer):
    kwargs = {"baselines": torch.zeros(N, 3), "target": torch.arange(N)}
    chosen = kwargs_of_examples(kwargs, rows_of([2]), N, SHARED_BASELINES[explainer](model()))
    assert chosen["baselines"] is kwargs["baselines"] and chosen["target"].tolist() == [2]


@pytest.mark.parametrize(
    "explainer", [None, IntegratedGradients(model()), NoiseTunnel(Saliency(model())), model()]
)
def test_other_baselines_belong_to_their_examples(explainer):
    baselines = torch.arange(N * 3).view(N, 3)
    chosen = kwargs_of_examples({"baselines": baselines}, rows_of([2]), N, explainer)
    assert chosen["baselines"].tolist() == [[6, 7, 8]]


# --- feature masks -----------------------------------------------------------------------------


@many
@given(picked_rows)
def test_a_mask_with_a_row_per_example_is_indexed(rows):
    mask, for_all = torch.arange(2 * N).view(N, 2), torch.arange(3)
    own, same = feature_mask_of_examples((mask, for_all), rows_of(rows), N, [2, 2])
    assert own.tolist() == [[2 * r, 2 * r + 1] for r in rows] and same is for_all


@pytest.mark.parametrize("shape", [(1, 5), (5,), (N,), (2, 5), (1, N, 5)])
def test_a_mask_for_all_examples_is_returned_as_it_is(shape):
    mask = torch.zeros(shape, dtype=torch.int64)
    n_dims = 2 if shape == (1, 5) else 3
    (found,) = feature_mask_of_examples(mask, rows_of([1, 3]), N, [n_dims])
    assert found is mask


def test_no_mask_stays_none():
    assert feature_mask_of_examples(None, rows_of([1]), N, [2]) is None


@pytest.mark.parametrize("n_rows", [0, 2, 3, N + 1])
@pytest.mark.parametrize("rows", [[0], [0, 1], list(range(N))])
def test_a_mask_with_too_few_or_too_many_rows_is_named(n_rows, rows):
    masks = (torch.zeros(1, 5), torch.zeros(n_rows, 2, 2))
    message = rf"feature_mask\[1\] must have one row for all .* \(4\), got {n_rows} rows"
    with pytest.raises(ValueError, match=message):
        feature_mask_of_examples(masks, rows_of(rows), N, [2, 3])
