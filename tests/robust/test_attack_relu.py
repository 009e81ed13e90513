"""Networks of the ReLU family, which look robust to an attack that follows their own gradient.

Small networks trained on real data; the reference is a plain projected attack, written here with
raw autograd on a softplus copy of the network and scored on the network itself.
"""

import copy

import pytest
import torch
from captum.attr import Saliency
from sklearn.datasets import load_breast_cancer, load_digits
from torch import nn
from torch.nn import functional as F

from captum_robust.metrics import precision_at_k
from captum_robust.robust import ERAttack, ZeroGradientWarning
from tests.robust.targets import linear, stock_scores

K, BETA = 8, 10.0
# Where more than one of the eight top features leaves under the smoothed attack, on the mean.
RADIUS = {"digits": 0.1, "breast cancer": 0.3}
N_EXAMPLES = 24


class SoftLeaky(nn.Module):
    """a·x + (1 − a)·softplus(x): LeakyReLU for a > 0, ReLU for a = 0, with a rounded corner."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, x):
        return self.slope * x + (1 - self.slope) * F.softplus(x, beta=BETA)


def trained(data, activation):
    features, labels = data(return_X_y=True)
    x = torch.tensor(features, dtype=torch.float64)
    x = (x - x.mean(dim=0)) / x.std(dim=0).clamp_min(1e-9)
    y = torch.tensor(labels)
    torch.manual_seed(0)
    n_classes = int(y.max()) + 1
    model = nn.Sequential(
        nn.Linear(x.shape[1], 32),
        activation,
        nn.Linear(32, 32),
        activation,
        nn.Linear(32, n_classes),
    ).double()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimiser.step()
    model.requires_grad_(False)
    assert (model(x).argmax(dim=1) == y).double().mean() > 0.95
    rows = torch.linspace(0, len(x) - 1, N_EXAMPLES).long()
    return model, x[rows], model(x[rows]).argmax(dim=1)


CASES = {
    (name, kind): (load, activation)
    for name, load in (("digits", load_digits), ("breast cancer", load_breast_cancer))
    for kind, activation in (("LeakyReLU", nn.LeakyReLU(0.1)), ("ReLU", nn.ReLU()))
}


@pytest.fixture(scope="module", params=CASES, ids=" ".join)
def case(request):
    with torch.random.fork_rng():
        model, x, y = trained(*CASES[request.param])
    return model, x, y, RADIUS[request.param[0]]


def soft_copy(model):
    layers = (
        SoftLeaky(getattr(m, "negative_slope", 0.0)) if isinstance(m, nn.ReLU | nn.LeakyReLU) else m
        for m in copy.deepcopy(model)
    )
    return nn.Sequential(*layers)


def saliency(model, x, y, graph=False):
    chosen = model(x).gather(1, y[:, None]).sum()
    return torch.autograd.grad(chosen, x, create_graph=graph)[0].abs()


def gaps_of(model, x, y, reference, graph=False):
    """Sum of all k(n−k) gaps, for a fixed top set."""
    maps = saliency(model, x, y, graph)
    top = torch.zeros_like(maps).scatter(1, reference.topk(K, dim=1).indices, 1.0)
    n = maps.shape[1]
    return (n - K) * (maps * top).sum(dim=1) - K * (maps * (1 - top)).sum(dim=1)


def leaf(x):
    return x.detach().clone().requires_grad_()


def plain_attack(model, x, y, radius, norm, n_steps=200):
    """Descend the gaps of the softplus copy; the best gaps of the real model found on the way."""
    soft, point = soft_copy(model), x.clone()
    reference = saliency(model, leaf(x), y)
    best = gaps_of(model, leaf(x), y, reference)
    for _ in range(n_steps):
        point = leaf(point)
        gradient = torch.autograd.grad(gaps_of(soft, point, y, reference, graph=True).sum(), point)[
            0
        ]
        size = 2.5 * radius / n_steps
        if norm == "Linf":
            point = x + (point - size * gradient.sign() - x).clamp(-radius, radius)
        else:
            step = point - size * gradient / gradient.norm(dim=1, keepdim=True) - x
            point = x + step * (radius / step.norm(dim=1, keepdim=True)).clamp(max=1)
        value = gaps_of(model, leaf(point), y, reference)
        kept = model(point).argmax(dim=1) == y
        best = torch.where(kept & (value < best), value, best)
    return best


def value_of(model, moved, x, y):
    start, end = (stock_scores(Saliency(model), p, y) for p in (x, moved))
    return linear(K)(end, start)


def precision(model, moved, x, y):
    maps = [saliency(model, leaf(p), y) for p in (moved, x)]
    return precision_at_k(*maps, k=K)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_smoothed_attack_finds_what_an_attack_on_a_softplus_copy_finds(case, norm):
    model, x, y, radius = case
    radius = radius if norm == "Linf" else radius * x.shape[1] ** 0.5 / 2
    reference = plain_attack(model, x, y, radius, norm)
    attack = ERAttack(Saliency(model), k=K, smooth_relu=BETA)
    found = value_of(model, attack.perturb(x, radius, step_num=200, target=y, norm=norm), x, y)
    assert (found <= reference + 1e-9 * reference.abs()).all()

    # The default 40 steps are longer and visit other points, so example by example either can
    # win by a little; on the mean nearly all of the drop is found at a fifth of the price.
    found = value_of(model, attack.perturb(x, radius, target=y, norm=norm), x, y)
    start = value_of(model, x, x, y)
    assert (start - found).mean() >= 0.97 * (start - reference).mean() > 0


def test_own_gradient_says_robust_and_warns_while_the_smoothed_one_is_not(case):
    model, x, y, radius = case
    with pytest.warns(ZeroGradientWarning, match="smooth_relu"):
        own = ERAttack(Saliency(model), k=K).perturb(x, radius, target=y)
    assert torch.equal(own, x)
    assert (precision(model, own, x, y) == 1).all()
    moved = ERAttack(Saliency(model), k=K, smooth_relu=BETA).perturb(x, radius, target=y)
    assert precision(model, moved, x, y).mean() < 7 / 8


@pytest.mark.parametrize("gradient", ["finite_difference", "spsa"])
def test_probes_of_the_size_of_the_ball_see_the_kinks(case, gradient):
    model, x, y, radius = case
    drops = []
    for options in ({"gradient": gradient}, {"smooth_relu": BETA}):
        moved = ERAttack(Saliency(model), k=K, **options).perturb(x, radius, target=y, seed=0)
        drops.append((value_of(model, x, x, y) - value_of(model, moved, x, y)).mean())
    assert drops[0] > 0.4 * drops[1]


def test_random_draws_find_less(case):
    model, x, y, radius = case
    generator = torch.Generator().manual_seed(0)
    reference = saliency(model, leaf(x), y)
    best = gaps_of(model, leaf(x), y, reference)
    for _ in range(1000):
        noise = 2 * torch.rand(x.shape, generator=generator, dtype=x.dtype) - 1
        point = leaf(x + radius * noise)
        value = gaps_of(model, point, y, reference)
        kept = model(point).argmax(dim=1) == y
        best = torch.where(kept & (value < best), value, best)
    moved = ERAttack(Saliency(model), k=K, smooth_relu=BETA).perturb(x, radius, target=y)
    found = value_of(model, moved, x, y)
    start = value_of(model, x, x, y)
    assert (start - found).mean() > 1.2 * (start - best).mean() > 0
    assert (found <= best).double().mean() > 0.5
