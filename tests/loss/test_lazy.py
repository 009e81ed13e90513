"""R2ETLoss that regularises every m-th step, or a part of each batch."""

import copy
import io

import pytest
import torch
from captum.attr import Saliency
from torch import nn

from captum_robust.loss import R2ETLoss
from tests.loss.losses import Counting, buffers_of, random_state_after
from tests.loss.r2et_by_definition import (
    TwoInputs,
    drawn,
    labels,
    mlp,
    normal,
    parameter_gradients,
    r2et_by_definition,
)


def plain(model, x, y):
    return R2ETLoss(model, 2, lambda1=0.0, lambda2=0.0)(x, y)


def parts(criterion, x, y, *arguments, **more):
    """The rows that were regularised, and what was added to each of them."""
    criterion.reduction = "none"
    added = criterion(x, y, *arguments, **more) - R2ETLoss(
        criterion.forward_func, 2, lambda1=0.0, lambda2=0.0, reduction="none"
    )(x, y, *arguments)
    return added.nonzero().squeeze(1).tolist(), added


# --- every m-th step ---------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("every", [2, 3])
def test_a_cycle_holds_one_regularised_step_of_m_fold_weight(every, adaptive):
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = R2ETLoss(model, 2, every=every, adaptive=adaptive)
    whole = R2ETLoss(model, 2, adaptive=adaptive)(x, y)
    base = plain(model, x, y)
    for _ in range(2):
        first = criterion(x, y)
        torch.testing.assert_close(first, base + every * (whole - base))
        assert criterion.last_terms.keys() == {"base", "gap", "hessian"}
        for _ in range(every - 1):
            loss = criterion(x, y)
            assert torch.equal(loss, base)
            assert torch.equal(parameter_gradients(loss, model), parameter_gradients(base, model))
            base = plain(model, x, y)
            assert criterion.last_terms.keys() == {"base"}


def test_the_gradients_of_a_cycle_add_up_to_those_of_as_many_whole_steps():
    model, x, y = mlp(), normal(4, 6), labels()
    lazy, whole = R2ETLoss(model, 2, every=4), R2ETLoss(model, 2)
    found = sum(parameter_gradients(lazy(x, y), model) for _ in range(4))
    torch.testing.assert_close(found, 4 * parameter_gradients(whole(x, y), model))


def test_forwards_of_a_cycle():
    model = Counting(mlp())
    criterion = R2ETLoss(model, 2, every=4)
    for _ in range(8):
        criterion(normal(4, 6), labels()).backward()
    assert model.calls == 2 * (2 + 1 + 1 + 1)


