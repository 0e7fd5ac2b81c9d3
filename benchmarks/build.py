"""Compile the C programs of ``benchmarks/native`` into ``build/benchmarks``.

Rules of this file: no build system; one `cc` call per program, made again when a source is newer
than the program. Warnings are errors.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["LOADGEN", "ROOT", "SERVER", "BuildError", "build"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "benchmarks" / "native"
OUTPUT = ROOT / "build" / "benchmarks"

SERVER = OUTPUT / "epoll_server"
LOADGEN = OUTPUT / "loadgen"

#: -O2 as distributions build servers.
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")


class BuildError(Exception):
    """A C program could not be compiled; the text says why."""


def build() -> None:
    """Compile what is missing or older than its sources.

    Raises:
        BuildError: no compiler, or the compiler's complaint.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise BuildError(f"the benchmarks need a C compiler: {compiler} was not found")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    _compile(compiler, SERVER, [SOURCES / "epoll_server.c"], [])
    _compile(compiler, LOADGEN, sorted(SOURCES.glob("load*.c")), [SOURCES / "load.h"])


def _compile(compiler: str, program: Path, sources: list[Path], headers: list[Path]) -> None:
    newest = max(path.stat().st_mtime for path in sources + headers)
    if program.exists() and program.stat().st_mtime > newest:
        return
    # Under another name first: an interrupted compiler leaves no half of a program behind.
    partial = program.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, "-o", str(partial), *map(str, sources)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{result.stderr}")
    partial.replace(program)
