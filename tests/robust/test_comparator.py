"""Every number of the table, against loops of direct calls."""

import warnings
from functools import partial

import pytest
import torch
from captum.attr import LRP, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from captum.robust import Perturbation
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from captum_robust.metrics import attribution_mse, precision_at_k
from captum_robust.robust import ERAttack, GaussianNoise, MSEAttack, UniformNoise
from captum_robust.robust.evaluation.comparator import ExplanationComparator
from tests.robust.targets import TwoInputs, drawn, mlp, normal

N, RADIUS = 9, 0.6
P_AT_2 = partial(precision_at_k, k=2)
METRICS = {"P@2": P_AT_2, "MSE": attribution_mse}


def relu_net():
    return drawn(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))


def maps_of(attribution, points, target, **kwargs):
    leaves = points.detach().clone().requires_grad_()
    return attribution.attribute(leaves, target=target, **kwargs).detach()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_table_is_that_of_loops_over_direct_calls(norm):
    model, x, target = relu_net(), normal(N, 6), torch.arange(N) % 3
    attributions = {
        "Saliency": (Saliency(model), {"abs": False}),
        "IG": (IntegratedGradients(model), {"n_steps": 7}),
        "LRP": (LRP(model), {}),
    }
    transfer = ERAttack(InputXGradient(model), k=2, smooth_relu=5.0)

    def own(attribution):  # LRP has no derivative
        gradient = "spsa" if isinstance(attribution, LRP) else "autograd"
        return MSEAttack(attribution, gradient=gradient, n_directions=2)

    table = ExplanationComparator(
        attributions, {"own": (own, {"step_num": 3}), "transfer": transfer}, METRICS
    ).evaluate(x, RADIUS, target, norm=norm, seed=5, return_perturbed=True)

    rows = [(a, b) for a in attributions for b in ("noise", "own", "transfer")]
    assert [(m.attribution, m.attack) for m in table.measurements] == rows
    common = {"radius": RADIUS, "target": target, "norm": norm, "seed": 5}
    seen = []
    for name, (attribution, kwargs) in attributions.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            moved = {
                "noise": UniformNoise(norm).perturb(x, RADIUS, seed=5),
                "own": own(attribution).perturb(x, **common, step_num=3, **kwargs),
                "transfer": transfer.perturb(x, **common),
            }
        for attack, points in moved.items():
            found = table[name, attack]
            assert torch.equal(found.perturbed, points)
            maps = [maps_of(attribution, p, target, **kwargs) for p in (points, x)]
            labels = [model(p).argmax(dim=1) for p in (points, x)]
            expected = {
                "P@2": precision_at_k(*maps, k=2),
                "MSE": attribution_mse(*maps),
                "prediction changed": (labels[0] != labels[1]).double(),
            }
            assert list(found.values) == list(expected)
            for metric, values in expected.items():
                assert found.values[metric].dtype == torch.float64
                assert torch.allclose(found.values[metric], values, rtol=1e-9, atol=1e-12)
            seen.append(expected["P@2"])
    assert len(torch.stack(seen).unique()) == 3, "the attacks must do something"


def compared(comparator, x, **options):
    return comparator.evaluate(x, RADIUS, seed=0, **options)


def assert_same(table, other, order=None):
    assert len(table.measurements) == len(other.measurements)
    for a, b in zip(table.measurements, other.measurements, strict=True):
        assert (a.attribution, a.attack, a.flags) == (b.attribution, b.attack, b.flags)
        for metric, values in a.values.items():
            values = values if order is None else values[order]
            assert torch.allclose(values, b.values[metric], rtol=1e-9, atol=1e-12, equal_nan=True)


def comparator_of(model, **options):
    attacks = {"ER": (partial(ERAttack, k=2), {"step_num": 3})}
    return ExplanationComparator({"Saliency": Saliency(model)}, attacks, METRICS, **options)


def spoiled():
    """Examples, of which one is not finite, with targets and weights."""
    x = normal(N, 6)
    x[4, 1] = float("nan")
    return x, torch.arange(N) % 3, torch.linspace(0, 2, N)


@pytest.mark.parametrize("make", [mlp, relu_net])
def test_a_loader_gives_the_table_of_one_tensor(make):
    comparator, (x, target, weights) = comparator_of(make()), spoiled()
    table = compared(comparator, x, target=target, weights=weights, return_perturbed=True)
    assert table["Saliency", "ER"].values["P@2"].isnan().tolist() == [i == 4 for i in range(N)]

    def batch_func(batch):
        return dict(zip(("inputs", "target", "weights"), batch, strict=True))

    loader = DataLoader(TensorDataset(x, target, weights), batch_size=4)  # 4, 4 and 1
    other = comparator.evaluate_loader(loader, RADIUS, batch_func, seed=0, return_perturbed=True)
    assert_same(table, other)
    assert torch.equal(table.weights, other.weights)
    for a, b in zip(table.measurements, other.measurements, strict=True):
        assert torch.allclose(a.perturbed, b.perturbed, rtol=0, atol=1e-9, equal_nan=True)
    assert table.to_markdown() == other.to_markdown()


