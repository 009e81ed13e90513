"""Every method in every setting: it trains, and its setting reaches the loss."""

import math

import pytest
import torch
from torch import nn

from captum_robust._utils.random import seeded
from captum_robust.benchmark.study.methods import K_PRIMES, METHODS, RIVALS
from captum_robust.benchmark.study.training import fit
from captum_robust.datasets import TabularDataset
from captum_robust.loss import CrossLipschitzLoss, R2ETLoss

IDEAS = [name for name, method in METHODS.items() if method.role == "idea"]
LAZY = [name for name, method in METHODS.items() if method.approximates]
SETTINGS = [(name, setting) for name, method in METHODS.items() for setting in method.grid]


def table(n_rows: int = 24, n_features: int = 10) -> TabularDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_rows, n_features, generator=generator)
    names = tuple(map(str, range(n_features)))
    return TabularDataset("toy", inputs, (inputs[:, 0] > 0).long(), names, "made up")


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_one_step_moves_the_weights_and_keeps_them_finite(name: str, setting: str) -> None:
    method, data = METHODS[name], table()
    options = method.grid[setting]
    with seeded(0):
        model = method.network(10, options)
        before = [p.clone() for p in model.parameters()]
        loss = method.criterion(model, 4 if "-k" not in name else 8, options)
        fit(model, loss, data, 1, 24, 0, options.get("weight_decay", 0.0))
    for old, new in zip(before, model.parameters(), strict=True):
        assert new.isfinite().all() and not torch.equal(old, new)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_a_setting_is_named_after_its_values(name: str, setting: str) -> None:
    options = METHODS[name].grid[setting]
    assert setting == " ".join(f"{key}={value}" for key, value in options.items())


@pytest.mark.parametrize(
    ("name", "pairs", "curved", "activation"),
    [
        ("r2et", "anchor", True, nn.LeakyReLU),
        ("r2et-mm", "mm", True, nn.LeakyReLU),
        ("r2et-no-h", "anchor", False, nn.LeakyReLU),
        ("r2et-mm-no-h", "mm", False, nn.LeakyReLU),
        ("r2et-sp", "anchor", True, nn.Softplus),
        ("r2et-mm-sp", "mm", True, nn.Softplus),
        ("r2et-no-h-sp", "anchor", False, nn.Softplus),
        ("r2et-mm-no-h-sp", "mm", False, nn.Softplus),
    ],
)
def test_variants_of_r2et(name: str, pairs: str, curved: bool, activation: type) -> None:
    for options in METHODS[name].grid.values():
        model = METHODS[name].network(10, options)
        loss = METHODS[name].criterion(model, 8, options)
        assert isinstance(loss, R2ETLoss) and isinstance(model.activation, activation)
        assert (loss.k, loss.pairs, loss.gap) == (8, pairs, options["gap"])
        assert loss.lambda1 == options["weight"]
        assert loss.lambda2 == (options["weight"] if curved else 0)
        # With k' = k and linear gaps R2ET-mm would be R2ET.
        assert loss.k_prime == (4 if pairs == "mm" and options["gap"] == "linear" else None)
        if activation is nn.Softplus:
            assert model.activation.beta == options["beta"] == 0.5


def test_the_study_of_k_prime() -> None:
    for k_prime, name in K_PRIMES.items():
        method = METHODS[name]
        loss = method.criterion(method.network(10, {}), 8, next(iter(method.grid.values())))
        assert isinstance(loss, R2ETLoss) and (loss.k_prime, loss.lambda2) == (k_prime, 0)


def test_roles() -> None:
    baselines = {"vanilla", "wd", "sp", "est-h", "exact-h", "ssr", "at"}
    by_default = {name for name, method in METHODS.items() if method.by_default}
    assert {name for name in by_default if METHODS[name].role == "baseline"} == baselines
    assert set(RIVALS["baselines"]) == baselines | {"cl"}
    assert set(RIVALS["baselines, SP of β ≥ 0.5"]) == baselines - {"sp"} | {"sp-steep", "cl"}
    variants = {
        f"r2et{rest}{end}" for rest in ("", "-mm", "-no-h", "-mm-no-h") for end in ("", "-sp")
    }
    assert {name for name in by_default if METHODS[name].role == "variant"} == variants
    assert {name for name in by_default if METHODS[name].role == "reference"} == {"linear"}
    assert by_default == baselines | variants | {"linear"}
    for method in METHODS.values():
        options = next(iter(method.grid.values()))
        loss = method.criterion(method.network(10, options), 9, options)
        ranks = isinstance(loss, R2ETLoss) and loss.lambda1 > 0
        assert method.is_r2et == ranks
        assert (method.role == "variant") <= method.is_r2et


