"""The store: claims, records, checkpoints, versions, and files that are refused."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from captum_robust import cli
from captum_robust.benchmark.plan.protocol import Protocol
from captum_robust.benchmark.plan.store import FILE, Store, StoreError
from captum_robust.benchmark.plan.units import PROPERTIES, TRAINING, Part, Unit

UNIT = Unit("breast-cancer", "vanilla", "", 0, "random")
OTHER = UNIT._replace(method="wd", setting="weight_decay=0.001")
PROTOCOL = Protocol().as_dict()


def test_a_unit_has_one_owner_and_one_record(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as one, Store(tmp_path, PROTOCOL) as two:
        assert one.claim(UNIT) and not two.claim(UNIT) and two.claim(OTHER)
        one.finish(UNIT, {"auc": 0.5}, 1.0)
        assert not one.claim(UNIT) and not two.claim(UNIT)
        assert two.finished() == {UNIT} and two.results() == {UNIT: {"auc": 0.5}}
        assert one.seconds() == {UNIT: 1.0}


def test_a_released_unit_is_free(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as one, Store(tmp_path, PROTOCOL) as two:
        assert one.claim(UNIT)
        one.release(UNIT)
        assert two.claim(UNIT) and not one.claim(UNIT)


def test_claims_end_with_their_runner(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as two:
        with Store(tmp_path, PROTOCOL) as one:
            assert one.claim(UNIT) and not two.claim(UNIT)
        assert two.claim(UNIT)
    assert not any((tmp_path / "runners").iterdir())


def test_a_record_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as store:
        assert store.claim(UNIT)
        with pytest.raises(TypeError):
            store.finish(UNIT, {"auc": object()}, 1.0)
        assert not store.finished()
        store.finish(UNIT, {"auc": 0.5}, 1.0)
        with pytest.raises(StoreError, match="UNIQUE"):
            store.finish(UNIT, {"auc": 0.6}, 1.0)
        assert store.results() == {UNIT: {"auc": 0.5}}


def test_results_are_found_by_their_attributes(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as store:
        for unit in (OTHER, UNIT, UNIT._replace(seed=1), UNIT._replace(part=PROPERTIES)):
            assert store.claim(unit)
            store.finish(unit, {"auc": float("nan")}, 1.0)
        assert list(store.results(part=TRAINING, seed=0)) == [UNIT, OTHER]
        assert store.finished(seed=1) == {UNIT._replace(seed=1)}
        assert str(store.results(seed=1)) == str({UNIT._replace(seed=1): {"auc": float("nan")}})


def weights() -> dict[str, torch.Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3)}


def finish_training(store: Store) -> Path:
    assert store.claim(UNIT)
    store.finish(UNIT, {"sha256": store.save_weights(UNIT, weights())}, 1.0)
    return store.weights_path(UNIT)


def test_checkpoints_come_back(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as store:
        path = finish_training(store)
        found = store.load_weights(UNIT)
        assert found.keys() == weights().keys() and torch.equal(
            found["weight"], weights()["weight"]
        )
        assert torch.load(path, weights_only=True).keys() == weights().keys()
        assert [p.name for p in path.parent.iterdir()] == [path.name]


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [flip_a_bit, cut_off])
def test_a_damaged_checkpoint_is_refused(damage: Callable[[Path], None], tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as store:
        path = finish_training(store)
        damage(path)
        with pytest.raises(StoreError, match=r"\.pt is damaged: delete it"):
            store.load_weights(UNIT)
        path.unlink()
        with pytest.raises(StoreError, match=r"\.pt is missing"):
            store.load_weights(UNIT)
        store.forget_lost_weights()
        assert store.claim(UNIT)


def test_other_units_have_other_files() -> None:
    units = [UNIT, OTHER, UNIT._replace(seed=1), UNIT._replace(start="vanilla")]
    units += [OTHER._replace(setting=s) for s in ("a b", "a-b", "a=1e-05", "a=1e 05")]
    names = [unit.file_name for unit in units]
    assert len(set(names)) == len(names)
    assert all(name.replace("=", "").replace(".", "").replace("-", "").isalnum() for name in names)


def text(path: Path) -> None:
    path.write_text("these are not results")


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE protocol (text)")
    connection.close()


def torn(path: Path) -> None:
    Store(path.parent, PROTOCOL)
    data = bytearray(path.read_bytes())
    data[5000:9000] = b"\xff" * 4000
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (text, "results.sqlite is damaged (file is not a database): move it away"),
        (foreign, "results.sqlite is not a store of captum-robust: move it away"),
        (torn, "results.sqlite is damaged ("),
    ],
)
@pytest.mark.parametrize("command", ["run --dataset breast-cancer --epochs 1 --out", "report"])
def test_a_damaged_store_is_refused_in_one_line(
    command: str,
    damage: Callable[[Path], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(tmp_path / FILE)
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*command.split(), str(tmp_path)])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2
    assert said in error and error.count("\n") == 1
    assert (tmp_path / FILE).read_bytes() == before


def test_half_a_result_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path, PROTOCOL) as store:
        assert store.claim(UNIT)
        store.finish(UNIT, {"auc": 0.5}, 1.0)
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    connection.execute("UPDATE records SET result = substr(result, 1, 5)")
    connection.close()
    with pytest.raises(StoreError, match=r"results\.sqlite is damaged \("):
        Store(tmp_path).results()


OLD_SCHEMA = """
CREATE TABLE protocol (text TEXT NOT NULL);
CREATE TABLE records (dataset TEXT, method TEXT, setting TEXT, seed INTEGER, start TEXT, part TEXT,
    seconds REAL NOT NULL, result TEXT NOT NULL,
    PRIMARY KEY (dataset, method, setting, seed, start, part));
