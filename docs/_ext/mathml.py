"""Formulas as MathML, which browsers display without scripts, fonts or a network."""

import re

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)

# Commands for bracket sizes, which MathML chooses itself, and one that docutils does not know.
_SIZES = re.compile(r"\\[bB]igg?[lr]?(?![a-zA-Z])")
_DOTS = re.compile(r"\\dots(?![a-z])")


def _mathml(node: nodes.Element, as_block: bool) -> str:
    formula = _DOTS.sub(r"\\ldots", _SIZES.sub("", node.astext()))
    if as_block and r"\\" in formula and r"\begin" not in formula:
        formula = rf"\begin{{aligned}}{formula}\end{{aligned}}"
    try:
        return tex2mathml(formula, as_block=as_block)
    except MathError as error:
        logger.warning("cannot write the formula %r: %s", formula, error, location=node)
        return f"<code>{node.astext()}</code>"


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_mathml(node, as_block=False))
    raise nodes.SkipNode


def _display(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math"))
    translator.body.append(_mathml(node, as_block=True))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the renderer and select it."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    app.config["html_math_renderer"] = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