def test_chunks_and_order_change_nothing():
    comparator, (x, target, _) = comparator_of(mlp()), spoiled()
    table = compared(comparator, x, target=target)
    for size in (1, 4):
        assert_same(table, compared(comparator, x, target=target, max_examples_per_batch=size))
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3, 8, 7])
    assert_same(table, compared(comparator, x[order], target=target[order]), order)


def test_loaders_of_inputs_alone_of_lists_and_with_weights_here_and_there():
    model, x = drawn(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))), normal(4, 6)
    comparator = comparator_of(model)
    table = compared(comparator, x)
    for loader in ([x[:3], x[3:]], [[x[:3]], (x[3:],)], iter([(x, None)])):
        assert_same(table, comparator.evaluate_loader(loader, RADIUS, seed=0))
    batches = [{"inputs": x[:3]}, {"inputs": x[3:], "weights": torch.tensor([0.5])}]
    weighted = comparator.evaluate_loader(batches, RADIUS, dict, seed=0)
    assert weighted.weights.tolist() == [1, 1, 1, 0.5]


def test_tuples_of_inputs_and_additional_arguments():
    model, x = TwoInputs(), (normal(5, 3), normal(5, 1, 2, seed=1))
    scale = torch.linspace(0.5, 2, 5).double()
    comparator = comparator_of(model)
    table = compared(
        comparator, x, target=1, additional_forward_args=(scale,), return_perturbed=True
    )
    moved = table["Saliency", "ER"].perturbed
    assert isinstance(moved, tuple) and not torch.equal(moved[1], x[1])
    maps = []
    for points in (moved, x):
        leaves = tuple(p.clone().requires_grad_() for p in points)
        maps.append(Saliency(model).attribute(leaves, target=1, additional_forward_args=(scale,)))
    expected = precision_at_k(*maps, k=2).double()
    assert torch.allclose(table["Saliency", "ER"].values["P@2"], expected)

    def batch_func(batch):
        a, b, scales = batch
        return {"inputs": [a, b], "target": 1, "additional_forward_args": (scales,)}

    loader = DataLoader(TensorDataset(*x, scale), batch_size=2)
    assert_same(table, comparator.evaluate_loader(loader, RADIUS, batch_func, seed=0))


def test_a_stochastic_attribution_sees_one_draw():
    model, x = mlp(), normal(5, 6)
    smooth = (NoiseTunnel(Saliency(model)), {"nt_samples": 3})
    comparator = ExplanationComparator({"SmoothGrad": smooth}, {}, METRICS)
    table = comparator.evaluate(x, 0.0, 1, seed=0)
    assert (table["SmoothGrad", "noise"].values["MSE"] == 0).all()


class Counting(UniformNoise):
    """An attack that counts its calls."""

    calls = 0

    def perturb(self, inputs, radius, seed=None):
        type(self).calls += 1
        return super().perturb(inputs, radius, seed)


def test_a_transfer_attack_perturbs_once_for_all_attributions():
    model, x = mlp(), normal(3, 6)
    maps = {"a": Saliency(model), "b": InputXGradient(model)}
    Counting.calls = 0
    ExplanationComparator(maps, {"one": Counting()}, METRICS).evaluate(x, 0.1, 1)
    assert Counting.calls == 1
    ExplanationComparator(maps, {"each": lambda a: Counting()}, METRICS).evaluate(x, 0.1, 1)
    assert Counting.calls == 3


# --- reasons for caution -------------------------------------------------------------------------


class Shift(Perturbation):
    """An attack that adds 1 to the first example, and warns."""

    def perturb(self, inputs, radius):
        warnings.warn("not about gradients", UserWarning, stacklevel=1)
        moved = inputs.clone()
        moved[0] += 1
        return moved


def test_an_attack_without_a_gradient_is_flagged_not_taken_for_robust():
    model, x = relu_net(), normal(N, 6)
    table = compared(comparator_of(model), x, target=1)
    assert table["Saliency", "noise"].flags == {}
    blind = table["Saliency", "ER"]
    assert (blind.values["P@2"] == 1).all()
    assert blind.flags["zero_gradient"] == N and blind.flags["unmoved"] == N
    assert "zero gradient 9/9, unmoved 9/9" in table.to_markdown()
    loader = DataLoader(TensorDataset(x), batch_size=4)
    batches = comparator_of(model).evaluate_loader(
        loader, RADIUS, lambda b: {"inputs": b[0], "target": 1}
    )
    assert batches["Saliency", "ER"].flags == blind.flags


