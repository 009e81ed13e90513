"""Do all units of a plan, beside other runners and after any interruption."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from captum_robust.benchmark.durations import Durations, clock
from captum_robust.benchmark.experiment import Experiment, Protocol
from captum_robust.benchmark.selection import selection
from captum_robust.benchmark.store import FILE, Store
from captum_robust.benchmark.units import Group, Plan, Unit

__all__ = ["RunError", "dry_run", "run"]

_WAIT_SECONDS = 1.0


def run(plan: Plan, protocol: Protocol, out: Path, root: Path | None) -> None:
    """Do every unit of the plan that has no record in ``out``.

    Any number of processes may run the same command, or others with the same protocol: each takes
    the next unit that nobody has.
    """
    with one_thread(), Store(out, protocol.as_dict()) as store:
        store.forget_lost_weights()
        experiment = Experiment(store, protocol, root)
        _check(plan, experiment)
        with tqdm(total=0, bar_format="{n}/{total} units{desc}") as bar:
            for unit in _claimed(plan, store, _Progress(bar)):
                try:
                    started = time.process_time()
                    result = experiment.do(unit)
                    store.finish(unit, result, time.process_time() - started)
                except BaseException:
                    store.release(unit)
                    raise


class RunError(Exception):
    """The plan cannot be carried out; the message says why in one line."""


def _check(plan: Plan, experiment: Experiment) -> None:
    """Say what is wrong with the data before work begins."""
    for dataset in plan.datasets:
        try:
            n_features = experiment.table(dataset).n_features
        except (FileNotFoundError, ImportError, ValueError) as error:
            raise RunError(str(error)) from error
        if plan.k >= n_features:
            raise RunError(f"k: got {plan.k}, accepted: less than the {n_features} of {dataset}")


def dry_run(plan: Plan, out: Path) -> str:
    """The units that a run would do, and how long it would take."""
    store = Store(out) if (out / FILE).is_file() else None
    finished = store.finished() if store else set()
    chosen = _chosen(plan, store, finished)
    durations = Durations(store.seconds() if store else {})
    left = [unit for unit in _units(plan, chosen) if unit not in finished]
    lines = [f"{clock(durations.of(unit)):>8}  {unit}" for unit in left]
    total = clock(sum(map(durations.of, left)))
    return "\n".join([*lines, f"{len(left)} units, {total} of processor time"])


def _claimed(plan: Plan, store: Store, progress: "_Progress") -> Iterator[Unit]:
    """Units that are this runner's to do, until nothing is left that anybody must do."""
    while True:
        finished = store.finished()
        chosen = _chosen(plan, store, finished)
        units = list(_units(plan, chosen))
        left = [unit for unit in units if unit not in finished]
        progress.show(len(units), left, Durations(store.seconds()))
        if not left:
            return
        ready = (unit for unit in left if _is_ready(unit, finished, chosen))
        unit = next((unit for unit in ready if store.claim(unit)), None)
        if unit is None:
            time.sleep(_WAIT_SECONDS)  # other runners are at what the rest waits for
        else:
            yield unit


def _chosen(plan: Plan, store: Store | None, finished: set[Unit]) -> dict[Group, Unit]:
    """The selected training of each group whose trainings are all finished."""
    whole = [g for g in plan.groups() if all(unit in finished for unit in plan.trainings(g))]
    if store is None or not whole:
        return {}
    return selection(store.results(part="training"), whole)


def _units(plan: Plan, chosen: dict[Group, Unit]) -> Iterator[Unit]:
    """All units: of each seed first the trainings, then what is measured.

    Where no training is selected yet, the first of the grid stands for it.
    """
    groups: dict[tuple[str, int], list[Group]] = {}
    for group in plan.groups():
        groups.setdefault((group.dataset, group.seed), []).append(group)
    for of_seed in groups.values():
        for group in of_seed:
            yield from plan.trainings(group)
        for group in of_seed:
            model = chosen.get(group) or plan.trainings(group)[0]
            yield from (model._replace(part=part) for part in plan.parts(group))


def _is_ready(unit: Unit, finished: set[Unit], chosen: dict[Group, Unit]) -> bool:
    if unit.part != "training":
        return unit.group in chosen
    return unit.start == "random" or unit.vanilla in finished


class _Progress:
    """Shows how many units are done, and the time that the others take at the present speed."""

    def __init__(self, bar: "tqdm[Any]") -> None:
        self.bar = bar
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def show(self, n_units: int, left: Collection[Unit], durations: Durations) -> None:
        wall, processor = time.perf_counter() - self.wall, time.process_time() - self.processor
        seconds = sum(map(durations.of, left)) * max(1.0, wall / max(processor, 1e-3))
        self.bar.total, self.bar.n = n_units, n_units - len(left)
        self.bar.set_description_str(f", {clock(seconds)} left for one runner")


@contextmanager
def one_thread() -> Iterator[None]:
    """Small tensors run fastest on one thread; two runners use two cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
