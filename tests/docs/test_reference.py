"""The reference names everything that can be imported, and nothing that cannot."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import captum_robust

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
# The command line has a page of its own; the experiments behind it are no interface.
APART = {"benchmark", "cli"}


def public_modules() -> list[str]:
    names = (module.name for module in pkgutil.iter_modules(captum_robust.__path__))
    return sorted(name for name in names if not name.startswith("_") and name not in APART)


def documented(page: Path) -> set[str]:
    """Names of the autodoc and data directives of a page, with their module."""
    module, found = "", set()
    for line in page.read_text(encoding="utf-8").splitlines():
        directive = re.match(r"\.\. (?:(?:py:)?(auto)?(\w+)):: ([\w.]+)", line)
        if directive is None:
            continue
        automatic, kind, name = directive.groups()
        if kind == "currentmodule" or (kind == "module" and not automatic):
            module = name
        elif kind == "module":
            found |= {f"{name}.{n}" for n in exported(name)} | {name}
        else:
            found.add(name if name.startswith("captum_robust.") else f"{module}.{name}")
    return found


def exported(module: str) -> list[str]:
    return list(getattr(importlib.import_module(module), "__all__", []))


def pages() -> list[Path]:
    return sorted(FOLDER.glob("*.md"))


@pytest.mark.parametrize("module", public_modules())
def test_every_exported_name_is_in_the_reference(module: str) -> None:
    named = set().union(*map(documented, pages()))
    full = f"captum_robust.{module}"
    missing = {f"{full}.{name}" for name in exported(full)} - named
    # What another package exports as well is documented there.
    missing = {name for name in missing if _home(name) not in named}
    assert not missing, f"add to docs/reference: {', '.join(sorted(missing))}"


def _home(name: str) -> str:
    """The same object under the name by which another module, or the package, exports it."""
    module, _, last = name.rpartition(".")
    value = getattr(importlib.import_module(module), last)
    others = ["captum_robust", *(f"captum_robust.{other}" for other in public_modules())]
    homes = (
        f"{other}.{last}"
        for other in others
        if other != module and last in exported(other)
        if getattr(importlib.import_module(other), last) is value
    )
    return next(homes, name)


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_every_name_in_the_reference_exists(page: Path) -> None:
    for name in documented(page):
        module, _, last = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ImportError:
            assert hasattr(importlib.import_module(module), last), name
