"""The SMTP benchmarks count sessions that really happened, and notice each that failed.

No speed is judged here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.benchmarks import BESIDE, ROOT, TWO_CORES, await_ends, built, load, python, serving

pytestmark = BESIDE

GREETING = b"220 test.example.org ESMTP\r\n"
DONE = b"250 2.0.0 Ok\r\n"
REPLIES = {
    b"EHLO": b"250-test.example.org\r\n250-PIPELINING\r\n250 HELP\r\n",
    b"LHLO": b"250 test.example.org\r\n",
    b"DATA": b"354 \r\n",
    b"QUIT": b"221\r\n",
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.parametrize(
    ("words", "operations"),
    [
        (["--count", "50"], 50),
        (["--count", "50", "--spin"], 50),
        (["--count", "50", "--pipelining"], 50),
        (["--count", "47", "--messages", "5", "--lmtp"], 47),
        (["--count", "9", "--size", "3000000", "--in-flight", "3"], 9),
        (["--count", "10", "--size", "1"], 10),
        (["--count", "9", "--size", "3000000", "--in-flight", "3", "--bdat"], 9),
        (["--count", "21", "--bdat"], 21),
    ],
)
def test_every_message_of_every_session_is_counted(words: list[str], operations: int) -> None:
    with serving(built()["smtp_server"]) as port:
        done = load(built()["loadgen"], port, "smtp", *words)
    assert done["operations"] == operations
    assert done["bytes"] > operations * 100
    assert not any(done["errors"].values())


class Peer:
    """A server that records what one client after another sends, and replies octet by octet.

    Attributes:
        port: of 127.0.0.1.
        heard: what the client sent, per connection.
    """

    def __init__(self, clients: int, replies: dict[bytes, bytes], greeting: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._replies = {**REPLIES, **replies}
        self._greeting = greeting
        self._thread = threading.Thread(target=self._run, args=(clients,))
        self.port = self._listener.getsockname()[1]
        self.heard: list[list[bytes]] = []

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
            with client, client.makefile("rb") as lines:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.heard.append([])
                self._say(client, self._greeting)
                self._serve(client, lines)

    def _serve(self, client: socket.socket, lines: Any) -> None:
        content = False
        for line in lines:
            self.heard[-1].append(line)
            if content and line != b".\r\n":
                continue
            verb = line[:4].upper()
            reply = DONE if content else self._replies.get(verb, DONE)
            content = not content and verb == b"DATA" and reply.startswith(b"354")
            self._say(client, reply)

    def _say(self, client: socket.socket, reply: bytes) -> None:
        for octet in reply:
            client.send(bytes([octet]))


@pytest.mark.parametrize("flags", [[], ["--pipelining"]])
def test_session_sends_the_commands_of_a_mail_client(flags: list[str]) -> None:
    with Peer(2, {}, GREETING) as peer:
        words = ["--count", "3", "--messages", "2", "--in-flight", "1", "--size", "1000"]
        done = load(built()["loadgen"], peer.port, "smtp", *words, *flags)
    assert done["operations"] == 3
    assert not any(done["errors"].values())
    assert [len([line for line in said if line[:4] == b"MAIL"]) for said in peer.heard] == [2, 1]
    for said in peer.heard:
        assert said[0] == b"EHLO client.example.com\r\n"
        assert said[-1] == b"QUIT\r\n"
        assert said[1:4] == [
            b"MAIL FROM:<sender@example.com>\r\n",
            b"RCPT TO:<alice@example.org>\r\n",
            b"DATA\r\n",
        ]
        message = said[4 : said.index(b".\r\n")]
        assert sum(map(len, message)) == 1000
        assert message[3] == b"\r\n"
        assert all(line.endswith(b"\r\n") for line in message)
        assert all(not line.startswith(b".") and len(line) < 200 for line in message)


@pytest.mark.parametrize(
    ("replies", "greeting"),
    [
        ({}, b"554 no\r\n"),
        ({}, b"220-\r\n220-\r\n421 \r\n"),
        ({b"EHLO": b"250-one\r\n550 two\r\n"}, GREETING),
        ({b"MAIL": b"451 later\r\n"}, GREETING),
        ({b"RCPT": b"550 \r\n"}, GREETING),
        ({b"DATA": b"250 \r\n"}, GREETING),
    ],
)
def test_unexpected_reply_counts_as_error(replies: dict[bytes, bytes], greeting: bytes) -> None:
    with Peer(2, replies, greeting) as peer:
        words = ["--count", "2", "--in-flight", "1"]
        done = load(built()["loadgen"], peer.port, "smtp", *words)
    assert done["operations"] == 0
    assert done["errors"]["reply"] == 2


def measure(*words: str) -> dict[str, Any]:
    """Run some rows as briefly as possible; return the results."""
    command = ("-m", "benchmarks", "--quick", "--rounds", "1", "--seconds", "0.1", *words)
    built()
    found: dict[str, Any] = json.loads(python(*command, "--json", "-"))
    assert found["left_out"] == []
    return found


@TWO_CORES
def test_measured_messages_are_in_the_maildir() -> None:
    found = measure("--rows", "maildir", "--candidates", "fastlisten SMTP")
    (sample,) = found["workloads"]["maildir"]["fastlisten SMTP"]
    assert sample["detail"]["stored"] >= sample["detail"]["operations"] > 0


def test_stored_messages_are_counted_and_removed() -> None:
    from benchmarks.deliveries import count_files, data_directory

    with data_directory("disk") as directory:
        assert count_files(directory) == 0
        Path(directory, "new").mkdir()
        Path(directory, "new", "one").touch()
        Path(directory, "two").touch()
        assert count_files(directory) == 2
    assert not Path(directory).exists()


@TWO_CORES
def test_both_handlers_are_measured_as_sinks() -> None:
    pytest.importorskip("aiosmtpd")
    candidates = ("fastlisten SMTP", "aiosmtpd", "C SMTP")
    found = measure("--rows", "smtp,lmtp", "--candidates", ",".join(candidates))
    assert set(found["workloads"]["smtp"]) == set(candidates)
    assert set(found["workloads"]["lmtp"]) == set(candidates) - {"C SMTP"}
    for samples in found["workloads"]["smtp"].values():
        assert samples[0]["detail"]["operations"] > 0


@TWO_CORES
@pytest.mark.external("smtp-sink")
@pytest.mark.external("smtp-source")
def test_postfix_programs_are_measured() -> None:
    for program in ("smtp-sink", "smtp-source"):
        if shutil.which(program, path=f"{os.defpath}:/usr/sbin") is None:
            pytest.skip(f"no {program}")
    found = measure("--rows", "smtp-source,maildir", "--candidates", "smtp-sink")
    for key in ("smtp-source", "maildir"):
        (sample,) = found["workloads"][key]["smtp-sink"]
        assert sample["value"] > 0
        assert sample["detail"]["operations"] > 0


def finish(wrapper: subprocess.Popen[bytes]) -> None:
    assert wrapper.stdin is not None
    wrapper.stdin.close()


@pytest.mark.external("smtp-sink")
@pytest.mark.parametrize("end", [finish, lambda wrapper: wrapper.send_signal(signal.SIGKILL)])
def test_smtp_sink_ends_with_its_wrapper(end: Callable[[subprocess.Popen[bytes]], None]) -> None:
    if shutil.which("smtp-sink", path=f"{os.defpath}:/usr/sbin") is None:
        pytest.skip("no smtp-sink")
    command = [sys.executable, "-m", "benchmarks.candidates.smtp_sink"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as wrapper:
        assert wrapper.stdout is not None
        port, pid = map(int, wrapper.stdout.readline().split())
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            assert client.recv(100).startswith(b"220 mail.example.org ESMTP")
        end(wrapper)
    await_ends([pid])


def test_smtp_table_has_its_own_columns() -> None:
    from benchmarks import report

    sample = {
        "value": 800.0,
        "user": 600.0,
        "rate": 1000.0,
        "busy": 0.9,
        "disturbed": False,
        "detail": {},
    }
    ours = {**sample, "value": 100.0, "user": 40.0}
    results = {
        "machine": {},
        "plan": {"seconds": 2.0, "warm_up": 0.5, "held": 10},
        "rounds": 2,
        "quick": False,
        "busy_before": 0.0,
        "left_out": [],
        "workloads": {
            "accept": {"uvloop": [sample] * 2, "fastlisten": [sample] * 2},
            "smtp": {
                "aiosmtpd": [sample] * 2,
                "aiosmtpd again": [sample] * 2,
                "fastlisten SMTP": [ours] * 2,
            },
        },
    }
    lines = report.markdown(results).splitlines()
    heads = [line for line in lines if line.startswith("| work ")]
    assert len(heads) == 4
    assert all(("smtp-sink" in head) != ("uvloop" in head) for head in heads)
    assert "aiosmtpd / 8.00: reached | aiosmtpd / 9.00: missed" in "\n".join(lines)
    assert "| smtp | aiosmtpd | 1.00 (1.00 to 1.00) |" in lines
