"""docs/protocols.md is correct: the table of clients, and the extensions announced."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.certificates import authority
from support.environment import own_environment
from support.external_programs import which
from support.real_server import HOST, Mail, serving
from support.smtp_client import connected

TESTS = Path(__file__).parents[1] / "clients"
PAGE = TESTS.parents[1] / "docs" / "protocols.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")

#: How a program prints its version.
VERSIONS = {
    "swaks": (("swaks", "--version"), r"version (\S+)"),
    "curl": (("curl", "--version"), r"curl (\S+)"),
    "smtp-source": (("postconf", "-d", "mail_version"), r"mail_version = (\S+)"),
    "postfix": (("postconf", "-d", "mail_version"), r"mail_version = (\S+)"),
    "smtp-sink": (("postconf", "-d", "mail_version"), r"mail_version = (\S+)"),
    "openssl": (("openssl", "version"), r"OpenSSL (\d+\.\d+)"),
    "wrk": (("wrk", "-v"), r"wrk \D*([\d.]+)"),
    "mutt": (("mutt", "-v"), r"Mutt (\S+)"),
    "fetchmail": (("fetchmail", "--version"), r"release ([0-9.]+)"),
    "perl": (("perl", "-v"), r"\(v([0-9.]+)\)"),
    "mbsync": (("mbsync", "--version"), r"isync (\S+)"),
    "interimap": (("interimap", "--version"), r"version (\S+)"),
    "offlineimap": (("offlineimap", "--version"), r"(\S+)"),
    "h2load": (("h2load", "--version"), r"nghttp2/(\S+)"),
}


class Client(NamedTuple):
    """A row of the table of clients."""

    name: str
    version: str
    protocols: str
    done: str
    test: str


def rows() -> list[Client]:
    """Return the table of clients."""
    text = PAGE.read_text(encoding="utf-8").partition("## Clients")[2] if PAGE.exists() else ""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(row) == len(Client._fields) for row in cells)
    clients = [Client._make(row) for row in cells[1:] if "---" not in row[0]]
    return [client._replace(test=client.test.strip("`")) for client in clients]


def used(file: Path) -> set[str]:
    """Return the clients that a test file runs: programs, and libraries that it imports."""
    text = file.read_text(encoding="utf-8")
    libraries = re.findall(
        r"^(?:import (smtplib|aiosmtplib|httpx|imaplib)|from (imapclient) import livetest)$",
        text,
        re.MULTILINE,
    )
    return {
        *re.findall(r'^@(?:external|npm)\("(.+)"\)$', text, re.MULTILINE),
        *("".join(names) for names in libraries),
    }


def test_table_lists_exactly_the_clients_in_the_tests() -> None:
    files = sorted(TESTS.glob("test_clients_*.py"))
    assert len(files) > 5
    run = {(name, file.name) for file in files for name in used(file) or {"by hand"}}
    assert {(row.name, row.test) for row in rows()} == run


def test_links_to_pages_resolve() -> None:
    targets = re.findall(r"\]\(([^)#]+)", PAGE.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (PAGE.parent / target).exists()] == []


def test_options_in_the_table_are_used() -> None:
    """Every option in code font is in the test that it names."""
    for row in rows():
        text = (TESTS / row.test).read_text(encoding="utf-8")
        options = [word for code in re.findall(r"`([^`]+)`", row.done) for word in code.split()]
        assert [word for word in options if word.rstrip("/:") not in text] == [], row


@pytest.mark.parametrize("name", list(VERSIONS))
def test_program_versions(name: str) -> None:
    """On the system named on the page, they are those on the page."""
    try:
        system = platform.freedesktop_os_release()
    except OSError:
        system = {}
    debian = (system.get("ID"), system.get("VERSION_ID")) == ("debian", "12")
    if not debian or which(name) is None:
        pytest.skip("not Debian 12 with this program")
    (words, pattern) = VERSIONS[name]
    done = subprocess.run(
        [which(words[0]) or "", *words[1:]],
        env=own_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    found = re.search(pattern, done.stdout + done.stderr)
    assert found is not None
    assert {row.version for row in rows() if row.name == name} == {found[1]}


@pytest.mark.parametrize("name", ["aiosmtplib", "httpx", "imapclient", "imaplib", "smtplib"])
def test_library_versions(name: str) -> None:
    (version,) = {row.version for row in rows() if row.name == name}
    here = (
        importlib.metadata.version(name)
        if not name.endswith("plib") or name == "aiosmtplib"
        else sys.version.split()[0]
    )
    numbers = [[int(part) for part in each.split(".")[:2]] for each in (version, here)]
    assert numbers[0] <= numbers[1]


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with serving(tmp_path_factory.mktemp("mail"), "submissions", "mx", "lmtp") as server:
        yield server


def announced(mail: Mail, listener: str, command: bytes) -> set[str]:
    """Return the keywords that a server announces."""
    with connected(mail.port(listener)) as session:
        return {line.split()[0] for line in session.ask(command + b" me")[1][1:]}


def test_announced_extensions(mail: Mail) -> None:
    table = PAGE.read_text(encoding="utf-8").partition("## smtp")[2].partition("**Roles")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    words = {words.split()[0] for cell in cells for words in re.findall(r"`([^`]+)`", cell)}
    context = authority().client_context()
    with smtplib.SMTP_SSL(HOST, mail.port("submissions"), "me", context=context) as client:
        client.ehlo()
        encrypted = {word.upper() for word in client.esmtp_features}
    assert announced(mail, "mx", b"EHLO") | encrypted == words
    assert encrypted == words - {"STARTTLS"}
    # "The extensions of smtp but AUTH".
    assert announced(mail, "lmtp", b"LHLO") == words - {"AUTH"}
