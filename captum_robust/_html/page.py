"""Turn a page into one HTML file."""

import base64
import hashlib
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from captum_robust import __version__
from captum_robust._html.blocks import Page
from captum_robust._utils.files import write_whole

__all__ = ["render", "write_page"]


def render(page: Page) -> str:
    """The HTML of a page: the same page gives the same text.

    A policy in the file itself forbids every request and every script but the one that the page
    brings, which is known by its hash.

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
    """Write the HTML of a page, whole or not at all."""
    text = render(page)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda draft: _write(draft, text))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


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
    environment.filters["own"] = Markup  # for the style sheet and the script, which are ours
    return environment


def _template_text(name: str) -> str:
    return files("captum_robust._html").joinpath("templates", name).read_text(encoding="utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
