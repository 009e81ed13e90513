"""captum_robust.audit: its numbers, its verdicts, its errors, and the state that it leaves."""

import random
import subprocess
import sys
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import DeepLift, InputXGradient, IntegratedGradients, Saliency
from torch import Tensor, nn

import captum_robust
from captum_robust.auditing import ATTRIBUTIONS, Audit, audit, measure, verdict
from captum_robust.auditing.configuration import default_k, radii_of
from captum_robust.auditing.explanations import OTHER_NAMES, resolve
from captum_robust.auditing.output import explained_output
from captum_robust.robust import ERAttack

N, FEATURES, K = 7, 8, 3

quiet = partial(audit, show_progress=False, date="2026-01-02")


def network(seed: int = 0, outputs: int = 2) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, 12), nn.ReLU(), nn.Linear(12, outputs)).eval()


def rows() -> Tensor:
    return torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def found() -> Audit:
    """The audit of a small network by all attacks."""
    classes = torch.arange(N) % 2
    return quiet(network(), rows(), classes, k=K, radius=[0.02, 0.3], labels=classes)


@pytest.fixture
def weak(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast attack without gradients in place of the ensemble."""
    monkeypatch.setattr(measure, "AutoERAttack", partial(ERAttack, gradient="spsa", n_directions=2))


def top(scores: Tensor) -> list[set[int]]:
    return [set(row.argsort(descending=True)[:K].tolist()) for row in scores]


def test_the_package_stays_light_and_has_the_function() -> None:
    script = (
        "import sys, captum_robust\n"
        "heavy = [m for m in sys.modules if m.startswith('captum_robust.')"
        " and m.split('.')[1] in ('_html', 'auditing', 'benchmark')]\n"
        "assert not heavy, heavy\n"
        "function = captum_robust.audit\n"
        "import captum_robust.auditing\n"
        "assert callable(captum_robust.audit) and captum_robust.audit is function\n"
        "assert 'jinja2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    assert captum_robust.audit is audit
    with pytest.raises(AttributeError, match="no attribute 'odit'"):
        _ = captum_robust.odit


def test_top_sets_and_precision_are_those_of_the_definition(found: Audit) -> None:
    x = rows().requires_grad_()
    network()(x)[torch.arange(N), torch.arange(N) % 2].sum().backward()
    assert x.grad is not None
    (one,) = found.explanations
    assert [set(t) for t in one.top_before] == top(x.grad.abs())
    kept = [len(set(a) & set(b)) / K for a, b in zip(one.top_before, one.top_after, strict=True)]
    assert list(one.worst.precision) == pytest.approx(kept)


def test_all_attacks_together_find_what_the_published_one_does_not(found: Audit) -> None:
    (one,) = found.explanations
    own = one.trial("own gradient", 0.3)
    assert own is not None and set(own.precision) == {1.0}
    assert own.flags["zero_gradient"] == N
    assert verdict(found, one).status == "not stable"
    small = one.trial("ensemble", 0.02)
    assert small is not None
    pairs = zip(small.precision, one.worst.precision, strict=True)
    assert all(a >= b for a, b in pairs)  # what lies in a ball lies in a larger one
    assert set(one.worst.changed) == {0.0}


def test_no_attack_changes_what_is_proven(found: Audit) -> None:
    (one,) = found.explanations
    assert one.certified is not None and max(one.certified) > 0
    for radius in found.radii:
        trial = one.trial("ensemble", radius)
        assert trial is not None
        for proven, kept in zip(one.certified, trial.precision, strict=True):
            assert proven < radius or kept == 1


def test_accuracy_and_agreement(found: Audit) -> None:
    right = network()(rows()).argmax(dim=1) == torch.arange(N) % 2
    assert found.accuracy == found.agreement == pytest.approx(float(right.double().mean()))


def test_it_names_what_is_needed_to_repeat_it(found: Audit) -> None:
    assert found.versions["torch"] == torch.__version__
    assert found.settings["Inputs"] == f"{N} × {FEATURES}, float32, on cpu"
    assert found.command == (
        "captum_robust.audit(model, inputs, target, attributions='saliency', k=3, "
        "radius=[0.02, 0.3])"
    )
    assert found.date == "2026-01-02"
    assert (found.model, found.n_rows, found.n_features) == ("Sequential", N, FEATURES)


@pytest.mark.usefixtures("weak")
def test_a_seed_repeats_it_and_chunks_do_not_matter() -> None:
    ask = partial(quiet, attributions=["saliency", "input_x_gradient"], k=K, radius=[0.3])
    first, again = (ask(network(), rows(), 1).to_json() for _ in range(2))
    assert first == again
    chunked = ask(network(), rows(), 1, max_examples_per_batch=2)
    assert asdict(chunked)["explanations"] == asdict(Audit.from_json(first))["explanations"]
    other = ask(network(), rows() + 1, 1, attributions="saliency")
    assert other.settings["Inputs, SHA-256"] != chunked.settings["Inputs, SHA-256"]
    assert other.settings["Parameters, SHA-256"] == chunked.settings["Parameters, SHA-256"]


@pytest.mark.usefixtures("weak")
def test_nothing_of_the_caller_is_touched() -> None:
    model, x = network(), rows()
    model.train()  # no layer of it depends on that
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    given = x.clone()
    quiet(model, x, 1, attributions=["smooth_grad", "deep_lift"], k=K, radius=[0.1])
    assert torch.equal(x, given) and x.grad is None and not x.requires_grad
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[n]) for n, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert (np.random.get_state()[1] == states[2]).all()  # noqa: NPY002


@pytest.mark.usefixtures("weak")
@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_every_name_is_audited(name: str) -> None:
    x = rows()[:3]
    one = quiet(network(), x, 1, name, k=K, radius=[0.1]).explanations[0]
    assert one.name == name
    differentiable = name not in ("deep_lift", "guided_backprop")
    assert (one.trial("own gradient", 0.1) is not None) == differentiable
    assert bool(one.not_attacked) != differentiable
    assert (one.certified is not None) == (name == "saliency")


@pytest.mark.usefixtures("weak")
def test_a_linear_model_is_proven() -> None:
    torch.manual_seed(0)
    result = quiet(nn.Linear(FEATURES, 2), rows(), 1, k=K, radius=[0.5])
    assert verdict(result, result.explanations[0]).status == "proven stable"


@pytest.mark.usefixtures("weak")
def test_an_impossible_certificate_costs_no_attacks() -> None:
    """A network for the last dimension of (N, L, F), whose proof is for inputs (N, F)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    found = audit(model, torch.randn(5, 3, 4), (0, 1), k=2, radius=[0.3], show_progress=False)
    one = found.explanations[0]
    assert min(one.worst.precision) < 1
    assert one.certified is None and "no guarantee for this network" in one.not_certified


def test_rows_that_cannot_be_ranked_are_never_stable() -> None:
    x = rows()
    x[2, 3] = float("nan")
    x[4] = 0
    model = nn.Sequential(nn.Linear(FEATURES, 12, bias=False), nn.Tanh(), nn.Linear(12, 2))
    result = quiet(model, x, 1, "input_x_gradient", k=K, radius=[0.01])
    (one,) = result.explanations
    for trial in one.trials:
        assert [i for i, p in enumerate(trial.precision) if np.isnan(p)] == [2, 4]
    assert one.top_before[2] == one.top_before[4] == ()
    said = verdict(result, one)
    assert said.n_rows == N - 2 and said.status in ("not stable", "undecided")


@pytest.mark.usefixtures("weak")
def test_a_tie_at_the_boundary_is_no_loss() -> None:
    x = rows()
    x[0, K - 1 :] = 0  # its map x ∂f has K − 1 values and zeros
    (one,) = quiet(network(), x, 1, "input_x_gradient", k=K, radius=[0.01]).explanations
    assert one.tied == (True, *(False,) * (N - 1))
    assert np.isnan(one.worst.precision[0]) and one.top_before[0] == ()


@pytest.mark.usefixtures("weak")
def test_a_model_that_is_not_read_as_meant_has_a_caveat() -> None:
    model = nn.Sequential(network(outputs=1), nn.Sigmoid())
    result = quiet(model, rows(), torch.arange(N) % 2, k=K, radius=[0.1])
    assert "Outputs were read as probabilities" in result.caveats
    assert result.settings["Prediction"] == "class 1 where the output exceeds 0.5"
    right = (model(rows())[:, 0] > 0.5) == torch.arange(N) % 2
    assert result.agreement == pytest.approx(float(right.double().mean()))
    x = rows() * torch.tensor([1e3] + [1.0] * (FEATURES - 1))
    assert "Features have different units" in quiet(network(), x, 1, k=K, radius=[0.1]).caveats


@pytest.mark.usefixtures("weak")
def test_tuples_groups_and_bounds_reach_everything() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, a: Tensor, b: Tensor, factor: float) -> Tensor:
            return self.inner(torch.cat([a, b], dim=1)) * factor

    x = rows().clamp(0, 1)
    groups = (torch.tensor([[0, 0, 1, 1]]), torch.tensor([[2, 3, 4, 4]]))
    result = quiet(
        Two(), (x[:, :4], x[:, 4:]), 1, k=2, radius=[0.2], additional_forward_args=2.0,
        feature_mask=groups, lower_bound=0.0, upper_bound=1.0, norm="L2", feature_names="abcde",
    )  # fmt: skip
    assert result.n_features == 5 and result.feature_names == tuple("abcde")
    assert result.settings["Bounds of the inputs"] == "0 to 1"
    assert "norm='L2'" in result.command and "upper_bound=1.0" in result.command
    assert "outside_ball" not in result.explanations[0].worst.flags


