"""Goal 7: one stratified time per neighbour, against a grid of times, for as many gradients."""

from functools import cache, partial
from typing import Literal, NamedTuple, get_args

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

_Sampling = Literal["grid", "stratified"]

_EVERYWHERE = "an error, on every device the same"


class _Size(NamedTuple):
    """Numbers of examples, of estimates of each, and of points of the integral itself."""

    examples: int = 50
    seeds: int = 40
    points: int = 20_000

    @classmethod
    def of(cls, effort: Effort) -> "_Size":
        return cls(examples=20, seeds=20) if effort.quick else cls()


@cache
def _digits(n_examples: int) -> Case:
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
    return Case(model, inputs[:n_examples], target[:n_examples], k=8)


@cache
def _truth(radius: float, size: _Size) -> tuple[Tensor, Tensor]:
    """Thickness by plain Monte Carlo over many independent points, and its variance; (N,) each."""
    case = _digits(size.examples)
    generator = torch.Generator().manual_seed(0)
    n_pairs = case.k * (case.inputs.shape[1] - case.k)
    means, variances = [], []
    for x, c in zip(case.inputs, case.target, strict=True):
        targets = c.expand(size.points)
        reference = bare_saliency(case.model, x[None].requires_grad_(), c[None])
        noise = 2 * torch.rand(size.points, len(x), generator=generator) - 1
        times = torch.rand(size.points, 1, generator=generator)
        points = (x + radius * times * noise).requires_grad_()
        maps = bare_saliency(case.model, points, targets)
        top = top_k_indices(reference, case.k).expand(size.points, -1)
        parts = zip(maps.split(2000), top.split(2000), strict=True)
        shares = torch.cat([pair_wins(*part) for part in parts])
        means.append(shares.double().mean() / n_pairs)
        variances.append((shares.double() / n_pairs).var() / size.points)
    return torch.stack(means), torch.stack(variances)


@cache
def _errors(radius: float, size: _Size, sampling: _Sampling) -> Tensor:
    """Errors of estimates by 100 gradients per example, (seeds, examples)."""
    case = _digits(size.examples)
    estimates = [
        ranking_thickness(
            case.attribute, case.inputs, case.k, perturb_radius=radius, n_perturb_samples=10,
            n_steps=10, sampling=sampling, target=case.target, seed=seed,
        )
        for seed in range(size.seeds)
    ]  # fmt: skip
    return torch.stack(estimates).double() - _truth(radius, size)[0]


def _rmse_ratio(radius: float, effort: Effort) -> Spread:
    grid, stratified = (_errors(radius, _Size.of(effort), s) for s in get_args(_Sampling))
    return Spread.of([float((grid.square().mean() / stratified.square().mean()).sqrt())])


def _bias(radius: float, effort: Effort) -> Spread:
    """The mean error, in its standard errors."""
    size = _Size.of(effort)
    errors = _errors(radius, size, "stratified")
    variance = errors.var(dim=0) / len(errors) + _truth(radius, size)[1]
    return Spread.of([float(errors.mean().abs() / (variance.sum().sqrt() / errors.shape[1]))])


MEASURES = [
    measure
    for radius in (0.05, 0.2)
    for measure in (
        Measure(
            7, "sampling", f"digits, radius {radius}", "rmse grid / stratified", at_least(2.2),
            partial(_rmse_ratio, radius), cpu_only=_EVERYWHERE,
        ),
        Measure(
            7, "sampling", f"digits, radius {radius}", "bias / standard error", at_most(3),
            partial(_bias, radius), cpu_only=_EVERYWHERE,
        ),
    )
]  # fmt: skip
