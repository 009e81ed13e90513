"""Sources of neighbours: functions with and without a radius, attacks, Captum's own."""

import functools

import pytest
import torch
from captum.attr import Saliency
from captum.metrics import sensitivity_max
from captum.metrics._core.sensitivity import default_perturb_func as default_of_captum
from captum.robust import FGSM, PGD, Perturbation
from torch import nn

from captum_robust.metrics import precision_at_k_min, ranking_thickness
from captum_robust.noise import UniformNoise
from tests.metrics.definitions import Recorder, Watch, normal, softplus_net, thickness


def ends_of(perturb_func, inputs, radius=0.5, n_perturb_samples=1, **kwargs):
    """The neighbours that a metric explains, draw by draw: (draws, examples, ...)."""
    watch = Watch(lambda x, **kwargs: x**2)
    n_draws = n_perturb_samples
    precision_at_k_min(
        watch, inputs, 1, perturb_func, radius, n_draws, max_examples_per_batch=1, **kwargs
    )
    ends = torch.cat(watch.points[len(inputs) :])
    return ends.view(len(inputs), n_draws, *inputs.shape[1:]).transpose(0, 1)


# --- functions ---------------------------------------------------------------------------------


def scale_it(inputs, factor=3.0):
    return inputs * factor


def draw_it(inputs, n_trials=10, seed=None):
    assert (n_trials, seed) == (10, None)
    return inputs + 1


class Pushes:
    def __call__(self, inputs, perturb_radius):
        return inputs + perturb_radius

    def push(self, inputs, eps=0.0):
        return inputs + eps


TAKE_A_RADIUS = {
    "required": lambda x, r: x + r,
    "named perturb_radius": lambda x, perturb_radius=0.1: x + perturb_radius,
    "named radius": lambda x, radius=0.1: x + radius,
    "named epsilon": lambda x, epsilon=0.1: x + epsilon,
    "keyword only": lambda x, *, radius: x + radius,
    "not the second": lambda x, n_trials=1, radius=0.1: x + radius * n_trials,
    "any arguments": lambda x, *others: x + others[0],
    "object": Pushes(),
    "method": Pushes().push,
    "partial with a free radius": functools.partial(lambda x, r, sign: x + sign * r, sign=1),
}
TAKE_NONE = {
    "one parameter": (lambda x: x + 2, lambda x: x + 2),
    "a factor": (scale_it, lambda x: 3 * x),
    "a count and a seed": (draw_it, lambda x: x + 1),
    "partial": (functools.partial(scale_it, factor=2.0), lambda x: 2 * x),
    "partial with its own radius": (
        functools.partial(lambda x, radius: x + radius, radius=7.0),
        lambda x: x + 7,
    ),
}


@pytest.mark.parametrize("name", TAKE_A_RADIUS)
def test_functions_with_a_radius_are_given_it(name):
    inputs = normal(3, 4)
    assert torch.equal(ends_of(TAKE_A_RADIUS[name], inputs)[0], inputs + 0.5)


@pytest.mark.parametrize("name", TAKE_NONE)
def test_other_parameters_are_not_mistaken_for_a_radius(name):
    inputs, (perturb_func, expected) = normal(3, 4), TAKE_NONE[name]
    assert torch.equal(ends_of(perturb_func, inputs)[0], expected(inputs))


def test_a_function_is_called_once_a_draw_with_a_copy_of_all_examples():
    inputs, given = normal(3, 4), []

    def spoil(x):
        given.append(x.clone())
        x += len(given)
        return x

    before = inputs.clone()
    ends = ends_of(spoil, inputs, n_perturb_samples=3)
    assert torch.equal(torch.stack(given), before.expand(3, 3, 4))
    assert torch.equal(ends, torch.stack([before + i for i in (1, 2, 3)]))
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("as_tuple", [False, True])
def test_a_function_gets_the_type_that_the_user_gave_and_may_return_either(as_tuple):
    inputs, seen = normal(3, 4), []

    def perturb(x):
        seen.append(type(x))
        x = x[0] if as_tuple else x
        return x + 1 if as_tuple else (x + 1,)

    given = (inputs,) if as_tuple else inputs
    precision_at_k_min(lambda x: x, given, 1, perturb, n_perturb_samples=2)
    assert seen == [tuple if as_tuple else torch.Tensor] * 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_default_of_captum(dtype):
    inputs = normal(3, 400).to(dtype)
    ends = ends_of(default_of_captum, inputs, radius=0.25, n_perturb_samples=2, seed=0)
    moves = (ends - inputs).double().abs()
    assert ends.dtype == dtype  # the function itself returns float32 for half precision
    assert 0.2 < float(moves.max()) < 0.26
    assert not torch.equal(ends[0], ends[1])
    again = ends_of(default_of_captum, inputs, radius=0.25, n_perturb_samples=2, seed=0)
    assert torch.equal(ends, again)


