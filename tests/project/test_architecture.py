"""Which module may import which: the layers of the package, and no cycles.

Rules of this file: the sources decide, read by tools/imports.py; imports inside functions and those
for type checkers count like all others. Exceptions are listed with their reasons, and an entry that
is no longer needed fails. Small made-up packages show that the rules can fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import fastlisten
from tools.imports import Import, circles, imports_of, modules_of

PACKAGE = Path(fastlisten.__file__).parent
IMPORTS = imports_of(PACKAGE)

#: From the ground up. A folder is a module or a package with everything in it; it may import from
#: the layers below its own, and within itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        "_mail_syntax",
        "_system",
        "addresses",
        "errors",
        "files",
        "garbage",
        "hostnames",
        "log_events",
        "log_throttle",
        "option",
        "private_files",
        "sizes",
        "toml_lines",
        "toml_text",
    ),
    ("privileges",),
    ("_arena",),
    ("_core",),
    ("_connection",),
    ("_tls",),
    ("loop",),
    ("mail",),
    ("handlers",),
    ("config",),
    ("runtime",),
    ("management",),
    ("cli", "testing"),
    ("",),  # the public names, imported lazily
    ("__main__",),
)

#: What must not be imported although it is on a lower layer, with the reason.
NEVER: tuple[tuple[str, str, str], ...] = (
    ("config", "_", "a configuration is checked without the native modules"),
    ("config", "loop", "a configuration is checked without an event loop"),
    ("handlers.smtp.engine", "loop", "the engine does no I/O"),
    *(
        ("handlers.smtp.engine", name, "the engine does no I/O")
        for name in ("_arena", "_core", "_connection", "_tls")
    ),
    ("handlers.imap.engine", "loop", "the engine does no I/O"),
    *(
        ("handlers.imap.engine", name, "the engine does no I/O")
        for name in ("_arena", "_core", "_connection", "_tls")
    ),
    ("handlers.imap.engine", "mail.store", "the engine knows no store"),
)

#: The packages of handlers/ that speak a protocol; none may import another, and the modules beside
#: them in handlers/ import none of them.
PROTOCOLS = tuple(
    f"handlers.{path.parent.name}" for path in sorted(PACKAGE.glob("handlers/*/__init__.py"))
)

#: A package within a folder that imports nothing from the folder around it.
SEALED = ("handlers.imap.engine", "handlers.smtp.engine")

#: Imports against the rules, from a folder or module to another, each with its reason.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("cli.main", ""): "for __version__",
    ("management.app", ""): "for __version__",
    ("_connection", "_tls"): "the stub: start_tls() returns a TlsConnection",
}

#: Imports of types that close a cycle, from a folder or module to another, each with its reason.
CIRCLES: dict[tuple[str, str], str] = {
    ("_connection", "_tls"): "start_tls() returns a TlsConnection, which is a Connection",
}


def within(module: str, folder: str) -> bool:
    """Return whether a module is in a folder; one that ends in _ means this prefix."""
    return module == folder or module.startswith(folder if folder.endswith("_") else f"{folder}.")


def layer_of(module: str) -> tuple[int, str]:
    """Return the layer and the folder of a module."""
    for layer, folders in enumerate(LAYERS):
        for folder in folders:
            if module == folder or (folder and within(module, folder)):
                return layer, folder
    raise AssertionError(f"{module} is on no layer: it needs a place in LAYERS")


def short(name: str) -> str:
    return name.partition(".")[2]


def matches(exception: tuple[str, str], one: Import) -> bool:
    """Return whether an import is from and to the folders that an exception names."""
    pairs = zip((one.importer, one.imported), exception, strict=True)
    return all(
        short(name) == folder or (folder and within(short(name), folder)) for name, folder in pairs
    )


def violation(one: Import) -> str:
    """Return what is wrong with an import; empty if it is allowed."""
    importer, imported = short(one.importer), short(one.imported)
    (from_layer, from_folder), (to_layer, to_folder) = layer_of(importer), layer_of(imported)
    if from_folder != to_folder and from_layer <= to_layer:
        return f"{to_folder or 'the public names'} is not below {from_folder}"
    for folder, other, reason in NEVER:
        if within(importer, folder) and within(imported, other):
            return reason
    for protocol in PROTOCOLS:
        if (
            within(imported, protocol)
            and from_folder == "handlers"
            and not within(importer, protocol)
        ):
            return f"only entry points know {protocol}"
    for sealed in SEALED:
        inner = within(imported, sealed) or not within(imported, sealed.partition(".")[0])
        if within(importer, sealed) and not inner:
            return f"{sealed} knows nothing of what is around it"
    return ""


def violations(
    imports: Iterable[Import], exceptions: Mapping[tuple[str, str], str] = EXCEPTIONS
) -> list[str]:
    """Return what is wrong with imports, and which exceptions are no longer needed."""
    unused = set(exceptions)
    found = []
    for one in imports:
        if reason := violation(one):
            used = {exception for exception in exceptions if matches(exception, one)}
            unused -= used
            if not used:
                found.append(f"{one}: {reason}")
    return found + [
        f"{pair} is no longer needed as an exception: remove it" for pair in sorted(unused)
    ]


def import_cycles(
    imports: Iterable[Import], exceptions: Mapping[tuple[str, str], str] = CIRCLES
) -> list[str]:
    """Return the cycles, and which exceptions are no longer needed."""
    imports = list(imports)

    def without(excepted: Iterable[tuple[str, str]]) -> list[list[str]]:
        excepted = list(excepted)
        return circles(
            (short(one.importer), short(one.imported))
            for one in imports
            if one.kind != "types" or not any(matches(pair, one) for pair in excepted)
        )

    left = without(exceptions)
    unused = [pair for pair in exceptions if without(exceptions.keys() - {pair}) == left]
    return [f"import cycle: {' '.join(circle)}" for circle in left] + [
        f"{pair} closes no import cycle any more: remove it" for pair in sorted(unused)
    ]


def test_imports_go_down() -> None:
    assert violations(IMPORTS) == []


def test_every_module_has_a_layer() -> None:
    for module in modules_of(PACKAGE):
        layer_of(short(module))


def test_no_import_cycles_at_run_time() -> None:
    at_run_time = [one for one in IMPORTS if one.kind != "types"]
    assert import_cycles(at_run_time, {}) == []


def test_no_import_cycles_among_types() -> None:
    assert import_cycles(IMPORTS) == []


# --- the rules can fail ---------------------------------------------------------------------------


def package(directory: Path, files: Mapping[str, str]) -> Path:
    """Make a package of source files; return its folder."""
    root = directory / "fastlisten"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in path.relative_to(directory).parents[:-1]:
            (directory / folder / "__init__.py").touch()
        path.write_text(text)
    return root


LAZY = "def f():\n    from fastlisten.{} import x\n"
TYPES = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from fastlisten.{} import x\n"
RUN = "from fastlisten.{} import x\n"


@pytest.mark.parametrize("form", [RUN, LAZY, TYPES], ids=["run", "lazy", "types"])
@pytest.mark.parametrize(
    ("importer", "imported", "reason"),
    [
        ("mail/reply", "handlers.base", "handlers is not below mail"),
        ("handlers/base", "config.load", "config is not below handlers"),
        ("errors", "option", "option is not below errors"),
        ("cli/main", "testing", "testing is not below cli"),
        ("config/load", "loop.engines", "without an event loop"),
        ("handlers/smtp/flow", "handlers.http.protocol", "entry points know handlers.http"),
        ("handlers/jmap/settings", "handlers.imap.settings", "entry points know handlers.imap"),
        ("handlers/base", "handlers.smtp.settings", "entry points know handlers.smtp"),
        ("handlers/smtp/engine/engine", "handlers.base", "nothing of what is around it"),
        (
            "handlers/smtp/engine/engine",
            "handlers.smtp.engine_protocol",
            "nothing of what is around it",
        ),
        ("runtime/server", "", "the public names is not below runtime"),
    ],
)
def test_forbidden_import_is_found(
    tmp_path: Path, importer: str, imported: str, reason: str, form: str
) -> None:
    text = form.format(imported).replace("fastlisten. ", "fastlisten ")
    files = {f"{importer}.py": text}
    if imported:
        files[imported.replace(".", "/") + ".py"] = ""
    (found,) = violations(imports_of(package(tmp_path, files)), {})
    assert found.startswith(f"fastlisten/{importer}.py:{text.count(chr(10))}: ")
    assert reason in found


@pytest.mark.parametrize(
    "text",
    [
        "from fastlisten._tls cimport x",
        "from fastlisten._tls cimport (  # why\n    x,\n    y,\n)",
        "cimport fastlisten._tls",
        "from fastlisten cimport _tls",
        "from fastlisten._tls import x",
        "def f():\n    from fastlisten._tls import x",
    ],
)
@pytest.mark.parametrize("suffix", ["pyx", "pxd"])
def test_forbidden_cimport_is_found(tmp_path: Path, text: str, suffix: str) -> None:
    root = package(tmp_path, {f"_core.{suffix}": text, "_tls.pyx": ""})
    (found,) = violations(imports_of(root), {})
    assert found.endswith(": _tls is not below _core")


def test_allowed_imports(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        {
            "errors.py": "import os",
            "_core.pyx": '"""from fastlisten._tls cimport x"""\n# from fastlisten._tls cimport x\n',
            "_tls.pyx": "from fastlisten._core cimport Engine",
            "mail/reply.py": "from fastlisten.errors import x\nfrom fastlisten.mail import dsn",
            "mail/dsn.py": "",
            "handlers/smtp/engine/engine.py": "from fastlisten.mail.reply import x",
        },
    )
    assert len(imports_of(root)) == 4
    assert violations(imports_of(root), {}) == []
    assert import_cycles(imports_of(root), {}) == []


@pytest.mark.parametrize("form", [RUN, LAZY, TYPES], ids=["run", "lazy", "types"])
def test_import_cycle_is_found(tmp_path: Path, form: str) -> None:
    files = {
        "mail/a.py": RUN.format("mail.b"),
        "mail/b.py": RUN.format("mail.c"),
        "mail/c.py": form.format("mail.a"),
        "mail/d.py": RUN.format("mail.a"),
    }
    imports = imports_of(package(tmp_path, files))
    assert import_cycles(imports, {}) == ["import cycle: mail.a mail.b mail.c"]
    excused = import_cycles(imports, {("mail.c", "mail"): "a reason"})
    assert (excused == []) is (form == TYPES)


def test_package_imported_by_its_own_module(tmp_path: Path) -> None:
    files = {"mail/a.py": "from fastlisten.mail import x"}
    root = package(tmp_path, files)
    (root / "mail" / "__init__.py").write_text("from fastlisten.mail.a import y\nx = 1")
    assert import_cycles(imports_of(root), {}) == ["import cycle: mail mail.a"]


def test_unneeded_exception_is_reported(tmp_path: Path) -> None:
    imports = imports_of(package(tmp_path, {"mail/a.py": RUN.format("mail.b"), "mail/b.py": ""}))
    pair = ("mail.a", "mail.b")
    assert violations(imports, {pair: "a reason"}) == [
        "('mail.a', 'mail.b') is no longer needed as an exception: remove it"
    ]
    assert import_cycles(imports, {pair: "a reason"}) == [
        "('mail.a', 'mail.b') closes no import cycle any more: remove it"
    ]


def test_module_without_a_layer_is_reported(tmp_path: Path) -> None:
    imports = imports_of(package(tmp_path, {"attic.py": RUN.format("errors"), "errors.py": ""}))
    with pytest.raises(AssertionError, match="attic is on no layer"):
        violations(imports)
