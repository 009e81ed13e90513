"""The imports of the package: no circle, and none from a lower floor to a higher one.

Imports inside functions and under ``if TYPE_CHECKING`` count as well.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import captum_robust

ROOT = Path(captum_robust.__file__).parent

#: From the lowest floor to the highest; a module may import from its own floor and from lower ones.
FLOORS = (
    ("_version", "_utils"),
    ("attr", "ranking", "noise", "curvature", "models", "_html"),
    ("metrics", "loss", "certify"),
    ("robust",),
    ("graph", "text", "datasets", "integrations", "testing", "visualization"),
    ("auditing",),
    ("benchmark.study",),
    ("benchmark.plan",),
    ("benchmark.measure",),
    ("benchmark.tables", "benchmark.demo"),
    ("benchmark.command",),
    ("cli",),
)

Graph = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """The files of the package by the names of their modules."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """The modules of the package that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                if name in known:
                    yield name
                elif node.module in known:
                    yield node.module


def graph() -> Graph:
    files = modules()
    return {
        name: set(imported(ast.parse(path.read_text(encoding="utf-8")), set(files))) - {name}
        for name, path in files.items()
    }


def circles(edges: Graph) -> list[set[str]]:
    """The sets of modules that import each other (strongly connected, by Tarjan)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        numbers[node] = lowest[node] = len(numbers)
        stack.append(node)
        for other in sorted(edges[node]):
            if other not in numbers:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], numbers[other])
        if lowest[node] == numbers[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(set(component))

    for node in sorted(edges):
        if node not in numbers:
            visit(node)
    return found


def floor(module: str) -> int:
    """The place of the floor on which a module is."""
    name = module.removeprefix("captum_robust.")
    for number, rooms in enumerate(FLOORS):
        if any(name == room or name.startswith(f"{room}.") for room in rooms):
            return number
    raise AssertionError(f"{module} is on no floor")


def test_circles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(map(sorted, circles(edges))) == [["a", "b", "c"], ["d", "e"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_kind_of_import_is_seen() -> None:
    text = """
import m.a
from m import b
from m.c import thing
def f():
    from m.d import thing
if TYPE_CHECKING:
    from m import e, thing
"""
    known = {"m", "m.a", "m.b", "m.c", "m.d", "m.e"}
    assert sorted(imported(ast.parse(text), known)) == sorted(known)


def test_no_modules_import_each_other() -> None:
    found = circles(graph())
    assert found == []


def test_imports_point_to_lower_floors() -> None:
    wrong = {
        (module, other)
        for module, others in graph().items()
        for other in others
        if not is_face(module) and (is_face(other) or floor(other) > floor(module))
    }
    assert wrong == set()


def is_face(module: str) -> bool:
    """Return whether a module only exports names of several floors."""
    return module in ("captum_robust", "captum_robust.benchmark")
