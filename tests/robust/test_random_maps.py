"""Random attributions under metrics and attacks, compared with stock Captum's for each example."""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, KernelShap, NoiseTunnel, Saliency, ShapleyValueSampling
from torch import nn

from captum_robust import audit
from captum_robust.auditing.verdict import verdict
from captum_robust.metrics import precision_at_k, precision_at_k_min, ranking_thickness
from captum_robust.robust import (
    AutoERAttack,
    ERAttack,
    ExplanationComparator,
    MSEAttack,
    RandomSearchAttack,
)

N, K, SEED, RADIUS = 6, 3, 5, 0.3
NO_ATTACK = "no attack, other seeds"

pytestmark = pytest.mark.filterwarnings("ignore:You are providing multiple inputs")


def network(*last):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Linear(8, 16), nn.Softplus(), nn.Linear(16, 2), *last
        return nn.Sequential(*layers).double().eval()


def examples():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(N, 8, generator=generator, dtype=torch.float64), torch.arange(N) % 2


RANDOM = {
    "NoiseTunnel": (lambda model: NoiseTunnel(Saliency(model)), {"nt_samples": 4, "stdevs": 0.5}),
    "GradientShap": (
        GradientShap, {"baselines": torch.zeros(4, 8).double(), "n_samples": 4, "stdevs": 0.5}
    ),
    "KernelShap": (KernelShap, {"n_samples": 20}),
    "ShapleyValueSampling": (ShapleyValueSampling, {"n_samples": 2}),
}  # fmt: skip
every_map = pytest.mark.parametrize("name", RANDOM)


def stock(attribution, points, targets, arguments, seed=SEED):
    """The maps of each example alone, as Captum returns them after the seed was set."""
    rows = []
    for row in range(N):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        leaf = points[row : row + 1].clone().requires_grad_()
        rows.append(attribution.attribute(leaf, target=int(targets[row]), **arguments).detach())
    return torch.cat(rows)


# --- metrics -------------------------------------------------------------------------------------


@every_map
@pytest.mark.parametrize("form", ["method", "function"])
@pytest.mark.parametrize(
    "metric", [partial(ranking_thickness, n_steps=2), precision_at_k_min], ids=["thickness", "P@k"]
)
def test_at_radius_zero_nothing_changes(metric, form, name):
    make, arguments = RANDOM[name]
    attribution, (x, y) = make(network()), examples()
    explain = (
        attribution.attribute
        if form == "method"
        else lambda *a, **k: attribution.attribute(*a, **k)
    )
    for chunk in (None, 1, 4):
        value = metric(
            explain, x, K, target=y, perturb_radius=0.0, seed=0, n_perturb_samples=3,
            max_examples_per_batch=chunk, **arguments,
        )  # fmt: skip
        assert (value == 1).all()


@every_map
def test_neighbours_and_chunks_do_not_change_a_value(name):
    make, arguments = RANDOM[name]
    attribution, (x, y) = make(network()), examples()
    measure = partial(
        precision_at_k_min, attribution.attribute, k=K, perturb_radius=RADIUS, seed=0,
        n_perturb_samples=3, **arguments,
    )  # fmt: skip
    whole = measure(inputs=x, target=y)
    assert (whole < 1).any()
    torch.testing.assert_close(measure(inputs=x, target=y, max_examples_per_batch=5), whole)
    torch.testing.assert_close(measure(inputs=x[[4, 1]], target=y[[4, 1]]), whole[[4, 1]])


def test_a_worst_precision_is_that_of_captum():
    make, arguments = RANDOM["NoiseTunnel"]
    attribution, (x, y) = make(network()), examples()
    moved = x + RADIUS * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)).to(x)
    found = precision_at_k_min(
        attribution.attribute, x, K, lambda *_: moved, RADIUS, 1, target=y, seed=SEED, **arguments
    )
    maps = (stock(attribution, p, y, arguments) for p in (moved, x))
    torch.testing.assert_close(found, precision_at_k(*maps, K))


# --- attacks -------------------------------------------------------------------------------------

