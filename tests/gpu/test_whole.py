"""What is built of the rest takes tensors of the device: audit, pictures, tables, Captum's own."""

from functools import partial

import pytest
import torch
from captum.attr import InputXGradient, Saliency
from captum.metrics import infidelity, sensitivity_max

import captum_robust
from captum_robust.auditing import measure
from captum_robust.metrics import precision_at_k
from captum_robust.robust import ERAttack, ExplanationComparator, UniformNoise, as_perturb_func
from captum_robust.testing.fault_injection import worn
from captum_robust.testing.snapshot import changes, random_state, state_of_model
from tests.gpu.device import DEVICE, assert_same, moved
from tests.robust.targets import mlp, normal

TARGET = torch.arange(5) % 3


def test_audit(tmp_path, monkeypatch):
    # The ensemble, which takes most of the time of an audit, has a test of its own.
    weak = partial(ERAttack, gradient="spsa", n_directions=2)
    monkeypatch.setattr(measure, "AutoERAttack", weak)
    audits = [
        captum_robust.audit(
            moved(mlp(), device), moved(normal(2, 6), device), moved(TARGET[:2], device), k=2,
            radius=0.3, labels=moved(TARGET[:2], device), show_progress=False, date="2026-01-02",
        )
        for device in (DEVICE, "cpu")
    ]  # fmt: skip
    found, expected = (audit.explanations[0] for audit in audits)
    assert found.top_before == expected.top_before
    assert found.worst.precision == pytest.approx(expected.worst.precision)
    pytest.importorskip("jinja2")
    audits[0].to_html(tmp_path / "page.html")
    assert "<html" in (tmp_path / "page.html").read_text()


def test_pictures():
    pytest.importorskip("matplotlib")
    from matplotlib import pyplot

    from captum_robust import visualization

    maps, reference = moved(normal(2, 6, 6).abs())
    edges = moved(normal(2, 15).abs())
    info = ERAttack(Saliency(moved(mlp())), 2).perturb(
        moved(normal(5, 6)), 0.3, target=moved(TARGET), step_num=3, seed=0, return_info=True
    )[1]
    drawn = [
        visualization.visualize_image_rankings(maps, reference, 5, use_pyplot=False),
        visualization.visualize_table_rankings(maps[0], reference[0], 2, use_pyplot=False),
        visualization.visualize_adjacency_rankings(*edges, 4, use_pyplot=False),
        visualization.plot_traces(info, use_pyplot=False),
        visualization.plot_magnitudes({"r2et": maps}, 2, use_pyplot=False),
        visualization.plot_min_radius({"attacked": maps[0]}, use_pyplot=False),
        visualization.plot_precision(
            {"r2et": moved(torch.rand(2, 5))}, moved(torch.tensor([0.1, 0.2])), use_pyplot=False
        ),
        visualization.plot_manipulation(
            moved(torch.rand(5)), moved(torch.tensor([1, -1, 2, 3, 4])), use_pyplot=False
        ),
    ]
    for figure, _ in drawn:
        figure.canvas.draw()
        assert figure.get_axes()
    assert pyplot.get_fignums() == []


def test_comparator():
    tables = []
    for device in (DEVICE, "cpu"):
        model = moved(mlp(), device)
        comparator = ExplanationComparator(
            {"saliency": Saliency(model), "product": InputXGradient(model)},
            {"own": partial(ERAttack, k=2)},
            {"P@2": partial(precision_at_k, k=2)},
        )
        tables.append(
            comparator.evaluate(
                moved(normal(5, 6), device), radius=0.5, target=moved(TARGET, device), seed=0
            )
        )
    found, expected = ([m.values["P@2"] for m in table.measurements] for table in tables)
    assert [v.tolist() for v in found] == [v.tolist() for v in expected]


@pytest.mark.filterwarnings("ignore:Input Tensor .* did not already require gradients")
def test_captums_metrics_with_our_perturbations():
    found = []
    for device in (DEVICE, "cpu"):
        saliency, x = Saliency(moved(mlp(), device)), moved(normal(5, 6), device)
        target = moved(TARGET, device)
        worst = as_perturb_func(ERAttack(saliency, 2), target=target, step_num=3, seed=0)
        most = sensitivity_max(
            saliency.attribute, x, worst, 0.3, n_perturb_samples=2, target=target
        )
        noise = UniformNoise()

        def perturbed(inputs, noise=noise):
            moved_inputs = noise.perturb(inputs, 0.1, seed=1)
            return inputs - moved_inputs, moved_inputs

        far = infidelity(
            saliency.forward_func, perturbed, x, saliency.attribute(x, target), target=target
        )
        found.append((most, far))
    assert_same(*found, rtol=1e-7, atol=1e-8)


@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs two devices")
@pytest.mark.parametrize("call", ["attack", "loss", "metric"])
def test_inputs_on_another_device_than_the_model(call):
    model, x = worn(moved(mlp())), normal(5, 6)
    calls = {
        "attack": lambda: ERAttack(Saliency(model), 2).perturb(x, 0.3, target=0),
        "loss": lambda: captum_robust.loss.R2ETLoss(model, 2)(x, TARGET),
        "metric": lambda: captum_robust.metrics.hessian_norm(model, x, 0),
    }
    before = {**state_of_model(model), **random_state()}
    with pytest.raises(RuntimeError, match="device"):
        calls[call]()
    assert not changes(before, {**state_of_model(model), **random_state()})
