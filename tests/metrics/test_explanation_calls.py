"""Arguments of an explanation function, and the results it may return."""

import functools

import pytest
import torch
from captum.attr import (
    FeatureAblation,
    GradientShap,
    InputXGradient,
    IntegratedGradients,
    NoiseTunnel,
    Saliency,
)
from torch import nn

from captum_robust.metrics import (
    pairwise_ranking_thickness,
    precision_at_k_min,
    ranking_thickness,
)
from tests.metrics.definitions import Recorder, Watch, normal, softplus_net, thickness

PAIR = torch.tensor([[0, 1]])
METRICS = [
    lambda f, x, **kwargs: ranking_thickness(f, x, 1, n_perturb_samples=3, n_steps=2, **kwargs),
    lambda f, x, **kwargs: pairwise_ranking_thickness(
        f, x, PAIR, n_perturb_samples=3, n_steps=2, **kwargs
    ),
    lambda f, x, **kwargs: precision_at_k_min(f, x, 1, n_perturb_samples=6, **kwargs),
]
every_metric = pytest.mark.parametrize("metric", METRICS, ids=["top-k", "pairs", "minimum"])


class Calls:
    """An explanation function, the square of the input, that remembers its arguments."""

    def __init__(self):
        self.inputs, self.kwargs = [], []

    def __call__(self, inputs, **kwargs):
        self.inputs.append(inputs)
        self.kwargs.append(kwargs)
        first = inputs[0] if isinstance(inputs, tuple) else inputs
        return first**2


# --- inputs and maps ---------------------------------------------------------------------------


@every_metric
def test_a_tensor_is_passed_on_as_a_tensor_and_a_tuple_as_a_tuple(metric):
    x, y = normal(3, 4), normal(3, 2)
    for given in (x, (x,), (x, y)):
        calls = Calls()
        metric(calls, given)
        assert {type(i) for i in calls.inputs} == {type(given)}
        if isinstance(given, tuple):
            shapes = {tuple(t.shape[1:] for t in i) for i in calls.inputs}
            assert shapes == {tuple(t.shape[1:] for t in given)}


@every_metric
def test_maps_may_be_a_tensor_or_a_tuple(metric):
    x = normal(3, 4)
    of_tensor = metric(lambda x: x**2, x, perturb_radius=1.0, seed=0)
    of_tuple = metric(lambda x: (x**2,), x, perturb_radius=1.0, seed=0)
    of_parts = metric(lambda x: (x[:, :1] ** 2, x[:, 1:] ** 2), x, perturb_radius=1.0, seed=0)
    assert torch.equal(of_tensor, of_tuple) and torch.equal(of_tensor, of_parts)
    assert (of_tensor < 1).any()


@every_metric
def test_points_require_gradients_and_results_do_not(metric):
    calls = Calls()
    found = metric(calls, normal(3, 4))
    assert all(i.requires_grad and i.is_leaf for i in calls.inputs)
    assert not found.requires_grad


@every_metric
@pytest.mark.parametrize(
    "explain",
    [
        lambda net: Saliency(net).attribute,
        lambda net: functools.partial(IntegratedGradients(net).attribute, n_steps=3),
        lambda net: NoiseTunnel(InputXGradient(net)).attribute,
        lambda net: lambda x, target: torch.autograd.grad(net(x)[:, target].sum(), x)[0],
        lambda net: lambda x, target: torch.func.vmap(torch.func.grad(lambda v: net(v)[target]))(x),
    ],
    ids=["Saliency", "IntegratedGradients", "NoiseTunnel", "autograd", "torch.func"],
)
def test_gradients_are_there_inside_no_grad(metric, explain):
    attribute, inputs = explain(softplus_net(4)), normal(3, 4)
    expected = metric(attribute, inputs, perturb_radius=1.0, target=0, seed=0)
    with torch.no_grad():
        found = metric(attribute, inputs, perturb_radius=1.0, target=0, seed=0)
        assert not torch.is_grad_enabled()
    assert torch.equal(found, expected) and (found < 1).any()


@every_metric
@pytest.mark.parametrize("method", [Saliency, InputXGradient])
@pytest.mark.parametrize("bound", [False, True])
def test_a_method_gives_what_it_gives_behind_a_function(metric, method, bound):
    attribution, target = method(softplus_net(4)), torch.tensor([0, 1, 0])
    expected = metric(
        lambda x, **kwargs: attribution.attribute(x, **kwargs),
        normal(3, 4), perturb_radius=1.0, target=target, seed=0,
    )  # fmt: skip
    attribute, kwargs = attribution.attribute, {"target": target}
    if bound:
        attribute, kwargs = functools.partial(attribute, target=target), {}
    found = metric(attribute, normal(3, 4), perturb_radius=1.0, seed=0, **kwargs)
    torch.testing.assert_close(found, expected)
    assert (found < 1).any()


