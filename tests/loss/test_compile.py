"""R2ETLoss(compile=True) beside the loss as it is written: values, means and gradients.

Most tests run ``torch.compile`` without code generation, which takes many seconds per step: with
its backend "eager", which traces the step, or "aot_eager", which traces its gradients as well.
"""

import copy
import pickle
import warnings
from functools import partial

import pytest
import torch
from captum.attr import Saliency
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from captum_robust.attr import smooth_relu
from captum_robust.loss import R2ETLoss
from captum_robust.robust import CompileWarning
from tests.loss.r2et_by_definition import COLUMN, VECTOR, TwoInputs, drawn, labels, mlp, normal

N = 8

COMPILE = torch.compile


@pytest.fixture(autouse=True)
def backend(request, monkeypatch):
    monkeypatch.setattr(
        torch, "compile", partial(COMPILE, backend=getattr(request, "param", "eager"))
    )


with_gradients = pytest.mark.parametrize("backend", ["aot_eager"], indirect=True)
with_code = pytest.mark.parametrize("backend", ["inductor"], indirect=True)


def steps(criterion, x, y, *call):
    """Losses, means and parameter gradients of three steps."""
    found = []
    for _ in range(3):
        criterion.forward_func.zero_grad()
        loss = criterion(x, y, *call)
        loss.sum().backward()
        gradients = {name: p.grad for name, p in criterion.forward_func.named_parameters()}
        found.append((loss.detach(), dict(criterion.last_terms), gradients))
    return found


def assert_same(found, expected, rtol=1e-9, atol=1e-11):
    for (loss, means, gradients), (loss_, means_, gradients_) in zip(found, expected, strict=True):
        torch.testing.assert_close(loss, loss_, rtol=rtol, atol=atol)
        torch.testing.assert_close(means, means_, rtol=rtol, atol=atol)
        assert gradients.keys() == gradients_.keys()
        for name, gradient in gradients.items():
            if gradient is None:
                assert gradients_[name] is None
            else:
                torch.testing.assert_close(gradient, gradients_[name], rtol=rtol, atol=atol)


def assert_compiled_is_the_same(model, x, y, *call, k=2, **options):
    """No warning, which would say that a step was not compiled; and the same results."""
    torch.manual_seed(0)
    expected = steps(R2ETLoss(copy.deepcopy(model), k, **options), x, y, *call)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = steps(R2ETLoss(model, k, compile=True, **options), x, y, *call)
    assert_same(found, expected)


def assert_falls_back(reason, model, x, y, k=2, **options):
    """One warning with the reason, whatever the number of steps; and the same results."""
    torch.manual_seed(0)
    expected = steps(R2ETLoss(copy.deepcopy(model), k, **options), x, y)
    torch.manual_seed(0)
    with pytest.warns(CompileWarning, match=f"not compiled, .*{reason}") as caught:
        found = steps(R2ETLoss(model, k, compile=True, **options), x, y)
    assert len(caught) == 1
    assert_same(found, expected)


def convolutional():
    return drawn(
        nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(12, 3),
        )
    )  # fmt: skip


class Attentive(nn.Module):
    """(N, 6) as three tokens of two features -> (N, 3)."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(2, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.out(self.layer(self.embed(x.view(-1, 3, 2))).mean(dim=1))


class Unused(nn.Module):
    """With parameters that are frozen, and parameters that nothing depends on."""

    def __init__(self):
        super().__init__()
        self.model, self.frozen, self.idle = mlp(), drawn(nn.Linear(6, 6)), nn.Linear(2, 2)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.model(self.frozen(x))


class Bent(nn.Module):
    """A network with a function of the caller's own in front."""

    def __init__(self, bend):
        super().__init__()
        self.model, self.bend = mlp(), bend

    def forward(self, x):
        return self.model(self.bend(x))


OPTIONS = {
    "default": {},
    "gaps only": {"lambda2": 0.0},
    "norm only": {"lambda1": 0.0},
    "exponential gaps of all pairs": {"gap": "exp", "pairs": "all"},
    "exponential gaps at the boundary": {"gap": "exp", "pairs": "mm", "k_prime": 1},
    "logit, adaptive": {"explain": "logit", "adaptive": True, "pairs": "all"},
    "normalised, sum": {"normalize": True, "reduction": "sum"},
    "one loss per example": {"reduction": "none"},
    "a loss of one's own": {"base_loss": nn.MultiMarginLoss(reduction="none")},
    "every other step": {"every": 2},
    "a part of each batch": {"fraction": 0.3, "seed": 2},
}
MODELS = {
    "convolutional": (convolutional, normal(N, 1, 4, 4)),
    "attentive": (lambda: drawn(Attentive()), normal(N, 6)),
    "unused parameters": (Unused, normal(N, 6)),
    "normalising": (
        lambda: drawn(nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3))),
        normal(N, 6),
    ),
    "batch normalisation in evaluation mode": (
        lambda: drawn(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))).eval(),
        normal(N, 6),
    ),
}


