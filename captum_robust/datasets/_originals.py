"""The places of original files: a folder, else the cache, else their public source."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CAPTUM_ROBUST_DATA"

File = Path | zipfile.Path


@dataclass(frozen=True)
class Original:
    """An original file and its public source.

    Attributes:
        names: Names of the file in a folder; the first is its name at the source.
        folder: The subfolder of a data folder in which the file may be.
        url: The https address of the file, or of a zip archive that contains it; None for a file
            that is not published in this form.
        sha256: Digest of the download, or of the file with which results were obtained.
    """

    names: tuple[str, ...]
    folder: str
    url: str | None
    sha256: str

    @property
    def accepted(self) -> str:
        """The required content of a data folder, in words."""
        return f"{' or '.join(self.names)} (or .gz), itself or in its subfolder {self.folder}"

    def within(self, root: str | os.PathLike[str]) -> Path | None:
        """Return the file in a data folder, or None."""
        for folder in (Path(root), Path(root) / self.folder):
            for name in self.names:
                for place in (folder / name, folder / f"{name}.gz"):
                    if place.is_file():
                        return place
        return None


def named_root() -> str | None:
    """Return the folder that the environment variable names, if it is set."""
    root = os.environ.get(VARIABLE) or None
    if root and not Path(root).is_dir():
        raise FileNotFoundError(f"{VARIABLE}: got {root!r}, accepted: a folder")
    return root


def named_folder(originals: Sequence[Original]) -> str | None:
    """Return the folder that the environment variable names, if any of the files is there."""
    root = named_root()
    return root if root and any(original.within(root) for original in originals) else None


def locate(originals: Sequence[Original], root: str | os.PathLike[str] | None) -> list[File]:
    """Return files from ``root``, the folder of the environment, the cache or the source.

    The first of these that is available is used. A folder with some of the files must have all.
    """
    argument = "root"
    if root is None:
        argument, root = VARIABLE, named_folder(originals)
    if root is None:
        return [_download(original) for original in originals]
    files: list[File] = []
    for original in originals:
        place = original.within(root)
        if place is None:
            raise FileNotFoundError(
                f"{argument}: got {os.fspath(root)!r}, accepted: a folder that holds "
                f"{original.accepted}"
            )
        files.append(place)
    return files


def _download(original: Original) -> File:
    name = original.names[0]
    advice = f"or name in {VARIABLE} a folder that holds {original.accepted}"
    if original.url is None:
        raise FileNotFoundError(
            f"{name}: not published in this form; create it as docs/data.md describes, {advice}"
        )
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            f"{name}: downloading needs pooch: pip install 'captum-robust[benchmark]', {advice}"
        ) from error
    cache = pooch.os_cache("captum-robust")
    try:
        # Uses the cache first. A download gets its final name only if its digest is right.
        path = pooch.retrieve(
            original.url, f"sha256:{original.sha256}", original.url.rpartition("/")[2], cache
        )
    except OSError as error:  # errors of requests are OSErrors as well
        raise FileNotFoundError(
            f"{name}: cannot download {original.url} to {cache} ({type(error).__name__}); "
            f"go online, {advice}"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{name}: got a download of another SHA-256 from {original.url}, "
            f"accepted: {original.sha256}; try again, {advice}"
        ) from error
    return zipfile.Path(path, name) if path.endswith(".zip") else Path(path)
