"""The store of results: one record per finished unit, and the units that runners have claimed."""

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
from captum_robust.benchmark.plan.units import TRAINING, Part, Unit

__all__ = ["FILE", "Result", "Store", "StoreError"]

FILE = "results.sqlite"

Result = dict[str, Any]

_MARK = 0x52324554  # "R2ET", in the header of the file
_VERSION = 1  # in version 0 a part was one text, such as "auto saliency 8"
_NAMES = ("dataset", "method", "setting", "seed", "start", "part", "explanation", "k")
_COLUMNS = ", ".join(_NAMES)
_UNIT = f"""
    dataset TEXT, method TEXT, setting TEXT, seed INTEGER, start TEXT,
    part TEXT, explanation TEXT, k INTEGER, PRIMARY KEY ({_COLUMNS})
"""
_SCHEMA = (
    "CREATE TABLE protocol (text TEXT NOT NULL)",
    f"CREATE TABLE records (seconds REAL NOT NULL, result TEXT NOT NULL, {_UNIT})",
    f"CREATE TABLE claims (runner TEXT NOT NULL, {_UNIT})",
    f"PRAGMA application_id = {_MARK}",
    f"PRAGMA user_version = {_VERSION}",
)
_IS_UNIT = " AND ".join(f"{name} = ?" for name in _NAMES)
_INSERT_RECORD = f"INSERT INTO records ({_COLUMNS}, seconds, result) VALUES (?{', ?' * 9})"
_INSERT_CLAIM = f"INSERT OR REPLACE INTO claims ({_COLUMNS}, runner) VALUES (?{', ?' * 8})"

_Run = Callable[..., sqlite3.Cursor]


class StoreError(Exception):
    """A store that cannot be used; the message gives the reason in one line."""


