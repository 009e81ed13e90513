"""The search for original files, and their download."""

from __future__ import annotations

import gc
import gzip
import hashlib
import io
import socket
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pooch
import pytest

from captum_robust.datasets import TabularDataset, adult, bank, compas
from tests.datasets.rows import (
    ADULT,
    BANK,
    BANK_HEADER,
    COMPAS_HEADER,
    adult_folder,
    bank_folder,
    compas_folder,
    compas_row,
)

VARIABLE = "CAPTUM_ROBUST_DATA"
MODULES = {"adult": adult, "bank": bank, "compas": compas}


def load(name: str, *arguments: object, **options: object) -> TabularDataset:
    return getattr(MODULES[name], f"load_{name}")(*arguments, **options)


def folder_of(name: str, folder: Path, rows: int = 2) -> Path:
    """A data folder with ``rows`` rows, two or more, in the subfolder of a table."""
    place = folder / name
    place.mkdir(parents=True)
    if name == "adult":
        adult_folder(place, [ADULT[0][0]] * rows)
    elif name == "bank":
        bank_folder(place, [BANK[0][0]] * rows)
    else:
        compas_folder(place, [compas_row()] * rows)
    return folder


class Source:
    """A local server in the place of the public sources."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.promised = 0
        self.asked: list[str] = []
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.strip("/")
                source.asked.append(name)
                if name not in source.content:
                    self.send_error(404)
                    return
                self.send_response(200)
                size = len(source.content[name]) + source.promised
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(source.content[name])

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    thread = threading.Thread(target=source.server.serve_forever, args=(0.01,))
    thread.start()
    yield source
    source.server.shutdown()
    thread.join()
    source.server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own; without it a test could reach the user's, or the network."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder / project)
    monkeypatch.setenv("NO_PROXY", "*")
    return folder / "captum-robust"


def serve(
    monkeypatch: pytest.MonkeyPatch, source: Source, module: ModuleType, **content: bytes
) -> None:
    """Lets a table be downloaded from ``source``; ``content`` is what its files hold."""
    originals = []
    for original, (_, data) in zip(module.ORIGINALS, sorted(content.items()), strict=True):
        name = original.url.rpartition("/")[2]
        source.content[name] = data
        digest = hashlib.sha256(data).hexdigest()
        originals.append(replace(original, url=f"{source.url}/{name}", sha256=digest))
    monkeypatch.setattr(module, "ORIGINALS", tuple(originals))


def compas_content(rows: int = 3) -> bytes:
    return "\n".join([COMPAS_HEADER, *[compas_row()] * rows]).encode()


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_sources_are_https_with_a_digest(module: ModuleType) -> None:
    for original in module.ORIGINALS:
        assert original.url.startswith("https://")
        assert len(bytes.fromhex(original.sha256)) == 32


@pytest.mark.parametrize("name", MODULES)
class TestFolders:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pooch", None)

    def test_the_argument_comes_first(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(folder_of(name, tmp_path / "named", rows=3)))
        assert len(load(name, folder_of(name, tmp_path / "given", rows=4))) == 4
        assert len(load(name)) == 3

    def test_the_subfolder_and_gzip_will_do(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for file in list((folder_of(name, tmp_path) / name).iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        assert len(load(name, tmp_path)) == 2
        assert len(load(name, str(tmp_path / name))) == 2

    def test_names_the_files_that_are_missing(self, name: str, tmp_path: Path) -> None:
        for root in (tmp_path, tmp_path / "nowhere"):
            with pytest.raises(FileNotFoundError, match=r"^root: got .*a folder that holds ") as e:
                load(name, root)
            assert MODULES[name].ORIGINALS[0].names[0] in str(e.value)
            assert f"(or .gz), itself or in its subfolder {name}" in str(e.value)
            assert "\n" not in str(e.value)

    def test_the_named_folder_must_be_there(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(tmp_path / "typo"))
        with pytest.raises(FileNotFoundError, match=rf"{VARIABLE}: got .*typo', accepted: a fold"):
            load(name)

    def test_a_damaged_file_in_the_named_folder_is_refused(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(VARIABLE, str(folder_of(name, tmp_path)))
        for file in (tmp_path / name).iterdir():
            file.write_bytes(b"")
        with pytest.raises(ValueError, match=str(tmp_path)):
            load(name)


@pytest.mark.parametrize("name", ["adult", "bank"])
@pytest.mark.parametrize("value", [None, "", "other"])
def test_the_bundled_table_serves_where_no_folder_with_the_files_is_named(
    name: str, value: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder_of(name, tmp_path))  # the empty name is not that of this folder
    folder_of("compas", tmp_path / "other")
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    assert len(load(name)) > 40_000


def test_a_named_folder_with_half_of_the_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder_of("adult", tmp_path) / "adult" / "adult.test").unlink()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"{VARIABLE}: got .* holds adult\.test \(or"):
        load("adult")


def test_a_download_is_kept(
    cache: Path, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, source, compas, file=compas_content())
    monkeypatch.setenv(VARIABLE, str(folder_of("bank", tmp_path)))  # lacks the file
    assert len(load("compas")) == len(load("compas", label="two_year_recid")) == 3
    assert source.asked == ["compas-scores-two-years.csv"]
    assert [file.name for file in cache.iterdir()] == source.asked
    source.server.server_close()
    assert len(load("compas")) == 3


def test_a_damaged_cache_is_mended(
    cache: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, source, compas, file=compas_content())
    cache.mkdir(parents=True)
    (cache / "compas-scores-two-years.csv").write_bytes(compas_content()[:-30])
    assert len(load("compas")) == 3
    assert (cache / "compas-scores-two-years.csv").read_bytes() == compas_content()


def test_adult_is_downloaded_as_two_files(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adult_folder(tmp_path, [ADULT[0][0]] * 5)
    data, test = ((tmp_path / name).read_bytes() for name in ("adult.data", "adult.test"))
    serve(monkeypatch, source, adult, data=data, test=test)
    assert len(load("adult", original=True)) == 5
    assert source.asked == ["adult.data", "adult.test"]


def bank_archive(name: str = "bank-full.csv", rows: int = 3) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bank.csv", "a smaller table")
        file.writestr(name, "\n".join([BANK_HEADER, *[BANK[0][0]] * rows]))
    return archive.getvalue()


def test_bank_is_read_from_its_archive(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, source, bank, archive=bank_archive())
    dataset = load("bank", original=True)
    assert dataset.targets.tolist() == [0, 0, 0]
    assert source.asked == ["bank.zip"]


def test_a_fault_in_the_archive_has_its_place(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("bank-full.csv", f"{BANK_HEADER}\n{BANK[0][0]}".replace("married", "wed"))
    serve(monkeypatch, source, bank, archive=archive.getvalue())
    with pytest.raises(ValueError, match=r"bank\.zip.bank-full\.csv, row 2, column marital: got"):
        load("bank", original=True)


def test_the_named_folder_comes_before_a_download(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, source, bank, archive=bank_archive(rows=3))
    monkeypatch.setenv(VARIABLE, str(folder_of("bank", tmp_path, rows=4)))
    assert len(load("bank", original=True)) == 4
    assert not source.asked


def test_another_file_at_the_source_is_refused(
    cache: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, source, compas, file=compas_content())
    source.content["compas-scores-two-years.csv"] = compas_content(rows=4)
    digest = compas.ORIGINALS[0].sha256
    with pytest.raises(
        ValueError, match=rf"another SHA-256 from http.*accepted: {digest}; try again"
    ):
        load("compas")
    assert not list(cache.iterdir())


@pytest.mark.parametrize("fault", ["missing", "cut", "closed", "no folder"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # a failed request leaves its socket open
def test_says_what_to_put_where_if_it_cannot_download(
    fault: str, cache: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(monkeypatch, source, compas, file=compas_content())
    if fault == "missing":
        source.content.clear()
    elif fault == "cut":
        source.promised = 10
    elif fault == "closed":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            closed = f"http://127.0.0.1:{free.getsockname()[1]}/compas-scores-two-years.csv"
        original = replace(compas.ORIGINALS[0], url=closed)
        monkeypatch.setattr(compas, "ORIGINALS", (original,))
    else:
        cache.parent.write_text("a file where the folder should be")
    with pytest.raises(FileNotFoundError, match="cannot download http") as caught:
        load("compas")
    message = str(caught.value)
    del caught
    gc.collect()  # sockets, while their warning is ignored
    assert message.startswith("compas-scores-two-years.csv: ")
    assert f"name in {VARIABLE} a folder that holds compas-scores-two-years.csv or " in message
    assert "\n" not in message
    assert fault == "no folder" or not list(cache.iterdir())


def test_names_the_extra_if_pooch_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'captum-robust\[benchmark\]', or name in"):
        load("compas")
