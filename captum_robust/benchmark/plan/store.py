"""The results store: one record a finished unit, and claims of the units that runners are at."""

import hashlib
import json
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from captum_robust._utils.files import write_whole
from captum_robust.benchmark.plan.units import Unit

__all__ = ["FILE", "Result", "Store", "StoreError"]

FILE = "results.sqlite"

Result = dict[str, Any]

_MARK = 0x52324554  # "R2ET", in the header of the file
_COLUMNS = "dataset, method, setting, seed, start, part"
_SCHEMA = f"""
CREATE TABLE protocol (text TEXT NOT NULL);
CREATE TABLE records (
    dataset TEXT, method TEXT, setting TEXT, seed INTEGER, start TEXT, part TEXT,
    seconds REAL NOT NULL, result TEXT NOT NULL, PRIMARY KEY ({_COLUMNS})
);
CREATE TABLE claims (
    dataset TEXT, method TEXT, setting TEXT, seed INTEGER, start TEXT, part TEXT,
    runner TEXT NOT NULL, PRIMARY KEY ({_COLUMNS})
);
PRAGMA application_id = {_MARK};
"""
_IS_UNIT = " AND ".join(f"{column} = ?" for column in _COLUMNS.split(", "))


class StoreError(Exception):
    """The store cannot be used; the message says why in one line."""