# --- a part of the batch -----------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "n_chosen"), [(0.25, 2), (0.3, 3), (0.01, 1), (0.99, 8)])
def test_that_part_is_regularised_as_the_definition_says(fraction, n_chosen):
    model, x, y = mlp(), normal(8, 6), labels(n_examples=8)
    criterion = R2ETLoss(model, 2, fraction=fraction, seed=3)
    rows, added = parts(criterion, x, y)
    assert len(rows) == n_chosen
    options = {"reduction": "none"}
    whole = r2et_by_definition(model, x, y, 2, **options)
    base = r2et_by_definition(model, x, y, 2, 0.0, 0.0, **options)
    expected = 8 / n_chosen * (whole - base)
    torch.testing.assert_close(added[rows], expected[rows], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_part_stands_for_the_batch(adaptive, reduction):
    model, x, y = mlp(), normal(8, 6), labels(n_examples=8)
    rows, _ = parts(R2ETLoss(model, 2, fraction=0.25, seed=3), x, y)
    criterion = R2ETLoss(model, 2, fraction=0.25, seed=3, adaptive=adaptive, reduction=reduction)
    found = criterion(x, y)
    base = R2ETLoss(model, 2, lambda1=0.0, lambda2=0.0, reduction=reduction)(x, y)
    if adaptive:  # the terms cancel: both weights are 0.1, of the loss of the whole batch
        torch.testing.assert_close(found, base)
    part = R2ETLoss(model, 2)
    terms = part(x[rows], y[rows]) - plain(model, x[rows], y[rows])
    if not adaptive:
        torch.testing.assert_close(found - base, terms * (8 if reduction == "sum" else 1))
    for name in ("gap", "hessian"):
        torch.testing.assert_close(criterion.last_terms[name], part.last_terms[name])


def test_in_the_mean_over_steps_it_is_the_whole_regulariser():
    model, x, y = mlp(), normal(8, 6), labels(n_examples=8)
    criterion = R2ETLoss(model, 2, fraction=0.25, seed=0)
    chosen = torch.zeros(8)
    for _ in range(400):
        chosen[criterion.schedule.rows(8)] += 1
    # 100 of each in expectation, with a standard deviation of √(400 · ¼ · ¾) = 8.7
    assert chosen.sum() == 800 and (chosen - 100).abs().max() < 4 * 8.7
    assert len({tuple(parts(criterion, x, y)[0]) for _ in range(8)}) > 4


def test_both_together():
    model, x, y = mlp(), normal(8, 6), labels(n_examples=8)
    rows, added = parts(R2ETLoss(model, 2, fraction=0.5, every=3, seed=1), x, y)
    part = R2ETLoss(model, 2, reduction="none")(x[rows], y[rows])
    base = R2ETLoss(model, 2, lambda1=0.0, lambda2=0.0, reduction="none")(x[rows], y[rows])
    torch.testing.assert_close(added[rows], 3 * 2 * (part - base))


def test_everything_that_has_a_row_an_example_is_divided():
    model, y = TwoInputs(), labels(n_examples=4)
    inputs = normal(4, 3), normal(4, 1, 2, seed=1)
    shift, reference = normal(4, 4, seed=2), (normal(4, 3, seed=5), normal(4, 1, 2, seed=6))
    mask = (torch.tensor([[0, 1, 2], [0, 1, 2], [0, 1, 1], [2, 1, 1]]), torch.tensor([[[2, 0]]]))
    options = {"feature_mask": mask, "attribution": Saliency(model)}
    call = {"reference_attributions": reference}
    criterion = R2ETLoss(model, 1, fraction=0.5, seed=0, **options)
    rows, added = parts(criterion, inputs, y, (shift, 0.5), **call)
    assert len(rows) == 2
    _, whole = parts(R2ETLoss(model, 1, **options), inputs, y, (shift, 0.5), **call)
    torch.testing.assert_close(added[rows], 2 * whole[rows])


@pytest.mark.parametrize("mask", [torch.tensor([[0, 1, 0, 2, 3, 3]]), torch.arange(6) // 2])
def test_a_mask_for_all_examples_is_not_divided(mask):
    # Six examples of six features: the vector must not be taken for one group an example.
    model, x, y = mlp(), normal(6, 6), labels(n_examples=6)
    rows, added = parts(R2ETLoss(model, 2, fraction=0.5, seed=0, feature_mask=mask), x, y)
    _, whole = parts(R2ETLoss(model, 2, feature_mask=mask), x, y)
    torch.testing.assert_close(added[rows], 2 * whole[rows])


@pytest.mark.parametrize("n_rows", [2, 7, 9])
@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_a_mask_with_too_few_or_too_many_rows_is_refused_whatever_the_seed(n_rows, fraction):
    model, x, y = mlp(), normal(8, 6), labels(n_examples=8)
    for seed in range(8):
        mask = torch.arange(6).expand(n_rows, 6)
        criterion = R2ETLoss(model, 2, fraction=fraction, seed=seed, feature_mask=mask)
        with pytest.raises(ValueError, match=r"feature_mask\[0\] must"):
            criterion(x, y)


def test_a_graph_behind_the_inputs_is_kept():
    embedding, model, y = drawn(nn.Linear(3, 6)), mlp(), labels(n_examples=8)
    x = normal(8, 3)
    rows, _ = parts(R2ETLoss(model, 2, fraction=0.5, seed=0), embedding(x), y)
    found = R2ETLoss(model, 2, fraction=0.5, seed=0)(embedding(x), y)
    expected = (
        plain(model, embedding(x), y)
        + R2ETLoss(model, 2)(embedding(x[rows]), y[rows])
        - plain(model, embedding(x[rows]), y[rows])
    )
    torch.testing.assert_close(
        parameter_gradients(found, embedding), parameter_gradients(expected, embedding)
    )


# --- what a step does not disturb --------------------------------------------------------------


@pytest.mark.parametrize("options", [{"every": 2}, {"fraction": 0.5}])
def test_batch_norm_and_dropout(options):
    model = drawn(
        nn.Sequential(
            nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Softplus(), nn.Dropout(0.5), nn.Linear(5, 3)
        )
    )
    twin, x, y = copy.deepcopy(model), normal(8, 6), labels(n_examples=8)
    criterion = R2ETLoss(model, 2, seed=0, **options)
    for _ in range(3):
        held = dict(model.named_buffers())
        expected = random_state_after(lambda: twin(x))
        assert torch.equal(random_state_after(lambda: criterion(x, y).backward()), expected)
        torch.manual_seed(0)
        twin_loss = nn.functional.cross_entropy(copy.deepcopy(twin)(x), y)
        assert torch.equal(criterion.last_terms["base"], twin_loss.detach())
        for name, buffer in model.named_buffers():
            assert buffer is held[name] and torch.equal(buffer, buffers_of(twin)[name])


def test_the_choice_does_not_depend_on_the_global_generators():
    chosen = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        chosen.append(
            parts(R2ETLoss(mlp(), 2, fraction=0.3, seed=5), normal(8, 6), labels(n_examples=8))[0]
        )
    assert chosen[0] == chosen[1]
    other = R2ETLoss(mlp(), 2, fraction=0.3, seed=6)
    assert parts(other, normal(8, 6), labels(n_examples=8))[0] != chosen[0]


# --- steps, and other calls --------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"every": 3}, {"fraction": 0.5}])
def test_in_evaluation_mode_and_without_gradients_it_is_the_whole_loss_and_no_step(options):
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = R2ETLoss(model, 2, seed=0, **options)
    whole = R2ETLoss(model, 2)(x, y)
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(criterion(x, y), whole)
        assert torch.equal(criterion.eval()(x, y), whole)
        criterion.train()
    assert criterion.schedule.step == 0
    assert not torch.allclose(criterion(x, y), whole, rtol=1e-4)
    assert criterion.schedule.step == 1


def test_a_training_that_is_resumed_goes_on_with_the_same_choices():
    model, x, y = mlp(), normal(8, 6), labels(n_examples=8)
    criterion = R2ETLoss(model, 2, every=3, fraction=0.5)
    for _ in range(4):
        criterion(x, y)
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    resumed = R2ETLoss(model, 2, every=3, fraction=0.5)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(criterion)
    for _ in range(4):
        expected = criterion(x, y)
        assert torch.equal(resumed(x, y), expected) and torch.equal(twin(x, y), expected)


def test_whole_steps_need_no_state():
    assert R2ETLoss(mlp(), 2, every=1, fraction=1.0, seed=3).state_dict() == {}
    lazy = R2ETLoss(mlp(), 2, every=2).half()
    assert list(lazy.state_dict()) == ["schedule._extra_state"]
    assert list(lazy.parameters()) == []
    lazy(normal(4, 6), labels())


def test_without_weights_nothing_is_counted():
    criterion = R2ETLoss(mlp(), 2, lambda1=0.0, lambda2=0.0, every=2)
    x, y = normal(4, 6), labels()
    assert torch.equal(criterion(x, y), nn.functional.cross_entropy(mlp()(x), y))
    assert criterion.schedule.step == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, "every must be an int of at least 1, got 0"),
        ({"every": 1.5}, "every must be an int of at least 1, got 1.5"),
        ({"fraction": 0.0}, r"fraction must lie in \(0, 1\], got 0.0"),
        ({"fraction": 1.1}, r"fraction must lie in \(0, 1\], got 1.1"),
        ({"fraction": float("nan")}, r"fraction must lie in \(0, 1\], got nan"),
        (
            {"fraction": 0.5, "adaptive": True, "reduction": "none"},
            "adaptive weights of a fraction of the batch need reduction='mean' or 'sum', "
            "got 'none'",
        ),
    ],
)
def test_arguments_outside_their_ranges(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        R2ETLoss(mlp(), 2, **options)
