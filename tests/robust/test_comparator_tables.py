"""Means, intervals, worst cases and the written tables, against numpy, scipy and csv."""

import csv
import math
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import Saliency
from scipy import stats

from captum_robust._utils.estimate import estimate, student_quantile
from captum_robust.metrics import attribution_mse, precision_at_k
from captum_robust.robust import ExplanationComparator
from captum_robust.robust.evaluation.robustness_table import Measurement, RobustnessTable

NAN = math.nan
VALUES = torch.tensor([0.5, 1.0, NAN, 0.0, 0.5, 0.25]).double()
CHANGED = torch.tensor([0.0, 0.0, NAN, 1.0, 0.0, 0.0]).double()
WEIGHTS = torch.tensor([1.0, 3.0, 5.0, 0.5, 0.0, 2.0])


def table_of(weights=None, name="Saliency", metric="P@3"):
    still = Measurement(name, "noise", {metric: torch.ones(6), "prediction changed": CHANGED}, {})
    moved = Measurement(
        name, "ER", {metric: VALUES, "prediction changed": CHANGED}, {"zero_gradient": 2}
    )
    return RobustnessTable((still, moved), 0.1, "L2", weights, 0.9)


# --- means and intervals -------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [1, 1.5, 2, 3.7, 10, 30, 1000, 1e6])
@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.9, 0.95, 0.999])
def test_the_quantile_is_that_of_student(confidence, degrees):
    expected = stats.t.ppf((1 + confidence) / 2, degrees)
    assert student_quantile(confidence, degrees) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
@pytest.mark.parametrize("n", [2, 3, 50])
def test_equal_weights_give_the_textbook_interval(n, confidence):
    values = torch.randn(n, generator=torch.Generator().manual_seed(n)).double()
    v = values.numpy()
    expected = stats.t.interval(confidence, n - 1, loc=v.mean(), scale=stats.sem(v))
    for weights in (None, torch.full((n,), 7.0)):
        found = estimate(values, weights, confidence)
        assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)
        assert found.mean == pytest.approx(v.mean(), rel=1e-12)


def test_examples_without_a_value_are_counted_and_left_out():
    found = estimate(VALUES, WEIGHTS, 0.9)
    known = ~np.isnan(VALUES.numpy())
    v, w = VALUES.numpy()[known], WEIGHTS.double().numpy()[known]
    assert found.mean == pytest.approx(np.average(v, weights=w), rel=1e-12)
    assert (found.n_examples, found.n_nan) == (6, 1)
    assert (found.smallest, found.largest) == (0.0, 1.0)
    n = w.sum() ** 2 / (w**2).sum()
    spread = np.sqrt((w**2 * (v - found.mean) ** 2).sum() * n / (n - 1)) / w.sum()
    half = stats.t.ppf(0.95, n - 1) * spread
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))
    scaled = estimate(VALUES, 1000 * WEIGHTS, 0.9)
    assert (scaled.mean, scaled.low) == pytest.approx((found.mean, found.low))


def test_a_weighted_interval_covers_the_mean_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(600):
        u = torch.rand(40, generator=generator).double()
        values = u + 0.3 * torch.randn(40, generator=generator).double()
        found = estimate(values, 0.5 + u, 0.9)  # the weighted mean of u is 7/12
        covered += found.low <= 7 / 12 <= found.high
    assert stats.binomtest(covered, 600, 0.9).pvalue > 0.01


@pytest.mark.parametrize(
    "values, weights, mean",
    [
        ([NAN, NAN], None, NAN),
        ([1.0, 2.0], [0.0, 0.0], NAN),
        ([3.0], None, 3.0),
        ([3.0, NAN], None, 3.0),
        ([1.0, 4.0], [1.0, 0.5], 2.0),  # fewer than two examples, effectively
        ([3.0, 5.0], [1.0, 0.0], 3.0),
    ],
)
def test_too_few_examples_have_no_interval(values, weights, mean):
    weights = None if weights is None else torch.tensor(weights)
    found = estimate(torch.tensor(values), weights)
    assert found.mean == pytest.approx(mean, nan_ok=True)
    assert math.isnan(found.low) and math.isnan(found.high)


def test_values_that_are_all_equal_have_an_interval_without_width():
    found = estimate(torch.full((5,), 0.25))
    assert (found.low, found.mean, found.high) == (0.25, 0.25, 0.25)