class Store:
    """The records of a folder, shared by any number of runners on one machine.

    A record is written in one transaction, so that a runner that is killed leaves complete records
    only. A unit is claimed before work on it begins. Each runner holds a lock on a file of its own
    while it runs, and the operating system frees the lock when the process ends, however it ends;
    a claim without a running process can be taken by any runner.

    Use the store as a context manager, or only to read. A store of an older version is converted
    when it is opened.

    Args:
        folder: folder of the store.
        protocol: settings of the results; None to read a store that exists.

    Raises:
        StoreError: for a folder without a store, a damaged or foreign store, and a store with
            another protocol.
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
        if self._connection.execute("PRAGMA quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("its pages do not fit together")
        with self._transaction() as run:
            if not run("SELECT 1 FROM sqlite_schema").fetchone() and protocol is not None:
                for statement in _SCHEMA:
                    run(statement)
                run("INSERT INTO protocol VALUES (?)", json.dumps(dict(protocol)))
            if run("PRAGMA application_id").fetchone()[0] != _MARK:
                raise StoreError(f"{self.path} is not a store of captum-robust: move it away")
            version = run("PRAGMA user_version").fetchone()[0]
            if version > _VERSION:
                raise StoreError(f"{self.path} is of a newer version of captum-robust: update it")
            if version == 0:
                _split_parts(run)
        self.protocol: Result = json.loads(self._execute("SELECT text FROM protocol").fetchone()[0])
        if protocol is not None:
            for name, value in json.loads(json.dumps(dict(protocol))).items():
                if self.protocol.get(name) != value:
                    raise StoreError(
                        f"{self.folder} holds results with {name} {self.protocol.get(name)}, "
                        f"got {value}: choose another folder"
                    )

    def __enter__(self) -> "Store":
        """Begin to claim units; claims last until the end of the block."""
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
        """Give up all claims."""
        assert self._lock is not None
        self._lock.close()
        self._lock_path(self.runner).unlink(missing_ok=True)
        self._connection.close()

    def finished(self, **where: str | int | Part) -> set[Unit]:
        """Return the units with these attributes that have a record."""
        condition, values = _matching(where)
        rows = self._execute(f"SELECT {_COLUMNS} FROM records{condition}", *values)
        return {_unit(row) for row in rows}

    def results(self, **where: str | int | Part) -> dict[Unit, Result]:
        """Return the records of the units with these attributes, in the order of the units."""
        condition, values = _matching(where)
        query = f"SELECT {_COLUMNS}, result FROM records{condition} ORDER BY {_COLUMNS}"
        with self._refusing_damage():
            rows = self._execute(query, *values)
            return {_unit(row): json.loads(row[-1]) for row in rows}

    def seconds(self) -> dict[Unit, float]:
        """Return the processor time that each finished unit took."""
        rows = self._execute(f"SELECT {_COLUMNS}, seconds FROM records")
        return {_unit(row): row[-1] for row in rows}

    def claim(self, unit: Unit) -> bool:
        """Claim a unit; return False if it is finished or a running runner has it."""
        with self._refusing_damage(), self._transaction() as run:
            if run(f"SELECT 1 FROM records WHERE {_IS_UNIT}", *_row(unit)).fetchone():
                return False
            claim = run(f"SELECT runner FROM claims WHERE {_IS_UNIT}", *_row(unit)).fetchone()
            if claim and self._is_running(claim[0]):
                return False
            run(_INSERT_CLAIM, *_row(unit), self.runner)
            return True

    def finish(self, unit: Unit, result: Result, seconds: float) -> None:
        """Write the record of a claimed unit and give up the claim, both or neither."""
        with self._refusing_damage(), self._transaction() as run:
            run(_INSERT_RECORD, *_row(unit), seconds, json.dumps(result))
            run(f"DELETE FROM claims WHERE {_IS_UNIT}", *_row(unit))

    def release(self, unit: Unit) -> None:
        """Give up a claim without a record."""
        self._execute(f"DELETE FROM claims WHERE {_IS_UNIT}", *_row(unit))

    def save_weights(self, unit: Unit, state: Mapping[str, Tensor]) -> str:
        """Write the checkpoint of a training, completely or not at all; return its SHA-256."""
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
        """Delete the records of trainings whose checkpoint is missing."""
        for unit in self.finished(part=TRAINING):
            if not self.weights_path(unit).exists():
                self._execute(f"DELETE FROM records WHERE {_IS_UNIT}", *_row(unit))

    def weights_path(self, unit: Unit) -> Path:
        """Return the path of the checkpoint of a training."""
        return self.folder / "weights" / f"{unit.file_name}.pt"

    def _lock_path(self, runner: str) -> Path:
        return self.folder / "runners" / runner

    def _is_running(self, runner: str) -> bool:
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
    def _transaction(self) -> Iterator[_Run]:
        """Execute all statements or none; no other runner writes in between."""
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


def _row(unit: Unit) -> tuple[str | int, ...]:
    return (*unit[:-1], *unit.part)


def _unit(row: tuple[Any, ...]) -> Unit:
    """Read a unit from the first columns of a row."""
    dataset, method, setting, seed, start, *part = row[: len(_NAMES)]
    return Unit(dataset, method, setting, seed, start, Part(*part))


def _matching(where: Mapping[str, str | int | Part]) -> tuple[str, list[str | int]]:
    """Return the condition that the attributes of a unit set, and its values."""
    columns: dict[str, str | int] = {}
    for name, value in where.items():
        if isinstance(value, Part):
            columns |= {"part": value.name, "explanation": value.explanation, "k": value.k}
        else:
            columns[name] = value
    condition = " AND ".join(f"{column} = ?" for column in columns)
    return f" WHERE {condition}" if columns else "", list(columns.values())


def _split_parts(run: _Run) -> None:
    """Convert a store of version 0, where a part was one text such as ``"auto saliency 8"``."""
    old = run("SELECT dataset, method, setting, seed, start, part, seconds, result FROM records")
    rows = old.fetchall()
    for table in ("records", "claims"):
        run(f"DROP TABLE {table}")
    for statement in _SCHEMA[1:]:
        run(statement)
    for *rest, text, seconds, result in rows:
        name, explanation, k = [*text.split(), "", 0][:3]
        run(_INSERT_RECORD, *rest, name, explanation, int(k), seconds, result)


def _lock(path: Path) -> sqlite3.Connection:
    """Take a lock that ends with the process, on every system that SQLite knows.

    Raises:
        sqlite3.OperationalError: if another process holds the lock.
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
