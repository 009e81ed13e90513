"""The command line: options, errors, and the files that it writes."""

import csv
import io
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captum_robust import cli
from captum_robust._utils.files import write_whole
from captum_robust.benchmark import demo
from captum_robust.benchmark.plan.store import Store
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Part
from captum_robust.benchmark.study.methods import METHODS


def small_demo(folder: Path) -> list[str]:
    """Run a demonstration of few epochs, rows and radii; the lines that it printed."""
    setting = replace(demo.DATASETS["breast-cancer"], n_epochs=3)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.setitem(demo.DATASETS, "breast-cancer", setting)
        patch.setattr(demo, "N_EXPLAINED", 12)
        patch.setattr(demo, "RADII", (0.5, 1.0))
        patch.setattr(demo, "N_RESTARTS", 1)
        assert cli.main(["demo", "--dataset", "breast-cancer", "--out", str(folder)]) == 0
    return printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """What a small demonstration prints, and the folder it writes to."""
    folder = tmp_path_factory.mktemp("demo")
    return small_demo(folder), folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["demo", "--seed", "x"], "--seed: must be an integer from 0"),
        (["demo", "--seed", "-1"], "--seed: must be an integer from 0"),
        (["demo", "--dataset", "mnist"], "--dataset: invalid choice: 'mnist'"),
        (["demo", "--epochs", "3"], "unrecognized arguments: --epochs 3"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "command"),
        (["demo", "--out", __file__], "is not a folder"),
    ],
)
def test_bad_options_get_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.count("\n") == 1 and said in error


def test_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["demo"])
    assert exit_info.value.code == 2
    assert "pip install 'captum-robust[benchmark]'" in capsys.readouterr().err


def test_unwritable_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["demo", "--out", str(tmp_path / "file" / "below")])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.count("\n") == 1 and "cannot write" in error


