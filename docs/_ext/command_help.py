"""What a command says of itself, asked when the site is built."""

import contextlib
import io
import os

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

from captum_robust.cli import main


class CommandHelp(Directive):
    """The help of ``captum-robust`` with the arguments of the directive."""

    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        """Ask the command, at a fixed width."""
        os.environ["COLUMNS"] = "88"
        text = io.StringIO()
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            main([*self.arguments, "--help"])
        return [nodes.literal_block(text.getvalue(), text.getvalue(), language="text")]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Offer the directive."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
