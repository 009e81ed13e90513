"""The ensemble: at least as strong as each member, with a correct info, within the region."""

import math
from dataclasses import replace

import pytest
import torch
from captum.attr import DeepLift, InputXGradient, LayerGradCam, NoiseTunnel, Saliency
from torch import nn

from captum_robust.metrics import precision_at_k
from captum_robust.robust import AutoERAttack, ERAttack, ExplanationAttack
from captum_robust.robust._ensemble.members import NetworkTraits, members_of
from captum_robust.robust.swaps import NextSwapObjective
from tests.robust.targets import TwoInputs, convnet, drawn, mlp, normal, relu_mlp

N, K, RADIUS = 6, 2, 0.4
TARGET = torch.arange(N) % 3


def stock_precision(attribution, x, moved, k=K, target=TARGET, **arguments):
    def maps(points):
        return attribution.attribute(points.clone().requires_grad_(), target=target, **arguments)

    return precision_at_k(maps(moved).detach(), maps(x).detach(), k)


def attacked(model, norm="L2", **arguments):
    x = normal(N, 6)
    attack = AutoERAttack(Saliency(model), K)
    given = {"radius": RADIUS, "target": TARGET, "norm": norm, "seed": 3, **arguments}
    moved, info = attack.perturb(x, return_info=True, **given)
    return x, moved, info, attack


@pytest.fixture(scope="module", params=["relu", "smooth"])
def result(request):
    model = relu_mlp() if request.param == "relu" else mlp()
    return (model, *attacked(model))


def test_the_report_is_that_of_stock_captum(result):
    model, x, moved, info, _ = result
    assert torch.equal(info.precision, stock_precision(Saliency(model), x, moved))
    assert torch.equal(model(moved).argmax(1), model(x).argmax(1)) and info.prediction_kept.all()
    assert ((moved - x).norm(dim=1) <= RADIUS).all()
    lowest = torch.nan_to_num(info.member_precision, nan=math.inf).amin(dim=0)
    assert torch.equal(info.precision, lowest)
    for example, winner in enumerate(info.winner.tolist()):
        found = info.member_precision[:, example]
        if winner < 0:
            assert info.precision[example] == 1
        else:
            assert found[winner] == info.precision[example]
            earlier = found[:winner]
            assert (earlier[~earlier.isnan()] > info.precision[example]).all()
    assert sum(info.wins.values()) == int((info.winner >= 0).sum())


def test_wins_of_a_member_that_runs_twice_add_up(result):
    *_, info, _ = result
    winner = torch.tensor([0, 2, 1, -1, 2, 0])
    twice = replace(info, members=("lead", "restarted", "lead"), winner=winner)
    assert twice.wins == {"lead": 4, "restarted": 1}


def test_it_breaks_something(result):
    *_, info, _ = result
    assert info.precision.mean() < 0.8


@pytest.mark.filterwarnings("ignore::captum_robust.robust.ZeroGradientWarning")
def test_never_weaker_than_a_member_alone(result):
    model, x, _, info, attack = result
    kinked = any("smoothing" in name for name in info.members)
    traits = NetworkTraits(kinked, differentiable=True)
    for member in members_of(Saliency(model), K, traits, attack.options):
        if member.start == "best":
            continue
        _, alone = member.attack.perturb(
            x, RADIUS, step_num=member.n_steps, target=TARGET, norm="L2", seed=3,
            n_restarts=member.n_starts, random_start=member.start == "random", return_info=True,
        )  # fmt: skip
        assert (info.precision <= alone.precision).all(), member.name
        assert (alone.n_queries <= member.cost).all()


def test_members_that_add_nothing_are_left_out(result):
    model, *_, info, _ = result
    smoothed = [name for name in info.members if "smoothing" in name]
    assert bool(smoothed) == any(isinstance(m, nn.ReLU) for m in model.modules())
    assert ("zero_gradient" in info.flags) == bool(smoothed)


def test_members_slide_along_a_boundary_that_is_known():
    def ways(**options):
        attack = AutoERAttack(Saliency(mlp()), K, **options)
        members = members_of(
            attack.attribution,
            K,
            NetworkTraits(piecewise_linear=True, differentiable=True),
            attack.options,
        )
        return {m.attack.preserve_prediction for m in members if "differences" in m.name}

    assert ways() == {"qp"}
    assert ways(decision_func=lambda outputs: outputs[:, 0] > 0.2) == {"reject"}
    assert ways(preserve_prediction="none") == {"none"}