def test_the_baseline_gets_every_softplus_that_r2et_gets() -> None:
    betas = {"sp": set(), "r2et": set()}
    for name, method in METHODS.items():
        side = "sp" if name in ("sp", "sp-long") else "r2et"
        if method.activation == "softplus":
            betas[side] |= {options["beta"] for options in method.grid.values()}
    assert betas["r2et"] <= {options["beta"] for options in METHODS["sp"].grid.values()}
    steep = {options["beta"] for options in METHODS["sp-steep"].grid.values()}
    assert steep == {b for b in betas["sp"] if b >= 0.5}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("r2et-flat", {}),
        ("r2et-all", {"pairs": "all"}),
        ("r2et-boundary", {"k_prime": 1}),
        ("r2et-normalize", {"normalize": True}),
        ("r2et-adaptive", {"adaptive": True}),
        ("r2et-logit", {"explain": "logit"}),
        ("r2et-heavy", {}),
        ("r2et-long", {}),
    ],
)
def test_an_idea_changes_one_thing(name: str, options: dict[str, object]) -> None:
    method = METHODS[name]
    assert name in IDEAS
    for setting in method.grid.values():
        loss = method.criterion(method.network(10, setting), 8, setting)
        assert isinstance(loss, R2ETLoss)
        weight = setting["weight"]
        usual = {
            "gap": "linear", "pairs": "anchor", "k_prime": None, "lambda1": weight,
            "lambda2": weight, "normalize": False, "adaptive": False, "explain": "probability",
        }  # fmt: skip
        assert {key: getattr(loss, key) for key in usual} == {**usual, **options}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_methods_differ_from_the_full_one_by_their_schedule(name: str) -> None:
    lazy_method, full = METHODS[name], METHODS[METHODS[name].approximates]
    assert (lazy_method.grid, lazy_method.activation) == (full.grid, full.activation)
    for setting in full.grid.values():
        losses = [m.criterion(m.network(10, setting), 8, setting) for m in (lazy_method, full)]
        lazy, whole = losses
        assert isinstance(lazy, R2ETLoss) and isinstance(whole, R2ETLoss)
        assert whole.schedule is None and lazy.schedule is not None
        expected = {"every4": (4, 1.0), "every8": (8, 1.0), "fraction": (1, 0.25)}
        found = (lazy.schedule.every, lazy.schedule.fraction)
        assert found == expected[name.rpartition("-")[2]]
        for key in ("lambda1", "lambda2", "gap", "pairs", "k_prime"):
            assert getattr(lazy, key) == getattr(whole, key)


def test_cross_lipschitz_runs_on_a_smooth_network() -> None:
    for setting in METHODS["cl"].grid.values():
        model = METHODS["cl"].network(10, setting)
        loss = METHODS["cl"].criterion(model, 8, setting)
        assert isinstance(loss, CrossLipschitzLoss) and isinstance(model.activation, nn.Softplus)
        assert (loss.k, loss.k_prime, loss.weight) == (8, 4, setting["weight"])


def test_fit_is_adam_with_a_falling_rate() -> None:
    """Against the loop written out: two epochs of batches of 10, 10 and 4."""
    data, options = table(), {"weight_decay": 0.1}
    models = []
    for _ in range(2):
        with seeded(3):
            models.append(METHODS["wd"].network(10, options))
    fit(models[0], METHODS["wd"].criterion(models[0], 4, options), data, 2, 10, 7, 0.1)

    generator = torch.Generator().manual_seed(7)
    optimizer = torch.optim.Adam(models[1].parameters(), weight_decay=0.1)
    orders = [torch.randperm(24, generator=generator) for _ in range(2)]
    batches = [batch for order in orders for batch in (order[:10], order[10:20], order[20:])]
    for step, rows in enumerate(batches):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 6)
        logits = models[1](data.inputs[rows]).squeeze(1)
        targets = data.targets[rows].float()
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
        optimizer.step()
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_weights_do_not_depend_on_the_method() -> None:
    """Methods of one seed differ only in their training."""
    states = []
    for name in ("vanilla", "r2et", "sp"):
        with seeded(5):
            options = next(iter(METHODS[name].grid.values()))
            states.append(METHODS[name].network(10, options).state_dict())
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in state)
    assert math.isfinite(float(states[0]["output.bias"]))