def test_examples_that_stay_or_leave_the_ball_are_counted_and_other_warnings_pass():
    model, x = mlp(), normal(4, 6)
    attacks = {"shift": Shift(), "gauss": GaussianNoise(), "L2": UniformNoise("L2")}
    comparator = ExplanationComparator({"Saliency": Saliency(model)}, attacks, METRICS)
    with pytest.warns(UserWarning, match="not about gradients"):
        table = comparator.evaluate(x, 0.5, 1, seed=0)
    assert table["Saliency", "shift"].flags == {"unmoved": 3, "outside_ball": 1}
    moved = GaussianNoise().perturb(x, 0.5, seed=0) - x
    outside = int((moved.abs().amax(dim=1) > 0.5).sum())
    assert table["Saliency", "gauss"].flags == {"outside_ball": outside} and outside > 0
    assert table["Saliency", "L2"].flags == {}  # a smaller ball
    with pytest.warns(UserWarning):
        table = comparator.evaluate(x, 2.0, 1, norm="L2", seed=0)
    assert table["Saliency", "shift"].flags == {"unmoved": 3, "outside_ball": 1}  # 6 ** 0.5 > 2
    with pytest.warns(UserWarning):
        table = comparator.evaluate(x, 2.5, 1, norm="L2", seed=0)
    assert table["Saliency", "shift"].flags == {"unmoved": 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_rounding_takes_no_example_out_of_the_ball(norm, dtype):
    model, x = mlp().to(dtype), (10 * normal(20, 6)).to(dtype)
    table = comparator_of(model).evaluate(x, 0.3, 1, norm=norm, seed=0)
    assert all("outside_ball" not in m.flags for m in table.measurements)


def test_an_input_that_is_not_finite_has_no_value_although_its_map_is():
    model, (x, target, _) = relu_net(), spoiled()
    assert torch.isfinite(maps_of(Saliency(model), x, target)).all()
    table = compared(comparator_of(model), x, target=target)
    for measurement in table.measurements:
        for metric, values in measurement.values.items():
            assert values.isnan().tolist() == [i == 4 for i in range(N)]
            found = table.estimate(measurement.attribution, measurement.attack, metric)
            assert found.n_nan == 1 and found.n_examples == N
    assert table.to_markdown().count("(1 NaN)") == 6


def test_an_attack_that_leaves_the_finite_numbers_has_no_value():
    class Burst(Perturbation):
        def perturb(self, inputs, radius):
            return inputs + torch.tensor([[0.0], [float("inf")], [0.1]]).double()

    table = ExplanationComparator(
        {"Saliency": Saliency(relu_net())}, {"burst": Burst()}, METRICS
    ).evaluate(normal(3, 6), 0.5, 1)
    for values in table["Saliency", "burst"].values.values():
        assert values.isnan().tolist() == [True, True, False]  # the first did not move
    assert table["Saliency", "burst"].flags == {"unmoved": 1, "outside_ball": 1}


def test_predictions_are_those_of_the_decision_function():
    x = normal(30, 6)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
    drawn(model)
    plain = compared(comparator_of(model), x, return_perturbed=True)["Saliency", "noise"]
    assert (plain.values["prediction changed"] == 0).all()  # every probability is positive
    median = model(x).detach().quantile(0.5)  # between two examples, on neither
    own = compared(comparator_of(model, decision_func=lambda p: p > median), x)["Saliency", "noise"]
    changed = (model(plain.perturbed) > median) != (model(x) > median)
    assert 0 < changed.sum() < 30
    assert torch.equal(own.values["prediction changed"], changed[:, 0].double())


def test_noise_keeps_to_the_bounds():
    comparator = comparator_of(mlp(), lower_bound=-0.1, upper_bound=torch.full((6,), 0.2))
    x = 0.01 * normal(50, 6)  # different examples: equal ones share their noise
    table = comparator.evaluate(x, 0.5, 1, seed=0, return_perturbed=True)
    moved = table["Saliency", "noise"].perturbed
    assert moved.min() == pytest.approx(-0.1) and moved.max() == pytest.approx(0.2)


# --- what is left behind -------------------------------------------------------------------------


def test_everything_is_left_as_found_also_after_an_exception():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Linear(8, 2))
    x = normal(4, 6).float().requires_grad_()
    buffers, state = [b.clone() for b in model.buffers()], torch.get_rng_state()
    calls = []

    def fails_later(maps, reference):
        calls.append(maps)
        if len(calls) == 2:
            raise KeyError
        return maps[:, 0]

    attacks = {"ER": (partial(ERAttack, k=2), {"step_num": 2})}
    saliency = Saliency(model.train())
    with pytest.raises(KeyError):
        ExplanationComparator({"S": saliency}, attacks, {"m": fails_later}).evaluate(x, 0.1, 1)
    ExplanationComparator({"S": saliency}, attacks, METRICS).evaluate(x, 0.1, 1)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert x.requires_grad and x.grad is None and not calls[0].requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_a_progress_bar_on_request(capsys):
    compared(comparator_of(mlp()), normal(3, 6), target=1)
    assert capsys.readouterr().err == ""
    compared(comparator_of(mlp()), normal(3, 6), target=1, show_progress=True)
    assert "2/2" in capsys.readouterr().err