# --- targets and further arguments -------------------------------------------------------------


class ManyOutputs(nn.Module):
    """(N, 6) -> (N, 2, 3), with a scale per example and a graph for all of them."""

    def __init__(self, edge_index=None):
        super().__init__()
        self.net, self.edge_index = softplus_net(6, 6), edge_index

    def forward(self, x, scale=None, edge_index=None, weight=1.0):
        assert edge_index is self.edge_index
        if scale is not None:
            assert scale.shape == (len(x), 6)
            x = x * scale
        return weight * self.net(x).view(-1, 2, 3)


TARGETS = {
    "tuple for all": ((1, 2), lambda i: (1, 2)),
    "list of tuples": ([(0, 1), (1, 0), (1, 2)], lambda i: [(0, 1), (1, 0), (1, 2)][i]),
}
FLAT_TARGETS = {
    "int for all": (2, lambda i: 2),
    "tensor of one": (torch.tensor([2]), lambda i: 2),
    "tensor": (torch.tensor([2, 0, 1]), lambda i: (2, 0, 1)[i]),
    "list": ([2, 0, 1], lambda i: (2, 0, 1)[i]),
}


def found_and_expected(attribute, inputs, target, arguments_of, **kwargs):
    perturb = Recorder(1.0)
    found = ranking_thickness(
        attribute, inputs, 3, perturb, n_perturb_samples=3, n_steps=4, target=target, seed=0,
        **kwargs,
    )  # fmt: skip
    expected = [
        thickness(
            lambda point, i=i: attribute(point.requires_grad_(), **arguments_of(i)).detach(),
            inputs[i : i + 1].clone(), perturb.neighbours(i), 3, 4,
        )
        for i in range(len(inputs))
    ]  # fmt: skip
    return found.tolist(), pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("chunk", [None, 1, 3, 5])
@pytest.mark.parametrize("name", FLAT_TARGETS)
def test_targets_of_one_output_dimension(name, chunk):
    target, of_example = FLAT_TARGETS[name]
    found, expected = found_and_expected(
        Saliency(softplus_net(6)).attribute, normal(3, 6), target,
        lambda i: {"target": of_example(i)}, max_examples_per_batch=chunk,
    )  # fmt: skip
    assert found == expected and min(found) < 1


@pytest.mark.parametrize("chunk", [None, 1, 3, 5])
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("method", [Saliency, InputXGradient, FeatureAblation])
def test_targets_and_arguments_of_several_dimensions(method, name, chunk):
    target, of_example = TARGETS[name]
    edge_index = torch.randint(0, 6, (2, 9))
    scale = normal(3, 6, seed=5)
    attribute = method(ManyOutputs(edge_index)).attribute
    found, expected = found_and_expected(
        attribute, normal(3, 6), target,
        lambda i: {
            "target": of_example(i),
            "additional_forward_args": (scale[i : i + 1], edge_index, 2.0),
        },
        additional_forward_args=(scale, edge_index, 2.0), max_examples_per_batch=chunk,
    )  # fmt: skip
    assert found == expected and min(found) < 1


def test_baselines_of_examples_are_expanded():
    attribute = functools.partial(IntegratedGradients(softplus_net(6)).attribute, n_steps=3)
    baselines = normal(3, 6, seed=9)
    found, expected = found_and_expected(
        attribute, normal(3, 6), 0, lambda i: {"target": 0, "baselines": baselines[i : i + 1]},
        baselines=baselines,
    )  # fmt: skip
    assert found == expected and min(found) < 1


class WatchedShap(GradientShap):
    def __init__(self, forward_func):
        super().__init__(forward_func)
        self.given = []

    def attribute(self, inputs, baselines, **kwargs):
        self.given.append(baselines)
        return super().attribute(inputs, baselines, **kwargs)


@pytest.mark.parametrize("form", ["method", "partial"])
def test_baselines_that_are_a_distribution_belong_to_all(form):
    shap, baselines = WatchedShap(softplus_net(6)), normal(3, 6, seed=9)  # as many as examples
    attribute = {
        "method": shap.attribute,
        "partial": functools.partial(shap.attribute, n_samples=2),
    }[form]
    found = ranking_thickness(
        attribute, normal(3, 6), 2, n_perturb_samples=2, n_steps=2, baselines=baselines, target=0,
        max_examples_per_batch=1,
    )  # fmt: skip
    assert len(shap.given) == 1 + 3 + 3 * 2 * 2  # the first call is repeated: it drew numbers
    assert all(torch.equal(b, baselines) for b in shap.given)
    assert found.isfinite().all()


