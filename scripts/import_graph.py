"""Measures the import graph of kerasft: longest chain, circles, modules per package.

    python scripts/import_graph.py [FOLDER]

FOLDER is the package to read, by default the one beside this script; it is parsed, not imported.
Imports inside functions count. tests/test_structure.py keeps the limits.
"""

import ast
import graphlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "kerasft"


def parse_modules(folder: Path = PACKAGE) -> dict[str, ast.Module]:
    """Parses the modules of a package.

    Returns:
        Syntax trees by dotted name without the package's own, "training.fit" or "errors".
        Packages themselves ("training") and `__main__` are left out.
    """
    paths = sorted(path for path in folder.rglob("*.py") if not path.stem.startswith("__"))
    return {
        ".".join(path.relative_to(folder).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
        for path in paths
    }


def imported_names(tree: ast.AST) -> set[str]:
    """Returns dotted names of all imports: `from a import b` gives both "a" and "a.b"."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"line {node.lineno}: imports are absolute")
            names |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_at_the_top(tree: ast.Module) -> set[str]:
    """Returns `imported_names` without what functions import when called, or a type checker."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            names |= {name for other in node.orelse for name in imported_names(other)}
            continue
        names |= imported_names(node)
    return names


def own_modules(names: Iterable[str], modules: Mapping[str, ast.Module]) -> set[str]:
    """Picks the package's own modules from imported names."""
    return {name.partition(".")[2] for name in names if name.startswith("kerasft.")} & set(modules)


def import_graph(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Returns for each module the modules of the same package that it imports."""
    return {
        name: own_modules(imported_names(tree), modules) - {name} for name, tree in modules.items()
    }


def reached_at_the_top(module: str, modules: Mapping[str, ast.Module]) -> set[str]:
    """Returns the top-level packages ("numpy") that importing a module imports in the end."""
    seen: set[str] = set()
    reached: set[str] = set()
    waiting = {module}
    while waiting:
        names = imported_at_the_top(modules[waiting.pop()])
        reached |= {name.partition(".")[0] for name in names}
        own = own_modules(names, modules)
        waiting |= own - seen
        seen |= own
    return reached


def longest_chain(graph: Mapping[str, set[str]]) -> list[str]:
    """Returns the longest chain in which each module imports the next.

    Raises:
        graphlib.CycleError: modules import each other in a circle.
    """
    chains: dict[str, list[str]] = {}
    for name in graphlib.TopologicalSorter(graph).static_order():
        longest = max((chains[other] for other in graph[name]), key=len, default=[])
        chains[name] = [name, *longest]
    return max(chains.values(), key=len)


def modules_per_package(modules: Iterable[str]) -> Counter[str]:
    """Counts modules by package; "" is the top level."""
    return Counter(name.rpartition(".")[0] for name in modules)


def main() -> None:
    modules = parse_modules(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
    graph = import_graph(modules)
    counts = modules_per_package(modules)
    try:
        chain = longest_chain(graph)
    except graphlib.CycleError as error:
        sys.exit(f"circle: {' -> '.join(error.args[1])}")
    print(f"{len(modules)} modules, no circle")
    print(f"longest import chain: {len(chain)} modules: {' -> '.join(chain)}")
    for package, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        print(f"{count:4} modules in {package or 'the top level'}")


if __name__ == "__main__":
    main()
