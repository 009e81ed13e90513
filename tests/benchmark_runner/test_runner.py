"""The runner: killed it loses nothing, continued it repeats nothing, two of them share the work."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from captum_robust.benchmark.plan.plan import Plan
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.runner import RunError, dry_run, run
from captum_robust.benchmark.plan.selection import select
from captum_robust.benchmark.plan.store import Result, Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Group, Part, Unit
from captum_robust.benchmark.study.methods import METHODS
from tests.benchmark_runner.made_up import FEW, PLAN, MadeUp, fill, lines, result_of

PROTOCOL = Protocol()


def made_up(store: Store) -> MadeUp:
    return MadeUp(store, PROTOCOL, None)


@contextmanager
def runner(
    folder: Path, log: Path, seconds: float, meet: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs a part of the made-up plan."""
    script = Path(__file__).with_name("made_up.py")
    command = [sys.executable, str(script), str(folder), str(log), str(seconds), str(meet)]
    root = script.parents[2]
    process = subprocess.Popen(command, cwd=root, env={"PYTHONPATH": str(root)})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(log: Path, n_begun: int) -> None:
    deadline = time.monotonic() + 120
    while len(lines(log, "begin")) < n_begun:
        assert time.monotonic() < deadline, "the runner does not begin"
        time.sleep(0.01)


def groups_by_hand(plan: Plan) -> set[Group]:
    """SP begins with other activations, so that it cannot begin with the vanilla weights."""
    return {
        Group(dataset, method, seed, start)
        for dataset in plan.datasets
        for seed in plan.seeds
        for method, start in [
            ("vanilla", "random"), ("wd", "random"), ("sp", "random"), ("r2et", "random"),
            ("wd", "vanilla"), ("r2et", "vanilla"),
        ]
    }  # fmt: skip


def test_all_units_of_the_plan_are_done_and_nothing_else(whole: Store) -> None:
    results = whole.results()
    trainings = {u: r for u, r in results.items() if u.part == TRAINING}
    assert {u.group for u in trainings} == groups_by_hand(PLAN)
    for group in groups_by_hand(PLAN):
        settings = {u.setting for u in trainings if u.group == group}
        assert settings == set(METHODS[group.method].grid)
    measured: dict[Group, set[Part]] = {}
    for unit in results.keys() - trainings.keys():
        measured.setdefault(unit.group, set()).add(unit.part)
    usual = {PROPERTIES, Part("er", "saliency", 8), Part("auto", "saliency", 8)}
    more = {
        Part("er", "ig", 8),
        Part("auto", "ig", 8),
        Part("auto", "saliency", 2),
        Part("auto", "saliency", 5),
    }
    for group in groups_by_hand(PLAN):
        assert measured[group] == (usual | more if group.start == "random" else usual)


def test_only_the_selected_model_is_measured(whole: Store) -> None:
    results = whole.results()
    for group in groups_by_hand(PLAN):
        trainings = {u: r for u, r in results.items() if u.part == TRAINING and u.group == group}
        vanilla = results[Unit(group.dataset, "vanilla", "", group.seed, "random")]
        (measured,) = {u.model for u in results if u.part != TRAINING and u.group == group}
        assert measured == select(trainings, vanilla)


def of_few(whole: Store) -> dict[Unit, Result]:
    """What was made up for the part of the plan that processes run."""
    results = whole.results(seed=0)
    return {
        unit: result
        for unit, result in results.items()
        if unit.method in FEW.methods
        and unit.part
        in (TRAINING, PROPERTIES, Part("er", "saliency", 8), Part("auto", "saliency", 8))
    }