def test_integers_are_not_noise():
    embedding = nn.Embedding(5, 4).double()
    net, x, ids = softplus_net(4), normal(3, 4), torch.tensor([0, 4, 2])
    seen = []

    def explain(inputs):
        seen.append(inputs[1])
        features = inputs[0] + embedding(inputs[1])
        maps = torch.autograd.grad(net(features)[:, 0].sum(), features)[0]
        return maps, torch.zeros(len(features), 1)

    found = ranking_thickness(
        explain, (x, ids), 2, perturb_radius=1.0, n_perturb_samples=2, n_steps=3, seed=0
    )
    assert torch.equal(seen[0], ids)
    assert torch.equal(seen[1], ids.repeat_interleave(6))
    assert found.isfinite().all()


def test_integers_take_the_value_of_the_neighbour():
    seen = []

    def explain(inputs):
        seen.append(tuple(t.detach().clone() for t in inputs))
        return inputs[0] + inputs[1][:, None]

    x, ids = torch.tensor([[0.0, 1.0]]), torch.tensor([3])
    ranking_thickness(
        explain, (x, ids), 1, lambda given: (given[0] + 4, given[1] + 2), n_perturb_samples=1,
        n_steps=2,
    )  # fmt: skip
    moved, swapped = seen[1]
    assert moved.tolist() == [[1.0, 2.0], [3.0, 4.0]]  # t = 1/4 and 3/4
    assert swapped.tolist() == [5, 5]


def captum_warns():
    """Captum tells that it needs gradients; our metrics must not."""
    return pytest.warns(UserWarning, match="did not already require gradients")


# --- attacks -----------------------------------------------------------------------------------


class Recording(Perturbation):
    """Moves by the radius and remembers how it was called."""

    def __init__(self):
        self.calls = []

    def perturb(self, inputs, radius, target=None, seed=None, additional_forward_args=None):
        self.calls.append({
            "inputs": inputs, "radius": radius, "target": target, "seed": seed,
            "additional_forward_args": additional_forward_args,
        })  # fmt: skip
        return inputs + radius * (1 + len(self.calls))


class Greedy(Perturbation):
    """Takes whatever it is offered."""

    def __init__(self):
        self.calls = []

    def perturb(self, inputs, **kwargs):
        self.calls.append(kwargs)
        return inputs + kwargs["radius"]


def explain_with(inputs, target, additional_forward_args, abs=True):
    return inputs**2


def test_an_attack_gets_radius_target_arguments_and_a_seed_but_nothing_else():
    attack, inputs = Recording(), normal(3, 4)
    target, extra = torch.tensor([2, 0, 1]), (normal(3, 2),)
    precision_at_k_min(
        explain_with, inputs, 1, attack, 0.5, 2, seed=11, target=target,
        additional_forward_args=extra, abs=False, max_examples_per_batch=1,
    )  # fmt: skip
    assert len(attack.calls) == 2
    for call in attack.calls:
        assert torch.equal(call["inputs"], inputs) and call["radius"] == 0.5
        assert call["target"] is target and call["additional_forward_args"] is extra
    assert attack.calls[0]["seed"] == 11 != attack.calls[1]["seed"]


def test_an_attack_that_takes_keywords_gets_those_of_the_explanation():
    attack = Greedy()
    precision_at_k_min(
        explain_with, normal(3, 4), 1, attack, 0.5, 1, seed=11, target=1,
        additional_forward_args=None, abs=False,
    )  # fmt: skip
    expected = {"radius": 0.5, "target": 1, "additional_forward_args": None, "abs": False}
    assert attack.calls == [{**expected, "seed": 11}]


def test_adversarial_thickness_is_one_argument():
    saliency, inputs, target = Saliency(softplus_net(9)), normal(3, 9), torch.tensor([0, 1, 2])
    attack = Recording()
    found = ranking_thickness(
        saliency.attribute, inputs, 4, attack, 0.5, n_perturb_samples=2, n_steps=6, target=target
    )
    expected = [
        thickness(
            lambda point, i=i: saliency.attribute(point.requires_grad_(), int(target[i])).detach(),
            inputs[i : i + 1].clone(), [inputs[i : i + 1] + 0.5 * m for m in (2, 3)], 4, 6,
        )
        for i in range(3)
    ]  # fmt: skip
    assert len(attack.calls) == 2
    assert found.tolist() == pytest.approx(expected, abs=1e-12) and min(expected) < 1