ATTACKS = {
    "ERAttack": (lambda attribution: ERAttack(attribution, K), {"step_num": 8}),
    "spsa": (lambda attribution: ERAttack(attribution, K, gradient="spsa"), {"step_num": 2}),
    "RandomSearchAttack": (lambda attribution: RandomSearchAttack(attribution, K), {"step_num": 8}),
    "AutoERAttack": (lambda attribution: AutoERAttack(attribution, K), {"budget": 25}),
}


@pytest.mark.parametrize(
    "name, attack",
    [
        *((name, attack) for name in ("NoiseTunnel", "GradientShap") for attack in ATTACKS),
        ("KernelShap", "RandomSearchAttack"),
        ("ShapleyValueSampling", "ERAttack"),
        ("ShapleyValueSampling", "RandomSearchAttack"),
    ],
)
def test_the_precision_reported_is_that_of_captum(name, attack):
    make_map, arguments = RANDOM[name]
    make, effort = ATTACKS[attack]
    attribution, (x, y) = make_map(network()), examples()
    moved, info = make(attribution).perturb(
        x, RADIUS, target=y, seed=SEED, return_info=True, **effort, **arguments
    )
    after, before = ([stock(attribution, p, y, arguments, SEED + i) for i in range(5)]
                     for p in (moved, x))  # fmt: skip
    at_seed = precision_at_k(after[0], before[0], K)
    assert (at_seed < 1).any()
    assert_close = partial(torch.testing.assert_close, check_dtype=False)
    assert_close(info.precision, at_seed)
    assert info.flags["randomised"] == N

    floor = [precision_at_k(b, a, K) for a, b in combinations(before[1:], 2)]
    others = [precision_at_k(a, b, K) for a, b in zip(after[1:], before[1:], strict=True)]
    assert_close(info.noise_floor, torch.stack(floor).mean(dim=0))
    assert_close(info.precision_over_seeds, torch.stack(others).mean(dim=0))


