"""What all losses have in common: the base loss, reductions, independence, what is left behind."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.loss.central_differences import gradient_error
from tests.loss.losses import (
    LOSSES,
    REGULARISERS,
    Counting,
    Gated,
    buffers_of,
    criterion_of,
    plain_of,
    random_state_after,
)
from tests.loss.r2et_by_definition import (
    CLASSES,
    COLUMN,
    FORMS,
    TwoInputs,
    drawn,
    labels,
    mlp,
    normal,
    parameter_gradients,
)

every_loss = pytest.mark.parametrize("name", LOSSES)


def with_layers(*layers):
    """An affine layer, the given ones, softplus, an affine layer; in training mode."""
    return drawn(nn.Sequential(nn.Linear(6, 5), *layers, nn.Softplus(), nn.Linear(5, 3)))


def plain_loss(outputs, target):
    if outputs.dim() == 2 and outputs.shape[1] > 1:
        return F.cross_entropy(outputs, target)
    return F.binary_cross_entropy_with_logits(outputs.flatten(), target.double())


# --- the loss of the labels --------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("form", FORMS)
def test_without_weight_it_is_the_plain_loss_bit_for_bit_by_one_forward(form, name):
    model = Counting(mlp(form))
    loss = plain_of(name, model)(normal(4, 6), labels(form))
    assert model.calls == 1
    plain = plain_loss(model(normal(4, 6)), labels(form))
    assert torch.equal(loss, plain)
    assert torch.equal(parameter_gradients(loss, model), parameter_gradients(plain, model))


@every_loss
def test_with_weight_it_is_another_loss(name):
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = criterion_of(name, model)
    assert (criterion(x, y) - plain_of(name, model)(x, y)).abs() > 1e-4


@every_loss
def test_reductions(name):
    model, x, y = mlp(), normal(4, 6), labels()
    each = criterion_of(name, model, reduction="none")(x, y)
    assert each.shape == (4,)
    for reduction in ("mean", "sum"):
        found = criterion_of(name, model, reduction=reduction)(x, y)
        torch.testing.assert_close(found, getattr(each, reduction)())


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_base_loss_of_the_caller(reduction, name):
    def doubled(outputs, target):
        return 2 * F.cross_entropy(outputs, target, reduction="none")

    model, x, y = mlp(), normal(4, 6), labels()
    plain = plain_of(name, model, base_loss=doubled, reduction=reduction)(x, y)
    torch.testing.assert_close(plain, 2 * plain_of(name, model, reduction=reduction)(x, y))
    criterion = criterion_of(name, model, base_loss=doubled, reduction=reduction)
    own = criterion_of(name, model, reduction=reduction)
    found, other = criterion(x, y), own(x, y)
    torch.testing.assert_close(criterion.last_terms["base"], 2 * own.last_terms["base"])
    n_values = {"mean": 1, "sum": 4, "none": 4}[reduction]
    torch.testing.assert_close((found - other).sum(), own.last_terms["base"] * n_values)


@every_loss
def test_last_terms_are_detached_batch_means(name):
    criterion = criterion_of(name, mlp(), reduction="sum")
    assert criterion.last_terms == {}
    criterion(normal(4, 6), labels())
    n_terms = 2 if name.startswith("R2ET") else 0 if name.startswith("AT") else 1
    assert "base" in criterion.last_terms and len(criterion.last_terms) == 1 + n_terms
    for term in criterion.last_terms.values():
        assert term.shape == () and not term.requires_grad and term.isfinite()


@pytest.mark.parametrize("name", [n for n in REGULARISERS if not n.startswith("R2ET")])
@pytest.mark.parametrize("adaptive", [False, True])
def test_the_total_is_made_of_the_terms(adaptive, name):
    criterion = criterion_of(name, mlp(), weight=0.7, adaptive=adaptive)
    loss = criterion(normal(4, 6), labels())
    base, term = criterion.last_terms.values()
    sign = -1 if name == "CL" else 1  # wide ratios are wanted
    expected = base + sign * 0.7 * ((base + 1) if adaptive else term)
    torch.testing.assert_close(loss.detach(), expected)


# --- examples on their own ---------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("form", FORMS)
def test_examples_are_independent(form, name):
    criterion, x, y = criterion_of(name, mlp(form), reduction="none"), normal(4, 6), labels(form)
    together = criterion(x, y)
    alone = torch.cat([criterion(x[i : i + 1], y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(criterion(x[order], y[order]), together[order])


@every_loss
def test_tuples_and_additional_forward_args(name):
    criterion = criterion_of(name, TwoInputs(), reduction="none")
    (a, b), y, shift = (normal(4, 3), normal(4, 1, 2, seed=1)), labels(), normal(4, 4, seed=2)
    together = criterion((a, b), y, (shift, 0.5))
    alone = [
        criterion((a[i : i + 1], b[i : i + 1]), y[i : i + 1], (shift[i : i + 1], 0.5))
        for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-10, atol=1e-12)
    assert (criterion((a, b), y, (shift, 1.0)) - together).abs().min() > 1e-4


@every_loss
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_example_makes_its_own_loss_nan_and_no_error(bad, name):
    x = normal(4, 6)
    x[1, 2] = bad
    each = criterion_of(name, mlp(), reduction="none")(x, labels())
    assert torch.isnan(each).tolist() == [False, True, False, False]


@pytest.mark.parametrize("name", REGULARISERS)
def test_the_term_of_a_broken_example_is_nan_whatever_its_base_loss(name):
    x = normal(4, 6)
    x[1, 2] = float("nan")
    criterion = criterion_of(name, mlp(), base_loss=lambda *_: torch.zeros(4), reduction="none")
    assert torch.isnan(criterion(x, labels())).tolist() == [False, True, False, False]


@every_loss
def test_rows_of_zero_gradient_make_no_nan(name):
    x = normal(4, 6)
    x[:, 0] = torch.tensor([-1.0, 1.0, -2.0, 2.0])
    model = Gated(mlp())
    each = criterion_of(name, model, reduction="none")(x, labels())
    assert torch.isfinite(each).all()
    assert torch.isfinite(parameter_gradients(each.sum(), model)).all()
    if "exp" not in name:  # those add the number of their pairs
        torch.testing.assert_close(each[::2], torch.full((2,), 3.0, dtype=x.dtype).log())


@every_loss
def test_a_linear_model(name):
    model, x, y = nn.Linear(6, 3).double(), normal(4, 6), labels()
    explained = {} if name == "SSR" else {"explain": "logit"}  # of no curvature
    criterion = criterion_of(name, model, **explained)
    loss = criterion(x, y)
    assert torch.isfinite(parameter_gradients(loss, model)).all()
    if name != "SSR" and not name.startswith("R2ET"):
        torch.testing.assert_close(loss, F.cross_entropy(model(x), y))


# --- gradients ---------------------------------------------------------------------------------


def little(outputs, target):
    """A base loss so small that it adds nothing but a gradient by the last bias."""
    return 1e-2 * outputs.square().sum()


@pytest.mark.parametrize("name", REGULARISERS)
@pytest.mark.parametrize("form", [CLASSES, COLUMN])
def test_parameter_gradients_beside_central_differences(form, name):
    model, x, y = mlp(form, n_features=4, hidden=3), normal(3, 4, seed=3), labels(form, 3)
    criterion = criterion_of(name, model, base_loss=little)
    assert gradient_error(lambda: criterion(x, y), model.parameters()) < 1e-6


@pytest.mark.parametrize("name", REGULARISERS)
def test_a_learned_embedding_upstream_is_trained(name):
    embedding, model, y = drawn(nn.Linear(3, 4)), mlp(n_features=4, hidden=3), labels(n_examples=3)
    criterion = criterion_of(name, model)
    error = gradient_error(
        lambda: criterion(torch.tanh(embedding(normal(3, 3))), y), embedding.parameters()
    )
    assert error < 1e-6


def test_adversarial_training_trains_an_embedding_upstream_too():
    embedding, model = drawn(nn.Linear(3, 4)), mlp(n_features=4)
    criterion_of("AT", model)(embedding(normal(4, 3)), labels()).backward()
    assert embedding.weight.grad.abs().min() > 0


# --- left as found -----------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize("requires_grad", [False, True])
def test_the_caller_s_tensors_and_parameters_are_left_as_found(requires_grad, name):
    model, x, y = mlp(), normal(4, 6).requires_grad_(requires_grad), labels()
    criterion_of(name, model)(x, y)
    assert torch.equal(x, normal(4, 6)) and x.requires_grad is requires_grad and x.grad is None
    assert torch.equal(y, labels())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@every_loss
def test_modes_are_left_as_found_also_after_an_exception(name):
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = with_layers(nn.BatchNorm1d(5), nn.Dropout(0.5))
            self.model[1].eval()
            self.forwards_left = 9

        def forward(self, x):
            self.forwards_left -= 1
            if self.forwards_left == 0:
                raise KeyError
            return self.model(x)

    model = Failing()
    modes = [module.training for module in model.modules()]
    criterion = criterion_of(name, model)
    criterion(normal(4, 6), labels()).backward()
    assert [module.training for module in model.modules()] == modes
    for number in range(1, 9 - model.forwards_left + 1):
        model.forwards_left = number
        with pytest.raises(KeyError):
            criterion(normal(4, 6), labels())
        assert [module.training for module in model.modules()] == modes


@every_loss
@pytest.mark.parametrize("train", [True, False])
def test_statistics_move_as_by_one_plain_forward(train, name):
    model = with_layers(nn.BatchNorm1d(5)).train(train)
    plain, held = copy.deepcopy(model), dict(model.named_buffers())
    before = buffers_of(model)
    x, y = normal(8, 6), labels(n_examples=8)
    criterion_of(name, model)(x, y).backward()
    if not name.startswith("AT"):  # whose one forward is elsewhere
        plain(x)
        for buffer, expected in zip(model.buffers(), plain.buffers(), strict=True):
            assert torch.equal(buffer, expected)
    for key, buffer in model.named_buffers():
        assert buffer is held[key] and torch.equal(buffer, before[key]) is not train
    assert int(model[1].num_batches_tracked) == int(train)


@every_loss
@pytest.mark.parametrize("train", [True, False])
def test_the_random_state_is_that_after_a_plain_forward(train, name):
    model = with_layers(nn.Dropout(0.5)).train(train)
    criterion = criterion_of(name, model)
    expected = random_state_after(lambda: model(normal(4, 6)))
    found = random_state_after(lambda: criterion(normal(4, 6), labels()).backward())
    assert torch.equal(found, expected)


@every_loss
def test_the_criterion_registers_nothing_and_can_be_copied(name):
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = criterion_of(name, model)
    expected = criterion(x, y)
    assert criterion.state_dict() == {} and list(criterion.children()) == []
    for copied in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        assert copied.forward_func is not model
        assert torch.equal(copied(x, y), expected)


# --- circumstances -----------------------------------------------------------------------------


@every_loss
def test_under_no_grad_and_for_a_frozen_model_it_returns_the_value(name):
    model, x, y = mlp(), normal(4, 6), labels()
    criterion = criterion_of(name, model)
    expected = criterion(x, y)
    with torch.no_grad():
        loss = criterion(x, y)
    assert not loss.requires_grad and torch.equal(loss, expected)
    model.requires_grad_(False)
    assert torch.equal(criterion(x, y), expected)


@every_loss
def test_float32_agrees_with_float64(name):
    double = criterion_of(name, mlp())(normal(4, 6), labels())
    model = mlp().float()
    single = criterion_of(name, model)(normal(4, 6).float(), labels())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=0)


# A finite difference drowns in the rounding, as documented.
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("R2ET", "Est-H")])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_close_to_float64(dtype, name):
    double = criterion_of(name, mlp())(normal(4, 6), labels())
    model = mlp().to(dtype)
    loss = criterion_of(name, model)(normal(4, 6).to(dtype), labels())
    assert torch.isfinite(parameter_gradients(loss, model)).all()
    assert (loss - double).abs() < 0.1


@every_loss
def test_an_optimiser_over_the_model_lowers_the_loss(name):
    model, x, y = mlp(), normal(16, 6), labels(n_examples=16)
    criterion = criterion_of(name, model)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = criterion(x, y)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


# --- errors ------------------------------------------------------------------------------------


@every_loss
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "max"}, r"reduction must be one of \('mean', 'sum', 'none'\), got 'max'"),
        ({"explain": "loss"}, r"explain must be one of \('probability', 'logit'\), got 'loss'"),
        ({"k": 0}, "k must be an int of at least 1, got 0"),
        ({"k_prime": 3}, "k_prime must be an int in 1 … k = 2, got 3"),
        ({"pairs": "some"}, r"pairs must be one of \('anchor', 'mm', 'all'\), got 'some'"),
        ({"gap": "log"}, r"gap must be one of \('linear', 'exp'\), got 'log'"),
        ({"kappa": 0.0}, "kappa must be positive and finite, got 0.0"),
        ({"weight": -1.0}, "weight must be finite and not negative, got -1.0"),
        ({"radius": -1.0}, "radius must be finite and not negative, got -1.0"),
        ({"step_num": 0}, "step_num must be an int of at least 1, got 0"),
        ({"step_size": 0.0}, "step_size must be positive and finite, got 0.0"),
        ({"smooth_relu": -1.0}, "smooth_relu must be positive and finite, got -1.0"),
        ({"norm": "L1"}, "norm must be 'Linf' or 'L2', got 'L1'"),
    ],
)
def test_arguments_outside_their_ranges(options, message, name):
    taken = LOSSES[name][0].__init__.__code__.co_varnames
    if next(iter(options)) not in taken:
        with pytest.raises(TypeError):
            criterion_of(name, mlp(), **options)
        return
    with pytest.raises(ValueError, match=f"^{message}$"):
        criterion_of(name, mlp(), **options)


@every_loss
def test_shapes_that_do_not_fit(name):
    model, x, y = mlp(), normal(4, 6), labels()
    with pytest.raises(ValueError, match=r"^inputs must"):
        criterion_of(name, model)([x], y)
    with pytest.raises(ValueError, match=r"forward_func must return .* got \(4, 2, 3\)"):
        base = {"base_loss": lambda outputs, target: outputs.sum()}
        criterion_of(name, nn.Unflatten(1, (2, 3)), **base)(x, y)
    if "k" in LOSSES[name][1]:
        with pytest.raises(ValueError, match=r"k must be .* < 6, .*; got 6"):
            criterion_of(name, model, k=6)(x, y)
    if name != "SSR":
        with pytest.raises(ValueError, match=r"target must hold one label .*\(4,\), got \(4, 3\)"):
            criterion_of(name, model)(x, normal(4, 3).softmax(dim=1))


@every_loss
def test_a_scalar_base_loss_cannot_be_left_unreduced(name):
    criterion = criterion_of(name, mlp(), base_loss=nn.CrossEntropyLoss(), reduction="none")
    with pytest.raises(ValueError, match=r"base_loss must return one value per example .* scalar"):
        criterion(normal(4, 6), labels())