@pytest.mark.parametrize("no_grad", [False, True])
@pytest.mark.parametrize("form", ["partial", "partial with radius", "lambda", "subclass"])
def test_pgd_of_captum(form, no_grad):
    model = nn.Sequential(softplus_net(4), nn.Softmax(dim=1))
    inputs, target = normal(3, 4), torch.tensor([0, 1, 2])
    pgd = PGD(model)
    arguments = {"step_size": 0.1, "step_num": 4, "target": target}
    with captum_warns():
        expected = pgd.perturb(inputs, 0.25, **arguments)

    class Wrapped(Perturbation):
        def perturb(self, inputs, radius, target):
            return pgd.perturb(inputs, radius, 0.1, 4, target)

    perturb_func = {
        "partial": functools.partial(pgd.perturb, **arguments),
        "partial with radius": functools.partial(pgd.perturb, radius=0.25, **arguments),
        "lambda": lambda x, r: pgd.perturb(x, r, **arguments),
        "subclass": Wrapped(),
    }[form]
    radius = 99.0 if form == "partial with radius" else 0.25
    watch = Watch(Saliency(model).attribute)
    with torch.set_grad_enabled(not no_grad):
        precision_at_k_min(watch, inputs, 2, perturb_func, radius, 1, target=target)
    torch.testing.assert_close(watch.points[-1], expected)
    assert ((expected - inputs).abs().amax(dim=1) > 0.2).all()


def test_fgsm_of_captum_gets_the_radius_as_its_epsilon():
    model = nn.Sequential(softplus_net(4), nn.Softmax(dim=1))
    inputs, target = normal(3, 4), torch.tensor([0, 1, 2])
    with captum_warns():
        expected = FGSM(model).perturb(inputs, 0.25, target)
    watch = Watch(Saliency(model).attribute)
    precision_at_k_min(watch, inputs, 2, FGSM(model), 0.25, 1, target=target)
    torch.testing.assert_close(watch.points[-1], expected)
    assert not torch.equal(expected, inputs)


# --- beside Captum's own metric ----------------------------------------------------------------


def test_sensitivity_max_takes_the_same_functions():
    saliency, inputs, target = Saliency(softplus_net(9)), normal(3, 9), torch.tensor([0, 1, 2])

    def push(x, perturb_radius=0.0):
        return (x[0] if isinstance(x, tuple) else x) + perturb_radius

    with captum_warns():
        sensitivity = sensitivity_max(
            saliency.attribute, inputs, push, 1.0, n_perturb_samples=3, target=target
        )
    near, far = (saliency.attribute(x.requires_grad_(), target) for x in (inputs + 0, inputs + 1.0))
    torch.testing.assert_close(sensitivity, (far - near).norm(dim=1) / near.norm(dim=1))
    worst = precision_at_k_min(saliency.attribute, inputs, 4, push, 1.0, target=target)
    left, right = (m.topk(4, dim=1).indices.tolist() for m in (near, far))
    shared = [len(set(a) & set(b)) / 4 for a, b in zip(left, right, strict=True)]
    assert worst.tolist() == shared and min(shared) < 1
    noise = UniformNoise().perturb
    kwargs = {"n_perturb_samples": 4, "target": target}
    with captum_warns():
        sensitivity = sensitivity_max(saliency.attribute, inputs, noise, 1.0, **kwargs)
    assert (sensitivity > 0).all()
    found = ranking_thickness(saliency.attribute, inputs, 4, noise, 1.0, **kwargs)
    assert ((found > 0) & (found <= 1)).all() and (found < 1).any()


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("perturb_func", "message"),
    [
        (lambda x: x[:, :3], r"perturb_func must return tensors of shapes .*3, 4.* got .*3, 3"),
        (lambda x: x.repeat(2, 1), r"perturb_func must return tensors of shapes .* got .*6, 4"),
        (lambda x: (x, x), "perturb_func must return tensors of shapes"),
        (lambda x: [x], "the result of perturb_func must be a Tensor or a tuple .* got list"),
        (lambda x: None, "the result of perturb_func must be a Tensor or a tuple .* got NoneType"),
    ],
)
@pytest.mark.parametrize("metric", [ranking_thickness, precision_at_k_min])
def test_results_of_other_shapes_are_refused(metric, perturb_func, message):
    with pytest.raises(ValueError, match=message):
        metric(lambda x: x, normal(3, 4), 2, perturb_func)


def test_recorders_see_what_is_explained():  # the tests above and elsewhere rest on this
    perturb, inputs = Recorder(0.5), normal(3, 4)
    ends = ends_of(perturb, inputs, n_perturb_samples=2, seed=0)
    assert torch.equal(ends, torch.stack([drawn[0] for drawn in perturb.returned]))
    assert 0.3 < float((ends - inputs).abs().max()) <= 0.5