@pytest.mark.parametrize("chunk", [None, 1])
def test_one_perturbation_of_one_example_expands_nothing(chunk):
    inputs, calls = normal(1, 4), Calls()
    target, edge_index, own = [2], torch.zeros(2, 7).long(), normal(1, 3)
    kwargs = {"target": target, "additional_forward_args": (own, edge_index, None)}
    ranking_thickness(
        calls, inputs, 2, n_perturb_samples=1, n_steps=1, max_examples_per_batch=chunk, **kwargs
    )
    assert [tuple(i.shape) for i in calls.inputs] == [(1, 4)] * 2
    for seen in calls.kwargs:
        assert seen.keys() == kwargs.keys()
        assert seen["target"] is target
        assert seen["additional_forward_args"] is kwargs["additional_forward_args"]


@pytest.mark.parametrize(("n_samples", "n_steps"), [(1, 1), (4, 3)])
def test_rows_of_one_example_at_a_time_expand_nothing(n_samples, n_steps):
    inputs, calls, extra = normal(1, 4), Calls(), (normal(1, 3), torch.zeros(2, 7).long())
    ranking_thickness(
        calls, inputs, 2, n_perturb_samples=n_samples, n_steps=n_steps, max_examples_per_batch=1,
        additional_forward_args=extra,
    )  # fmt: skip
    assert [len(i) for i in calls.inputs] == [1] * (1 + n_samples * n_steps)
    assert all(seen["additional_forward_args"] is extra for seen in calls.kwargs)


def test_one_perturbation_of_a_batch_expands_nothing():
    inputs, calls, extra = normal(3, 4), Calls(), (normal(3, 2),)
    precision_at_k_min(calls, inputs, 2, n_perturb_samples=1, additional_forward_args=extra)
    assert [tuple(i.shape) for i in calls.inputs] == [(3, 4)] * 2
    assert all(seen["additional_forward_args"] is extra for seen in calls.kwargs)


def test_arguments_that_belong_to_no_example_arrive_as_they_are():
    shared = {"edge_index": torch.zeros(2, 7).long(), "name": "x", "names": ("a", "b"), "n": None}
    calls = Calls()
    ranking_thickness(calls, normal(3, 4), 2, n_perturb_samples=2, n_steps=2, **shared)
    for seen in calls.kwargs:
        assert all(seen[name] is value for name, value in shared.items() if name != "names")
        assert seen["names"] == ("a", "b")


# --- graphs ------------------------------------------------------------------------------------


def test_edge_masks_of_pytorch_geometric():
    pytest.importorskip("torch_geometric", reason="PyTorch Geometric is not installed")
    from torch_geometric.nn import GCNConv, to_captum_model

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = GCNConv(3, 8), GCNConv(8, 2)

        def forward(self, x, edge_index):
            return self.conv2(nn.functional.softplus(self.conv1(x, edge_index)), edge_index)

    torch.manual_seed(0)
    model = Network().double()
    x = normal(5, 3)
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4, 4, 0], [1, 0, 2, 1, 3, 2, 4, 3, 0, 4]])
    attribute = Saliency(to_captum_model(model, mask_type="edge", output_idx=2)).attribute
    kwargs = {"target": 1, "additional_forward_args": (x, edge_index)}
    edge_mask, perturb = torch.full((1, 10), 0.7).double(), Recorder(0.6)
    found = ranking_thickness(
        attribute, edge_mask, 4, perturb, n_perturb_samples=3, n_steps=4,
        max_examples_per_batch=1, seed=0, **kwargs,
    )  # fmt: skip
    expected = thickness(
        lambda mask: attribute(mask.requires_grad_(), **kwargs).detach(),
        edge_mask.clone(), perturb.neighbours(0), 4, 4,
    )  # fmt: skip
    assert found.tolist() == [pytest.approx(expected, abs=1e-12)] and expected < 1


# --- groups of features ------------------------------------------------------------------------


def thickness_of(attribute, inputs, feature_mask, chunk=None, k=1):
    return ranking_thickness(
        attribute, inputs, k, perturb_radius=2.0, n_perturb_samples=3, n_steps=4,
        feature_mask=feature_mask, max_examples_per_batch=chunk, seed=0,
    )  # fmt: skip


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 4, 5, 12, 100])
def test_masks_of_examples_go_with_their_examples(chunk):
    # As many examples as features as rows of some chunks: nothing may be taken for another.
    inputs = normal(4, 4)
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1], [1, 1, 0, 0]])

    def explain(x):
        return x**2

    expected = [float(thickness_of(explain, inputs[i : i + 1], mask[i : i + 1])) for i in range(4)]
    assert thickness_of(explain, inputs, mask, chunk).tolist() == pytest.approx(expected)
    assert len(set(expected)) > 1


