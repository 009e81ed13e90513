"""The tables over all data sets, goals and claims, against NumPy and SciPy."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Part
from captum_robust.benchmark.study.settings import RADII
from captum_robust.benchmark.tables.claims import claims
from captum_robust.benchmark.tables.goals import goals
from captum_robust.benchmark.tables.results import Model, StudyResults
from tests.benchmark_runner.made_up import PLAN, fill

BASELINES = ("vanilla", "wd", "sp")
OURS = ("r2et", "r2et-no-h", "r2et-sp")
PAPER = (*BASELINES, *OURS, "linear")
AT = RADII.index(1.0)
MAIN = Part("auto", "saliency", 8)
Tables = dict[str, list[list[str]]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three seeds; one method lacks one of them."""
    folder = tmp_path_factory.mktemp("overview")
    plan = replace(
        PLAN,
        seeds=(0, 1, 2),
        attacks=("er", "mse", "auto"),
        explanations=("saliency",),
        other_ks=(),
    )
    fill(folder, replace(plan, methods=("vanilla", "wd", "r2et"), explanations=("saliency", "ig")))
    more = ("sp", "r2et-no-h", "r2et-sp", "sp-steep", "r2et-flat", "r2et-every8")
    fill(folder, replace(plan, methods=more, starts=("random",)))
    return fill(folder, replace(plan, methods=("linear",), seeds=(1, 2), starts=("random",)))


@pytest.fixture(scope="module")
def tables(store: Store) -> Tables:
    """The cells of each table by its heading, without the header."""
    results = StudyResults(store.folder)
    return {
        table.caption or chapter.title: [[cell.text for cell in row] for row in table.rows]
        for chapter in (*goals(results), *claims(results))
        for table in chapter.tables
    }


@pytest.fixture(scope="module")
def records(store: Store) -> "Records":
    """The records of the selected settings by method, start and part."""
    results = StudyResults(store.folder)
    found: Records = {}
    for unit, result in store.results().items():
        chosen = results.settings("breast-cancer", Model(unit.method, unit.start))
        if chosen[unit.seed].setting == unit.setting:
            found.setdefault((unit.method, unit.start, unit.part), {})[unit.seed] = result
    for method, start, part in tuple(found):
        if part == Part("er", "saliency", 8):
            every = [found[method, start, Part(a, "saliency", 8)] for a in ("er", "mse", "auto")]
            found[method, start, Part("worst", "saliency", 8)] = {
                seed: {"precision": np.fmin.reduce([of[seed]["precision"] for of in every])}
                for seed in every[0]
            }
    return found


Records = dict[tuple[str, str, Part], dict[int, Result]]


def kept(
    records: Records,
    method: str,
    part: Part = MAIN,
    start: str = "random",
    at: int = AT,
) -> NDArray[np.float64]:
    """P@k of each seed."""
    found = records[method, start, part]
    return np.array([np.nanmean(found[seed]["precision"][at]) for seed in sorted(found)])


def auc(records: Records, method: str) -> NDArray[np.float64]:
    found = records[method, "random", PROPERTIES]
    return np.array([found[seed]["auc"] for seed in sorted(found)])


def spread(values: NDArray[np.float64], digits: int = 3) -> str:
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def gain(a: NDArray[np.float64], b: NDArray[np.float64]) -> str:
    low, high = stats.ttest_1samp(a - b, 0).confidence_interval(0.95)
    return f"{(a - b).mean():+.3f} ± {(high - low) / 2:.3f}"


def test_summary(tables: Tables, records: Records) -> None:
    rows = tables["P@8 at radius 1 under the strongest attack, and AUC on all test rows"]
    assert [row[0] for row in rows] == [*BASELINES, "r2et", "r2et-sp", "r2et-no-h", "linear"]
    for method, precision, area in rows:
        assert (precision, area) == (spread(kept(records, method)), spread(auc(records, method)))


def accurate(records: Records) -> list[str]:
    vanilla = auc(records, "vanilla").mean()
    return [m for m in OURS if auc(records, m).mean() >= vanilla - 0.01]


