"""Conversion of docstrings in Captum's style for Sphinx."""

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

# Names of types in docstrings, and the objects that they refer to.
_TYPES = {
    "Any": "typing.Any",
    "Attribution": "captum.attr.Attribution",
    "Axes": "matplotlib.axes.Axes",
    "Batch": "torch_geometric.data.Batch",
    "Callable": "collections.abc.Callable",
    "Colormap": "matplotlib.colors.Colormap",
    "Data": "torch_geometric.data.Data",
    "DataLoader": "torch.utils.data.DataLoader",
    "Explainer": "torch_geometric.explain.Explainer",
    "ExplainerAlgorithm": "torch_geometric.explain.algorithm.ExplainerAlgorithm",
    "Explanation": "torch_geometric.explain.Explanation",
    "Figure": "matplotlib.figure.Figure",
    "Generator": "torch.Generator",
    "Iterable": "collections.abc.Iterable",
    "Iterator": "collections.abc.Iterator",
    "Mapping": "collections.abc.Mapping",
    "Module": "torch.nn.Module",
    "Path": "pathlib.Path",
    "PathLike": "os.PathLike",
    "Perturbation": "captum.robust.Perturbation",
    "Saliency": "captum.attr.Saliency",
    "Sequence": "collections.abc.Sequence",
    "Tensor": "torch.Tensor",
    "ndarray": "numpy.ndarray",
    "nn.Module": "torch.nn.Module",
    "sequence": "collections.abc.Sequence",
}


def _keep_colons(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Protect colons under "Returns", where Napoleon would read the text before them as a type."""
    returned = False
    for place, line in enumerate(lines):
        if returned and line.strip():
            lines[place] = re.sub(r"^(\s*- \*\*.*?\)): ", r"\1 – ", line)
            if lines[place - 1].strip() == "Returns:":
                lines[place] = lines[place].replace(": ", " – ", 1)
        if line and not line[0].isspace():
            returned = line.strip() == "Returns:"
        elif line.strip() == "Returns:":
            returned = True


def _spell_out(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Element | None:
    """Resolve short names: a type above, or the only object of this package with that last name."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"]
    if name == "optional":  # "Tensor, optional" is not a pair of types
        return content
    if name in _TYPES:
        node["reftarget"] = _TYPES[name]  # intersphinx resolves it next
        return None
    domain = env.domains.python_domain
    ours = [
        full
        for full, entry in domain.objects.items()
        if full.endswith(f".{name}") and not entry.aliased
    ]
    if len(ours) != 1 or app.builder is None:
        return None
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], ours[0], node, content
    )


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the handlers before those of Napoleon and intersphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _keep_colons, priority=400)
    app.connect("missing-reference", _spell_out, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
