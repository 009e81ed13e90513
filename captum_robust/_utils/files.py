"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, save: Callable[[Path], None]) -> None:
    """Let ``save`` write another file, and give it the name ``path`` once it is done."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    os.close(handle)
    temporary = Path(name)
    try:
        save(temporary)
        temporary.chmod(0o644)  # mkstemp makes it readable by its owner only
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
