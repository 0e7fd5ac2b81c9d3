"""Every program of docs/asyncio.md runs and answers; only its ports are replaced.

Rules of this file: programs are started and interrupted as a user would do it. A program that is
added to the page needs a check here.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import smtplib
import socket
import sys
from pathlib import Path

import pytest
from support.documented_programs import Check, Ports, run, trust
from support.foreign import foreign
from support.foreign_clients import Certificate, make_certificate
from support.waiting import PATIENCE

PAGE = Path(__file__).parents[2] / "docs" / "asyncio.md"

_, _, _, client, httpx, pytestmark = foreign(
    "uvicorn", "aiohttp", "aiosmtpd", "websockets.sync.client", "httpx"
)
pytestmark += [
    pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests"),
    pytest.mark.usefixtures("descriptors_back"),
]


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of the page in a language."""
    if not PAGE.exists():
        return []
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def programs() -> dict[str, str]:
    """Return the programs by the name in their first line."""
    return {block.splitlines()[0].removeprefix("# "): block for block in blocks("python")}


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def check_echo(ports: Ports, folder: Path) -> None:
    with connect(ports[8007]) as sock, sock.makefile("rwb") as stream:
        stream.write(b"hello\n")
        stream.flush()
        assert stream.readline() == b"hello\n"


def get_hello(port: int) -> None:
    assert httpx.get(f"http://127.0.0.1:{port}/", trust_env=False).text == "hello"


def check_chat(ports: Ports, folder: Path) -> None:
    with client.connect(f"ws://127.0.0.1:{ports[8765]}", proxy=None) as connection:
        connection.send("hello")
        assert connection.recv() == "hello"


def check_mail(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("localhost", ports[8025], timeout=PATIENCE) as connection:
        connection.starttls(context=trust(folder))
        assert not connection.sendmail("a@example.org", ["b@example.org"], b"Subject: x\r\n\r\nx")


def check_counted(ports: Ports, folder: Path) -> None:
    for number in (1, 2):
        with connect(ports[8017]) as sock, sock.makefile("rb") as stream:
            assert stream.read() == b"You are number %d.\n" % number


def check_secure(ports: Ports, folder: Path) -> None:
    context = trust(folder)
    with (
        connect(ports[8465]) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"NOOP\r\n")
        assert secure.recv(100) == b"250 TLSv1.3\r\n"
    with connect(ports[8587]) as sock:
        sock.sendall(b"NOOP\r\n")
        assert sock.recv(100) == b"250 plaintext\r\n"
        sock.sendall(b"STARTTLS\r\n")
        assert sock.recv(100) == b"220 go ahead\r\n"
        with context.wrap_socket(sock, server_hostname="localhost") as secure:
            secure.sendall(b"NOOP\r\n")
            assert secure.recv(100) == b"250 TLSv1.3\r\n"
    # A command injected in plaintext gets no reply: it breaks the handshake.
    with connect(ports[8587]) as sock, sock.makefile("rb") as stream:
        sock.sendall(b"STARTTLS\r\nNOOP\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"250" not in stream.read()


CHECKS: dict[str, Check] = {
    "echo.py": check_echo,
    "web.py": lambda ports, folder: get_hello(ports[8000]),
    "site.py": lambda ports, folder: get_hello(ports[8080]),
    "chat.py": check_chat,
    "mail.py": check_mail,
    "counted.py": check_counted,
    "secure.py": check_secure,
}


def test_every_program_has_a_check() -> None:
    assert list(programs()) == list(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_program_runs(name: str, tmp_path: Path) -> None:
    ports = Ports()
    (tmp_path / name).write_text(ports.replace(programs()[name]))
    # In development mode, which warns about unclosed resources.
    run([sys.executable, "-X", "dev", name], tmp_path, ports, CHECKS[name])


def test_command_runs(tmp_path: Path) -> None:
    (command,) = blocks("console")
    ports = Ports()
    program, *options = ports.replace(command).split()
    assert program == "uvicorn"
    shutil.copy(_written(tmp_path), tmp_path / "application.py")
    run(
        [sys.executable, "-m", program, *options],
        tmp_path,
        ports,
        lambda ports, folder: get_hello(ports[8000]),
    )


def _written(folder: Path) -> Path:
    """Write the page's application without the lines that start it."""
    path = folder / "web.py"
    path.write_text(programs()["web.py"].partition("uvicorn.run(")[0])
    return path


def test_certificate_file_names(tmp_path: Path) -> None:
    made: Certificate = make_certificate(tmp_path)
    names = (made.certificate.name, made.key.name)
    assert f"load_cert_chain{names}".replace("'", '"') in programs()["secure.py"]
