"""Do all units of a plan, beside other runners and after any interruption."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from captum_robust.benchmark.measure.experiment import Experiment, Protocol
from captum_robust.benchmark.plan.durations import Durations, clock
from captum_robust.benchmark.plan.selection import selection
from captum_robust.benchmark.plan.store import FILE, Store
from captum_robust.benchmark.plan.units import Chapter, Group, Plan, Unit

__all__ = ["RunError", "dry_run", "run"]

_WAIT_SECONDS = 1.0
_SHOW_SECONDS = 5.0


def run(
    plan: Plan,
    protocol: Protocol,
    out: Path,
    root: Path | None,
    experiment: type[Experiment] = Experiment,
) -> None:
    """Do every unit of the plan that has no record in ``out``.

    Any number of processes may run the same command, or others with the same protocol: each takes
    the next unit that nobody has. ``experiment`` does them.
    """
    with one_thread(), Store(out, protocol.as_dict()) as store:
        store.forget_lost_weights()
        work = experiment(store, protocol, root)
        _check(plan, work)
        with tqdm(total=0, bar_format="{n}/{total} units{desc}") as bar:
            for unit in _claimed(plan, store, _Progress(plan, store, bar)):
                try:
                    started = time.process_time()
                    result = work.do(unit)
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
            n_features = experiment.data(dataset).n_features
        except (FileNotFoundError, ImportError, ValueError) as error:
            raise RunError(str(error)) from error
        largest = max((plan.k, *plan.other_ks))
        if largest >= n_features:
            raise RunError(f"k: got {largest}, accepted: less than the {n_features} of {dataset}")


def dry_run(plan: Plan, out: Path) -> str:
    """The units that a run would do, and how long it would take."""
    store = Store(out) if (out / FILE).is_file() else None
    n_units, left, durations = _outlook(plan, store)
    lines = [f"{clock(durations.of(unit)):>8}  {unit}" for unit in left]
    total = clock(sum(map(durations.of, left)))
    done = n_units - len(left)
    return "\n".join([*lines, f"{len(left)} units, {total} of processor time; {done} are done"])


def _claimed(plan: Plan, store: Store, progress: "_Progress") -> Iterator[Unit]:
    """Units that are this runner's to do, until nothing is left that anybody must do."""
    chapters = plan.chapters()
    while chapters:
        progress.show()
        unit = None
        for chapter in tuple(chapters):
            finished, chosen = _state(plan, store, chapter)
            left = [unit for unit in _units(plan, chapter, chosen) if unit not in finished]
            if not left:
                chapters.remove(chapter)
            ready = (unit for unit in left if _is_ready(unit, finished, chosen))
            unit = next((unit for unit in ready if store.claim(unit)), None)
            if unit is not None:
                yield unit
                break
        if unit is None and chapters:
            time.sleep(_WAIT_SECONDS)  # other runners are at what the rest waits for
    progress.show(now=True)


def _outlook(plan: Plan, store: Store | None) -> tuple[int, list[Unit], Durations]:
    """How many units there are, those that are left, and how long each takes."""
    n_units, left = 0, []
    for chapter in plan.chapters():
        finished, chosen = (set(), {}) if store is None else _state(plan, store, chapter)
        units = list(_units(plan, chapter, chosen))
        n_units += len(units)
        left += [unit for unit in units if unit not in finished]
    return n_units, left, Durations({} if store is None else store.seconds())


def _state(plan: Plan, store: Store, chapter: Chapter) -> tuple[set[Unit], dict[Group, Unit]]:
    """What is finished, and the selected training of each group whose trainings all are."""
    where = chapter._asdict()
    finished = store.finished(**where)
    groups = plan.groups(chapter)
    whole = [g for g in groups if all(unit in finished for unit in plan.trainings(g))]
    return finished, selection(store.results(part="training", **where), whole) if whole else {}


def _units(plan: Plan, chapter: Chapter, chosen: dict[Group, Unit]) -> Iterator[Unit]:
    """First the trainings, then what is measured.

    Where no training is selected yet, the first of the grid stands for it.
    """
    groups = plan.groups(chapter)
    for group in groups:
        yield from plan.trainings(group)
    for group in groups:
        model = chosen.get(group) or plan.trainings(group)[0]
        yield from (model._replace(part=part) for part in plan.parts(group))


def _is_ready(unit: Unit, finished: set[Unit], chosen: dict[Group, Unit]) -> bool:
    if unit.part != "training":
        return unit.group in chosen
    return unit.start == "random" or unit.vanilla in finished


class _Progress:
    """Shows how many units are done, and the time that the others take at the present speed."""

    def __init__(self, plan: Plan, store: Store, bar: "tqdm[Any]") -> None:
        self.plan, self.store, self.bar = plan, store, bar
        self.wall, self.processor = time.perf_counter(), time.process_time()
        self.shown = -math.inf

    def show(self, now: bool = False) -> None:
        """Show it, unless that was done a moment ago."""
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
    """Small tensors run fastest on one thread; two runners use two cores."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