CREATE TABLE claims (dataset TEXT, method TEXT, setting TEXT, seed INTEGER, start TEXT, part TEXT,
    runner TEXT NOT NULL, PRIMARY KEY (dataset, method, setting, seed, start, part));
PRAGMA application_id = 0x52324554;
"""


def old_store(folder: Path, parts: list[str]) -> None:
    """A store of the first version, whose parts are texts."""
    connection = sqlite3.connect(folder / FILE, isolation_level=None)
    connection.executescript(OLD_SCHEMA)
    connection.execute("INSERT INTO protocol VALUES (?)", [json.dumps(PROTOCOL)])
    for seconds, part in enumerate(parts):
        row = (*UNIT[:-1], part, float(seconds), json.dumps({"auc": seconds}))
        connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    claim = (*OTHER[:-1], "training", "a runner that has died")
    connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", claim)
    connection.close()


def test_a_store_of_the_first_version_is_converted(tmp_path: Path) -> None:
    old_store(tmp_path, ["training", "properties", "auto saliency 8", "er ig 50"])
    parts = [TRAINING, PROPERTIES, Part("auto", "saliency", 8), Part("er", "ig", 50)]
    expected = {UNIT._replace(part=part): {"auc": i} for i, part in enumerate(parts)}
    for _ in range(2):  # converted, and then as it is
        with Store(tmp_path, PROTOCOL) as store:
            assert store.results() == expected
            assert store.results(part=Part("er", "ig", 50)) == {
                UNIT._replace(part=Part("er", "ig", 50)): {"auc": 3}
            }
            assert store.seconds()[UNIT] == 0.0
            assert not store.claim(UNIT)
            assert store.claim(OTHER)
            store.release(OTHER)


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    Store(tmp_path, PROTOCOL)
    connection = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreError, match="is of a newer version of captum-robust: update it"):
        Store(tmp_path)


def test_results_of_another_protocol_are_not_mixed(tmp_path: Path) -> None:
    Store(tmp_path, PROTOCOL)
    with pytest.raises(StoreError, match="holds results with rows 150, got 20: choose another"):
        Store(tmp_path, Protocol(rows=20).as_dict())


def test_an_empty_folder_holds_no_results(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no results\.sqlite"):
        Store(tmp_path)
    assert not any(tmp_path.iterdir())
