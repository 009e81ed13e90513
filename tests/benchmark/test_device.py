"""Measures on a GPU, as far as they can be tested without one."""

import time
from collections.abc import Iterator

import pytest
import torch

from tests.benchmark import device, memory
from tests.benchmark.__main__ import selected
from tests.benchmark.cases import mlp_case
from tests.benchmark.goals import MEASURES
from tests.benchmark.row import Bound, Effort, Measure, Spread

_EFFORT = Effort(seconds=0, min_rounds=1, max_rounds=1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A GPU that keeps a list of what it was asked for, and holds 900, then at most 3 000 bytes."""
    asked: list[str] = []
    monkeypatch.setattr(device, "_chosen", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: asked.append("synchronize"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 900)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3000)
    yield asked


def _measure(find: object, cpu_only: str = "") -> Measure:
    return Measure(0, "group", "what", "ratio", Bound(), find, cpu_only=cpu_only)  # type: ignore[arg-type]


def test_the_clock_of_a_gpu_waits_for_its_work(gpu: list[str]) -> None:
    before = time.perf_counter()
    assert before <= device.seconds() <= time.perf_counter()
    assert gpu == ["synchronize"]


def test_the_memory_of_a_gpu_is_that_of_torch_above_what_it_held(gpu: list[str]) -> None:
    assert memory.peak_bytes(lambda: gpu.append("call")) == 2100
    assert gpu == ["call", "reset", "call"]


def test_a_row_of_the_cpu_says_why_it_is_left_out(gpu: list[str]) -> None:
    row = _measure(lambda effort: gpu.append("found"), "a count").row(_EFFORT)
    assert row.verdict == "– a count"
    assert gpu == []


def test_on_the_cpu_it_is_measured() -> None:
    row = _measure(lambda effort: Spread.of([2.0]), "a count").row(_EFFORT)
    assert row.found == Spread(2.0, 2.0, 2.0)


def test_a_row_that_fails_does_not_stop_the_others() -> None:
    def fail(effort: Effort) -> Spread:
        raise RuntimeError("two devices")

    row = _measure(fail).row(_EFFORT)
    assert (row.verdict, row.failed) == ("failed", "RuntimeError: two devices")


def test_batches_that_fill_a_gpu_are_measured_there_alone(gpu: list[str]) -> None:
    large = {m for m in MEASURES if m.when == "gpu"}
    assert {"saliency", "thickness", "attack", "training", "graphs"} <= {m.group for m in large}
    assert large <= set(selected(full=False, groups=None))
    assert {m.group for m in selected(full=False, groups=["graphs"])} == {"graphs"}


def test_on_the_cpu_they_are_left_out() -> None:
    assert {m.when for m in selected(full=False, groups=None)} == {"always"}
    assert {m.when for m in selected(full=True, groups=None)} == {"always", "full"}


def test_models_and_inputs_are_made_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_chosen", torch.device("meta"))
    case = mlp_case(2)
    tensors = (case.inputs, case.target, *case.model.parameters())
    assert {t.device.type for t in tensors} == {"meta"}
