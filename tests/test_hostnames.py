"""The host's name: what the kernel or the resolver returns is not used if it is no domain name.

Rules of this file: the kernel's name is really set, in a child's UTS namespace, and a real client
checks what is on the wire; these tests need root.
"""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import subprocess
import sys
from pathlib import Path

import pytest
from support.config import MACHINE, listener_table, load_text, machine_with, only_problem
from support.program import program

from fastlisten import hostnames
from fastlisten.hostnames import is_hostname, local_fqdn

_CLONE_NEWUTS = 0x04000000

# Executes another program in a UTS namespace with a host name of any octets.
_WRAPPER = f"""
import ctypes, os, socket, sys
if ctypes.CDLL(None, use_errno=True).unshare({_CLONE_NEWUTS}):
    sys.exit("no UTS namespaces")
socket.sethostname(bytes.fromhex(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""

ODD = [b"a\nb", b"a b", b"a\r\n250 x", "mär.example".encode(), b"\xff\xfe", b"x" * 64, b"-a", b"/"]


def why_not() -> str:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return "UTS namespaces need root"
    done = subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "this machine allows no UTS namespaces"


REASON = why_not()


def wrapper(name: bytes) -> list[str]:
    return [sys.executable, "-c", _WRAPPER, name.hex()]


@pytest.mark.netns
@pytest.mark.skipif(bool(REASON), reason=REASON)
@pytest.mark.parametrize("name", ODD, ids=repr)
def test_odd_host_name_on_the_wire_and_in_file_names(tmp_path: Path, name: bytes) -> None:
    text = f"[server]\ndata-directory = '{tmp_path / 'data'}'\n"
    text += listener_table("it", "bind = '127.0.0.1:0'\ntls.enable = false")
    with program(tmp_path, text, unchanged=True, wrapper=wrapper(name)) as server:
        with smtplib.SMTP("127.0.0.1", server.port(), local_hostname="client.example") as client:
            client.ehlo()
            assert client.ehlo_resp is not None
            assert client.ehlo_resp.split(b"\n")[0].split()[0] == b"localhost"
            client.sendmail("s@example.com", ["alice@example.org"], b"Subject: x\r\n\r\nx\r\n")
        (path,) = (tmp_path / "data" / "mail" / "alice@example.org" / "new").iterdir()
        assert re.fullmatch(r"[A-Za-z0-9._\\-]+", path.name)
        assert len(path.name) < 200
        received = path.read_bytes().partition(b"\r\n\r\n")[0]
        assert b"by " + b"localhost" in received
        assert all(32 <= octet < 127 or octet in b"\r\n\t" for octet in received)
        assert server.stop() == 0
        assert "is not a domain name, so the server calls itself localhost" in server.err
        assert len(re.findall("is not a domain name", server.err)) == 1


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (b"mx.example.org", "mx.example.org"),
        (b"vm", "vm"),
        (b"a/b:c", r"a\057b\072c"),
        (b"a b\n", r"a\040b\012"),
        (b"\xc3\xa4", r"\303\244"),
        (b"\n" * 64, r"\012" * 25),
    ],
)
def test_host_name_in_file_names(
    name: bytes, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: os.fsdecode(name))
    assert hostnames.hostname_for_filenames() == written


def test_name_from_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "vm")
    for said, used in (("mx.example.org", "mx.example.org"), ("a b", "vm"), ("a\r\nb", "vm")):
        monkeypatch.setattr("socket.getfqdn", lambda said=said: said)
        assert local_fqdn() == used


def test_name_that_the_resolver_cannot_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    """getfqdn() encodes it as IDNA, and raises for a label that is empty or too long."""
    for name in ("x" * 64, "a..b", "\udcff"):
        monkeypatch.setattr("socket.gethostname", lambda name=name: name)
        assert local_fqdn() == hostnames.FALLBACK


def test_greeting_of_a_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aiosmtpd")
    from fastlisten.handlers.smtp import Controller

    monkeypatch.setattr("socket.getfqdn", lambda: "a\r\n250 b")
    monkeypatch.setattr("socket.gethostname", lambda: "a b")
    controller = Controller(object(), hostname="127.0.0.1", port=0)
    controller.start()
    try:
        assert controller.server is not None
        port = controller.server.sockets[0].getsockname()[1]
        with smtplib.SMTP("127.0.0.1", port, local_hostname="client.example") as client:
            client.ehlo()
            assert client.ehlo_resp is not None
            assert client.ehlo_resp.split(b"\n")[0] == b"localhost"
    finally:
        controller.stop()


def test_warning_about_the_host_name() -> None:
    machine = machine_with(hostname="localhost", refused_hostname="a\nb")
    (warning,) = load_text(listener_table("it", ""), machine=machine).warnings
    assert warning.message == (
        'this host\'s name "a\\nb" is not a domain name, so the server calls itself localhost; '
        "set server.hostname"
    )
    named = "server.hostname = 'mx.example.org'\n" + listener_table("it", "")
    assert load_text(named, machine=machine).warnings == ()
    assert load_text(listener_table("it", ""), machine=MACHINE).warnings == ()


@pytest.mark.parametrize(
    "text", ["[]", "[x]", "[ä<>]", "[::1]", "[IPv6:]", "[IPv6:::1%lo]", "[1.2.3]", "[", "[[::1]]"]
)
@pytest.mark.parametrize("where", ["server.hostname = '{}'\n{}", "{1}hostname = '{0}'"])
def test_invalid_address_literal(text: str, where: str) -> None:
    problem = only_problem(where.format(text, listener_table("it", "")))
    assert problem.message == "this is not a host name"


@pytest.mark.parametrize("where", ["server.greeting = '{}'\n{}", "{1}greeting = '{0}'"])
def test_greeting_outside_ascii(where: str) -> None:
    problem = only_problem(where.format("grüß Gott", listener_table("it", "")))
    assert "only ASCII characters" in problem.message


@pytest.mark.parametrize("text", ["", ".", "a..b", "a b", "a\n", "ä", "-a", "a-", "a" * 64, "a/b"])
def test_invalid_host_name(text: str) -> None:
    assert not is_hostname(text)


def test_longest_host_name() -> None:
    """RFC 1035 2.3.4: 255 octets in a message, of which the first and last length take two."""
    longest = ".".join(["a" * 63] * 3 + ["a" * 61])
    assert len(longest) == 253
    assert is_hostname(longest)
    assert is_hostname(longest + ".")
    assert not is_hostname(longest + "a")