def test_best(tables: Tables, records: Records) -> None:
    best = max(accurate(records), key=lambda m: kept(records, m).mean())
    loss = gain(auc(records, best), auc(records, "vanilla"))
    expected = ["breast-cancer", best, spread(kept(records, best), 4), loss]
    assert tables["Best R2ET at radius 1"] == [expected]


@pytest.mark.parametrize(
    ("group", "rivals"),
    [
        ("baselines", BASELINES),
        ("baselines, SP of β ≥ 0.5", ("vanilla", "wd", "sp-steep")),
    ],
)
def test_against_every_baseline(
    group: str, rivals: tuple[str, ...], tables: Tables, records: Records
) -> None:
    expected = []
    for r, radius in enumerate(RADII):
        values = {m: kept(records, m, at=r) for m in (*OURS, *rivals)}
        best = max(accurate(records), key=lambda m: values[m].mean())
        rival = max(rivals, key=lambda m: values[m].mean())
        failing = []
        for other in rivals:
            gains = values[best] - values[other]
            if not stats.ttest_1samp(gains, 0).confidence_interval(0.95).low > 0:
                failing.append(other)
        verdict = f"no ({', '.join(failing)})" if failing else "yes"
        if values[rival].mean() >= 0.98:
            verdict = "does not apply"
        expected.append(
            ["breast-cancer", f"{radius:g}", best, f"{values[best].mean():.3f}", rival,
             f"{values[rival].mean():.3f}", gain(values[best], values[rival]), verdict, "3"]
        )  # fmt: skip
    assert tables[group] == expected


def test_ideas_are_beside_sp_over_common_seeds(tables: Tables, records: Records) -> None:
    """The linear model has two seeds of three."""
    expected = []
    flat = [kept(records, "sp", at=r)[-2:] for r in (2, 3, 4)]
    for name in ("sp", "linear", "sp-steep", "r2et-sp", "r2et-flat"):
        found = [kept(records, name, at=r)[-2:] for r in (2, 3, 4)]
        gains = [gain(a, b) for a, b in zip(found, flat, strict=True)]
        area = auc(records, name)
        loss = gain(area, auc(records, "vanilla")[-len(area) :])
        if name == "sp":
            gains = ["+0.000 ± 0.000"] * 3
        expected.append(["breast-cancer", name, *map(spread, found), *gains, loss, "2"])
    assert tables["Ideas"] == expected


def test_lazy(tables: Tables, records: Records, store: Store) -> None:
    ((dataset, name, precision, less, cost, full_cost, seeds),) = tables["Lazy regularisation"]
    values = kept(records, "r2et-every8")
    assert (dataset, name, precision, seeds) == (
        "breast-cancer",
        "r2et-every8",
        spread(values),
        "3",
    )
    assert less == gain(values, kept(records, "r2et"))
    for method, found in (("r2et-every8", cost), ("r2et", full_cost)):
        ratios = [
            record["epoch_seconds"] / records["vanilla", "random", TRAINING][seed]["epoch_seconds"]
            for seed, record in sorted(records[method, "random", TRAINING].items())
        ]
        assert found == spread(np.array(ratios), 2)


def test_mse_against_er(tables: Tables, records: Records) -> None:
    kinds = {"LeakyReLU": ("vanilla", "wd", "r2et", "r2et-no-h"), "softplus": ("sp", "r2et-sp"),
             "linear": ("linear",)}  # fmt: skip
    expected = []
    for kind, methods in kinds.items():
        counts = {-1: 0, 0: 0, 1: 0}
        for method, r in product(methods, range(len(RADII))):
            mse, er = (
                kept(records, method, Part(a, "saliency", 8), at=r).mean() for a in ("mse", "er")
            )
            counts[int(np.sign(round(mse, 3) - round(er, 3)))] += 1
        expected.append(["breast-cancer", kind, *(str(counts[sign]) for sign in (1, 0, -1))])
    assert tables["Claim 1: P@k under the attacks, models × radii counted"] == expected


