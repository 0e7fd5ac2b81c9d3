"""The import graph of the package: which module, and which folder, imports which.

    python -m tools.imports              tables: folders, imports between folders, circles
    python -m tools.imports --mermaid    the same graph as a picture for Markdown
    python -m tools.imports PATH         of another copy of the package

Rules of this file: sources are read, nothing of the package is imported. An import is one of

    run      done when the module is imported
    lazy     done when a function is called
    types    for type checkers only: below `if TYPE_CHECKING`, or in a .pyi
    cimport  of a .pyx or .pxd

What is imported by a name that is put together at run time (a module's `__getattr__`, an entry
point) is not seen: that is what such names are for.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

__all__ = ["Import", "circles", "folder_of", "imports_of", "modules_of"]

Kind = Literal["run", "lazy", "types", "cimport"]

_KINDS: tuple[Kind, ...] = ("run", "lazy", "types", "cimport")

_SOURCES = (".py", ".pyx", ".pxd", ".pyi")

_CYTHON_IMPORT = re.compile(
    r"(?P<indent>[ \t]*)(?:from[ ]+(?P<module>[\w.]+)[ ]+)?(?P<verb>c?import)[ ]+(?P<names>[^#;]+)"
)


class Import(NamedTuple):
    """One import statement's use of one module."""

    importer: str
    imported: str
    kind: Kind
    file: str
    line: int

    def __str__(self) -> str:
        """Return it as an error message of a compiler: ``file:line: a imports b (lazy)``."""
        return f"{self.file}:{self.line}: {self.importer} imports {self.imported} ({self.kind})"


def modules_of(package: Path) -> dict[str, list[Path]]:
    """Return the source files of each module of a package, a native module's .pyx, .pxd and .pyi.

    A package itself (its ``__init__.py``) is called as its folder is.
    """
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for path in sorted(package.rglob("*")):
        if path.suffix in _SOURCES:
            parts = path.relative_to(package.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)].append(path)
    return dict(found)


def imports_of(package: Path) -> list[Import]:
    """Return every import of one module of a package by another, in order of importer and line."""
    modules = modules_of(package)
    found: list[Import] = []
    for importer, paths in modules.items():
        for path in paths:
            file = str(path.relative_to(package.parent))
            text = path.read_text(encoding="utf-8")
            if path.suffix in (".pyx", ".pxd"):
                named = _cython_imports(text)
            else:
                is_package = path.name == "__init__.py"
                named = _python_imports(text, importer, is_package, stub=path.suffix == ".pyi")
            for module, names, kind, line in named:
                used = sorted(_resolve(modules, module, names) - {importer})
                found += [Import(importer, imported, kind, file, line) for imported in used]
    return found


def _resolve(modules: Mapping[str, object], module: str, names: Iterable[str]) -> set[str]:
    """Return which modules ``from module import names`` (or ``import module``) is about."""
    submodules = {f"{module}.{name}" for name in names} & modules.keys()
    others = [name for name in names if f"{module}.{name}" not in modules]
    return submodules | ({module} & modules.keys() if others or not names else set())


# One statement: the module, the names taken from it, the kind, the line.
_Statement = tuple[str, list[str], Kind, int]


def _python_imports(text: str, module: str, is_package: bool, stub: bool) -> Iterator[_Statement]:
    def visit(node: ast.AST, kind: Kind) -> Iterator[_Statement]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, [], kind, node.lineno
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield _absolute(node, module, is_package), names, kind, node.lineno
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for guarded in node.body:
                yield from visit(guarded, "types")
            for other in node.orelse:
                yield from visit(other, kind)
        else:
            within = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            for child in ast.iter_child_nodes(node):
                yield from visit(child, "lazy" if within and kind == "run" else kind)

    yield from visit(ast.parse(text), "types" if stub else "run")


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    up = node.level - 1 if is_package else node.level
    return ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])


def _cython_imports(text: str) -> Iterator[_Statement]:
    for line, statement in _cython_lines(text):
        match = _CYTHON_IMPORT.fullmatch(statement)
        if match is None:
            continue
        kind: Kind = "cimport" if match["verb"] == "cimport" else "run"
        if kind == "run" and match["indent"]:
            kind = "lazy"
        names = [name.split()[0] for name in match["names"].strip("() ,").split(",")]
        if match["module"]:
            yield match["module"], names, kind, line
        else:
            for name in names:
                yield name, [], kind, line


