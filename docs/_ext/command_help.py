"""Directive that shows the help text of a command when the site is built."""

import contextlib
import io
import os

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from captum_robust.cli import main


class CommandHelp(Directive):
    """Help of ``captum-robust`` with the arguments of the directive."""

    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        """Return the help text, at a fixed width."""
        os.environ["COLUMNS"] = "88"
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([*self.arguments, "--help"])
        return [nodes.literal_block(text.getvalue(), text.getvalue(), language="text")]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
