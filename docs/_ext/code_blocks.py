"""Removal of the empty line at the end of doctests in code blocks."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


def _trim(app: Sphinx, document: nodes.document) -> None:
    for block in document.findall(nodes.literal_block):
        text = block.astext().rstrip()
        if block.astext() == block.rawsource and text != block.rawsource:
            block.rawsource = text
            block.children = [nodes.Text(text)]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Trim the code blocks of every page after it is read."""
    app.connect("doctree-read", _trim)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