class Store:
    """The records of a folder, shared by any number of runners on one machine.

    A record is written in one transaction: a runner that is killed leaves whole records only. A
    unit is claimed before work on it begins. Each runner holds a lock on a file of its own as long
    as it lives, which the operating system frees when it dies, however it dies; a claim whose
    runner is dead is anybody's again.

    Use as a context manager, or only to read.
    """

    def __init__(self, folder: Path, protocol: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.path = folder / FILE
        if protocol is None and not self.path.is_file():
            raise StoreError(f"{folder} holds no {FILE}: nothing was run there")
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: sqlite3.Connection | None = None
        with self._refusing_damage():
            self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            self._open(protocol)

    def _open(self, protocol: Mapping[str, Any] | None) -> None:
        with self._transaction() as run:
            if not run("SELECT 1 FROM sqlite_schema").fetchone() and protocol is not None:
                for statement in _SCHEMA.split(";"):
                    run(statement)
                run("INSERT INTO protocol VALUES (?)", json.dumps(dict(protocol)))
            if run("PRAGMA application_id").fetchone()[0] != _MARK:
                raise StoreError(f"{self.path} is not a store of captum-robust: move it away")
        if self._connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("its pages do not fit together")
        self.protocol: Result = json.loads(self._execute("SELECT text FROM protocol").fetchone()[0])
        if protocol is not None:
            for name, value in json.loads(json.dumps(dict(protocol))).items():
                if self.protocol.get(name) != value:
                    raise StoreError(
                        f"{self.folder} holds results with {name} {self.protocol.get(name)}, "
                        f"got {value}: choose another folder"
                    )

    def __enter__(self) -> "Store":
        """Live: what this runner claims is its own until the end of the block."""
        self.runner = uuid.uuid4().hex
        self._lock_path(self.runner).parent.mkdir(exist_ok=True)
        self._lock = _lock(self._lock_path(self.runner))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Die: claims that are left are anybody's."""
        assert self._lock is not None
        self._lock.close()
        self._lock_path(self.runner).unlink(missing_ok=True)
        self._connection.close()

    def finished(self, **where: str | int) -> set[Unit]:
        """The units with these attributes that have a record."""
        rows = self._execute(f"SELECT {_COLUMNS} FROM records{_matching(where)}", *where.values())
        return {Unit(*row) for row in rows}

    def results(self, **where: str | int) -> dict[Unit, Result]:
        """The records of the units with these attributes, in the order of the units."""
        query = f"SELECT {_COLUMNS}, result FROM records{_matching(where)} ORDER BY {_COLUMNS}"
        with self._refusing_damage():
            return {
                Unit(*row[:-1]): json.loads(row[-1])
                for row in self._execute(query, *where.values())
            }

    def seconds(self) -> dict[Unit, float]:
        """Processor time that each finished unit took."""
        rows = self._execute(f"SELECT {_COLUMNS}, seconds FROM records")
        return {Unit(*row[:-1]): row[-1] for row in rows}

    def claim(self, unit: Unit) -> bool:
        """Take a unit, unless it is finished or a living runner has it."""
        with self._refusing_damage(), self._transaction() as run:
            if run(f"SELECT 1 FROM records WHERE {_IS_UNIT}", *unit).fetchone():
                return False
            held = run(f"SELECT runner FROM claims WHERE {_IS_UNIT}", *unit).fetchone()
            if held and self._lives(held[0]):
                return False
            run("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?, ?, ?)", *unit, self.runner)
            return True

    def finish(self, unit: Unit, result: Result, seconds: float) -> None:
        """Write the record of a claimed unit and give up the claim, both or neither."""
        with self._refusing_damage(), self._transaction() as run:
            text = json.dumps(result)
            run("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *unit, seconds, text)
            run(f"DELETE FROM claims WHERE {_IS_UNIT}", *unit)

    def release(self, unit: Unit) -> None:
        """Give up a claim without a record."""
        self._execute(f"DELETE FROM claims WHERE {_IS_UNIT}", *unit)

    def save_weights(self, unit: Unit, state: Mapping[str, Tensor]) -> str:
        """Write the checkpoint of a training, whole or not at all; its SHA-256."""
        path = self.weights_path(unit)
        path.parent.mkdir(exist_ok=True)
        on_cpu = {name: values.cpu() for name, values in state.items()}
        write_whole(path, lambda whole: torch.save(on_cpu, whole))
        return _sha256(path)

    def load_weights(self, unit: Unit) -> dict[str, Tensor]:
        """Read the checkpoint of a finished training."""
        path = self.weights_path(unit)
        (result,) = self.results(**unit._asdict()).values()
        try:
            if _sha256(path) != result["sha256"]:
                raise StoreError(f"{path} is damaged: delete it, and its model is trained again")
            state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            raise StoreError(f"{path} is missing: the next run trains its model again") from error
        return state

    def forget_lost_weights(self) -> None:
        """Take back the records of trainings whose checkpoint is gone."""
        for unit in self.finished():
            if unit.part == "training" and not self.weights_path(unit).exists():
                self._execute(f"DELETE FROM records WHERE {_IS_UNIT}", *unit)

    def weights_path(self, unit: Unit) -> Path:
        """Where the checkpoint of a training lies."""
        return self.folder / "weights" / f"{unit.file_name}.pt"

    def _lock_path(self, runner: str) -> Path:
        return self.folder / "runners" / runner

    def _lives(self, runner: str) -> bool:
        path = self._lock_path(runner)
        if runner == self.runner:
            return True
        if not path.exists():
            return False
        try:
            _lock(path).close()
        except sqlite3.OperationalError:
            return True
        path.unlink(missing_ok=True)
        return False

    def _execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        with self._refusing_damage():
            return self._connection.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        """All statements or none; no other runner writes in between."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield lambda statement, *values: self._connection.execute(statement, values)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextmanager
    def _refusing_damage(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self.path} cannot be used: {error}") from error
        except (sqlite3.DatabaseError, json.JSONDecodeError) as error:
            raise StoreError(f"{self.path} is damaged ({error}): move it away") from error


def _matching(where: Mapping[str, str | int]) -> str:
    return " WHERE " + " AND ".join(f"{column} = ?" for column in where) if where else ""


def _lock(path: Path) -> sqlite3.Connection:
    """A lock that ends with the process, on every system that SQLite knows.

    Raises sqlite3.OperationalError where another process holds it.
    """
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        connection.close()
        raise
    return connection


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