def test_differences(tables: Tables, records: Records) -> None:
    attacks = ("er", "mse", "auto", "worst")
    parts = [Part(attack, "saliency", 8) for attack in attacks]
    vanilla = [kept(records, "vanilla", part) for part in parts]
    assert tables["Claim 1: P@k of vanilla"] == [["breast-cancer", *map(spread, vanilla)]]
    more = ("r2et", "r2et-sp", "r2et-no-h", "linear", "sp-steep", "r2et-flat", "r2et-every8")
    assert tables["Claim 2: P@k less vanilla's"] == [
        [
            m,
            *(
                gain(kept(records, m, p), v[1:] if m == "linear" else v)
                for p, v in zip(parts, vanilla, strict=True)
            ),
        ]
        for m in ("wd", "sp", *more)
    ]
    (row,) = tables["Claim 3: P@k and thickness without the Hessian term less those with it"]
    assert row[:2] == ["r2et-no-h − r2et", "breast-cancer"]
    assert row[2:6] == [
        gain(kept(records, "r2et-no-h", p), kept(records, "r2et", p)) for p in parts
    ]
    means = [
        np.mean([np.mean(r["thickness"]) for r in records[m, "random", PROPERTIES].values()])
        for m in ("r2et-no-h", "r2et")
    ]
    assert row[6] == f"{means[0] - means[1]:+.4f}"


def test_what_ranks_the_methods_is_over_common_seeds(tables: Tables, records: Records) -> None:
    rows = tables["Claim 4: rank correlation with P@k over the methods"]
    for (_, attack, *cells, n), expected in zip(rows, ("er", "mse", "auto", "worst"), strict=True):
        assert (attack, n) == (expected, "7")
        precision = [kept(records, m, Part(attack, "saliency", 8))[-2:].mean() for m in PAPER]
        for name, found in zip(
            ("thickness", "adversarial thickness", "hessian norm"), cells, strict=True
        ):
            levels = [
                np.mean([np.mean(records[m, "random", PROPERTIES][s][name]) for s in (1, 2)])
                for m in PAPER
            ]
            assert found == f"{stats.spearmanr(levels, precision).statistic:+.2f}"


def test_explanations_and_starts(tables: Tables, records: Records) -> None:
    assert tables["Claim 7: P@k by explanation, under the strongest attack"] == [
        [
            "breast-cancer",
            m,
            *(spread(kept(records, m, Part("auto", e, 8))) for e in ("saliency", "ig")),
            "3",
        ]
        for m in ("vanilla", "wd", "r2et")
    ]
    rows = tables["Training from the vanilla model: P@k less that from random weights"]
    expected = []
    for method in ("wd", "r2et"):
        pair = [kept(records, method, start=start) for start in ("vanilla", "random")]
        expected.append(["breast-cancer", method, *map(spread, pair), gain(*pair), "3"])
    assert rows == expected


def test_fronts(tables: Tables, records: Records) -> None:
    def points(name: str, methods: list[str]) -> dict[str, tuple[float, float]]:
        found = {}
        for m in methods:
            area = auc(records, m)[-2:]
            if name == "aAUC":
                attacked = records[m, "random", Part("auto", "saliency", 8)]
                area = np.array([attacked[s]["attacked_auc"][AT] for s in (1, 2)])
            found[m] = (kept(records, m)[-2:].mean(), area.mean())
        return found

    order = ["vanilla", "wd", "sp", "r2et", "r2et-sp", "r2et-no-h"]
    cells = []
    for methods in (order, [*order, "linear"]):
        for name in ("cAUC", "aAUC"):
            found = points(name, methods)
            front = [
                m for m, (p, a) in found.items()
                if not any(q >= p and b >= a and (q, b) != (p, a) for q, b in found.values())
            ]  # fmt: skip
            cells.append(", ".join(front))
    assert tables["Claim 8: on the Pareto front of P@k and AUC"] == [["breast-cancer", *cells]]


def test_fall_of_the_area(tables: Tables, records: Records) -> None:
    cells = []
    for attack in ("er", "mse", "auto"):
        falls = {
            m: np.mean([
                r["clean_auc"] - r["attacked_auc"][AT]
                for r in records[m, "random", Part(attack, "saliency", 8)].values()
            ])
            for m in PAPER
        }  # fmt: skip
        most = max(falls, key=falls.__getitem__)
        cells.append(f"{falls[most]:.3f} ({most})")
    assert tables["AUC of the explained rows: its largest fall"] == [["breast-cancer", *cells]]