@pytest.mark.parametrize("n", [1, 2, 8, 30, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_interval_of_a_share_is_exact(n, confidence):
    for x in sorted({0, 1, n // 3, n - 1, n}):
        values = (torch.arange(n) < x).double()
        expected = stats.binomtest(x, n).proportion_ci(confidence, "exact")
        found = estimate(values, None, confidence, bounds=(0, 1))
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-9)
        twice = estimate(5 * values - 1, torch.full((n,), 3.0), confidence, bounds=(-1, 4))
        assert (twice.low, twice.high) == pytest.approx([5 * e - 1 for e in expected], abs=1e-8)


@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 1.0, 0.5, 3.0, 1.0, 1.0, 1.0]])
@pytest.mark.parametrize(
    "values", [[0.25] * 8, [1.0] * 7 + [0.5], [1.0] * 8, [0.0] * 8, [0.1, 0.9] * 4, [1, 0] * 4]
)
def test_an_interval_in_a_range_has_a_width_and_contains_the_mean(values, weights):
    weights = None if weights is None else torch.tensor(weights)
    found = estimate(torch.tensor(values, dtype=torch.float64), weights, bounds=(0, 1))
    assert 0 <= found.low <= found.mean <= found.high <= 1
    assert found.high - found.low > 0.1
    scaled = None if weights is None else 1000 * weights
    again = estimate(torch.tensor(values, dtype=torch.float64), scaled, bounds=(0, 1))
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


DISTRIBUTIONS = {
    "few changes": (lambda u: torch.where(u < 0.05, 0.5, 1.0), 0.975),
    "shares": (lambda u: (u < 0.9).double(), 0.9),
    "two ends": (lambda u: torch.where(u < 0.1, 0.0, torch.where(u < 0.5, 0.5, 1.0)), 0.7),
    "uniform": (lambda u: u, 0.5),
    "narrow": (lambda u: 0.5 + 0.02 * (u - 0.5), 0.5),
}


@pytest.mark.parametrize("n", [4, 8, 20, 60])
@pytest.mark.parametrize("draw, mean", DISTRIBUTIONS.values(), ids=DISTRIBUTIONS)
def test_an_interval_in_a_range_covers_the_mean_as_often_as_it_says(draw, mean, n):
    generator = torch.Generator().manual_seed(0)
    drawn = draw(torch.rand(300, n, generator=generator).double())
    found = [estimate(values, bounds=(0, 1)) for values in drawn]
    covered = sum(f.low <= mean <= f.high for f in found)
    assert stats.binomtest(covered, 300, 0.95, "less").pvalue > 0.001


def test_a_half_open_range_cuts_the_interval_off():
    values = torch.tensor([0.0, 0.1, 5.0]).double()
    student, cut = estimate(values), estimate(values, bounds=(0, math.inf))
    assert student.low < 0 == cut.low and cut.high == student.high


def test_the_table_knows_the_ranges_of_our_metrics():
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Softplus(), torch.nn.Linear(8, 2))
    metrics = {
        "P@2": partial(precision_at_k, k=2),
        "mse": attribution_mse,
        "own": lambda maps, reference: (maps - reference).flatten(1).sum(dim=1),
    }
    comparator = ExplanationComparator({"S": Saliency(model)}, {}, metrics)
    table = comparator.evaluate(torch.ones(8, 4), 1e-4, 1, seed=0)
    assert table.ranges == {"P@2": (0, 1), "mse": (0, math.inf)}
    shown = table.estimate("S", "noise", "P@2")
    assert (shown.low, shown.high) == pytest.approx((0.025 ** (1 / 8), 1))
    assert table.estimate("S", "noise", "mse").low >= 0
    changed = table.estimate("S", "noise", "prediction changed")
    assert changed.low == 0 and changed.high == pytest.approx(1 - 0.025 ** (1 / 8))


def test_the_table_estimates_with_its_own_weights_and_confidence():
    found = table_of(WEIGHTS).estimate("Saliency", "ER", "P@3")
    assert found == estimate(VALUES, WEIGHTS, 0.9) != estimate(VALUES, None, 0.9)


# --- worst cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 3, 5, 20])
def test_the_worst_examples_are_those_of_a_stable_sort_without_nan(n):
    table, v = table_of(), VALUES.numpy()
    known = [i for i in range(6) if not np.isnan(v[i])]
    for largest in (False, True):
        order = sorted(known, key=lambda i: (-v[i] if largest else v[i], i))[:n]
        indices, values = table.worst("Saliency", "ER", "P@3", n, largest)
        assert indices.tolist() == order and values.tolist() == [v[i] for i in order]


