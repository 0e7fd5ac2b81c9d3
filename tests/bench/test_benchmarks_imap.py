"""The IMAP benchmarks: what is counted is what was answered, and each answer is looked at.

Rules of this file: no speed is judged. Each row of the table is measured once, briefly, on little
mail.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BESIDE, ROOT, TWO_CORES, built, load, python

pytestmark = BESIDE

OK = b"a OK done\r\n"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


class Peer:
    """A server that records what clients say, one after the other, and answers octet by octet."""

    def __init__(self, clients: int, answers: dict[bytes, bytes]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        self._thread = threading.Thread(target=self._run, args=(clients,))
        self.port = self._listener.getsockname()[1]
        self.heard: list[bytes] = []

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        self._listener.close()
        assert not self._thread.is_alive()

    def _run(self, clients: int) -> None:
        for _ in range(clients):
            client = self._listener.accept()[0]
            # The load generator ends with a reset.
            reset = contextlib.suppress(ConnectionResetError)
            with client, client.makefile("rb") as lines, reset:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._say(client, b"* OK ready\r\n")
                for line in lines:
                    self.heard.append(line)
                    if line.startswith(b"a APPEND"):
                        size = int(line[line.index(b"{") + 1 : line.index(b"+")])
                        self.heard.append(lines.read(size))
                        assert lines.read(2) == b"\r\n"
                    self._say(client, self._answers.get(line.split()[1], OK))

    def _say(self, client: socket.socket, answer: bytes) -> None:
        for octet in answer:
            client.send(bytes([octet]))


def test_commands_are_said_again_and_again() -> None:
    # The literal has what would be an answer, if it were not skipped.
    tricky = b"* 1 FETCH (BODY[] {13}\r\na OK\r\na NO \r\n UID 3)\r\n* 9 EXISTS\r\n" + OK
    with Peer(1, {b"FETCH": tricky}) as peer:
        words = ["--first", "SELECT INBOX", "--command", "FETCH 1 BODY[]", "--command", "NOOP"]
        done = load(
            built()["loadgen"], peer.port, "imap", *words, "--count", "5", "--connections", "1"
        )
    assert done["operations"] == 5
    assert not any(done["errors"].values())
    assert peer.heard == [
        b'a LOGIN "alice@example.org" "secret"\r\n',
        b"a SELECT INBOX\r\n",
        *[b"a FETCH 1 BODY[]\r\n", b"a NOOP\r\n"] * 2,
        b"a FETCH 1 BODY[]\r\n",
    ]


def test_message_follows_a_literal() -> None:
    with Peer(1, {}) as peer:
        words = ["--command", "APPEND INBOX {200+}", "--count", "2", "--connections", "1"]
        done = load(built()["loadgen"], peer.port, "imap", *words)
    assert done["operations"] == 2
    message = peer.heard[2]
    assert message.startswith(b"From: <sender@example.com>\r\n")
    assert len(message) == 200
    assert peer.heard[3:] == peer.heard[1:3]


def test_sessions_are_counted_as_a_whole() -> None:
    with Peer(3, {b"LOGOUT": b"* BYE\r\n" + OK}) as peer:
        words = ["--sessions", "--user", "u%u@example.org", "--password", "x", "--command", "NOOP"]
        done = load(
            built()["loadgen"], peer.port, "imap", *words, "--count", "3", "--connections", "1"
        )
    assert done["operations"] == 3
    said = [b'a LOGIN "u0@example.org" "x"\r\n', b"a NOOP\r\n", b"a LOGOUT\r\n"]
    assert peer.heard == said * 3


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({b"NOOP": b"a NO later\r\n"}, "reply"),
        ({b"NOOP": b"a BAD what\r\n"}, "reply"),
        ({b"NOOP": b"* OK\r\n\r\n"}, "tls"),
        ({b"LOGIN": b"a NO wrong\r\n"}, "reply"),
    ],
)
def test_any_other_answer_is_an_error(answers: dict[bytes, bytes], kind: str) -> None:
    with Peer(1, answers) as peer:
        done = load(
            built()["loadgen"], peer.port, "imap", "--command", "NOOP", "--connections", "1"
        )
    assert done["operations"] == 0
    assert done["errors"][kind] == 1


ROWS = [
    "imap-noop-10,imap-noop-10000,imap-select-10000,imap-first-10000,imap-cur-50000",
    "imap-new-50000,imap-flags-10000,imap-fetch-small,imap-search-unseen,imap-search-since",
    "imap-append-10k,imap-session,imap-idle-1000,imap-idle-tls-1000",
    "imap-idle-10000,imap-idle-tls-10000,imap-notice-100,imap-notice-10000",
]


def measure(*words: str) -> dict[str, Any]:
    """Run some rows as briefly as possible; return the results."""
    command = ("-m", "benchmarks", "--quick", "--rounds", "1", "--seconds", "0.1", *words)
    built()
    found: dict[str, Any] = json.loads(python(*command, "--json", "-"))
    return found


def test_there_is_a_brief_run_of_every_row() -> None:
    from benchmarks.rows import ROWS as ALL

    assert ",".join(ROWS).split(",") == [row.key for row in ALL if row.key.startswith("imap-")]


@TWO_CORES
@pytest.mark.parametrize("rows", ROWS)
def test_row_is_measured(rows: str) -> None:
    found = measure("--rows", rows, "--candidates", "fastlisten IMAP")
    assert found["left_out"] == []
    assert set(found["workloads"]) == set(rows.split(","))
    for key, samples in found["workloads"].items():
        (sample,) = samples["fastlisten IMAP"]
        detail = sample["detail"]
        assert detail.get("operations", detail.get("held")) > 0, key
        assert sample["value"] > 0, key
        assert ("stored" in detail) == (key == "imap-append-10k")


@TWO_CORES
@pytest.mark.external("dovecot")
def test_dovecot_is_measured_beside() -> None:
    if os.geteuid() != 0:
        pytest.skip("Dovecot is started by root")
    if not Path("/usr/lib/dovecot/imap").exists():
        pytest.skip("no imap of Dovecot")
    if shutil.which("dovecot", path=f"{os.defpath}:/usr/sbin") is None:
        pytest.skip("no dovecot")
    # Not APPEND: Dovecot has refused all first sessions of that row once, which is not explained.
    rows = "imap-flags-10000,imap-idle-tls-1000,imap-notice-100"
    found = measure("--rows", rows, "--candidates", "Dovecot IMAP")
    assert found["left_out"] == []
    for key, samples in found["workloads"].items():
        (sample,) = samples["Dovecot IMAP"]
        assert sample["value"] > 0, key
    # The processor time is that of all processes: no server sends 100 messages in less.
    assert found["workloads"]["imap-flags-10000"]["Dovecot IMAP"][0]["value"] > 10