# --- the same results --------------------------------------------------------------------------


@with_gradients
@pytest.mark.slow
def test_gradients_by_a_compiler(backend):
    assert_compiled_is_the_same(mlp(), normal(N, 6), labels(n_examples=N))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options(options):
    assert_compiled_is_the_same(mlp(), normal(N, 6), labels(n_examples=N), **options)


@with_gradients
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models(name, backend):
    make, x = MODELS[name]
    assert_compiled_is_the_same(make(), x, labels(n_examples=N))


@pytest.mark.slow
@pytest.mark.parametrize("form", [VECTOR, COLUMN])
def test_a_single_logit(form):
    assert_compiled_is_the_same(mlp(form), normal(N, 6), labels(form, N))


@with_gradients
@pytest.mark.slow
def test_two_inputs_arguments_and_reference_maps(backend):
    inputs = normal(N, 3), normal(N, 1, 2, seed=1)
    reference = normal(N, 3, seed=5), normal(N, 1, 2, seed=6)
    arguments = normal(N, 4, seed=2), 0.5
    y = labels(n_examples=N)
    assert_compiled_is_the_same(TwoInputs(), inputs, y, arguments, reference)


@with_gradients
@pytest.mark.slow
def test_a_graph_behind_the_inputs(backend):
    model, y = mlp(), labels(n_examples=N)
    found = []
    for compile in (False, True):
        x, criterion = normal(N, 6).requires_grad_(), R2ETLoss(model, 2, compile=compile)
        found.append([torch.autograd.grad(criterion(2 * x, y), x)[0] for _ in range(2)])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)


@with_gradients
@pytest.mark.slow
def test_another_batch_size(backend):
    model, y = mlp(), labels(n_examples=N)
    criterion, compiled = R2ETLoss(model, 2), R2ETLoss(model, 2, compile=True)
    for n in (8, 8, 5, 5, 8, 7, 7):
        x = normal(n, 6, seed=n)
        torch.testing.assert_close(compiled(x, y[:n]), criterion(x, y[:n]))


@with_code
@pytest.mark.slow
@pytest.mark.parametrize("name", ["an MLP", *MODELS])
def test_generated_code(name, backend):
    cpp_compiler_or_skip()
    make, x = {"an MLP": (mlp, normal(N, 6)), **MODELS}[name]
    model, y = make(), labels(n_examples=N)
    expected = steps(R2ETLoss(copy.deepcopy(model), 2), x, y)
    with warnings.catch_warnings():  # what a compiler gets wrong is noticed and said
        warnings.filterwarnings("ignore", ".* gives another result", CompileWarning)
        found = steps(R2ETLoss(model, 2, compile=True), x, y)
    assert_same(found, expected, rtol=1e-6, atol=1e-8)


def cpp_compiler_or_skip():
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        pytest.skip("no C++ compiler found")


# --- not compiled, by one warning --------------------------------------------------------------


BENDS = {
    "draws random numbers": lambda x: F.dropout(x, 0.5),
    "data-dependent": lambda x: x if x.sum().item() > 0 else 2 * x,
}


@pytest.mark.parametrize("reason", BENDS)
def test_what_a_model_does(reason):
    assert_falls_back(reason, Bent(BENDS[reason]), normal(N, 6), labels(n_examples=N))


def test_batch_statistics():
    model = drawn(nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)))
    other = copy.deepcopy(model)
    y = labels(n_examples=N)
    assert_falls_back("writes to its buffers", model, normal(N, 6), y)
    for _ in range(3):
        R2ETLoss(other, 2)(normal(N, 6), y)
    torch.testing.assert_close(dict(model.named_buffers()), dict(other.named_buffers()))


def test_hooks():
    model = mlp()
    model[0].register_forward_hook(lambda module, arguments, output: 2 * output)
    assert_falls_back("hooks", model, normal(N, 6), labels(n_examples=N))