def _cython_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the statements of Cython with their lines, an import in brackets as one line."""
    text = re.sub(r'"""(?s:.*?)"""', lambda match: "\n" * match[0].count("\n"), text)
    lines = iter(enumerate((line.split("#")[0].rstrip() for line in text.split("\n")), 1))
    for number, line in lines:
        if re.match(r"\s*from [\w.]+ c?import \(", line):
            while ")" not in line:
                line += " " + next(lines)[1].strip()
        yield number, line


def folder_of(module: str, modules: Mapping[str, Iterable[Path]]) -> str:
    """Return the folder of a module below the package: ``handlers/smtp``.

    What lies in the package's own folder counts as three: ``(native)``, ``(public)`` for what
    stands above everything else, and ``(common)`` for what stands below it.
    """
    paths = list(modules[module])
    parts = module.split(".")[1:]
    is_package = any(path.name == "__init__.py" for path in paths)
    folders = parts if is_package else parts[:-1]
    if folders:
        return "/".join(folders)
    if any(path.suffix in (".pyx", ".pxd") for path in paths):
        return "(native)"
    return "(public)" if is_package or parts[-1] in ("__main__", "testing") else "(common)"


def circles(edges: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the circles of a graph: sets of modules that all lead to each other, each sorted."""
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in edges:
        graph[one].add(other)
    reached = {node: _reach(graph, node) for node in list(graph)}
    found = {
        tuple(sorted(other for other in reached[node] if node in reached.get(other, ())))
        for node in reached
        if node in reached[node]
    }
    return [list(circle) for circle in sorted(found)]


def _reach(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting.extend(new)
    return seen


# --- as text --------------------------------------------------------------------------------------


def _folder_counts(package: Path) -> dict[tuple[str, str], Counter[str]]:
    modules = modules_of(package)
    counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for one in imports_of(package):
        pair = folder_of(one.importer, modules), folder_of(one.imported, modules)
        counts[pair][one.kind] += 1
    return dict(sorted(counts.items()))


def _tables(package: Path) -> Iterator[str]:
    modules = modules_of(package)
    files: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for module, paths in modules.items():
        folder = folder_of(module, modules)
        files[folder] += len(paths)
        lines[folder] += sum(path.read_text(encoding="utf-8").count("\n") for path in paths)
    yield f"{'folder':<24}{'files':>8}{'lines':>8}"
    for folder in sorted(files):
        yield f"{folder:<24}{files[folder]:>8}{lines[folder]:>8}"
    yield f"{'all':<24}{files.total():>8}{lines.total():>8}"
    yield ""
    yield f"{'imports':<48}" + "".join(f"{kind:>8}" for kind in _KINDS)
    for (importer, imported), counts in _folder_counts(package).items():
        if importer != imported:
            numbers = "".join(f"{counts[kind] or '':>8}" for kind in _KINDS)
            yield f"{importer + ' -> ' + imported:<48}{numbers}"
    found = imports_of(package)
    edges = [(one.importer, one.imported) for one in found]
    run = [(one.importer, one.imported) for one in found if one.kind != "types"]
    for title, circled in (("at run time", circles(run)), ("with types", circles(edges))):
        yield ""
        yield f"circles of modules {title}: {len(circled) or 'none'}"
        for circle in circled:
            yield "  " + " ".join(name.partition(".")[2] or name for name in circle)


def _mermaid(package: Path) -> Iterator[str]:
    """Yield a flow chart; solid lines are imports, dotted ones are those of types alone."""
    counts = _folder_counts(package)
    folders = sorted({folder for pair in counts for folder in pair})
    names = {folder: f"f{number}" for number, folder in enumerate(folders)}
    yield "flowchart TD"
    for folder, name in names.items():
        yield f'    {name}["{folder}"]'
    for (importer, imported), kinds in counts.items():
        if importer != imported:
            arrow = "-.->" if set(kinds) == {"types"} else "-->"
            yield f"    {names[importer]} {arrow}|{kinds.total()}| {names[imported]}"


def main() -> int:
    """Print the graph."""
    parser = argparse.ArgumentParser(prog="python -m tools.imports", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--mermaid", action="store_true", help="a picture for Markdown")
    default = Path(__file__).parent.parent / "fastlisten"
    parser.add_argument("package", nargs="?", type=Path, default=default, metavar="PATH")
    arguments = parser.parse_args()
    package = arguments.package.resolve()
    print("\n".join(_mermaid(package) if arguments.mermaid else _tables(package)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
