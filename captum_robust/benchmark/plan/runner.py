"""Do all units of a plan, beside other runners and after any interruption."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from captum_robust.benchmark.plan.durations import Durations, clock
from captum_robust.benchmark.plan.plan import Plan
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.selection import select_each
from captum_robust.benchmark.plan.store import FILE, Result, Store
from captum_robust.benchmark.plan.units import TRAINING, Group, Split, Unit

__all__ = ["RunError", "Worker", "dry_run", "run"]

_WAIT_SECONDS = 1.0
_SHOW_SECONDS = 5.0


class RunError(Exception):
    """A plan that cannot be carried out; the message gives the reason in one line."""


class Worker(ABC):
    """The work on one unit at a time."""

    @abstractmethod
    def n_features(self, dataset: str) -> int:
        """Return the number of features of a data set, which is loaded if need be."""

    @abstractmethod
    def do(self, unit: Unit) -> Result:
        """Return the result of a unit."""


def run(plan: Plan, protocol: Protocol, out: Path, make_worker: Callable[[Store], Worker]) -> None:
    """Do every unit of the plan that has no record in ``out``.

    Any number of processes may run the same command, or others with the same protocol: each claims
    the next unit that is free.
    """
    with one_thread(), Store(out, protocol.as_dict()) as store:
        store.forget_lost_weights()
        worker = make_worker(store)
        _check(plan, worker)
        with tqdm(total=0, bar_format="{n}/{total} units{desc}") as bar:
            for unit in _claimed(plan, store, _Progress(plan, store, bar)):
                try:
                    started = time.process_time()
                    result = worker.do(unit)
                    store.finish(unit, result, time.process_time() - started)
                except BaseException:
                    store.release(unit)
                    raise


def _check(plan: Plan, worker: Worker) -> None:
    """Raise an error for data that cannot be used, before work begins."""
    for dataset in plan.datasets:
        try:
            n_features = worker.n_features(dataset)
        except (FileNotFoundError, ImportError, ValueError) as error:
            raise RunError(str(error)) from error
        largest = max((plan.k, *plan.other_ks))
        if largest >= n_features:
            raise RunError(f"k: got {largest}, accepted: less than the {n_features} of {dataset}")


def dry_run(plan: Plan, out: Path) -> str:
    """List the units that a run would do, with an estimate of their time."""
    store = Store(out) if (out / FILE).is_file() else None
    n_units, left, durations = _outlook(plan, store)
    lines = [f"{clock(durations.of(unit)):>8}  {unit}" for unit in left]
    total = clock(sum(map(durations.of, left)))
    done = n_units - len(left)
    return "\n".join([*lines, f"{len(left)} units, {total} of processor time; {done} are done"])


def _claimed(plan: Plan, store: Store, progress: "_Progress") -> Iterator[Unit]:
    """Claim one unit after the other until no unit of the plan is left."""
    splits = plan.splits()
    while splits:
        progress.show()
        unit = None
        for split in tuple(splits):
            finished, chosen = _state(plan, store, split)
            left = [unit for unit in _units(plan, split, chosen) if unit not in finished]
            if not left:
                splits.remove(split)
            ready = (unit for unit in left if _is_ready(unit, finished, chosen))
            unit = next((unit for unit in ready if store.claim(unit)), None)
            if unit is not None:
                yield unit
                break
        if unit is None and splits:
            time.sleep(_WAIT_SECONDS)  # the units left depend on those of other runners
    progress.show(now=True)


def _outlook(plan: Plan, store: Store | None) -> tuple[int, list[Unit], Durations]:
    """Return the number of units, those that are left, and how long each takes."""
    n_units, left = 0, []
    for split in plan.splits():
        finished, chosen = (set(), {}) if store is None else _state(plan, store, split)
        units = list(_units(plan, split, chosen))
        n_units += len(units)
        left += [unit for unit in units if unit not in finished]
    return n_units, left, Durations({} if store is None else store.seconds())


def _state(plan: Plan, store: Store, split: Split) -> tuple[set[Unit], dict[Group, Unit]]:
    """Return the finished units, and the selected training of each group that is trained."""
    where = split._asdict()
    finished = store.finished(**where)
    groups = plan.groups(split)
    trained = [g for g in groups if all(unit in finished for unit in plan.trainings(g))]
    if not trained:
        return finished, {}
    return finished, select_each(store.results(part=TRAINING, **where), trained)


def _units(plan: Plan, split: Split, chosen: dict[Group, Unit]) -> Iterator[Unit]:
    """Yield first the trainings, then the measurements.

    Where no training is selected yet, the first of the grid takes its place.
    """
    groups = plan.groups(split)
    for group in groups:
        yield from plan.trainings(group)
    for group in groups:
        model = chosen.get(group) or plan.trainings(group)[0]
        yield from (model._replace(part=part) for part in plan.parts(group))


def _is_ready(unit: Unit, finished: set[Unit], chosen: dict[Group, Unit]) -> bool:
    if unit.part != TRAINING:
        return unit.group in chosen
    return unit.start == "random" or unit.vanilla in finished


class _Progress:
    """A bar of the finished units, with the time that the others take at the present speed."""

    def __init__(self, plan: Plan, store: Store, bar: "tqdm[Any]") -> None:
        self.plan, self.store, self.bar = plan, store, bar
        self.wall, self.processor = time.perf_counter(), time.process_time()
        self.shown = -math.inf

    def show(self, now: bool = False) -> None:
        """Update the bar, unless that was done a moment ago."""
        time_now = time.perf_counter()
        if time_now - self.shown < _SHOW_SECONDS and not now:
            return
        self.shown = time_now
        n_units, left, durations = _outlook(self.plan, self.store)
        wall, processor = time_now - self.wall, time.process_time() - self.processor
        seconds = sum(map(durations.of, left)) * max(1.0, wall / max(processor, 1e-3))
        self.bar.total, self.bar.n = n_units, n_units - len(left)
        self.bar.set_description_str(f", {clock(seconds)} left for one runner")


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, on which small tensors are fastest; two runners use two cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