# --- arguments -----------------------------------------------------------------------------------

SALIENCY = {"S": Saliency(mlp())}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (({}, {}, METRICS), "attributions must hold at least one"),
        ((SALIENCY, {"noise": UniformNoise()}, METRICS), "attacks must not be named 'noise'"),
        ((SALIENCY, {}, {"prediction changed": P_AT_2}), "metrics must not be named 'prediction"),
        ((SALIENCY, {"a": (UniformNoise(), {"radius": 1.0})}, {}), r"'a'.*leave \['radius'\]"),
        ((SALIENCY, {"a": (UniformNoise(), {"norm": "L2"})}, {}), r"leave \['norm'\]"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExplanationComparator(*arguments)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_bad_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match=f"confidence must lie between 0 and 1, got {confidence}"):
        ExplanationComparator(SALIENCY, {}, METRICS, confidence=confidence)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"radius": -1.0}, "radius must be finite and not negative, got -1.0"),
        ({"norm": "L1"}, "norm must be 'Linf' or 'L2', got 'L1'"),
        ({"max_examples_per_batch": 0}, "max_examples_per_batch must be an integer"),
        ({"inputs": torch.zeros(0, 6)}, "inputs must hold at least one example"),
        ({"weights": torch.ones(2)}, r"weights must be finite, not negative and of shape \(3,\)"),
        ({"weights": torch.tensor([1.0, -1.0, 1.0])}, "weights must be finite, not negative"),
        ({"weights": torch.tensor([1.0, float("nan"), 1.0])}, "weights must be finite"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    arguments = {"inputs": normal(3, 6), "radius": 0.1, "target": 1, **options}
    with pytest.raises(ValueError, match=message):
        ExplanationComparator(SALIENCY, {}, METRICS).evaluate(**arguments)


@pytest.mark.parametrize("values", [torch.zeros(()), torch.zeros(3, 1), torch.zeros(2), 1.0])
def test_a_metric_must_return_one_value_an_example(values):
    comparator = ExplanationComparator(SALIENCY, {}, {"bad": lambda maps, reference: values})
    with pytest.raises(ValueError, match=r"metrics\['bad'\] must return one value per example, sh"):
        comparator.evaluate(normal(3, 6), 0.1, 1)


@pytest.mark.parametrize(
    "batch, batch_func, message",
    [
        ((normal(3, 6), 1, 2), None, "batch_func must be given.*got 3 items"),
        ({"inputs": normal(3, 6)}, None, "batch_func must be given.*got dict"),
        ({"x": normal(3, 6)}, dict, r"batch_func must return a dict with 'inputs'.*got \['x'\]"),
        ({"inputs": normal(3, 6), "y": 1}, dict, r"got \['inputs', 'y'\]"),
    ],
)
def test_a_batch_must_be_understood(batch, batch_func, message):
    comparator = ExplanationComparator(SALIENCY, {}, METRICS)
    with pytest.raises(ValueError, match=message):
        comparator.evaluate_loader([batch], 0.1, batch_func)


def test_a_loader_must_yield_something():
    with pytest.raises(ValueError, match="loader must yield at least one batch, got none"):
        ExplanationComparator(SALIENCY, {}, METRICS).evaluate_loader([], 0.1)


def test_an_argument_that_no_one_knows_is_an_error():
    attacks = {"noise ball": (UniformNoise(), {"step_num": 3})}
    with pytest.raises(TypeError, match="step_num"):
        ExplanationComparator(SALIENCY, attacks, METRICS).evaluate(normal(3, 6), 0.1, 1)


def test_an_attack_must_return_inputs_of_the_same_shape():
    class Cut(Perturbation):
        def perturb(self, inputs, radius):
            return inputs[:1]

    comparator = ExplanationComparator(SALIENCY, {"cut": Cut()}, METRICS)
    with pytest.raises(ValueError, match=r"attack must return .*\(3, 6\).*\(1, 6\).*from Cut"):
        comparator.evaluate(normal(3, 6), 0.1, 1)
