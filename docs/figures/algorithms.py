"""Figures of docs/algorithms: `python docs/figures/algorithms.py`."""

from __future__ import annotations

from pathlib import Path

import torch
from captum.attr import Saliency
from matplotlib.figure import Figure
from torch import Tensor, nn

from captum_robust.attr import smooth_relu
from captum_robust.ranking import gap_sum, top_k_mask
from captum_robust.robust import ERAttack, MinRadius, ParetoERAttack

IMAGES = Path(__file__).parents[1] / "images"
# The colours of Okabe and Ito can be told apart without colour vision.
TOP, REST, THIRD, GREY = "#0072B2", "#D55E00", "#009E73", "0.55"


def network(n_features: int, activation=nn.Softplus, seed: int = 0) -> nn.Module:
    """Return a small random network with larger weights, so that its saliency changes visibly."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(n_features, 16), activation(), nn.Linear(16, 2))
    with torch.no_grad():
        model[0].weight *= 3
    return model.double()


def saliency(model: nn.Module, points: Tensor) -> Tensor:
    """Return the saliency of output 1."""
    return Saliency(model).attribute(points.clone().requires_grad_(), target=1)


def save(plot: Figure, name: str) -> None:
    """Write an image of the docs."""
    plot.savefig(IMAGES / f"{name}.png", dpi=150)
    print(name)


def precision_at_k() -> None:
    """Plot the three attributions of the first figure of the paper."""
    names = ["savings", "income", "education", "spouse", "race", "age"]
    shown = {
        "the explanation": [1.2, 0.8, 0.7, 0.4, 0.1, 0.2],
        "far away, P@3 = 1": [2.5, 1.2, 1.0, 0.6, 0.2, 0.4],
        "near, P@3 = 2/3": [1.2, 0.1, 0.7, 1.2, 0.1, 0.2],
    }
    plot = Figure(figsize=(7.5, 2.6), layout="constrained")
    for axis, (title, values) in zip(plot.subplots(1, 3, sharey=True), shown.items(), strict=True):
        top = top_k_mask(torch.tensor([values]), 3)[0].tolist()
        hatches = [None if t else "///" for t in top]
        colours = [TOP if t else "0.8" for t in top]
        axis.barh(names[::-1], values[::-1], color=colours[::-1], hatch=hatches[::-1], ec="white")
        axis.set_title(title, fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, 2.6)
    plot.supxlabel("attribution; solid: the top 3", fontsize="medium")
    save(plot, "precision-at-k")


def ranking_thickness() -> None:
    """Plot attributions along one segment, and the fraction of pairs in the same order."""
    model, k = network(6), 2
    torch.manual_seed(11)
    start, end = torch.randn(2, 1, 6).double()
    times = torch.linspace(0, 1, 201).double()[:, None]
    along = saliency(model, start + times * (end - start))
    top = top_k_mask(along[:1], k)[0]
    in_order = (along[:, top, None] >= along[:, None, ~top]).double().mean(dim=(1, 2))
    plot = Figure(figsize=(7, 4), layout="constrained")
    upper, lower = plot.subplots(2, 1, sharex=True, height_ratios=[2.2, 1])
    for name, mask, colour, style in (
        ("top 2 at x", top, TOP, "-"),
        ("the others", ~top, REST, "--"),
    ):
        lines = upper.plot(times, along[:, mask], color=colour, linestyle=style)
        lines[0].set_label(name)
    upper.set_ylabel("attribution")
    upper.legend(loc="center left", fontsize="small")
    lower.fill_between(times[:, 0], in_order, color=TOP, alpha=0.25)
    lower.plot(times, in_order, color=TOP)
    mean = float(in_order.mean())
    lower.text(0.02, 0.12, f"mean along this segment: {mean:.2f}", fontsize="small")
    lower.set(
        ylim=(0, 1.05), ylabel="pairs in order", xlabel="t, from the input x to a neighbour x′"
    )
    save(plot, "ranking-thickness")


def smooth_relus() -> None:
    """Plot value, slope and curvature of the ReLU and two softplus functions."""
    x = torch.linspace(-1, 1, 401).double()
    plot = Figure(figsize=(7.5, 2.6), layout="constrained")
    axes = plot.subplots(1, 3)
    for beta, colour, style in ((None, "black", "-"), (5.0, TOP, "--"), (20.0, REST, ":")):
        points = x.clone().requires_grad_()
        if beta is None:
            value = points.relu()
        else:
            with smooth_relu(beta):
                value = points.relu()
        slope = torch.autograd.grad(value.sum(), points, create_graph=True)[0]
        curvature = torch.zeros_like(x)
        if beta is not None:
            curvature = torch.autograd.grad(slope.sum(), points)[0]
        label = "ReLU" if beta is None else f"softplus, β = {beta:.0f}"
        for axis, curve in zip(axes, (value, slope, curvature), strict=True):
            axis.plot(x, curve.detach(), color=colour, linestyle=style, label=label)
    for axis, title in zip(axes, ("value", "slope", "curvature"), strict=True):
        axis.set_title(title, fontsize="medium")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize="small")
    axes[2].annotate(
        "that of the\nReLU is 0", (-0.6, 0.0), (-1.0, 3.4), fontsize="small",
        arrowprops={"arrowstyle": "->"},
    )  # fmt: skip
    save(plot, "smooth-relu")


def er_attack() -> None:
    """Plot the gap over two inputs, the ball, and the iterates of the attack."""
    model, radius = network(2, seed=3), 0.6
    x = torch.tensor([[0.1, -0.4]]).double()
    iterates = [x[0]]

    def note(points: Tensor) -> Tensor:
        iterates.append(points[0].clone())
        return points

    attack = ERAttack(Saliency(model), k=1, preserve_prediction="none")
    moved = attack.perturb(
        x, radius, step_size=0.06, step_num=20, target=1, norm="L2", project=note
    )
    side = torch.linspace(-0.85, 0.85, 121).double()
    grid = x + torch.cartesian_prod(side, side)
    gap = (
        gap_sum(saliency(model, grid), saliency(model, x).expand(len(grid), -1), k=1)
        .view(121, 121)
        .T
    )
    plot = Figure(figsize=(5.4, 4.2), layout="constrained")
    axis = plot.add_subplot()
    reach = float(gap.abs().max())
    image = axis.pcolormesh(
        x[0, 0] + side, x[0, 1] + side, gap, cmap="RdBu", vmin=-reach, vmax=reach, rasterized=True
    )
    axis.contour(x[0, 0] + side, x[0, 1] + side, gap, [0.0], colors="black", linewidths=1)
    angle = torch.linspace(0, 2 * torch.pi, 200)
    axis.plot(x[0, 0] + radius * angle.cos(), x[0, 1] + radius * angle.sin(), "k--", linewidth=1)
    path = torch.stack([*iterates, moved[0]])
    inside = (path - x).norm(dim=1) <= radius * 1.001
    axis.plot(*path[inside].T, color="black", marker=".", linewidth=1)
    axis.plot(*x[0], marker="o", color="white", mec="black", label="the input", linestyle="none")
    axis.plot(*moved[0], marker="X", color="gold", mec="black", ms=10, label="returned", ls="none")
    axis.legend(loc="upper right", fontsize="small")
    axis.set(xlabel="feature 1", ylabel="feature 2", aspect="equal")
    plot.colorbar(image, label="gap; the ranking changes where it is 0 (line)")
    save(plot, "er-attack")


def pareto_attack() -> None:
    """Plot the gaps of the same pairs under both attacks, step by step."""
    model, k, pairs = network(9, seed=1), 4, 3
    torch.manual_seed(5)
    x = torch.randn(1, 9).double()
    start = saliency(model, x)
    order = start[0].argsort(descending=True)
    upper, lower = order[k - pairs : k].flip(0), order[k : k + pairs]
    plot = Figure(figsize=(7.5, 3), layout="constrained")
    options = {"preserve_prediction": "none"}
    for axis, attack in zip(
        plot.subplots(1, 2, sharey=True),
        (
            ERAttack(Saliency(model), k, **options),
            ParetoERAttack(Saliency(model), k, pairs, **options),
        ),
        strict=True,
    ):
        gaps = []
        for steps in range(13):
            moved = (
                attack.perturb(x, 0.25, step_size=0.04, step_num=steps, target=1) if steps else x
            )
            found = saliency(model, moved)[0]
            gaps.append(found[upper] - found[lower])
        for gap, colour, style in zip(
            torch.stack(gaps).T, (TOP, REST, THIRD), ("-", "--", ":"), strict=True
        ):
            axis.plot(gap, color=colour, linestyle=style, marker=".")
        axis.axhline(0, color=GREY, linewidth=1)
        axis.set_title(type(attack).__name__, fontsize="medium")
        axis.set_xlabel("steps")
    plot.axes[0].set_ylabel("gap of a pair")
    save(plot, "pareto-attack")


def min_radius() -> None:
    """Plot the fraction of examples whose top 3 is unchanged, by radius."""
    model = network(9, seed=2)
    torch.manual_seed(0)
    x = torch.randn(200, 9).double()
    plot = Figure(figsize=(6, 3.2), layout="constrained")
    axis = plot.add_subplot()
    boundary = ERAttack(Saliency(model), 3, pairs="mm", k_prime=1)
    for attack, label, colour, style in (
        (ERAttack(Saliency(model), 3), "ERAttack, all pairs", REST, "--"),
        (boundary, "ERAttack, the pair at the boundary", TOP, "-"),
    ):
        radius = MinRadius(attack, upper=0.5).evaluate(x, target=1, seed=0)
        unchanged = 1 - torch.arange(1, len(x) + 1) / len(x)
        axis.step(
            radius.sort().values,
            unchanged,
            color=colour,
            ls=style,
            label=label,
            where="post",
        )
    axis.set(
        xlabel="L∞ radius", ylabel="fraction with unchanged top 3", xlim=(0, 0.5), ylim=(0, 1.02)
    )
    axis.legend(fontsize="small")
    axis.spines[["top", "right"]].set_visible(False)
    save(plot, "min-radius")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for draw in (
        precision_at_k,
        ranking_thickness,
        smooth_relus,
        er_attack,
        pareto_attack,
        min_radius,
    ):
        draw()
