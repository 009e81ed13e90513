"""Goal 7: one stratified time a neighbour, against a grid of times, for equally many gradients."""

from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor, nn

from captum_robust.metrics import ranking_thickness
from captum_robust.ranking import top_k_indices
from tests.benchmark.cases import Case
from tests.benchmark.models import mlp
from tests.benchmark.peers.gradient import bare_saliency
from tests.benchmark.peers.ranking import pair_wins
from tests.benchmark.row import Effort, Measure, Spread, at_least, at_most

__all__ = ["MEASURES"]

_N_EXAMPLES, _N_SEEDS, _N_POINTS, _K = 50, 40, 20_000, 8


@cache
def _digits() -> Case:
    """A network trained on scikit-learn's digits, and some of them."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inputs, target = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = mlp(64, 64, 10)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
    return Case(model, inputs[:_N_EXAMPLES], target[:_N_EXAMPLES], _K)


@cache
def _truth(radius: float) -> tuple[Tensor, Tensor]:
    """Thickness by plain Monte Carlo over many independent points, and its variance; (N,) each."""
    case = _digits()
    generator = torch.Generator().manual_seed(0)
    n_pairs = _K * (case.inputs.shape[1] - _K)
    means, variances = [], []
    for x, c in zip(case.inputs, case.target, strict=True):
        targets = c.expand(_N_POINTS)
        reference = bare_saliency(case.model, x[None].requires_grad_(), c[None])
        noise = 2 * torch.rand(_N_POINTS, len(x), generator=generator) - 1
        times = torch.rand(_N_POINTS, 1, generator=generator)
        points = (x + radius * times * noise).requires_grad_()
        maps = bare_saliency(case.model, points, targets)
        top = top_k_indices(reference, _K).expand(_N_POINTS, -1)
        parts = zip(maps.split(2000), top.split(2000), strict=True)
        shares = torch.cat([pair_wins(*part) for part in parts])
        means.append(shares.double().mean() / n_pairs)
        variances.append((shares.double() / n_pairs).var() / _N_POINTS)
    return torch.stack(means), torch.stack(variances)


@cache
def _errors(radius: float, sampling: Literal["grid", "stratified"]) -> Tensor:
    """Errors of 100 gradients an example, (seeds, examples)."""
    case = _digits()
    estimates = [
        ranking_thickness(
            case.attribute, case.inputs, case.k, perturb_radius=radius, n_perturb_samples=10,
            n_steps=10, sampling=sampling, target=case.target, seed=seed,
        )
        for seed in range(_N_SEEDS)
    ]  # fmt: skip
    return torch.stack(estimates).double() - _truth(radius)[0]


def _rmse_ratio(radius: float, effort: Effort) -> Spread:
    grid, stratified = (_errors(radius, s).square().mean().sqrt() for s in ("grid", "stratified"))
    return Spread.of([float(grid / stratified)])


def _bias(radius: float, effort: Effort) -> Spread:
    """The mean error, in its standard errors."""
    errors = _errors(radius, "stratified")
    variance = errors.var(dim=0) / len(errors) + _truth(radius)[1]
    return Spread.of([float(errors.mean().abs() / (variance.sum().sqrt() / errors.shape[1]))])


MEASURES = [
    measure
    for radius in (0.05, 0.2)
    for measure in (
        Measure(
            7, "sampling", f"digits, radius {radius}", "rmse grid / stratified", at_least(2.2),
            partial(_rmse_ratio, radius),
        ),
        Measure(
            7, "sampling", f"digits, radius {radius}", "bias / standard error", at_most(3),
            partial(_bias, radius),
        ),
    )
]  # fmt: skip