def test_demo_prints_the_table_and_writes_figure_and_csv(
    demonstration: tuple[list[str], Path],
) -> None:
    printed, folder = demonstration
    header = next(line for line in printed if line.startswith("model"))
    for column in ("AUC", "thickness", "P@8 noise", "P@8 published attack", "P@8 smoothed"):
        assert column in header
    vanilla = next(line for line in printed if line.startswith("vanilla"))
    assert "1.000 *" in vanilla  # the trap: no gradient, so nothing found
    assert any(line.startswith("* the gradient is exactly zero") for line in printed)
    assert (folder / "breast-cancer.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in folder.iterdir()} == {"breast-cancer.png", "breast-cancer.csv"}

    with (folder / "breast-cancer.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {(r["model"], r["measure"], r["radius"]): float(r["value"]) for r in rows}
    assert found["vanilla (LeakyReLU)", "P@8 published attack", "1.0"] == 1
    assert found["vanilla (LeakyReLU)", "P@8 smoothed", "1.0"] < 1
    for model in ("vanilla (LeakyReLU)", "softplus", "R2ET (softplus)"):
        curve = [found[model, "P@8 smoothed", radius] for radius in ("0.0", "0.5", "1.0")]
        assert curve[0] == 1 and curve == sorted(curve, reverse=True)
        assert 0.9 < found[model, "AUC", ""] <= 1
        assert 0 < found[model, "thickness", "1.0"] <= 1


def test_demo_is_reproducible_and_leaves_the_random_state(
    demonstration: tuple[list[str], Path], tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    printed = small_demo(tmp_path)
    before, after = (
        (folder / "breast-cancer.csv").read_text(encoding="utf-8")
        for folder in (demonstration[1], tmp_path)
    )
    assert after == before and len(printed) == len(demonstration[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_failed_write_leaves_no_file(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        write_whole(tmp_path / "figure.png", broken)
    assert list(tmp_path.iterdir()) == []


def test_the_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "captum_robust.cli", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == cli.__version__


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    """The listing of a plan is longer than a pipe holds."""
    plan = ["run", "--dry-run", "--dataset", "adult", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "captum_robust.cli", *plan]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert b"training" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 0


def test_seeds_and_ks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--first-seed", "3", "--seeds", "2", "--k", "6,4", "--dry-run"]
    assert cli.main([*SMALL, str(tmp_path), *options]) == 0
    listed = capsys.readouterr().out
    for seed in range(7):
        assert (f"seed {seed}" in listed) == (seed in (3, 4))
    for k in (2, 4, 5, 6, 8):
        assert (f"er saliency {k}" in listed) == (k in (4, 6))


def test_other_spellings_of_explanations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = []
    for names in ("smoothgrad,ig", "smooth_grad,integrated_gradients"):
        assert cli.main([*SMALL, str(tmp_path), "--dry-run", "--explanations", names]) == 0
        listed.append(capsys.readouterr().out)
    assert listed[0] == listed[1] and "er ig 8" in listed[0]


RUN = "run --dataset breast-cancer --seeds 1 --methods sp --attacks er --explanations saliency"
SMALL = f"{RUN} --epochs 1 --rows 6 --out".split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "the following arguments are required: --dataset, --out"),
        ([*RUN.split(), "--out", __file__], "is not a folder"),
        ([*SMALL, "x", "--seeds", "0"], "--seeds: must be an integer of at least 1, got '0'"),
        ([*SMALL, "x", "--k", "ten"], "--k: must be an integer of at least 1, got 'ten'"),
        ([*SMALL, "x", "--k", "8,0"], "--k: must be an integer of at least 1, got '0'"),
        ([*SMALL, "x", "--first-seed", "-1"], "--first-seed: must be an integer from 0"),
        ([*SMALL, "x", "--methods", "r2et,best"], "--methods: got 'best', accepted: vanilla, wd,"),
        ([*SMALL, "x", "--attacks", ""], "--attacks: got '', accepted: er, mse, auto"),
        ([*SMALL, "x", "--explanations", "lime"], "--explanations: got 'lime', accepted: saliency"),
        ([*SMALL, "x", "--starts", "cold"], "--starts: got 'cold', accepted: random, vanilla"),
        ([*SMALL, "x", "--dataset", "mnist"], "--dataset: got 'mnist', accepted: adult, bank"),
        (["report", "nowhere"], "nowhere holds no results.sqlite: nothing was run there"),
    ],
)
def test_bad_options_of_run_and_report(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.count("\n") == 1 and said in error
    assert not any(tmp_path.iterdir())


def test_missing_data_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--dataset", "compas", "--data-root", str(tmp_path)]
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*SMALL, str(tmp_path / "out"), *options])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert error.count("\n") == 1 and "compas-scores-two-years.csv" in error


def test_run_reports_and_continues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, n_threads = torch.get_rng_state(), torch.get_num_threads()
    assert cli.main([*SMALL, str(tmp_path), "--dry-run"]) == 0
    planned = capsys.readouterr().out.splitlines()
    assert not any(tmp_path.iterdir())
    assert cli.main([*SMALL, str(tmp_path)]) == 0
    with Store(tmp_path) as store:
        done = store.finished()
    assert len(planned) - 1 == len(done)
    assert {unit.method for unit in done} == {"vanilla", "sp"}
    assert {unit.part for unit in done} == {
        TRAINING, PROPERTIES, *(Part("er", "saliency", k) for k in (8, 5, 2))
    }  # fmt: skip
    capsys.readouterr()

    assert cli.main([*SMALL, str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out == f"0 units, 0:00 of processor time; {len(done)} are done\n"
    assert cli.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "### P@8, saliency under er, by radius" in printed and "| sp | " in printed
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == n_threads


def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(METHODS, "vanilla", replace(METHODS["vanilla"], loss=interrupted))
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*SMALL, str(tmp_path)])
    assert exit_info.value.code == 130
    assert "the same command continues from here" in capsys.readouterr().err
    assert not Store(tmp_path).finished()
