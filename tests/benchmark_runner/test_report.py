"""The numbers of the report against NumPy and SciPy, from the records of each row."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from captum_robust.benchmark.plan.selection import select_each
from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Part
from captum_robust.benchmark.study.settings import RADII
from captum_robust.benchmark.tables.report import report
from captum_robust.benchmark.tables.statistics import correlation, pareto_front
from tests.benchmark_runner.made_up import PLAN, fill

METHODS = ("vanilla", "wd", "sp", "r2et")


@pytest.fixture(scope="module")
def text(whole: Store) -> str:
    return report(whole.folder)


def table(text: str, title: str) -> dict[str, dict[str, str]]:
    """The first table after a title: its rows by the first column, their cells by the header."""
    after = text[text.index(f"### {title}") :].splitlines()
    start = next(i for i, line in enumerate(after) if line.startswith("|"))
    lines = []
    for line in after[start:]:
        if not line.startswith("|"):
            break
        lines.append([cell.strip() for cell in line.strip("|").split("|")])
    header, _, *rows = lines
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def records(whole: Store, method: str, part: Part, start: str = "random") -> list[Result]:
    """The records of the selected setting by seed."""
    trainings = whole.results(part=TRAINING)
    chosen = select_each(trainings, list({unit.group for unit in trainings}))
    found = whole.results(part=part, method=method, start=start)
    models = [chosen[unit.group] for unit in found]
    seeds = {unit.seed for unit in trainings if unit.method == method}
    assert [unit.model for unit in found] == models and {unit.seed for unit in found} == seeds
    return [found[unit] for unit in sorted(found, key=lambda unit: unit.seed)]


def precisions(whole: Store, method: str, part: Part, start: str = "random") -> NDArray[np.float64]:
    """(seeds, radii)"""
    rows = [r["precision"] for r in records(whole, method, part, start)]
    return np.nanmean(np.array(rows), axis=2)


def test_the_worst_of_the_attacks_on_each_row(whole: Store, text: str) -> None:
    for explanation in ("saliency", "ig"):
        title = f"P@8, {explanation} under the worst of the attacks on each row, by radius"
        found = table(text, title)
        for method in METHODS:
            both = [
                [r["precision"] for r in records(whole, method, Part(attack, explanation, 8))]
                for attack in ("er", "auto")
            ]
            values = np.nanmean(np.fmin(*both), axis=2)
            for r, radius in enumerate(RADII):
                cell = f"{values[:, r].mean():.3f} ± {values[:, r].std(ddof=1):.3f}"
                assert found[method][f"{radius:g}"].removesuffix(" †") == cell
    assert "under worst" not in text and "P@5, saliency under the worst" not in text


@pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # two equal differences
@pytest.mark.parametrize("attack", ["er", "auto"])
@pytest.mark.parametrize("explanation", ["saliency", "ig"])
def test_precision_is_mean_and_deviation_over_the_seeds(
    explanation: str, attack: str, whole: Store, text: str
) -> None:
    found = table(text, f"P@8, {explanation} under {attack}, by radius")
    part = Part(attack, explanation, 8)
    lines = {(m, m, "random") for m in METHODS}
    if explanation == "saliency":
        lines |= {(f"{m} (from vanilla)", m, "vanilla") for m in ("wd", "r2et")}
    assert set(found) == {name for name, _, _ in lines}
    vanilla = precisions(whole, "vanilla", part)
    for name, method, start in lines:
        values = precisions(whole, method, part, start)
        for r, radius in enumerate(RADII):
            cell = f"{values[:, r].mean():.3f} ± {values[:, r].std(ddof=1):.3f}"
            same = np.array_equal(values[:, r], vanilla[:, r])
            significant = not same and stats.ttest_rel(values[:, r], vanilla[:, r]).pvalue < 0.05
            assert found[name][f"{radius:g}"] == cell + (" †" if significant else "")


def test_margin_of_the_best_over_the_best_of_each_group(tmp_path: Path) -> None:
    """The seeds are those that all have: r2et-sp and linear have two of the three."""
    methods = (*METHODS, "sp-steep", "r2et-sp", "linear")
    plan = replace(PLAN, methods=(*METHODS, "sp-steep"), seeds=(0, 1, 2), attacks=("auto",))
    fill(tmp_path, plan)
    store = fill(tmp_path, replace(plan, methods=("r2et-sp", "linear"), seeds=(1, 2)))
    rows = (
        report(tmp_path)
        .split("Best R2ET against the best other")[1]
        .split("\n\n")[1]
        .splitlines()[2:]
    )
    groups = {
        "baselines": {"vanilla", "wd", "sp"},
        "baselines, SP of β ≥ 0.5": {"vanilla", "wd", "sp-steep"},
        "reference": {"linear"},
    }
    names = {(m, m, "random") for m in methods}
    names |= {(f"{m} (from vanilla)", m, "vanilla") for m in ("wd", "r2et")}
    part = Part("auto", "saliency", 8)
    values = {(name, m): precisions(store, m, part, start)[-2:] for name, m, start in names}
    expected = []
    for r, radius in enumerate(RADII):
        means = {key: v[:, r].mean() for key, v in values.items()}
        best = max((key for key in means if key[1].startswith("r2et")), key=means.__getitem__)
        for group, members in groups.items():
            rival = max((key for key in means if key[1] in members), key=means.__getitem__)
            gains = values[best][:, r] - values[rival][:, r]
            low, high = stats.ttest_1samp(gains, 0).confidence_interval(0.95)
            gain = f"{gains.mean():+.3f} ± {(high - low) / 2:.3f}"
            expected.append([f"{radius:g}", best[0], group, rival[0], gain, "2"])
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [[c[0], c[1], c[3], c[4], c[6], c[7]] for c in cells] == expected


def test_fronts_and_correlations_are_over_common_seeds(tmp_path: Path) -> None:
    plan = replace(PLAN, seeds=(0, 1, 2), attacks=("auto",))
    fill(tmp_path, plan)
    fill(tmp_path, replace(plan, methods=("sp-steep",), seeds=(0,)))  # not one of the usual
    store = fill(tmp_path, replace(plan, methods=("linear",), seeds=(2,)))
    text = report(tmp_path)
    found = table(text, "Accuracy against robustness (radius 1)")
    assert set(found) == {*METHODS, "linear"}
    assert "Means over the 1 seeds" in text and "5 methods, means over the 1 seeds" in text
    precision, thickness = [], []
    for method in (*METHODS, "linear"):
        value = precisions(store, method, Part("auto", "saliency", 8))[-1, RADII.index(1.0)]
        properties = records(store, method, PROPERTIES)[-1]
        assert found[method]["P@8"] == f"{value:.3f}"
        assert found[method]["cAUC"] == f"{properties['auc']:.3f}"
        precision.append(value)
        thickness.append(np.mean(properties["thickness"]))
    between = table(text, "What ranks the methods as P@k does")
    expected = stats.spearmanr(thickness, precision).statistic
    assert between["thickness"]["with P@k at radius 1"] == f"{expected:.3f}"


def test_daggers_are_on_some_and_not_on_all(text: str) -> None:
    """With two seeds and made-up numbers the test above would miss a dagger that is never set."""
    values, others = {0: 0.9, 1: 0.91, 2: 0.92}, {0: 0.5, 1: 0.52, 2: 0.51}
    from captum_robust.benchmark.tables.report import _with_dagger

    assert _with_dagger(values, others).text == "0.910 ± 0.010 †"
    assert _with_dagger(values, values).text == "0.910 ± 0.010"
    assert _with_dagger({0: 0.9}, {0: 0.5}).text == "0.900"


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("thickness", "thickness"),
        ("Hessian norm", "hessian norm"),
        ("DFFOT", "dffot"),
        ("COMP", "comp"),
        ("SUFF", "suff"),
    ],
)
def test_properties(column: str, name: str, whole: Store, text: str) -> None:
    found = table(text, "Properties")
    for method in METHODS:
        values = np.array([np.mean(r[name]) for r in records(whole, method, PROPERTIES)])
        assert found[method][column] == f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"


def test_accuracy_and_cost(whole: Store, text: str) -> None:
    found, at = table(text, "Properties"), RADII.index(1.0)
    trainings = whole.results(part=TRAINING)
    chosen = select_each(trainings, list({unit.group for unit in trainings}))
    for method in METHODS:
        attacked = records(whole, method, Part("auto", "saliency", 8))
        for column, values in (
            ("cAUC", [r["auc"] for r in records(whole, method, PROPERTIES)]),
            ("AUC of the rows", [r["clean_auc"] for r in attacked]),
            ("aAUC", [r["attacked_auc"][at] for r in attacked]),
            ("prediction change", [r["changed"][at] for r in attacked]),
        ):
            assert found[method][column].startswith(f"{np.mean(values):.4f} ")
        cost = [
            trainings[unit]["epoch_seconds"] / trainings[unit.vanilla]["epoch_seconds"]
            for group, unit in chosen.items()
            if (group.method, group.start) == (method, "random")
        ]
        assert found[method]["cost of an epoch"].startswith(f"{np.mean(cost):.2f} ")


def test_selected_settings(whole: Store, text: str) -> None:
    found = table(text, "Selected settings")
    trainings = whole.results(part=TRAINING)
    chosen = select_each(trainings, list({unit.group for unit in trainings}))
    for group, unit in chosen.items():
        name = group.method if group.start == "random" else f"{group.method} (from vanilla)"
        vanilla = trainings[unit.vanilla]["auc"]
        star = " *" if trainings[unit]["auc"] < vanilla - 0.01 else ""
        assert f"{unit.setting or 'none'}{star}: " in found[name]["setting: number of seeds"]


def test_k(whole: Store, text: str) -> None:
    found = table(text, "P@k by k: saliency under auto at radius 1")
    for method in METHODS:
        for k in (2, 5, 8):
            values = precisions(whole, method, Part("auto", "saliency", k))[:, RADII.index(1.0)]
            assert found[method][f"k = {k}"] == f"{values.mean():.3f}"


def test_k_is_over_common_seeds(tmp_path: Path) -> None:
    """One seed of two has the other k; further methods have none."""
    plan = replace(PLAN, methods=("vanilla", "wd", "sp-steep"), attacks=("auto",), other_ks=())
    fill(tmp_path, plan)
    store = fill(tmp_path, replace(plan, seeds=(1,), other_ks=(2,)))
    text = report(tmp_path)
    found = table(text, "P@k by k: saliency under auto at radius 1")
    assert set(found) == {"vanilla", "wd"} and "Means over the 1 seeds that all have" in text
    for method in found:
        for k in (2, 8):
            (one,) = store.results(
                method=method, seed=1, start="random", part=Part("auto", "saliency", k)
            ).values()
            value = np.nanmean(one["precision"][RADII.index(1.0)])
            assert found[method][f"k = {k}"] == f"{value:.3f}"


def test_correlations(whole: Store, text: str) -> None:
    found = table(text, "What goes with a late manipulation")
    for method in METHODS:
        for name in ("adversarial thickness", "gaussian thickness", "hessian norm"):
            each = [
                stats.spearmanr(r[name], r["manipulation step"]).statistic
                for r in records(whole, method, PROPERTIES)
            ]
            assert found[method][name] == f"{np.mean(each):.3f}"
    between = table(text, "What ranks the methods as P@k does")
    precision = [precisions(whole, m, Part("auto", "saliency", 8))[:, 2].mean() for m in METHODS]
    for name in ("thickness", "adversarial thickness", "hessian norm"):
        levels = [
            np.mean([np.mean(r[name]) for r in records(whole, m, PROPERTIES)]) for m in METHODS
        ]
        expected = stats.spearmanr(levels, precision).statistic
        assert between[name]["with P@k at radius 1"] == f"{expected:.3f}"


def test_magnitudes(whole: Store, text: str) -> None:
    found = table(text, "Gradient magnitudes of the probability, by rank")
    for method in METHODS:
        means = np.mean([r["magnitudes"] for r in records(whole, method, PROPERTIES)], axis=0)
        for rank in (1, 2, 4, 8, 9, 16, 30):
            assert found[method][str(rank)] == f"{means[rank - 1]:.4f}"


def test_front(whole: Store, text: str) -> None:
    found = table(text, "Accuracy against robustness (radius 1)")
    points = {}
    for method in METHODS:
        auc = np.mean([r["auc"] for r in records(whole, method, PROPERTIES)])
        points[method] = (precisions(whole, method, Part("auto", "saliency", 8))[:, 2].mean(), auc)
    for method, (p, a) in points.items():
        beaten = any(q >= p and b >= a and (q, b) != (p, a) for q, b in points.values())
        assert found[method]["front with cAUC"] == ("" if beaten else "yes")


def test_front_by_hand() -> None:
    points = {"a": (1.0, 0.0), "b": (0.5, 0.5), "c": (0.5, 0.4), "d": (0.0, 1.0), "e": (0.5, 0.5)}
    assert pareto_front(points) == {"a", "b", "d", "e"}


def test_correlation_leaves_out_what_is_not_a_number() -> None:
    x, y = [1.0, 2.0, 3.0, math.nan, 5.0], [2.0, 1.0, 4.0, 9.0, math.inf]
    assert correlation(x, y) == pytest.approx(stats.spearmanr(x[:3], y[:3]).statistic)
    assert math.isnan(correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert math.isnan(correlation([1.0, 2.0], [1.0, 2.0]))
