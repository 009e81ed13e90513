"""Audits of regressions and of dense outputs: the rule that keeps the prediction."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_robust.auditing import Audit, audit, measure
from captum_robust.auditing.output import explained_output
from captum_robust.cli import main
from captum_robust.robust import ERAttack

quiet = partial(audit, k=2, radius=[0.3], show_progress=False, date="2026-01-02")
N = 9


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast attack in place of the ensemble."""
    monkeypatch.setattr(measure, "AutoERAttack", ERAttack)


def prices(n_outputs: int = 1, level: float = 5.0) -> nn.Sequential:
    """A regression whose output never changes its sign."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, n_outputs)).eval()
    nn.init.constant_(model[2].bias, level)
    return model


def rows() -> Tensor:
    return torch.randn(N, 6, generator=torch.Generator().manual_seed(1))


def values() -> Tensor:
    return 5 + torch.randn(N, generator=torch.Generator().manual_seed(2))


def largest_move(found: Audit) -> str:
    return found.settings["Prediction"]


@pytest.mark.parametrize(
    "given",
    [{"labels": values()}, {"target": values()}, {"labels": torch.arange(N)}],
    ids=["labels", "targets", "counts"],
)
def test_labels_that_are_no_classes_derive_a_tolerance_and_the_report_says_so(given) -> None:
    model = prices()
    found = quiet(model, rows(), **given)
    expected = 0.1 * float(model(rows()).detach().double().std())
    title = "The model was read as a regression"
    assert f"{expected:.3g}" in found.caveats[title]
    assert f"at most {expected:.3g}" in largest_move(found) and "spread" in largest_move(found)
    assert found.accuracy is None and found.agreement is None
    explicit = quiet(model, rows(), tolerance=expected, labels=values())
    assert str(explicit.explanations) == str(found.explanations)  # NaN is not equal to itself
    assert title not in explicit.caveats and f"tolerance={expected!r}" in explicit.command
    assert "tolerance" not in found.command


def test_a_single_output_far_from_zero_is_no_logit() -> None:
    assert "The model was read as a regression" in quiet(prices(level=200.0), rows()).caveats
    assert "The model was read as a regression" not in quiet(prices(level=5.0), rows()).caveats
    same = quiet(prices(level=5.0), rows()).caveats["All rows have the same prediction"]
    assert "for a regression pass tolerance" in same


def test_labels_of_classes_are_no_regression() -> None:
    for labels in (torch.arange(N) % 2, (torch.arange(N) % 2).float(), None):
        output = explained_output(torch.randn(N), None, None, None, labels)
        assert output.decision.tolerance is None
    output = explained_output(torch.randn(N, 3), 1, None, None, torch.arange(N) % 3)
    assert output.decision.tolerance is None
    given = explained_output(torch.randn(N), None, lambda p: p > 1, None, values())
    assert given.decision.tolerance is None, "the caller decides"


def test_several_outputs_have_a_tolerance_each() -> None:
    outputs = torch.randn(N, 2) * torch.tensor([1.0, 100.0])
    derived = explained_output(outputs, 1, None, None, values()).decision.tolerance
    assert isinstance(derived, Tensor)
    torch.testing.assert_close(derived, 0.1 * outputs.double().std(dim=0))
    with pytest.raises(ValueError, match="target must be given"):
        explained_output(outputs, None, None, None, values())


def test_what_cannot_be_derived_is_asked_for() -> None:
    with pytest.raises(ValueError, match="tolerance must be given"):
        explained_output(torch.full((N,), 3.0), None, None, None, values())
    with pytest.raises(ValueError, match=r"target must be 0 or 1.*pass tolerance"):
        explained_output(torch.randn(N), torch.arange(N), None)
    with pytest.raises(ValueError, match="exclude each other"):
        quiet(prices(), rows(), tolerance=0.1, decision_func=lambda p: p > 0)


def test_the_attacks_of_an_audit_stay_within_the_tolerance() -> None:
    tight, loose = (quiet(prices(), rows(), tolerance=t) for t in (1e-5, 1e5))
    kept = [sum(e.worst.precision) for e in (tight.explanations[0], loose.explanations[0])]
    assert kept[0] > kept[1]
    assert sum(tight.explanations[0].trial("noise", 0.3).changed) == N
    assert sum(loose.explanations[0].trial("noise", 0.3).changed) == 0


def test_draws_that_change_the_prediction_have_no_precision() -> None:
    """They are counted apart: an explanation of another prediction has not become unstable."""
    model = prices(level=0.0)
    found = quiet(model, rows(), radius=[2.0], seed=3).explanations[0].trial("noise", 2.0)
    assert found is not None and 0 < sum(found.changed) < N
    assert [p != p for p in found.precision] == [c == 1 for c in found.changed]


class Dense(nn.Module):
    """(N, 1, 3, 3) -> (N, 2, 3, 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)))


def test_dense_outputs_are_read_at_the_explained_position() -> None:
    torch.manual_seed(0)
    model, x = Dense().eval(), torch.randn(N, 1, 3, 3)
    found = quiet(model, x, (1, 1, 2))
    assert "at the explained position" in found.settings["Prediction"]
    by_hand = quiet(model, x, (1, 1, 2), decision_func=lambda o: o[:, :, 1, 2].argmax(dim=1))
    assert str(found.explanations) == str(by_hand.explanations)
    assert min(found.explanations[0].worst.precision) < 1


@pytest.mark.parametrize(
    "layer", [nn.Dropout().train(), nn.BatchNorm1d(16).train(), nn.RReLU().train()], ids=str
)
def test_a_model_with_two_outputs_for_one_row_is_refused(layer) -> None:
    class Hidden(nn.Module):
        """Keeps its layer where no flag of a module shows its mode."""

        def __init__(self) -> None:
            super().__init__()
            self.parts = [nn.Linear(6, 16), layer, nn.Linear(16, 2)]

        def forward(self, x: Tensor) -> Tensor:
            for part in self.parts:
                x = part(x)
            return x

    with pytest.raises(ValueError, match="model must give a row one output"):
        quiet(Hidden().eval(), rows())


def test_the_command_takes_labels_of_a_regression_and_a_tolerance(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "price_models.py").write_text(
        "import torch\nfrom torch import nn\ndef make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 1))\n"
    )
    np.savez("rows.npz", inputs=rows().numpy(), labels=values().numpy())
    common = ["audit", "price_models:make", "--data", "rows.npz", "--k", "2", "--out"]
    assert main([*common, "derived"]) == 0
    assert main([*common, "given", "--tolerance", "0.25"]) == 0
    derived, given = (
        Audit.from_json((tmp_path / name / "audit.json").read_text())
        for name in ("derived", "given")
    )
    assert "The model was read as a regression" in derived.caveats
    assert given.settings["Prediction"] == "each output moves by at most 0.25"
    assert "--tolerance 0.25" in given.command