def test_a_killed_run_goes_on_where_it_was(
    whole: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = tmp_path / "killed", tmp_path / "log"
    with runner(folder, log, seconds=0.2) as process:
        wait_until(log, n_begun=4)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = Store(folder).finished()
    expected = of_few(whole)
    assert 0 < len(kept) < len(expected)
    monkeypatch.setattr(MadeUp, "log", log)
    assert repr(fill(folder, FEW).results()) == repr(expected)  # NaN differs from itself
    begun = Counter(lines(log, "begin"))
    again = {unit for unit, n in begun.items() if n > 1}
    assert len(again) <= 1 and not again & set(map(str, kept))
    assert set(begun) == set(map(str, expected))


def test_two_runners_never_do_a_unit_twice(
    whole: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log = tmp_path / "shared", tmp_path / "log"
    for name, value in (("log", log), ("seconds", 0.02), ("meet", 2)):
        monkeypatch.setattr(MadeUp, name, value)
    with runner(folder, log, seconds=0.02, meet=2) as other:
        fill(folder, FEW)
        assert other.wait(timeout=120) == 0
    finished = Store(folder).results()
    assert Counter(lines(log, "begin")) == Counter(map(str, finished))
    assert repr(finished) == repr(of_few(whole))


def test_a_second_run_does_nothing(
    whole: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MadeUp, "log", tmp_path / "log")
    fill(whole.folder)
    assert not (tmp_path / "log").exists()


def test_a_larger_plan_adds_to_the_store(whole: Store, tmp_path: Path) -> None:
    small = replace(PLAN, seeds=(1,), attacks=("auto",), methods=("sp",))
    before = fill(tmp_path, small).results()
    after = fill(tmp_path).results()
    assert 0 < len(before) < len(after)
    assert repr(after) == repr(whole.results())


def test_a_failing_unit_is_free_for_the_next_run(whole: Store, tmp_path: Path) -> None:
    class Broken(MadeUp):
        def do(self, unit: Unit) -> Result:
            if unit.method == "sp":
                raise RuntimeError("broken")
            return super().do(unit)

    with pytest.raises(RuntimeError, match="broken"):
        run(PLAN, PROTOCOL, tmp_path, lambda store: Broken(store, PROTOCOL, None))
    assert repr(fill(tmp_path).results()) == repr(whole.results())


def test_dry_run_lists_what_is_left_and_writes_nothing(whole: Store, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    listed = dry_run(PLAN, folder).splitlines()
    assert not folder.exists()
    n_all = len(whole.finished())
    assert len(listed) - 1 == n_all and listed[-1].startswith(f"{n_all} units, ")
    small = replace(PLAN, seeds=(0,))
    n_small = len(fill(folder, small).finished())
    left = dry_run(PLAN, folder).splitlines()
    assert len(left) - 1 == n_all - n_small
    assert all("seed 1" in line for line in left[:-1])
    assert dry_run(PLAN, whole.folder) == f"0 units, 0:00 of processor time; {n_all} are done"


def test_estimates_are_means_of_what_was_done(tmp_path: Path) -> None:
    plan = replace(PLAN, seeds=(0, 1, 2), methods=("vanilla",))
    with Store(tmp_path, Protocol().as_dict()) as store:
        for seed, seconds in ((0, 100.0), (1, 300.0)):
            unit = Unit("breast-cancer", "vanilla", "", seed, "random")
            assert store.claim(unit)
            store.finish(unit, result_of(unit), seconds)
    assert "    3:20  breast-cancer, vanilla, seed 2, random, training" in dry_run(plan, tmp_path)


@pytest.mark.parametrize("k", [30, 31])
def test_k_must_be_less_than_the_features(k: int, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=rf"k: got {k}, accepted: less than the 30 of breast-cancer"):
        run(replace(PLAN, k=k), Protocol(k=k), tmp_path, made_up)
    with pytest.raises(RunError, match=rf"k: got {k}, accepted: less than the 30 of breast-cancer"):
        run(replace(PLAN, other_ks=(2, k)), PROTOCOL, tmp_path / "b", made_up)


def test_further_methods_are_measured_at_the_main_point_only() -> None:
    plan = replace(PLAN, methods=("vanilla", "sp-steep"))
    measured = {g.method: plan.parts(g) for g in plan.groups(plan.splits()[0])}
    assert measured["sp-steep"] == [
        PROPERTIES,
        Part("er", "saliency", 8),
        Part("auto", "saliency", 8),
    ]
    assert set(measured["vanilla"]) > set(measured["sp-steep"])