def test_sliding_finds_what_lies_beside_the_boundary():
    model = drawn(nn.Sequential(nn.Linear(6, 16), nn.Softplus(), nn.Linear(16, 1)), gain=2.0)
    many = normal(400, 6)
    x = many[model(many).abs().flatten().argsort()[:30]]  # close to the boundary
    found = {}
    for how in ("reject", "qp"):
        attack = ExplanationAttack(
            Saliency(model), NextSwapObjective(3), keep="precision", step_rule="halving",
            preserve_prediction=how, constraint="boundary",
        )  # fmt: skip
        run = {"step_num": 20, "target": 0, "norm": "L2", "seed": 0, "return_info": True}
        moved, info = attack.perturb(x, 2.0, **run)
        assert torch.equal(model(moved) > 0, model(x) > 0)
        found[how] = info.precision.mean()
    assert found["qp"] < found["reject"] - 0.05


def test_an_example_at_its_worst_is_left_alone():
    _, _, info, _ = attacked(relu_mlp(), radius=3.0, norm="Linf")
    worst = info.precision == 0
    assert worst.any()
    ran = ~info.member_precision.isnan()
    for example in worst.nonzero()[:, 0].tolist():
        assert not ran[info.winner[example] + 1 :, example].any()
    easy = info.winner == info.winner[worst].min()
    assert info.n_queries[easy & worst].max() < info.n_queries.max() or worst.all()


@pytest.mark.parametrize("network", [relu_mlp, mlp], ids=["relu", "smooth"])
def test_chunks_and_order_change_nothing(network):
    x, moved, info, attack = attacked(network(), radius=0.3, budget=200)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    again, other = attack.perturb(
        x[order], 0.3, target=TARGET[order], norm="L2", seed=3, max_examples_per_batch=2,
        budget=200, return_info=True,
    )  # fmt: skip
    assert torch.equal(other.precision, info.precision[order])
    assert torch.equal(other.winner, info.winner[order])
    # The maps of a ReLU network are constant between its kinks: many points of a search are equally
    # good, and which of them is returned is a matter of rounding.
    if network is mlp:
        assert torch.allclose(again, moved[order], atol=1e-6)


def test_the_seed_decides():
    _, first, one, _ = attacked(relu_mlp(), radius=0.2, budget=400)
    _, second, two, _ = attacked(relu_mlp(), radius=0.2, budget=400)
    assert torch.equal(first, second) and torch.equal(one.n_queries, two.n_queries)


def test_a_given_start_is_never_made_worse():
    model, x = relu_mlp(), normal(N, 6)
    attack = AutoERAttack(Saliency(model), K)
    start, before = attack.perturb(
        x, 0.5, target=TARGET, norm="L2", seed=0, budget=100, return_info=True
    )
    assert (before.precision < 1).any()
    _, after = attack.perturb(
        x, 0.6, target=TARGET, norm="L2", seed=1, start=start, budget=5, return_info=True
    )
    assert (after.precision <= before.precision).all()
    _, cut = attack.perturb(
        x, 1e-6, target=TARGET, norm="L2", seed=1, start=start, budget=5, return_info=True
    )
    assert (cut.precision == 1).all(), "a start outside the ball is moved into it"


def test_broken_examples_are_not_robust():
    x = torch.cat([normal(2, 6), torch.full((1, 6), math.nan).double()])
    moved, info = AutoERAttack(Saliency(mlp()), K).perturb(
        x, 0.3, target=1, seed=0, budget=40, return_info=True
    )
    assert info.precision.isnan().tolist() == [False, False, True]
    assert moved[2].isnan().all() and info.winner[2] == -1


def test_bounds_and_mask():
    x = normal(N, 6).clamp(-1, 1)
    mask = torch.tensor([1.0, 0, 1, 1, 1, 0])
    attack = AutoERAttack(Saliency(relu_mlp()), K, lower_bound=-1.0, upper_bound=1.0)
    moved = attack.perturb(x, 0.5, target=TARGET, mask=mask, seed=0, budget=300)
    assert (moved.abs() <= 1).all() and torch.equal(moved[:, [1, 5]], x[:, [1, 5]])
    assert not torch.equal(moved, x)