@pytest.mark.parametrize("make", [ERAttack, AutoERAttack])
def test_masks_with_different_numbers_of_groups(make):
    """The chunks of equal numbers of groups are put back in the order of the examples."""
    (x, y), (make_map, arguments) = examples(), RANDOM["NoiseTunnel"]
    coarse, fine = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]), torch.arange(8)
    mask = torch.stack([fine, coarse] * (N // 2))
    effort = {"budget": 15} if make is AutoERAttack else {"step_num": 3}
    infos = []
    for rows in (torch.arange(N), torch.arange(0, N, 2), torch.arange(1, N, 2)):
        attack = make(make_map(network()), 2, feature_mask=mask[rows])
        _, info = attack.perturb(
            x[rows], RADIUS, target=y[rows], seed=0, return_info=True, **effort, **arguments
        )
        infos.append(info)
    for name in ("noise_floor", "precision_over_seeds"):
        whole, even, odd = (getattr(info, name) for info in infos)
        torch.testing.assert_close(whole[0::2], even)
        torch.testing.assert_close(whole[1::2], odd)


def test_other_seeds_cost_eight_attributions():
    make, arguments = RANDOM["NoiseTunnel"]
    x, y = examples()
    found = []
    for attribution, more in ((make(network()), arguments), (Saliency(network()), {})):
        attack = ERAttack(attribution, K)
        _, info = attack.perturb(
            x, RADIUS, target=y, seed=0, step_num=4, return_info=True, **more
        )  # fmt: skip
        found.append(info.n_queries)
    assert torch.equal(found[0], found[1] + 8)


def test_maps_that_draw_nothing_and_objectives_without_k_have_no_noise_floor():
    x, y = examples()
    saliency, tunnel = Saliency(network()), RANDOM["NoiseTunnel"][0](network())
    for attack in (ERAttack(saliency, K), AutoERAttack(saliency, K), MSEAttack(tunnel)):
        effort = {"budget": 9} if isinstance(attack, AutoERAttack) else {"step_num": 2}
        _, info = attack.perturb(x, RADIUS, target=y, seed=0, return_info=True, **effort)
        assert info.noise_floor is None and info.precision_over_seeds is None


def test_examples_that_are_done_are_left_out():
    """The maps of the others do not change, so the result is that of each example alone."""
    make, arguments = RANDOM["NoiseTunnel"]
    x, y = examples()
    attack = ERAttack(make(network()), K, keep="precision", step_rule="halving")
    perturb = partial(
        attack.perturb, radius=2.0, seed=0, step_num=12, return_info=True, **arguments
    )
    moved, info = perturb(x, target=y)
    assert (info.n_queries < 13 + 8).any()
    for row in range(N):
        alone, _ = perturb(x[row : row + 1], target=y[row : row + 1])
        torch.testing.assert_close(moved[row : row + 1], alone)


# --- tables --------------------------------------------------------------------------------------


def test_a_comparison_has_the_noise_floor_and_the_means_over_seeds():
    make, arguments = RANDOM["NoiseTunnel"]
    (x, y), tunnel = examples(), make(network())
    comparator = ExplanationComparator(
        {"Saliency": Saliency(network()), "SmoothGrad": (tunnel, arguments)},
        {"ER": partial(ERAttack, k=K)},
        {"P": partial(precision_at_k, k=K)},
    )
    table = comparator.evaluate(x, RADIUS, target=y, seed=SEED, return_perturbed=True)
    names = [(m.attribution, m.attack) for m in table.measurements]
    assert ("Saliency", NO_ATTACK) not in names and names[2] == ("SmoothGrad", NO_ATTACK)

    before = [stock(tunnel, x, y, arguments, SEED + i) for i in range(1, 5)]
    floor = [precision_at_k(b, a, K) for a, b in combinations(before, 2)]
    found = table["SmoothGrad", NO_ATTACK].values
    torch.testing.assert_close(found["P"], torch.stack(floor).mean(dim=0))
    assert (found["prediction changed"] == 0).all()

    attacked = table["SmoothGrad", "ER"]
    after = [stock(tunnel, attacked.perturbed, y, arguments, SEED + i) for i in range(1, 5)]
    means = [precision_at_k(a, b, K) for a, b in zip(after, before, strict=True)]
    torch.testing.assert_close(attacked.over_seeds["P"], torch.stack(means).mean(dim=0))
    assert table["Saliency", "ER"].over_seeds == {}
    text, records = table.to_markdown(), table.records()
    assert "P, mean over seeds" in text and NO_ATTACK in text
    assert records[-2]["mean_over_seeds"] == pytest.approx(float(torch.stack(means).mean()))


def test_tables_without_random_attributions_are_as_before():
    x, y = examples()
    comparator = ExplanationComparator(
        {"Saliency": Saliency(network())}, {}, {"P": partial(precision_at_k, k=K)}
    )
    table = comparator.evaluate(x, RADIUS, target=y, seed=0)
    assert "seeds" not in table.to_markdown() and "mean_over_seeds" not in table.records()[0]
    with pytest.raises(ValueError, match=NO_ATTACK):
        ExplanationComparator({"Saliency": Saliency(network())}, {NO_ATTACK: ERAttack}, {})


def test_an_audit_has_the_noise_floor_beside_the_result():
    (x, y), model = examples(), network()
    make, arguments = RANDOM["NoiseTunnel"]
    attributions = {"saliency": (Saliency(model), {}), "smoothgrad": (make(model), arguments)}
    found = audit(
        model, x, y, attributions=attributions, k=K, radius=[0.1, RADIUS], show_progress=False
    )  # fmt: skip
    saliency, smooth = found.explanations
    assert saliency.trial(NO_ATTACK, RADIUS) is None
    floor = smooth.trial(NO_ATTACK, RADIUS)
    assert floor is not None and 0 < sum(floor.precision) / N < 1
    assert "P@k, mean over seeds" in smooth.worst.values
    assert any("two seeds" in detail for detail in verdict(found, smooth).details)
    assert not any("two seeds" in detail for detail in verdict(found, saliency).details)
