"""R2ETLoss beside its definition (r2et_by_definition.py): values and parameter gradients."""

import itertools
from functools import partial

import pytest
import torch
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import nn
from torch.nn import functional as F

from captum_robust.attr import NotDifferentiableError
from captum_robust.loss import R2ETLoss
from captum_robust.ranking import flatten_attributions, gap_sum
from tests.loss.r2et_by_definition import (
    CLASSES,
    COLUMN,
    FORMS,
    TwoInputs,
    labels,
    mlp,
    normal,
    pairs_by_definition,
    parameter_gradients,
    r2et_by_definition,
)

PAIRS = ["anchor", "mm", "all"]
GAPS = ["linear", "exp"]
HESSIANS = ["finite_difference", "hvp", "exact"]
EXPLAINS = ["probability", "logit"]


class Counting(nn.Module):
    """Count the forwards of a model."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.calls = 0

    def forward(self, *inputs):
        self.calls += 1
        return self.model(*inputs)


def assert_is_the_definition(model, inputs, target, k, call=None, **options):
    call = call or {}
    weights = {"lambda1": 0.7, "lambda2": 0.3, **options}
    expected = r2et_by_definition(model, inputs, target, k, **weights, **call)
    found = R2ETLoss(model, k, **weights)(inputs, target, **call)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    # Weighted, so that an example in the place of another one does not go unseen.
    outer = torch.arange(1.0, 1 + found.numel(), dtype=found.dtype).view(found.shape)
    torch.testing.assert_close(
        parameter_gradients((outer * found).sum(), model),
        parameter_gradients((outer * expected).sum(), model),
        rtol=1e-9,
        atol=1e-11,
    )


# --- the definition ----------------------------------------------------------------------------


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("explain", EXPLAINS)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_the_loss_is_its_definition(pairs, gap, explain, form, hessian):
    assert_is_the_definition(
        mlp(form), normal(4, 6), labels(form), 2,
        pairs=pairs, gap=gap, explain=explain, hessian=hessian,
    )  # fmt: skip


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    ("k", "k_prime"), [(1, None), (1, 1), (3, 1), (3, 2), (4, 4), (4, 3), (5, 5)]
)
def test_k_and_k_prime_also_where_fewer_features_than_k_prime_lie_below(k, k_prime, pairs, gap):
    assert_is_the_definition(
        mlp(), normal(4, 6), labels(), k, k_prime=k_prime, pairs=pairs, gap=gap
    )


@pytest.mark.parametrize("kappa", [1e-3, 0.5])
def test_kappa_is_the_length_of_the_step(kappa):
    assert_is_the_definition(mlp(), normal(4, 6), labels(), 2, kappa=kappa)


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("form", FORMS)
def test_reductions_with_fixed_and_adaptive_weights(form, gap, reduction, adaptive):
    assert_is_the_definition(
        mlp(form), normal(4, 6), labels(form), 2,
        gap=gap, reduction=reduction, adaptive=adaptive,
    )  # fmt: skip


@pytest.mark.parametrize("explain", EXPLAINS)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_normalised_maps(pairs, gap, explain):
    assert_is_the_definition(
        mlp(), normal(4, 6), labels(), 2, pairs=pairs, gap=gap, explain=explain, normalize=True
    )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    "mask",
    [
        torch.tensor([[0, 1, 0, 2, 3, 3]]),
        torch.tensor([7, 5, 5, 9, 7, 1]),
        torch.tensor(
            [[0, 1, 0, 2, 3, 3], [3, 2, 1, 0, 0, 0], [0, 0, 1, 2, 3, 1], [0, 1, 2, 3, 0, 1]]
        ),
    ],
    ids=["one for all", "a vector", "one an example"],
)
def test_groups_of_features(mask, pairs, normalize):
    options = {"feature_mask": mask, "pairs": pairs, "normalize": normalize, "reduction": "none"}
    found = R2ETLoss(mlp(), 2, **options)(normal(4, 6), labels())
    by_row = mask if mask.dim() == 2 else mask[None]
    expected = r2et_by_definition(
        mlp(), normal(4, 6), labels(), 2, **{**options, "feature_mask": by_row}
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_tuples_of_inputs_are_ranked_and_bent_together(pairs, gap, hessian):
    inputs = normal(4, 3), normal(4, 1, 2, seed=1)
    assert_is_the_definition(
        TwoInputs(), inputs, labels(), 2, pairs=pairs, gap=gap, hessian=hessian
    )


@pytest.mark.parametrize("hessian", HESSIANS)
def test_groups_across_a_tuple_and_additional_forward_args(hessian):
    inputs = normal(4, 3), normal(4, 1, 2, seed=1)
    assert_is_the_definition(
        TwoInputs(), inputs, labels(), 1,
        call={"additional_forward_args": (normal(4, 4, seed=2), 0.5)},
        feature_mask=(torch.tensor([[0, 1, 2]]), torch.tensor([[[2, 0]]])),
        hessian=hessian,
    )  # fmt: skip


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_reference_attributions_choose_the_pairs(pairs, gap):
    reference = normal(4, 6, seed=5)
    call = {"reference_attributions": reference}
    options = {"pairs": pairs, "gap": gap}
    assert_is_the_definition(mlp(), normal(4, 6), labels(), 2, call, **options)
    criterion = R2ETLoss(mlp(), 2, lambda2=0.0, **options)
    assert criterion(normal(4, 6), labels(), **call) != criterion(normal(4, 6), labels())


def test_only_the_ranking_of_the_reference_matters_and_no_gradient_flows_to_it():
    reference = normal(4, 6, seed=5).requires_grad_()
    criterion = R2ETLoss(mlp(), 2, normalize=True)
    loss = criterion(normal(4, 6), labels(), reference_attributions=reference)
    again = criterion(normal(4, 6), labels(), reference_attributions=(3 * reference.detach()).exp())
    assert torch.equal(loss, again)
    assert torch.autograd.grad(loss, reference, allow_unused=True)[0] is None


# --- the ends ----------------------------------------------------------------------------------


def plain_loss(outputs, target):
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        return F.cross_entropy(outputs, target)
    return F.binary_cross_entropy_with_logits(outputs.flatten(), target.double())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("adaptive", [False, True])
def test_without_weights_it_is_the_plain_loss_bit_for_bit_by_one_forward(form, adaptive):
    model = Counting(mlp(form))
    loss = R2ETLoss(model, 2, lambda1=0.0, lambda2=0.0, adaptive=adaptive)(
        normal(4, 6), labels(form)
    )
    assert model.calls == 1
    plain = plain_loss(model(normal(4, 6)), labels(form))
    assert torch.equal(loss, plain)
    assert torch.equal(parameter_gradients(loss, model), parameter_gradients(plain, model))


def test_without_weights_the_inputs_need_no_gradient():
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3)).double()
    tokens = torch.arange(12).view(4, 3) % 10
    loss = R2ETLoss(model, 2, lambda1=0.0, lambda2=0.0)(tokens, labels())
    assert torch.equal(loss, F.cross_entropy(model(tokens), labels()))


@pytest.mark.parametrize("lambdas", [(0.5, 0.0), (0.0, 0.5)])
def test_one_weight_leaves_the_other_term_out(lambdas):
    criterion = R2ETLoss(mlp(), 2, *(None, *lambdas))
    loss = criterion(normal(4, 6), labels())
    expected = r2et_by_definition(mlp(), normal(4, 6), labels(), 2, *lambdas)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-12)
    assert criterion.last_terms.keys() == {"base", "gap" if lambdas[0] else "hessian"}


@pytest.mark.parametrize("explain", EXPLAINS)
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    ("options", "forwards"),
    [
        ({"lambda2": 0.0}, 1),
        ({"lambda1": 0.0}, 2),
        ({}, 2),
        ({"hessian": "hvp"}, 1),
        ({"hessian": "exact"}, 1),
        ({"adaptive": True, "normalize": True, "gap": "exp"}, 2),
    ],
)
def test_counted_goal_13_at_most_two_forwards_in_an_r2et_step(pairs, explain, options, forwards):
    model = Counting(mlp())
    R2ETLoss(model, 2, pairs=pairs, explain=explain, **options)(normal(4, 6), labels()).backward()
    assert model.calls == forwards <= 2


def test_an_attribution_adds_its_own_forwards_only():
    model = Counting(mlp())
    R2ETLoss(model, 2, attribution=Saliency(model))(normal(4, 6), labels()).backward()
    assert model.calls == 2 + 1


def test_linear_anchor_and_mm_are_the_same_loss_and_exponential_ones_are_not():
    def loss(pairs, gap, k_prime):
        criterion = R2ETLoss(mlp(), 3, pairs=pairs, gap=gap, k_prime=k_prime)
        value = criterion(normal(4, 6), labels())
        return value, parameter_gradients(value, criterion.forward_func)

    for k_prime in (2, 3, None):
        anchor, mm = loss("anchor", "linear", k_prime), loss("mm", "linear", k_prime)
        torch.testing.assert_close(anchor, mm, rtol=1e-12, atol=1e-14)
        anchor, mm = loss("anchor", "exp", k_prime), loss("mm", "exp", k_prime)
        assert (anchor[0] - mm[0]).abs() > 1e-3


# --- which way the terms pull ------------------------------------------------------------------


def no_base(outputs, target):
    return outputs.sum() * 0


def saliency(model, x, y):
    """Of the probability of the labelled class, by raw autograd."""
    x = x.clone().requires_grad_()
    probability = model(x).softmax(dim=1).gather(1, y[:, None])
    return torch.autograd.grad(probability.sum(), x)[0].abs()


def gaps_between(maps, reference, k, pairs):
    """The gaps of the pairs that the reference chooses."""
    return torch.tensor(
        [
            [row[i] - row[j] for i, j in pairs_by_definition(ranked.tolist(), k, pairs, k)]
            for row, ranked in zip(maps, reference, strict=True)
        ]
    )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
def test_a_step_on_the_gap_term_widens_the_gaps(pairs, gap, normalize):
    model, x, y = mlp(), normal(4, 6), labels()
    before = saliency(model, x, y)
    criterion = R2ETLoss(model, 2, no_base, 1.0, 0.0, pairs=pairs, gap=gap, normalize=normalize)
    criterion(x, y).backward()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    after = saliency(model, x, y)
    if normalize:
        before, after = (m / m.sum(dim=1, keepdim=True) for m in (before, after))
    wider = gaps_between(after, before, 2, pairs).mean()
    assert wider > gaps_between(before, before, 2, pairs).mean()


@pytest.mark.parametrize("explain", EXPLAINS)
@pytest.mark.parametrize("hessian", HESSIANS)
def test_a_step_on_the_hessian_term_lowers_the_exact_norm(hessian, explain):
    model, x, y = mlp(), normal(4, 6), labels()

    def exact_norm():
        def score(row, label):
            logits = model(row[None])[0]
            return (logits.softmax(dim=0) if explain == "probability" else logits)[label]

        norms = [
            torch.autograd.functional.hessian(partial(score, label=label), row).norm()
            for row, label in zip(x, y, strict=True)
        ]
        return torch.stack(norms).mean().item()

    before = exact_norm()
    R2ETLoss(model, 2, no_base, 0.0, 1.0, hessian=hessian, explain=explain)(x, y).backward()
    torch.optim.SGD(model.parameters(), lr=1e-2).step()
    assert exact_norm() < before


# --- base losses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "base_loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="none"),
        lambda outputs, target: F.cross_entropy(outputs, target),
        lambda outputs, target: F.cross_entropy(outputs, target, reduction="none"),
    ],
    ids=["module, scalar", "module, (N,)", "function, scalar", "function, (N,)"],
)
def test_a_base_loss_may_return_a_scalar_or_one_value_an_example(base_loss):
    x, y = normal(4, 6), labels()
    expected = R2ETLoss(mlp(), 2)(x, y)
    torch.testing.assert_close(R2ETLoss(mlp(), 2, base_loss)(x, y), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_base_loss_of_one_value_an_example_is_reduced_as_the_terms_are(reduction):
    x, y = normal(4, 6), labels()
    each = nn.CrossEntropyLoss(reduction="none")
    expected = R2ETLoss(mlp(), 2, reduction=reduction)(x, y)
    found = R2ETLoss(mlp(), 2, each, reduction=reduction)(x, y)
    torch.testing.assert_close(found, expected)


def test_a_column_of_base_losses_is_one_value_an_example():
    x, y = normal(4, 6), labels(COLUMN).double()
    each = nn.BCEWithLogitsLoss(reduction="none")
    found = R2ETLoss(mlp(COLUMN), 2, each, reduction="none")(x, y[:, None])
    assert found.shape == (4,)
    torch.testing.assert_close(found, R2ETLoss(mlp(COLUMN), 2, reduction="none")(x, y))


def test_a_base_loss_sees_the_outputs_and_the_target_as_they_are():
    seen = []

    def base_loss(outputs, target):
        seen.append((outputs, target))
        return outputs.sum()

    model, x, y = mlp(COLUMN), normal(4, 6), labels(COLUMN)
    R2ETLoss(model, 2, base_loss)(x, y)
    assert seen[0][0].shape == (4, 1) and torch.equal(seen[0][0], model(x))
    assert seen[0][1] is y


def test_labels_of_a_binary_model_may_be_bool_int_or_float_vector_or_column():
    x, y = normal(4, 6), labels(COLUMN)
    criterion = R2ETLoss(mlp(COLUMN), 2)
    expected = criterion(x, y)
    for target in (y.bool(), y.float(), y.double()[:, None], y.int()[:, None]):
        assert torch.equal(criterion(x, target), expected)


# --- other attributions ------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("gap", GAPS)
def test_saliency_as_the_attribution_is_the_default_path_of_logits(pairs, gap):
    losses = []
    for attribution in (None, Saliency):
        model = mlp()
        criterion = R2ETLoss(
            model, 2, pairs=pairs, gap=gap, explain="logit",
            attribution=attribution and attribution(model),
        )  # fmt: skip
        loss = criterion(normal(4, 6), labels())
        losses.append((loss, parameter_gradients(loss, model)))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-14)


def test_saliency_as_the_attribution_is_not_the_default_path_of_probabilities():
    model = mlp()
    by_attribution = R2ETLoss(model, 2, attribution=Saliency(model))(normal(4, 6), labels())
    assert (by_attribution - R2ETLoss(model, 2)(normal(4, 6), labels())).abs() > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("explainer", [Saliency, InputXGradient, IntegratedGradients])
def test_the_ranked_maps_are_those_of_stock_captum(explainer, form):
    model, x, y = mlp(form), normal(4, 6), labels(form)
    criterion = R2ETLoss(model, 2, attribution=explainer(model), lambda2=0.0, reduction="none")
    criterion(x, y)
    target = {} if form == "(N,)" else {"target": y if form == CLASSES else 0}
    maps = explainer(model).attribute(x.clone().requires_grad_(), **target).detach()
    expected = gaps_between(maps, maps, 2, "anchor").sum(dim=1).mean()
    torch.testing.assert_close(criterion.last_terms["gap"], expected, check_dtype=False)


def test_an_attribution_sees_tuples_groups_and_additional_forward_args():
    inputs, y = (normal(4, 3), normal(4, 1, 2, seed=1)), labels()
    arguments = (normal(4, 4, seed=2), 0.5)
    mask = (torch.tensor([[0, 1, 2]]), torch.tensor([[[2, 0]]]))
    model = TwoInputs()
    criterion = R2ETLoss(model, 1, attribution=Saliency(model), feature_mask=mask)
    criterion(inputs, y, arguments)
    leaves = tuple(t.clone().requires_grad_() for t in inputs)
    maps = Saliency(model).attribute(leaves, target=y, additional_forward_args=arguments)
    scores = flatten_attributions(tuple(m.detach() for m in maps), mask)
    torch.testing.assert_close(
        criterion.last_terms["gap"], gap_sum(scores, scores, 1, "anchor").mean()
    )


def test_a_noisy_attribution_draws_its_noise_anew_at_every_step():
    model = mlp()
    criterion = R2ETLoss(model, 2, attribution=NoiseTunnel(Saliency(model)))
    torch.manual_seed(0)
    first, second = criterion(normal(4, 6), labels()), criterion(normal(4, 6), labels())
    torch.manual_seed(0)
    assert torch.equal(criterion(normal(4, 6), labels()), first)
    assert first != second


def test_an_attribution_without_a_gradient_is_refused():
    model = mlp()
    for attribution in (DeepLift(model), NoiseTunnel(DeepLift(model))):
        with pytest.raises(NotDifferentiableError, match=r"DeepLift.*IntegratedGradients"):
            R2ETLoss(model, 2, attribution=attribution)


# --- last_terms --------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_last_terms_are_the_detached_batch_means(reduction, gap):
    x, y = normal(4, 6), labels()
    criterion = R2ETLoss(mlp(), 2, reduction=reduction, gap=gap, adaptive=True)
    assert criterion.last_terms == {}
    criterion(x, y)
    options = {"gap": gap, "reduction": "none"}
    base = r2et_by_definition(mlp(), x, y, 2, 0.0, 0.0, **options)
    gaps = r2et_by_definition(mlp(), x, y, 2, 1.0, 0.0, **options) - base
    curvatures = r2et_by_definition(mlp(), x, y, 2, 0.0, 1.0, **options) - base
    expected = {
        "base": base.mean(),
        "gap": gaps.mean() if gap == "exp" else -gaps.mean(),
        "hessian": curvatures.mean(),
    }
    assert criterion.last_terms.keys() == expected.keys()
    for name, term in criterion.last_terms.items():
        assert not term.requires_grad and term.shape == ()
        torch.testing.assert_close(term, expected[name].detach(), rtol=1e-10, atol=1e-12)


def test_last_terms_of_the_plain_loss_hold_the_base_only():
    criterion = R2ETLoss(mlp(), 2, lambda1=0.0, lambda2=0.0)
    loss = criterion(normal(4, 6), labels())
    assert criterion.last_terms.keys() == {"base"}
    assert not criterion.last_terms["base"].requires_grad
    assert torch.equal(criterion.last_terms["base"], loss.detach())


# --- rows without a gradient -------------------------------------------------------------------


class Gated(nn.Module):
    """Rows whose first feature is negative have a score, and maps, of zero."""

    def __init__(self):
        super().__init__()
        self.model = mlp()

    def forward(self, x):
        return self.model(x) * (x[:, :1] > 0)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("gap", GAPS)
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("hessian", HESSIANS)
def test_rows_of_zero_gradient_make_no_nan(hessian, pairs, gap, adaptive, normalize):
    x = normal(4, 6)
    x[:, 0] = torch.tensor([-1.0, 1.0, -2.0, 2.0])
    model = Gated()
    assert saliency(model, x, labels())[::2].abs().max() == 0
    criterion = R2ETLoss(
        model, 2, hessian=hessian, pairs=pairs, gap=gap,
        adaptive=adaptive, normalize=normalize, reduction="none",
    )  # fmt: skip
    each = criterion(x, labels())
    assert torch.isfinite(each).all()
    assert torch.isfinite(parameter_gradients(each.sum(), model)).all()
    # Zero rows add their constant only: nothing for linear gaps, the number of pairs for exp.
    alone = criterion(x[:1], labels()[:1])
    assert torch.isfinite(parameter_gradients(alone.sum(), model)).all()
    base = torch.log(torch.tensor(3.0, dtype=torch.float64))
    n_pairs = {"anchor": 3, "mm": 2, "all": 8}[pairs]
    term = 0.1 * (base + 1 if adaptive else n_pairs) if gap == "exp" else 0.0
    torch.testing.assert_close(alone.squeeze(), base + term)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_a_linear_model_has_no_curvature_and_finite_adaptive_weights(hessian):
    model = nn.Linear(6, 3).double()
    criterion = R2ETLoss(model, 2, explain="logit", hessian=hessian, adaptive=True)
    loss = criterion(normal(4, 6), labels())
    assert criterion.last_terms["hessian"] == 0
    assert torch.isfinite(loss) and torch.isfinite(parameter_gradients(loss, model)).all()


def test_adaptive_weights_pin_the_size_of_each_term_and_keep_its_direction():
    x, y = normal(4, 6), labels()
    model = mlp()
    loss = R2ETLoss(model, 2, lambda1=0.7, lambda2=0.3, adaptive=True)(x, y)
    base = F.cross_entropy(model(x), y)
    torch.testing.assert_close(loss, base + (-0.7 + 0.3) * (base + 1))
    for only in ({"lambda1": 1.0, "lambda2": 0.0}, {"lambda1": 0.0, "lambda2": 1.0}):
        fixed, adapted = (
            parameter_gradients(R2ETLoss(model, 2, no_base, **only, adaptive=a)(x, y), model)
            for a in (False, True)
        )
        cosine = F.cosine_similarity(fixed, adapted, dim=0)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_example_makes_its_own_loss_nan_and_no_error(bad):
    x = normal(4, 6)
    x[1, 2] = bad
    each = R2ETLoss(mlp(), 3, reduction="none")(x, labels())
    assert torch.isnan(each).tolist() == [False, True, False, False]


# --- precision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("gap", GAPS)
def test_float32_agrees_with_float64(gap, hessian):
    double = R2ETLoss(mlp(), 2, gap=gap, hessian=hessian)(normal(4, 6), labels())
    model = mlp().float()
    single = R2ETLoss(model, 2, gap=gap, hessian=hessian)(normal(4, 6).float(), labels())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=2e-5, atol=0)
    assert torch.isfinite(parameter_gradients(single, model)).all()


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_close_to_float64(dtype, pairs, hessian):
    double = R2ETLoss(mlp(), 2, lambda2=0.0, pairs=pairs)(normal(4, 6), labels())
    model = mlp().to(dtype)
    criterion = R2ETLoss(model, 2, pairs=pairs, hessian=hessian)
    loss = criterion(normal(4, 6).to(dtype), labels())
    assert torch.isfinite(parameter_gradients(loss, model)).all()
    without_curvature = loss - 0.1 * criterion.last_terms["hessian"]
    assert (without_curvature - double).abs() < 0.02


def test_curvature_does_not_vanish_in_float16():
    # Squares of 1e-4 are below the smallest float16.
    double, half = mlp(), mlp()
    for model in (double, half):
        model[2].weight.data *= 1e-3
    expected = R2ETLoss(double, 2, hessian="hvp")
    found = R2ETLoss(half.half(), 2, hessian="hvp")
    expected(normal(4, 6), labels())
    found(normal(4, 6).half(), labels())
    assert 0 < expected.last_terms["hessian"] < 3e-4
    torch.testing.assert_close(
        found.last_terms["hessian"].double(), expected.last_terms["hessian"], rtol=0.1, atol=0
    )


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": "some"}, r"pairs must be one of \('anchor', 'mm', 'all'\), got 'some'"),
        ({"gap": "log"}, r"gap must be one of \('linear', 'exp'\), got 'log'"),
        (
            {"hessian": "hutchinson"},
            r"hessian must be one of \('finite_difference', 'hvp', 'exact', 'spectral'\), "
            "got 'hutchinson'",
        ),
        ({"explain": "loss"}, r"explain must be one of \('probability', 'logit'\), got 'loss'"),
        ({"reduction": "max"}, r"reduction must be one of \('mean', 'sum', 'none'\), got 'max'"),
        ({"k": 0}, "k must be an int of at least 1, got 0"),
        ({"k": 2.0}, "k must be an int of at least 1, got 2.0"),
        ({"k": True}, "k must be an int of at least 1, got True"),
        ({"k_prime": 0}, "k_prime must be an int in 1 … k = 2, got 0"),
        ({"k_prime": 3}, "k_prime must be an int in 1 … k = 2, got 3"),
        ({"k_prime": 1.5}, "k_prime must be an int in 1 … k = 2, got 1.5"),
        ({"lambda1": -0.1}, "lambda1 must be finite and not negative, got -0.1"),
        ({"lambda2": float("nan")}, "lambda2 must be finite and not negative, got nan"),
        ({"lambda2": float("inf")}, "lambda2 must be finite and not negative, got inf"),
        ({"kappa": 0.0}, "kappa must be positive and finite, got 0.0"),
        ({"kappa": -1e-2}, "kappa must be positive and finite, got -0.01"),
        ({"kappa": float("inf")}, "kappa must be positive and finite, got inf"),
    ],
)
def test_arguments_outside_their_ranges(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        R2ETLoss(mlp(), **{"k": 2, **options})


@pytest.mark.parametrize("k", [6, 7])
def test_k_must_be_below_the_number_of_features(k):
    with pytest.raises(ValueError, match=rf"k must be .* < 6, .*; got {k}"):
        R2ETLoss(mlp(), k)(normal(4, 6), labels())


def test_k_must_be_below_the_number_of_groups():
    criterion = R2ETLoss(mlp(), 2, feature_mask=torch.tensor([[0, 0, 0, 1, 1, 1]]))
    with pytest.raises(ValueError, match=r"k must be .* < 2, .*; got 2"):
        criterion(normal(4, 6), labels())


@pytest.mark.parametrize(
    ("reference", "got"), [(normal(4, 5), r"\(4, 5\)"), (normal(3, 6), r"\(3, 6\)")]
)
def test_reference_attributions_must_have_the_shape_of_the_maps(reference, got):
    with pytest.raises(ValueError, match=rf"reference_attributions must .*\(4, 6\).* got {got}"):
        R2ETLoss(mlp(), 2)(normal(4, 6), labels(), reference_attributions=reference)


def test_the_target_must_hold_one_label_an_example():
    soft = normal(4, 3).softmax(dim=1)
    with pytest.raises(ValueError, match=r"target must hold one label .*\(4,\), got \(4, 3\)"):
        R2ETLoss(mlp(), 2)(normal(4, 6), soft)


def test_outputs_must_be_logits_of_examples():
    model = nn.Unflatten(1, (2, 3))
    with pytest.raises(ValueError, match=r"forward_func must return .* got \(4, 2, 3\)"):
        R2ETLoss(model, 2)(normal(4, 6), torch.zeros(4, 3, dtype=torch.long))


def test_a_scalar_base_loss_cannot_be_left_unreduced():
    criterion = R2ETLoss(mlp(), 2, nn.CrossEntropyLoss(), reduction="none")
    with pytest.raises(ValueError, match=r"base_loss must return one value per example .* scalar"):
        criterion(normal(4, 6), labels())


@pytest.mark.parametrize("inputs", [[normal(4, 6)], ()])
def test_inputs_must_be_tensors_or_tuples_of_them(inputs):
    with pytest.raises(ValueError, match=r"^inputs must"):
        R2ETLoss(mlp(), 2)(inputs, labels())


def test_every_documented_choice_is_accepted():
    for pairs, gap, hessian, explain in itertools.product(PAIRS, GAPS, HESSIANS, EXPLAINS):
        R2ETLoss(mlp(), 2, pairs=pairs, gap=gap, hessian=hessian, explain=explain)
