"""Who imports whom: read from the source, so that imports inside functions and for types count, too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
# Each package may import itself and those further right.
PACKAGES = {
    "bench": REPOSITORY / "bench",
    "patchcut_server": REPOSITORY / "runtime/patchcut_server",
    "patchcut_ros": REPOSITORY / "runtime/patchcut_ros/patchcut_ros",
    "patchcut_export": REPOSITORY / "export/patchcut_export",
    "patchcut": REPOSITORY / "runtime/patchcut",
    "patchcut_kernels": REPOSITORY / "kernels/patchcut_kernels",
}


def imports_of(package: str) -> dict[str, set[str]]:
    """The modules of a package, and the full names of what each imports: modules, or names in them."""
    root = PACKAGES[package]
    files = {
        ".".join([package, *path.relative_to(root).with_suffix("").parts]): path
        for suffix in ("py", "pyi")
        for path in root.rglob(f"*.{suffix}")
    }
    return {
        name.removesuffix(".__init__"): set(_imports(name, ast.parse(path.read_text("utf-8"))))
        for name, path in files.items()
    }


def module_graph(package: str) -> dict[str, set[str]]:
    """The same as arrows between the modules of the package."""
    imports = imports_of(package)
    return {
        module: {target for name in names if (target := _module_of(name, imports))} - {module}
        for module, names in imports.items()
    }


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The modules that reach one another, sorted; nothing where the graph has no circle."""
    reached = {module: _reached(graph, module) for module in graph}
    found = {
        frozenset(other for other in reached[module] if module in reached[other])
        for module in graph
        if module in reached[module]
    }
    return sorted(map(sorted, found))


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        module = waiting.pop()
        if module not in reached:
            reached.add(module)
            waiting += graph[module]
    return reached


def _imports(name: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".")[: -node.level] if node.level else []
            module = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _module_of(name: str, modules: Mapping[str, object]) -> str | None:
    """The module that a full name is, or is defined in; None for one of another package."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None
