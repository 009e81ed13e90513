"""The smallest radius, against closed forms, a search written out, and the certificate."""

import math

import pytest
import torch
from captum.attr import DeepLift, InputXGradient, Saliency
from captum.robust import Perturbation
from torch import nn

from captum_robust.metrics import certified_top_k_radius, precision_at_k
from captum_robust.robust import ERAttack, ExplanationAttack, UniformNoise
from captum_robust.robust.evaluation.min_radius import MinRadius
from captum_robust.robust.info import ZeroGradientWarning
from tests.robust.targets import Quadratic, TwoInputs, drawn, mlp, normal, ranked, stock_scores

N, UPPER = 6, 3.0
RESOLUTION = UPPER / 4 / 2**8


def smooth_mlp():
    return drawn(nn.Sequential(nn.Linear(6, 8), nn.Softplus(), nn.Linear(8, 3)))


def nearest_flips(model, x, norm):
    """Radius at which the first other feature overtakes the top one, and that feature."""
    dual = {"L2": 2, "Linf": 1}[norm]
    radii, features = [], []
    for row in x:
        scores = model.A @ row + model.b
        top = ranked(scores)[0]
        at = [
            math.inf if j == top
            else float((scores[top] - scores[j]) / (model.A[top] - model.A[j]).norm(p=dual))
            for j in range(len(scores))
        ]  # fmt: skip
        radii.append(min(at))
        features.append((top, at.index(min(at))))
    return torch.tensor(radii).double(), features


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_radius_of_a_quadratic_model_is_that_of_the_nearest_pair(norm):
    model, x = Quadratic(N), normal(20, N)
    true, pairs = nearest_flips(model, x, norm)
    assert (true > 10 * RESOLUTION).sum() > 5 and (true < UPPER).all()
    top, other = (torch.tensor(features)[:, None] for features in zip(*pairs, strict=True))

    def gap(scores, reference):
        return (scores.gather(1, top) - scores.gather(1, other))[:, 0]

    attack = ExplanationAttack(Saliency(model), gap, preserve_prediction="none")
    top_1_changed = lambda maps, reference: precision_at_k(maps, reference, k=1) < 1  # noqa: E731
    search = MinRadius(attack, top_1_changed, upper=UPPER)
    radius, moved = search.evaluate(x, norm=norm, step_num=3, abs=False, return_perturbed=True)
    assert ((radius > true) & (radius <= true + RESOLUTION + 1e-9)).all()
    size = (moved - x).abs().amax(dim=1) if norm == "Linf" else (moved - x).norm(dim=1)
    assert ((size > true) & (size <= radius * (1 + 1e-12))).all()
    maps = [stock_scores(Saliency(model), points, abs=False) for points in (x, moved)]
    assert all(ranked(a)[0] != ranked(b)[0] for a, b in zip(*maps, strict=True))

    own = MinRadius(ERAttack(Saliency(model), k=1, preserve_prediction="none"), upper=UPPER)
    assert (own.evaluate(x, norm=norm, step_num=5, abs=False) > true).all()


def test_two_features_have_one_pair_which_any_attack_on_the_ranking_finds():
    model, x = Quadratic(2), normal(20, 2)
    true, _ = nearest_flips(model, x, "L2")
    within = true < (upper := float(true.quantile(0.55)))
    attack = ERAttack(Saliency(model), k=1, preserve_prediction="none")
    radius = MinRadius(attack, upper=upper).evaluate(x, norm="L2", step_num=3, abs=False)
    assert 5 < within.sum() < 15
    assert (radius[~within] == math.inf).all()
    assert ((radius > true) & (radius <= true + upper / 4 / 2**8 + 1e-9))[within].all()


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("k", [1, 3])
def test_the_radius_is_never_below_the_certified_one(k, norm):
    model, x = smooth_mlp(), normal(30, 6)
    certified = certified_top_k_radius(model, x, k, target=1, norm=norm, max_radius=UPPER)
    attack = ERAttack(Saliency(model), k, pairs="mm", gap="exp", preserve_prediction="none")
    radius = MinRadius(attack, upper=UPPER).evaluate(x, 1, norm=norm, step_num=8)
    assert (certified > 1e-2).sum() > 20 and radius.isfinite().sum() > 20
    assert (radius >= certified).all()


# --- the search ----------------------------------------------------------------------------------


class Scripted(Perturbation):
    """Moves the first feature, which is its own map, by 10 at some radii; notes its calls."""

    def __init__(self, breaks):
        self.breaks, self.calls = breaks, []

    def perturb(self, inputs, radius, start=None, seed=None):
        self.calls.append((radius.clone(), None if start is None else start.clone()))
        moved = inputs.clone()
        moved[:, 1] += radius * 1e-6
        for i, r in enumerate(radius.tolist()):
            moved[i, 0] += 10.0 if self.breaks[i](r) else 0.0
        return moved


