"""Compile the C programs of ``benchmarks/native`` into ``build/benchmarks``.

Rules of this file: no build system; one `cc` call per program, repeated when a source is newer than
the program. Warnings are errors. If OpenSSL's headers are missing, the load generator is built
without TLS, and the TLS server is not built.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

__all__ = [
    "LOADGEN",
    "OUTPUT",
    "ROOT",
    "SERVER",
    "SMTP_SERVER",
    "TLS_SERVER",
    "BuildError",
    "build",
]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "benchmarks" / "native"
OUTPUT = ROOT / "build" / "benchmarks"

SERVER = OUTPUT / "epoll_server"
SMTP_SERVER = OUTPUT / "epoll_smtp_server"
TLS_SERVER = OUTPUT / "epoll_tls_server"
LOADGEN = OUTPUT / "loadgen"
#: The load generator built without OpenSSL's headers. It has its own name, so that once the headers
#: are installed it is not mistaken for an up-to-date build.
PLAIN_LOADGEN = OUTPUT / "loadgen_plain"

#: -O2 as distributions build servers.
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")

OPENSSL = ("-lssl", "-lcrypto")

#: Compiles only with OpenSSL 3.0 or newer, which has SSL_get_negotiated_group.
PROBE = """
#include <openssl/ssl.h>
int main(void) { return OpenSSL_version_num() == 0 || SSL_get_negotiated_group(0) != 0; }
"""


class BuildError(Exception):
    """A C program could not be compiled; the text says why."""


def build() -> str:
    """Compile what is missing or older than its sources.

    Returns:
        Why TLS cannot be measured here, or an empty string.

    Raises:
        BuildError: no compiler, or the compiler's complaint.
    """
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise BuildError(f"the benchmarks need a C compiler: {compiler} was not found")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    common = [SOURCES / "server_net.c"]
    headers = [SOURCES / "server.h"]
    load = sorted(SOURCES.glob("load*.c"))
    _compile(compiler, SERVER, [SOURCES / "epoll_server.c", *common], headers)
    _compile(compiler, SMTP_SERVER, [SOURCES / "epoll_smtp_server.c", *common], headers)
    if not _has_openssl(compiler):
        _compile(compiler, PLAIN_LOADGEN, load, [SOURCES / "load.h"])
        LOADGEN.unlink(missing_ok=True)
        LOADGEN.symlink_to(PLAIN_LOADGEN)
        return "the headers of OpenSSL 3 are missing (libssl-dev)"
    if LOADGEN.is_symlink():
        LOADGEN.unlink()
    _compile(compiler, TLS_SERVER, [SOURCES / "epoll_tls_server.c", *common], headers, *OPENSSL)
    _compile(compiler, LOADGEN, load, [SOURCES / "load.h"], "-DLOAD_WITH_TLS", *OPENSSL)
    return ""


def _has_openssl(compiler: str) -> bool:
    program = OUTPUT / f"probe.{os.getpid()}"
    command = [compiler, "-x", "c", "-o", str(program), "-", *OPENSSL]
    result = subprocess.run(command, input=PROBE, capture_output=True, text=True, check=False)
    program.unlink(missing_ok=True)
    return result.returncode == 0


def _compile(
    compiler: str, program: Path, sources: list[Path], headers: list[Path], *flags: str
) -> None:
    newest = max(path.stat().st_mtime for path in sources + headers)
    if program.exists() and program.stat().st_mtime > newest:
        return
    # Built under another name first, so that an interrupted build leaves no partial program.
    partial = program.with_suffix(f".{os.getpid()}")
    command = [compiler, *FLAGS, "-o", str(partial), *map(str, sources), *flags]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{result.stderr}")
    partial.replace(program)