def test_hooks_that_come_later():
    model, y = mlp(), labels(n_examples=N)
    criterion, compiled = R2ETLoss(model, 2), R2ETLoss(model, 2, compile=True)
    for _ in range(2):
        torch.testing.assert_close(compiled(normal(N, 6), y), criterion(normal(N, 6), y))
    model[0].register_forward_hook(lambda module, arguments, output: 2 * output)
    with pytest.warns(CompileWarning, match="hooks"):
        found = compiled(normal(N, 6), y)
    torch.testing.assert_close(found, criterion(normal(N, 6), y))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"hessian": "hvp"}, "hessian is 'hvp'"),
        ({"feature_mask": torch.tensor([[0, 0, 1, 1, 2, 3]])}, "feature_mask"),
    ],
)
def test_options_that_are_not_compiled(options, reason):
    assert_falls_back(reason, mlp(), normal(N, 6), labels(n_examples=N), **options)


def test_an_attribution():
    model = mlp()
    criterion = R2ETLoss(model, 2, attribution=Saliency(model), compile=True)
    with pytest.warns(CompileWarning, match="an attribution is given"):
        found = criterion(normal(N, 6), labels(n_examples=N))
    torch.testing.assert_close(
        found, R2ETLoss(model, 2, attribution=Saliency(model))(normal(N, 6), labels(n_examples=N))
    )


def test_a_function_around_the_model():
    model = mlp()
    with pytest.warns(CompileWarning, match=r"forward_func is no nn\.Module"):
        R2ETLoss(lambda x: model(x), 2, compile=True)(normal(N, 6), labels(n_examples=N))


def test_a_mode_of_torch():
    model, x, y = convolutional(), normal(N, 1, 4, 4), labels(n_examples=N)
    criterion = R2ETLoss(model, 2, compile=True)
    with smooth_relu(2.0), pytest.warns(CompileWarning, match="smooth_relu, is active"):
        found = criterion(x, y)
    with smooth_relu(2.0):
        torch.testing.assert_close(found, R2ETLoss(model, 2)(x, y))


@pytest.mark.parametrize("backend", ["nobody"], indirect=True)
def test_a_machine_that_cannot_compile(backend):
    assert_falls_back("nobody", mlp(), normal(N, 6), labels(n_examples=N))


@with_gradients
@pytest.mark.slow
def test_a_failure_leaves_torch_as_it_was(backend):
    """A checkpoint within a torch.func transform fails, and leaves its hooks disabled."""
    model = Bent(lambda x: checkpoint(torch.tanh, x, use_reentrant=False))
    criterion = R2ETLoss(model, 2, compile=True)
    with pytest.warns(CompileWarning, match="not compiled, .*saved tensor hooks"):
        criterion(normal(N, 6), labels(n_examples=N))
    expected = R2ETLoss(model, 2)(normal(N, 6), labels(n_examples=N))
    torch.testing.assert_close(criterion(normal(N, 6), labels(n_examples=N)), expected)


def doubling(graph, inputs):
    """A backend of ``torch.compile`` whose results are wrong."""
    return lambda *arguments: tuple(2 * out for out in graph(*arguments))


@pytest.mark.parametrize("backend", [doubling], indirect=True)
def test_a_wrong_compiler(backend):
    assert_falls_back("gives another result", mlp(), normal(N, 6), labels(n_examples=N))


# --- the rest of the loss ----------------------------------------------------------------------


def test_the_modes_of_the_model_count():
    model = drawn(nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Tanh(), nn.Linear(5, 3)))
    y, compiled = labels(n_examples=N), R2ETLoss(model, 2, compile=True)
    model.eval()
    for _ in range(2):
        torch.testing.assert_close(compiled(normal(N, 6), y), R2ETLoss(model, 2)(normal(N, 6), y))
    model.train()
    torch.manual_seed(0)
    with pytest.warns(CompileWarning, match="draws random numbers"):
        found = [compiled(normal(N, 6), y) for _ in range(2)]
    torch.manual_seed(0)
    torch.testing.assert_close(found, [R2ETLoss(model, 2)(normal(N, 6), y) for _ in range(2)])


@pytest.mark.parametrize("backend", ["nobody"], indirect=True)
def test_without_gradients_nothing_is_compiled(backend):
    criterion = R2ETLoss(mlp(), 2, compile=True)
    with torch.no_grad():
        assert not criterion(normal(N, 6), labels(n_examples=N)).requires_grad


def test_errors_are_those_of_the_loss():
    criterion = R2ETLoss(mlp(), 2, compile=True)
    for _ in range(2):
        criterion(normal(N, 6), labels(n_examples=N))
        with pytest.raises(ValueError, match=r"target must hold one label"):
            criterion(normal(N, 6), normal(N, 3).softmax(dim=1))


def test_copies_compile_anew():
    criterion = R2ETLoss(mlp(), 2, compile=True)
    x, y = normal(N, 6), labels(n_examples=N)
    expected = [criterion(x, y) for _ in range(2)]
    for other in (copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion))):
        torch.testing.assert_close([other(x, y) for _ in range(2)], expected)