def test_attributions_in_every_form() -> None:
    model, x = network(), rows()
    ig = IntegratedGradients(model)
    assert list(resolve("saliency", model, x)) == ["saliency"]
    assert list(resolve([ig, "deep_lift"], model, x)) == ["IntegratedGradients", "deep_lift"]
    given = resolve({"a": (ig, {"n_steps": 3}), "b": Saliency(model)}, model, x)
    assert given["a"] == (ig, {"n_steps": 3}) and given["b"][1] == {}
    (_, arguments), *_ = resolve("smooth_grad", model, 4 * x).values()
    assert arguments["stdevs"] == pytest.approx(0.6 * float(x.max() - x.min()))
    for other, name in OTHER_NAMES.items():
        (attribution, arguments), (same, same_arguments) = (
            resolve(n, model, x)[n] for n in (other, name)
        )
        assert type(attribution) is type(same) and arguments == same_arguments
    kinds = {"saliency": Saliency, "input_x_gradient": InputXGradient, "deep_lift": DeepLift}
    for name, kind in kinds.items():
        assert type(resolve(name, model, x)[name][0]) is kind


def test_choices() -> None:
    assert [default_k(None, n) for n in (2, 4, 13, 28, 1000)] == [1, 1, 4, 8, 8]
    assert radii_of(0.4, rows()) == (0.1, 0.2, 0.4)
    assert radii_of([3, 1, 3], rows()) == (1.0, 3.0)
    spread = torch.tensor([[0.0, 0.0, 5.0], [2.0, 20.0, 5.0]])
    assert radii_of(None, spread)[-1] == pytest.approx(0.14)  # a tenth of √2, of two that vary
    assert radii_of(None, torch.ones(3, 2))[-1] == 0.1  # nothing varies


