"""captum-robust audit, and captum-robust report on its folder."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from captum_robust import cli
from captum_robust.auditing import Audit, measure
from captum_robust.auditing.load import LoadError, load_model
from captum_robust.robust import ERAttack

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(), nn.Linear(8, 2))

def with_options():
    return make(), {"feature_names": list("abcdef")}

def with_other_options():
    return make(), {"colour": "red"}

def nothing():
    return None

def failing():
    raise ValueError("disk on fire")

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module, rows, and a fast attack in place of the ensemble."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_models.py").write_text(FACTORY, encoding="utf-8")
    (tmp_path / "needs_more.py").write_text("import no_such_module", encoding="utf-8")
    inputs = np.random.default_rng(0).normal(size=(9, 6))  # float64, as numpy has it
    np.savez(tmp_path / "rows.npz", inputs=inputs, targets=np.arange(9) % 2)
    monkeypatch.setattr(measure, "AutoERAttack", partial(ERAttack, smooth_relu=5.0))
    for name in ("own_models", "needs_more"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    error = capsys.readouterr().err
    assert exit_info.value.code == 2 and error.count("\n") == 1
    return error


def test_from_a_factory_and_a_file_to_a_report(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "audit", "own_models:with_options", "--data", "rows.npz", "--k", "2", "--radius", "0.2",
        "--rows", "5", "--out", "out", "--name", "of my own", "--date", "2026-01-02",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    found = Audit.load(folder / "out")
    assert str(found) in printed and "Report: out/audit.html" in printed.replace("\\", "/")
    assert (found.model, found.n_rows, found.k, found.radii) == (
        "of my own",
        5,
        2,
        (0.05, 0.1, 0.2),
    )
    assert found.feature_names == tuple("abcdef") and found.agreement is not None
    assert found.settings["Inputs"].startswith("5 × 6, float32")
    assert found.command == (
        "captum-robust audit own_models:with_options --data rows.npz --k 2 --radius 0.2 --rows 5 "
        "--out out --name 'of my own' --date 2026-01-02"
    )
    page = (folder / "out" / "audit.html").read_bytes()
    assert cli.main(["report", "out", "--html", "again.html"]) == 0
    assert (folder / "again.html").read_bytes() == page
    assert capsys.readouterr().out == ""
    assert cli.main(["report", "out"]) == 0
    assert capsys.readouterr().out == f"{found}\n"
    assert str(folder) not in sys.path


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("own_models", "argument factory: got 'own_models', accepted: module:factory"),
        ("absent:make", "argument factory: no module 'absent'"),
        ("own_models:absent", "argument factory: own_models has no function 'absent'"),
        ("own_models:number", "argument factory: own_models has no function 'number'"),
        ("own_models:nothing", "argument factory: own_models:nothing returned NoneType"),
        ("own_models:with_other_options", "returned the options ['colour']"),
    ],
)
def test_a_factory_that_cannot_be_used_is_one_line(
    folder: Path, factory: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(["audit", factory, "--data", "rows.npz", "--out", "o"], capsys)


def test_what_the_factory_raises_is_shown_whole(folder: Path) -> None:
    with pytest.raises(ValueError, match="disk on fire") as error:
        load_model("own_models:failing")
    assert not isinstance(error.value, LoadError)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        load_model("needs_more:make")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": np.ones((3, 6))}, "holds ['x'], accepted: inputs"),
        ({"inputs": np.ones((3, 6)), "target": np.ones(3, int)}, "accepted: inputs, and any of"),
        ({"inputs": np.ones(3)}, "inputs of rows.npz have float64 values of shape (3,)"),
        ({"inputs": np.array([["a"]])}, "inputs of rows.npz have <U1"),
        ({"inputs": np.ones((3, 6)), "targets": np.ones(2, int)}, "targets of rows.npz have 2"),
        ({"inputs": np.ones((3, 6)), "labels": np.full(3, np.inf)}, "labels of rows.npz have 3"),
        ({"inputs": np.array([{}, {}])}, "is no .npz file of plain arrays"),  # a pickle
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    folder: Path, arrays: dict[str, np.ndarray], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(folder / "rows.npz", **arrays)
    error = refused(["audit", "own_models:make", "--data", "rows.npz", "--out", "o"], capsys)
    assert "argument --data: " in error and said in error


def test_an_array_alone_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "rows.npy", np.ones((3, 6)))
    error = refused(["audit", "own_models:make", "--data", "rows.npy", "--out", "o"], capsys)
    assert "rows.npy is no .npz file: write it with numpy.savez" in error


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no zip", b"plain text"])
def test_a_file_that_is_no_archive_is_one_line(
    folder: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (folder / "other.npz").write_bytes(content)
    error = refused(["audit", "own_models:make", "--data", "other.npz", "--out", "o"], capsys)
    assert "argument --data: other.npz" in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--k", "6"], "k must be an int with 1 <= k < 6"),
        (["--k", "two"], "argument --k"),
        (["--radius", "0.1,x"], "argument --radius"),
        (["--radius", "-1"], "radius must be positive"),
        (["--attribution", "saliency,magic"], "got 'magic'"),
        (["--rows", "0"], "argument --rows"),
        (["--seed", "x"], "argument --seed"),
        (["--norm", "L1"], "argument --norm"),
        (["--out", "rows.npz"], "rows.npz is not a folder"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(
    folder: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["audit", "own_models:make", "--data", "rows.npz", "--out", "o", *options]
    assert said in refused(given, capsys)
    assert not (folder / "o").exists()


def test_a_folder_of_neither_and_a_damaged_audit_are_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "nothing was run there" in refused(["report", "."], capsys)
    (folder / "audit.json").write_text("{}", encoding="utf-8")
    error = refused(["report", ".", "--html", "page.html"], capsys)
    assert "audit.json is damaged" in error and not (folder / "page.html").exists()


def test_a_missing_extra_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    error = refused(["audit", "own_models:make", "--data", "rows.npz", "--out", "o"], capsys)
    assert "pip install 'captum-robust[benchmark]'" in error