class Itself(InputXGradient):
    """An attribution whose map is the input."""

    def __init__(self):
        super().__init__(lambda x: x.sum(dim=1))


def first_moved(maps, reference):
    return maps[:, 0] > reference[:, 0] + 5


BREAKS = [
    lambda r: r > 0.33,
    lambda r: 0.2 < r < 0.3 or r > 0.93,  # not monotone
    lambda r: r > 0.999,
    lambda r: False,
    lambda r: True,
    lambda r: 0.4 < r < 0.45,
]


def searched(breaks, lower, upper, n_radii, n_bisections):
    """The search for one example: its result, and the radii that it tries."""
    below, above, tried = lower, math.inf, []
    for i in range(n_radii):
        tried.append(lower + (i + 1) / n_radii * (upper - lower))
        if breaks(tried[-1]):
            above = tried[-1]
            break
        below = tried[-1]
    if above < math.inf:
        for _ in range(n_bisections):
            tried.append((below + above) / 2)
            if breaks(tried[-1]):
                above = tried[-1]
            else:
                below = tried[-1]
    return above, tried


@pytest.mark.parametrize("lower, n_radii, n_bisections", [(0, 4, 8), (0.1, 1, 6), (0, 20, 0)])
def test_every_example_is_searched_on_its_own(lower, n_radii, n_bisections):
    x, attack = normal(len(BREAKS), 3), Scripted(BREAKS)
    search = MinRadius(attack, first_moved, lower, 1.0, n_radii, n_bisections, Itself())
    radius, moved = search.evaluate(x, return_perturbed=True)
    expected = [searched(b, lower, 1.0, n_radii, n_bisections) for b in BREAKS]
    assert radius.tolist() == pytest.approx([result for result, _ in expected], abs=1e-12)
    assert len(attack.calls) == max(len(tried) for _, tried in expected)
    for i, (_, tried) in enumerate(expected):
        own = [float(radii[i]) for radii, _ in attack.calls[: len(tried)]]
        assert own == pytest.approx(tried, abs=1e-12)
    found = radius.isfinite()
    assert torch.equal(moved[~found], x[~found])
    assert torch.allclose((moved - x)[found, 1], radius[found] * 1e-6, rtol=1e-6, atol=0)
    assert ((moved - x)[found, 0] - 10).abs().max() < 1e-12


def test_the_attack_goes_on_from_the_largest_radius_that_failed():
    x, attack = normal(1, 3), Scripted([lambda r: r > 0.6])
    MinRadius(attack, first_moved, n_bisections=4, attribution=Itself()).evaluate(x)
    (_, first), *later = attack.calls
    assert first is None
    for number, (_, start) in enumerate(later, start=1):
        failed = [float(r) for r, _ in attack.calls[:number] if r <= 0.6]
        assert float(start[0, 1] - x[0, 1]) == pytest.approx(max(failed) * 1e-6, rel=1e-6)


def test_a_search_goes_on_no_longer_than_any_example_needs():
    attack = Scripted([lambda r: False] * 3)
    MinRadius(attack, first_moved, n_radii=3, attribution=Itself()).evaluate(normal(3, 3))
    assert len(attack.calls) == 3


@pytest.mark.parametrize("attack", ["er", "noise"])
def test_neither_batch_nor_chunks_nor_order_change_the_radius(attack):
    model, x, target = mlp(), normal(8, 6), torch.arange(8) % 3
    saliency = Saliency(model)
    changed = lambda maps, reference: precision_at_k(maps, reference, k=2) < 1  # noqa: E731
    search, options = {
        "er": (MinRadius(ERAttack(saliency, k=2), upper=0.8), {"step_num": 5}),
        "noise": (MinRadius(UniformNoise(), changed, upper=0.8, attribution=saliency), {}),
    }[attack]
    radius, moved = search.evaluate(x, target, seed=3, return_perturbed=True, **options)
    assert 2 < radius.isfinite().sum() < 8 and len(radius.unique()) > 3
    order = torch.tensor([4, 0, 6, 2, 5, 1, 3, 7])
    again = search.evaluate(x[order], target[order], seed=3, **options)
    assert torch.equal(again, radius[order])
    for size in (1, 5):
        found = search.evaluate(
            x, target, seed=3, max_examples_per_batch=size, return_perturbed=True, **options
        )
        assert torch.equal(found[0], radius)
        assert torch.allclose(found[1], moved, rtol=0, atol=1e-9)
    alone = [search.evaluate(x[i : i + 1], int(target[i]), seed=3, **options) for i in range(8)]
    assert torch.equal(torch.cat(alone), radius)