CASES = {
    "DeepLift": (lambda: DeepLift(relu_mlp()), normal(N, 6), {}),
    "InputXGradient": (lambda: InputXGradient(relu_mlp()), normal(N, 6), {}),
    "NoiseTunnel": (
        lambda: NoiseTunnel(Saliency(relu_mlp())),
        normal(N, 6),
        {"nt_samples": 3, "stdevs": 0.2},
    ),
    "LayerGradCam": (
        lambda: (lambda model: LayerGradCam(model, model[0]))(convnet()),
        normal(N, 1, 4, 4),
        {"attr_dim_summation": False},
    ),
    "two inputs": (
        lambda: Saliency(TwoInputs()),
        (normal(N, 3), normal(N, 1, 2, seed=1)),
        {},
    ),
}


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")  # Captum's own
@pytest.mark.parametrize("make, x, arguments", CASES.values(), ids=CASES)
def test_any_attribution(make, x, arguments):
    attack = AutoERAttack(make(), K)
    given = {"target": TARGET, "seed": 0, "budget": 250, "return_info": True, **arguments}
    moved, info = attack.perturb(x, 0.6, **given)
    assert info.precision.mean() < 1
    assert isinstance(moved, tuple) == isinstance(x, tuple)


def test_stronger_than_the_attack_of_the_papers():
    model = drawn(nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2)))
    x, saliency = normal(20, 20), Saliency(model)
    given = {"target": 1, "norm": "L2", "seed": 0}
    _, info = AutoERAttack(saliency, 5).perturb(x, 0.8, budget=200, return_info=True, **given)
    moved = ERAttack(saliency, 5, smooth_relu=5.0).perturb(x, 0.8, **given)
    papers = stock_precision(saliency, x, moved, k=5, target=1)
    assert info.precision.mean() < papers.mean() - 0.05
    assert (info.precision < papers).sum() > 2 * (info.precision > papers).sum()


def test_wrong_arguments():
    attack = AutoERAttack(Saliency(drawn(nn.Sequential(nn.Linear(6, 3)))), 6)
    with pytest.raises(ValueError, match="k must be an int with 1 <= k < 6"):
        attack.perturb(normal(2, 6), 0.1, target=0)
    with pytest.raises(ValueError, match="k must be an integer of at least 1, got 0"):
        AutoERAttack(Saliency(mlp()), 0)
    with pytest.raises(ValueError, match="budget must be an integer of at least 1, got 0"):
        AutoERAttack(Saliency(mlp()), 2).perturb(normal(2, 6), 0.1, target=0, budget=0)
    with pytest.raises(ValueError, match="preserve_prediction must be one of"):
        AutoERAttack(Saliency(mlp()), 2, preserve_prediction="perhaps")


class Cosine(nn.Module):
    """Similarity of an embedding to a fixed one: bent, though the embedding has kinks only."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.embedding = drawn(nn.Sequential(nn.Linear(6, 12), nn.LeakyReLU(), nn.Linear(12, 4)))
        with torch.no_grad():
            self.embedding[0].weight.mul_(scale)
            self.embedding[0].bias.mul_(scale)
        self.other = nn.Parameter(normal(1, 4, seed=9))

    def forward(self, x):
        return nn.functional.cosine_similarity(self.embedding(x), self.other)[:, None]


def barely_smoothed(info):
    return [name for name in info.members if "smoothing 50→1000" in name]


def test_a_gradient_between_the_kinks_is_followed():
    x = normal(N, 6)
    run = {"radius": 0.4, "target": 0, "norm": "L2", "seed": 0, "return_info": True, "budget": 60}
    for attribution in (Saliency(Cosine(1.0)), InputXGradient(relu_mlp())):
        _, info = AutoERAttack(attribution, 2).perturb(x, **run)
        own = [name for name in info.members if "swap" in name and "own gradient" in name]
        assert len(barely_smoothed(info)) == 1 and len(set(own)) == 3
    for model in (relu_mlp(), mlp()):  # no gradient; no kinks
        assert not barely_smoothed(AutoERAttack(Saliency(model), 2).perturb(x, **run)[1])


def test_small_inputs_of_the_activations_do_not_blunt_it():
    """Softplus of β = 50 is linear at inputs of 0.001: the smoothed network is another network."""
    attack = AutoERAttack(InputXGradient(Cosine(scale=1e-3)), 2, preserve_prediction="none")
    run = {"target": 0, "norm": "L2", "seed": 0, "return_info": True, "budget": 150}
    _, info = attack.perturb(normal(20, 6), 0.3, **run)
    by_name = dict(zip(info.members, info.member_precision, strict=True))
    smoothed = by_name["next-swap objective · smoothing 2→50 · example"]
    own = by_name["swap-count objective · own gradient · example"]
    assert smoothed.mean() > own.mean() + 0.1
