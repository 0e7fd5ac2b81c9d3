"""Where OpenSSL's functions are found, when they are trusted, and how TLS works without them.

Rules of this file: each case is a Python process of its own, because the result is kept for the
life of a process. `hide` makes an interpreter look like one that has `_ssl` built in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PRELUDE = """
import _ssl, ctypes, os, shutil, sys

def library():
    return next(line.split()[-1] for line in open("/proc/self/maps") if "/libssl.so" in line)

def hide():
    del _ssl.__file__

def show(path):
    ctypes.CDLL(path, ctypes.RTLD_GLOBAL)
"""

#: Echoes over TLS, with a client made with asyncio.
SERVE = """
import asyncio
import fastlisten
from fastlisten._tls import calls_openssl
from support.tls_contexts import HOST, client_context, server_context

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

def protocol():
    return asyncio.StreamReaderProtocol(asyncio.StreamReader(), echo)

async def main():
    server = await fastlisten.create_server(protocol, "127.0.0.1", 0, ssl=server_context())
    async with server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_context(), server_hostname=HOST)
        words = bytes(range(256)) * 4000
        writer.write(words)
        assert await reader.readexactly(len(words)) == words
        writer.close()
        await writer.wait_closed()

print(calls_openssl())
asyncio.run(main())
print("served")
"""


def run(preparation: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PRELUDE + preparation + SERVE, *arguments],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def built_in() -> bool:
    return "_ssl" in sys.builtin_module_names


needs_module = pytest.mark.skipif(built_in(), reason="this interpreter has _ssl built in")


@needs_module
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="its objects have another layout"
)
def test_openssl_of_the_ssl_module() -> None:
    """True of every CPython that the package is made for, from 3.11 to 3.15."""
    assert run("") == ["True", "served"]


@needs_module
def test_openssl_of_the_interpreter() -> None:
    assert run("path = library(); hide(); show(path)") == ["True", "served"]


@needs_module
def test_no_openssl_found() -> None:
    """For example if OpenSSL is linked statically into the interpreter."""
    assert run("hide()") == ["False", "served"]


@needs_module
def test_other_copy_of_openssl_is_not_used(tmp_path: Path) -> None:
    """The same version, loaded a second time: neither copy can use the other's sessions."""
    copy = tmp_path / "libssl.so.other"
    code = f"path = library(); hide(); shutil.copy(path, {str(copy)!r}); show({str(copy)!r})\n"
    assert run(code) == ["False", "served"]


@needs_module
def test_unknown_python_version() -> None:
    later = "import fastlisten; sys.version_info = (3, 99, 0, 'final', 0)\n"
    back = "from fastlisten._tls import calls_openssl; calls_openssl()\nsys.version_info = was\n"
    assert run("was = sys.version_info\n" + later + back) == ["False", "served"]
