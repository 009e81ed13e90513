"""Write a page as one HTML file."""

import base64
import hashlib
import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from captum_robust._html.blocks import Block, Page
from captum_robust._utils.files import write_text
from captum_robust._utils.tables import Cell
from captum_robust._version import __version__

__all__ = ["render", "write_page"]


def render(page: Page) -> str:
    """Return the HTML of a page; the same page gives the same text.

    A policy in the file itself forbids every request, and every script except the one of the page,
    which is identified by its hash.

    Raises:
        ImportError: without jinja2.
    """
    style, script = _template_text("style.css"), _template_text("script.js")
    policy = "; ".join(
        [
            "default-src 'none'", f"style-src {_source(style)}", f"script-src {_source(script)}",
            "img-src data:", "base-uri 'none'", "form-action 'none'",
        ]
    )  # fmt: skip
    text: str = _environment().get_template("page.html.j2").render(
        page=page, style=style, script=script, policy=policy, version=__version__
    )  # fmt: skip
    return text


def write_page(page: Page, path: Path) -> None:
    """Write the HTML of a page, completely or not at all; missing folders are made."""
    text = render(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)


@lru_cache(maxsize=1)
def _environment() -> Any:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "the HTML report needs jinja2: pip install 'captum-robust[benchmark]'"
        ) from error
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template_text), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["own"] = Markup  # for our own style sheet and script
    environment.filters["kind"] = _kind
    environment.filters["sort_key"] = _sort_key
    return environment


def _kind(block: Block) -> str:
    """Return the name by which the template chooses how to write a block."""
    return type(block).__name__


def _sort_key(cell: Cell) -> str:
    """Return the number by which the script sorts a cell; empty for a text."""
    if cell.value is None:
        return ""
    return "nan" if math.isnan(cell.value) else repr(cell.value)


def _template_text(name: str) -> str:
    return files("captum_robust._html").joinpath("templates", name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