def test_the_seed_decides_what_noise_finds():
    changed = lambda maps, reference: precision_at_k(maps, reference, k=2) < 1  # noqa: E731
    search = MinRadius(UniformNoise(), changed, attribution=Saliency(mlp()), upper=2.0)
    x = normal(12, 6)
    first, again, other = (search.evaluate(x, 1, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    state = torch.get_rng_state()
    search.evaluate(x, 1)
    assert torch.equal(torch.get_rng_state(), state)


# --- what counts as broken -----------------------------------------------------------------------


def test_a_linear_model_never_breaks_and_the_attack_says_that_it_saw_nothing():
    model, x = nn.Linear(6, 3).double(), normal(4, 6)
    with pytest.warns(ZeroGradientWarning):
        radius, moved = MinRadius(ERAttack(Saliency(model), k=2)).evaluate(
            x, 1, step_num=2, return_perturbed=True
        )
    assert (radius == math.inf).all() and torch.equal(moved, x)


def test_harder_criteria_take_larger_radii():
    model, x = mlp(), normal(20, 6)
    attack = ERAttack(Saliency(model), k=2)
    half = lambda maps, reference: precision_at_k(maps, reference, k=2) <= 0.5  # noqa: E731
    none = lambda maps, reference: precision_at_k(maps, reference, k=2) == 0  # noqa: E731
    either = lambda *maps: none(*maps) | half(*maps)  # noqa: E731
    default, at_half, at_none, composed = (
        MinRadius(attack, success, upper=2.0).evaluate(x, 1, step_num=8)
        for success in (None, half, none, either)
    )
    assert torch.equal(default, at_half) and torch.equal(at_half, composed)  # of two, one is half
    assert (at_none >= at_half).all() and (at_none > at_half).sum() > 10


def test_the_default_criterion_ranks_as_the_attack_does():
    model, x = mlp(), normal(8, 6)
    options = {"feature_mask": torch.tensor([[0, 0, 1, 1, 2, 2]]), "absolute": True}
    attack = ERAttack(Saliency(model), k=1, **options)
    radius, moved = MinRadius(attack, upper=2.0).evaluate(
        x, 1, step_num=8, abs=False, return_perturbed=True
    )
    groups = [
        stock_scores(Saliency(model), p, 1, abs=False).abs().view(-1, 3, 2).sum(dim=2)
        for p in (x, moved)
    ]
    changed = torch.tensor([ranked(a)[0] != ranked(b)[0] for a, b in zip(*groups, strict=True)])
    assert torch.equal(changed, radius.isfinite()) and changed.sum() > 2


class Dead(nn.Module):
    """The map of all examples but the first is constant away from zero."""

    def forward(self, x):
        alive = (x**3 + x * torch.arange(1, 4).to(x)).sum(dim=1)
        return torch.where((x[:, 0] == 0) | (x[:, 1] > 5), alive, x.sum(dim=1))


def test_an_example_without_a_ranking_has_no_radius():
    x = torch.tensor([[0.0, 6.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [math.nan, 6.0, 0.0]])
    never = lambda maps, reference: torch.zeros(4, dtype=torch.bool)  # noqa: E731
    search = MinRadius(UniformNoise(), never, attribution=Saliency(Dead()))
    radius, moved = search.evaluate(x, seed=0, return_perturbed=True)
    # Ranked throughout; not ranked at the start; no longer ranked once moved; not finite.
    assert radius.isnan().tolist() == [False, True, True, True] and radius[0] == math.inf
    assert torch.equal(moved.nan_to_num(), x.nan_to_num())


def test_an_example_that_is_not_finite_has_no_radius_although_its_map_is():
    model, x = drawn(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))), normal(3, 6)
    x[1, 0] = math.nan
    assert torch.isfinite(stock_scores(Saliency(model), x, 1)).all()
    always = lambda maps, reference: torch.ones(3, dtype=torch.bool)  # noqa: E731
    search = MinRadius(UniformNoise(), always, attribution=Saliency(model), n_bisections=3)
    radius, moved = search.evaluate(x, 1, seed=0, return_perturbed=True)
    assert radius[[0, 2]].tolist() == [0.25 / 2**3] * 2 and radius[1].isnan()
    assert torch.equal(moved[1].nan_to_num(), x[1].nan_to_num())


# --- what it works with --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks:UserWarning")
def test_an_attack_on_one_attribution_is_scored_on_another():
    model, x = smooth_mlp(), normal(6, 6)
    attack, deeplift = ERAttack(Saliency(model), k=2), DeepLift(model)
    search = MinRadius(attack, upper=2.0, attribution=deeplift)
    arguments = {"step_num": 8, "baselines": torch.ones(1, 6).double()}
    radius, moved = search.evaluate(x, 1, return_perturbed=True, **arguments)
    maps = [
        stock_scores(DeepLift(model), p, 1, baselines=arguments["baselines"]) for p in (x, moved)
    ]
    found = radius.isfinite()
    assert torch.equal(precision_at_k(*maps, k=2) < 1, found) and found.sum() > 0


def test_tuples_additional_arguments_and_masks():
    model, x = TwoInputs(), (normal(5, 3), normal(5, 1, 2, seed=1))
    scale, frozen = torch.linspace(0.5, 2, 5).double(), torch.tensor([1.0, 1.0, 0.0])
    search = MinRadius(ERAttack(Saliency(model), k=2), upper=2.0)
    radius, moved = search.evaluate(
        x, 1, (scale,), step_num=8, mask=(frozen, torch.ones(1)), return_perturbed=True
    )
    assert isinstance(moved, tuple) and radius.isfinite().sum() > 2
    for tensor, start in zip(moved, x, strict=True):
        assert ((tensor - start).abs().flatten(1).amax(dim=1) <= radius).all()
    assert torch.equal(moved[0][:, 2], x[0][:, 2])
    maps = [
        stock_scores(Saliency(model), points, 1, additional_forward_args=(scale,))
        for points in (x, moved)
    ]
    assert torch.equal(precision_at_k(*maps, k=2) < 1, radius.isfinite())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_other_precisions(dtype):
    model, x = mlp().to(dtype), normal(6, 6).to(dtype)
    radius, moved = MinRadius(ERAttack(Saliency(model), k=2), upper=2.0).evaluate(
        x, 1, step_num=5, return_perturbed=True
    )
    assert radius.dtype == torch.float32 and moved.dtype == dtype
    assert radius.isfinite().any()
    assert ((moved.float() - x.float()).abs().amax(dim=1) <= radius).all()


def test_everything_is_left_as_found_also_after_an_exception():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Softplus(), nn.Linear(8, 2))
    x = normal(4, 6).float().requires_grad_()
    buffers = [b.clone() for b in model.buffers()]
    state, weights = torch.get_rng_state(), [p.requires_grad for p in model.parameters()]
    calls = []

    def fails_later(maps, reference):
        calls.append(maps)
        if len(calls) == 3:
            raise KeyError
        return torch.zeros(4, dtype=torch.bool)

    with pytest.raises(KeyError):
        MinRadius(ERAttack(Saliency(model.train()), k=2), fails_later).evaluate(x, 1, step_num=2)
    MinRadius(ERAttack(Saliency(model), k=2)).evaluate(x, 1, step_num=2)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert x.grad is None and x.requires_grad and not calls[0].requires_grad
    assert weights == [p.requires_grad for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"lower": -1.0}, "0 <= lower < upper.*got -1.0 and 1.0"),
        ({"lower": 1.0}, "got 1.0 and 1.0"),
        ({"upper": math.inf}, "got 0.0 and inf"),
        ({"n_radii": 0}, "n_radii must be an integer of at least 1, got 0"),
        ({"n_bisections": -1}, "n_bisections must be an integer of at least 0, got -1"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MinRadius(ERAttack(Saliency(mlp()), k=2), **options)


def test_what_an_attack_does_not_know_must_be_given():
    with pytest.raises(ValueError, match="attribution must be given: UniformNoise has none"):
        MinRadius(UniformNoise(), first_moved)
    with pytest.raises(ValueError, match="success must be given: UniformNoise has no k"):
        MinRadius(UniformNoise(), attribution=Itself())
    silent = Scripted(BREAKS)
    silent.k = 2
    with pytest.raises(ValueError, match="success must be given: Scripted does not say what it"):
        MinRadius(silent, attribution=Itself())


@pytest.mark.parametrize(
    "result, got",
    [
        (torch.zeros(3), "torch.float32 of shape"),
        (torch.zeros(2, dtype=torch.bool), r"shape \(2,\)"),
        (True, "bool$"),
    ],
)
def test_a_criterion_must_answer_for_every_example(result, got):
    search = MinRadius(UniformNoise(), lambda maps, reference: result, attribution=Itself())
    with pytest.raises(
        ValueError, match=rf"success must return a bool Tensor of shape \(3,\).*{got}"
    ):
        search.evaluate(normal(3, 4))


def test_bad_inputs_are_refused():
    search = MinRadius(UniformNoise(), first_moved, attribution=Itself())
    with pytest.raises(ValueError, match="inputs must hold at least one example"):
        search.evaluate(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="max_examples_per_batch must be an integer of at least 1"):
        search.evaluate(normal(3, 3), max_examples_per_batch=0)
    with pytest.raises(TypeError, match="step_num"):  # neither the noise nor the map knows it
        search.evaluate(normal(3, 3), step_num=3)