def test_an_unknown_name_is_answered_with_those_there_are():
    table = table_of()
    with pytest.raises(KeyError, match=r"'PGD'.*\('Saliency', 'noise'\), \('Saliency', 'ER'\)"):
        table["Saliency", "PGD"]
    assert table["Saliency", "ER"].values["P@3"] is VALUES


# --- written -------------------------------------------------------------------------------------


def test_markdown_holds_every_number_and_flag():
    lines = table_of().to_markdown().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == ["attribution", "attack", "P@3", "prediction changed", "flags"]
    assert set(cells[1]) == {"---"}
    assert cells[2][:3] == ["Saliency", "noise", "1.00 [1.00, 1.00]"]
    v = VALUES[~VALUES.isnan()].numpy()
    low, high = stats.t.interval(0.9, 4, loc=v.mean(), scale=stats.sem(v))
    assert cells[3][2] == f"{v.mean():#.3g} [{low:#.3g}, {high:#.3g}] (1 NaN)"
    assert cells[3][4] == "zero gradient 2/6"
    assert lines[5] == "Mean [90 % confidence interval] over 6 examples; L2 ball of radius 0.1."
    assert table_of(WEIGHTS).to_markdown().splitlines()[5].startswith("Weighted mean [90 %")


def test_bars_and_line_breaks_in_names_do_not_break_markdown():
    text = table_of(name="a|b\nc\\").to_markdown()
    assert text.splitlines()[2].startswith("| a\\|b c\\\\ | noise |")


SPECIAL = r"100 % & $x_1^2$ #{a}~[b]\c<>"


def test_latex_is_escaped_and_balanced():
    text = table_of(name=SPECIAL, metric="P@3_x").to_latex()
    comment, begin, rule, head, *_ = text.splitlines()
    assert comment.startswith("% Mean") and begin == r"\begin{tabular}{lllll}"
    assert rule == r"\hline" and head == (
        r"attribution & attack & P@3\_x & prediction changed & flags \\"
    )
    first = text.splitlines()[5]
    assert first.startswith(
        r"100 \% \& \$x\_1\textasciicircum{}2\$ \#\{a\}\textasciitilde{}{[}b{]}"
        r"\textbackslash{}c\textless{}\textgreater{} & noise & 1.00 {[}1.00, 1.00{]} &"
    )
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 and all(row.replace(r"\&", "").count("&") == 4 for row in rows)
    assert text.endswith("\\hline\n\\end{tabular}")


def test_csv_reads_back_as_the_records(tmp_path):
    table, path = table_of(WEIGHTS, name='a,"b"\nü'), tmp_path / "table.csv"
    table.to_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    records = table.records()
    assert len(rows) == len(records) == 4
    for row, record in zip(rows, records, strict=True):
        assert row.keys() == record.keys()
        for name, value in record.items():
            read = row[name] if isinstance(value, str) else type(value)(row[name])
            assert read == value or (math.isnan(read) and math.isnan(value))
    assert [(r["attack"], r["metric"]) for r in records] == [
        ("noise", "P@3"), ("noise", "prediction changed"),
        ("ER", "P@3"), ("ER", "prediction changed"),
    ]  # fmt: skip
    found = table.estimate('a,"b"\nü', "ER", "P@3")
    assert (records[2]["mean"], records[2]["low"]) == (found.mean, found.low)
    assert records[2]["n_nan"] == 1 and records[2]["flags"] == "zero gradient 2/6"
    assert [p.name for p in tmp_path.iterdir()] == ["table.csv"]


def test_a_csv_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    table_of().to_csv(str(path))
    before = path.read_bytes()

    def refuse(self, target):
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="disk is full"):
        table_of(WEIGHTS).to_csv(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_pandas_is_given_the_records(monkeypatch):
    made = []
    monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=made.append))
    table_of().to_pandas()
    assert str(made) == str([table_of().records()])  # as text, for a NaN
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="to_pandas needs pandas"):
        table_of().to_pandas()


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    frame = table_of().to_pandas()
    assert isinstance(frame, pandas.DataFrame) and frame.shape == (4, 14)
    assert frame.loc[2, "mean"] == pytest.approx(0.45)