@every_metric
@pytest.mark.parametrize("chunk", [None, 1, 4, 5])
def test_masks_of_examples_bound_to_the_attribution_go_with_their_examples(metric, chunk):
    inputs, target = normal(4, 6), torch.tensor([0, 1, 2, 0])
    order = torch.Generator().manual_seed(0)
    masks = torch.stack([torch.randperm(6, generator=order) % 4 for _ in range(4)])
    ablation = FeatureAblation(softplus_net(6))

    def value(rows, **kwargs):
        attribute = functools.partial(ablation.attribute, feature_mask=masks[rows])
        bound = functools.partial(attribute, target=target[rows])
        return metric(bound, inputs[rows], perturb_radius=1.0, seed=0, **kwargs)

    expected = torch.cat([value(slice(i, i + 1)) for i in range(4)])
    found = value(slice(None), max_examples_per_batch=chunk)
    torch.testing.assert_close(found, expected)
    assert (found < 1).any()


@pytest.mark.parametrize("chunk", [None, 1, 3])
@pytest.mark.parametrize("shape", [(4,), (1, 4), (1, 1, 4), (4, 4), (1, 4, 4), (1, 1, 4, 4)])
def test_masks_for_all_examples_may_leave_out_dimensions(shape, chunk):
    inputs = normal(4, 2, 4, 4)  # the height is the number of examples
    mask = torch.arange(4).expand(shape) if shape[-2:] != (4, 4) else superpixels().view(shape)
    full = mask.expand(1, 2, 4, 4)
    calls = Watch(lambda x: x**2)
    found = thickness_of(calls, inputs, mask, chunk, k=2)

    def grouped(x):
        return torch.stack([(x**2 * (full == g)).sum(dim=(1, 2, 3)) for g in range(4)], dim=1)

    torch.testing.assert_close(found, thickness_of(grouped, inputs, None, chunk, k=2))
    assert (found < 1).any()


def superpixels():
    quarter = torch.arange(4) // 2
    return 2 * quarter[:, None] + quarter[None, :]


def test_groups_span_tuples():
    x, y = normal(3, 3), normal(3, 2)
    masks = torch.tensor([[0, 1, 2]]), torch.tensor([[2, 0]])

    def explain(inputs):
        return inputs[0] ** 2, inputs[1] ** 2

    def grouped(inputs):
        a, b = explain(inputs)
        return torch.stack([a[:, 0] + b[:, 1], a[:, 1], a[:, 2] + b[:, 0]], dim=1)

    found = thickness_of(explain, (x, y), masks)
    torch.testing.assert_close(found, thickness_of(grouped, (x, y), None))
    assert (found < 1).any()


# --- dtypes and layouts ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_models_of_any_precision(dtype):
    net, inputs = softplus_net(6).to(dtype), normal(1, 6).to(dtype)
    watch = Watch(Saliency(net).attribute)
    found = ranking_thickness(watch, inputs, 2, perturb_radius=1.0, target=0, seed=0)
    assert {p.dtype for p in watch.points} == {dtype}
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    # Counted from the maps that the model returned.
    at_start, maps = watch.maps[0][0].tolist(), torch.cat(watch.maps[1:])
    top = sorted(sorted(range(6), key=lambda i: -at_start[i])[:2])
    rest = sorted(set(range(6)) - set(top))
    held = maps[:, top][:, :, None] >= maps[:, rest][:, None, :]
    assert found.tolist() == [pytest.approx(float(held.double().mean()), abs=1e-6)]
    assert found.item() < 1
    linear = nn.Linear(6, 2).to(dtype)
    assert ranking_thickness(Saliency(linear).attribute, inputs, 2, target=1).tolist() == [1.0]


@every_metric
def test_layouts_do_not_matter(metric):
    net = nn.Sequential(nn.Conv2d(4, 3, 2), nn.Softplus(beta=5), nn.Flatten(), nn.Linear(12, 2))
    net = net.double()
    for seed, parameter in enumerate(net.parameters()):
        parameter.data = normal(*parameter.shape, seed=seed)
    inputs = normal(3, 4, 3, 3)
    expected = metric(Saliency(net).attribute, inputs, perturb_radius=2.0, target=0, seed=0)
    for other in (
        inputs.contiguous(memory_format=torch.channels_last),
        inputs.transpose(1, 3).contiguous().transpose(1, 3),
        torch.stack([inputs, inputs], dim=-1)[..., 0],
    ):
        assert not other.is_contiguous()
        found = metric(Saliency(net).attribute, other, perturb_radius=2.0, target=0, seed=0)
        torch.testing.assert_close(found, expected)
    assert (expected < 1).any()