@pytest.mark.parametrize(
    ("outputs", "target", "explained", "expected"),
    [
        (torch.tensor([[2.0], [-3.0]]), None, 0, None),
        (torch.tensor([[2.0], [-3.0]]), torch.tensor([1, 0]), 0, [1, 0]),
        (torch.tensor([2.0, -3.0]), torch.tensor([1, 0]), None, [1, 0]),
        (torch.tensor([[2.0, 1.0], [0.0, 1.0]]), None, [0, 1], None),
        (torch.tensor([[2.0, 1.0], [0.0, 1.0]]), 1, 1, [1, 1]),
        (torch.tensor([[2.0, 1.0], [0.0, 1.0]]), [1, 0], [1, 0], [1, 0]),
    ],
)
def test_the_output_that_is_explained(
    outputs: Tensor, target: Any, explained: Any, expected: list[int] | None
) -> None:
    output = explained_output(outputs, target, None)
    given = output.target.tolist() if isinstance(output.target, Tensor) else output.target
    assert given == explained
    assert (None if output.classes is None else output.classes.tolist()) == expected


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model": "resnet"}, "model must be an nn.Module, got str"),
        ({"model": nn.Sequential(nn.Linear(8, 2), nn.Dropout()).train()}, r"call model\.eval"),
        ({"inputs": rows().long()}, "inputs must be floating point"),
        ({"inputs": rows()[:0]}, "inputs must hold at least one example"),
        ({"inputs": rows().numpy()}, "inputs must be a Tensor"),
        ({"attributions": "saliensy"}, "attributions must be .* got 'saliensy'"),
        ({"attributions": []}, "attributions must name at least one"),
        ({"attributions": ["saliency", "saliency"]}, "different names"),
        ({"attributions": {"a": 3}}, r"attributions\['a'\] must be"),
        ({"k": 8}, "k must be"), ({"k": 0}, "k must be"),
        ({"radius": 0}, "radius must be"), ({"radius": [0.1, -1]}, "radius must be"),
        ({"radius": []}, "radius must be"), ({"radius": float("nan")}, "radius must be"),
        ({"norm": "L1"}, "norm must be"),
        ({"labels": torch.zeros(3)}, r"labels must have shape \(7,\), got \(3,\)"),
        ({"feature_names": ["a"]}, "feature_names must hold 8 names"),
        ({"max_examples_per_batch": 0}, "max_examples_per_batch must be"),
        ({"target": torch.arange(3)}, "target"), ({"target": 5}, "target"),
        ({"model": network(outputs=1), "target": 2}, "target must be 0 or 1"),
    ],
)  # fmt: skip
def test_errors_name_the_argument(changed: dict[str, Any], said: str) -> None:
    arguments = {"model": network(), "inputs": rows(), "target": 1, "k": K, **changed}
    with pytest.raises(ValueError, match=said):
        quiet(**arguments)


def test_it_prints_as_its_verdicts(found: Audit) -> None:
    assert str(found).startswith("saliency: Not stable: ")
    assert repr(found) == f"<Audit of Sequential>\n{found}"
