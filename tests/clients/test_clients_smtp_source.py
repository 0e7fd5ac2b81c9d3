"""Postfix's smtp-source against `fastlisten serve`: many sessions, messages and recipients."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from support.environment import own_environment
from support.external_programs import run, which
from support.marks import external
from support.program import program
from support.real_server import (
    ALICE,
    CROWD,
    HOST,
    LISTENERS,
    LONG_CROWD,
    SENDER,
    Mail,
    server_fixture,
    split,
    without_old_mail,
)
from support.waiting import PATIENCE, until

server = server_fixture("mx")
mail = without_old_mail


def smtp_source(mail: Mail, *options: str) -> str:
    """Run smtp-source; return its output, which is empty without its counter option."""
    done = run("smtp-source", "-M", "client.example.com", "-f", SENDER, *options, mail.at("mx"))
    assert done.stderr == b""
    return done.stdout.decode()


def payload(content: bytes) -> bytes:
    """Return the body that smtp-source made; it adds an empty line at the end."""
    head, _, body = content.partition(b"\r\n\r\n")
    assert re.match(rb"From: <sender@example\.com>\r\nTo: <\d*user\d*@example\.org>\r\n", head)
    assert body.endswith(b"\r\n")
    return body[:-2]


@external("smtp-source")
@pytest.mark.parametrize("disconnect", [(), ("-d",)], ids=["connection-each", "connection-kept"])
def test_many_recipients_in_parallel_sessions(mail: Mail, disconnect: tuple[str, ...]) -> None:
    counts = ("-s", "5", "-m", "20", "-r", str(len(CROWD)), "-l", "3000")
    told = smtp_source(mail, "-c", *counts, *disconnect, "-t", CROWD[0])
    # The counter overwrites itself.
    assert told.split()[-1] == "20"
    everything = mail.everything()
    assert everything in (dict.fromkeys(CROWD, 20), dict.fromkeys(LONG_CROWD, 1))
    contents = Counter(content for name in everything for content in mail.arrived(name))
    # Identical except for their Message-IDs; each one went to all its recipients.
    assert list(contents.values()) == [len(CROWD)] * 20
    for content in contents:
        body = payload(content)
        assert body == payload(next(iter(contents)))
        assert len(body) == 3000
        # Numbered lines, padded.
        lines = body.split(b"\r\n")
        assert b"".join(line.strip(b"X") for line in lines[:9]) == b"123456789"
        assert {line.lstrip(b"0123456789").strip(b"X") for line in lines} == {b""}


@external("smtp-source")
def test_message_sizes(mail: Mail) -> None:
    """Around the sizes of buffers; -l counts what is written, including line ends."""
    sizes = (100, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_000)
    for size in sizes:
        smtp_source(mail, "-l", str(size), "-t", CROWD[0])
    bodies = sorted((payload(content) for content in mail.arrived(CROWD[0])), key=len)
    assert [len(body) for body in bodies] == list(sizes)
    assert bodies[-1].count(b"\r\n") > 10_000


@external("smtp-source")
def test_message_from_a_file(mail: Mail) -> None:
    """-F adds dots before dots and CR before LF."""
    letter = mail.directory / "file"
    letter.write_bytes(b"Subject: file\n\n.\n..\n.x\n\xe4\xf6\xfc\nend\n")
    smtp_source(mail, "-F", str(letter), "-m", "3", "-t", ALICE)
    # The empty line at the end is its own.
    sent = b"Subject: file\r\n\r\n.\r\n..\r\n.x\r\n\xe4\xf6\xfc\r\nend\r\n\r\n"
    assert mail.arrived() == [sent] * 3


@external("smtp-source")
def test_session_without_helo(mail: Mail) -> None:
    """-o: no HELO and no header; MAIL without HELO is out of order."""
    done = run("smtp-source", "-o", "-f", SENDER, "-t", ALICE, mail.at("mx"), expect=(1,))
    assert b"503 5.5.1" in done.stderr
    assert mail.everything() == {}


@external("smtp-source")
def test_server_stops_in_the_middle(tmp_path: Path) -> None:
    """Everything counted was delivered once; more only as far as it was in progress."""
    sessions = 10
    text = f'[server.listener.mx]\nbind = "{HOST}:0"\n{LISTENERS["mx"]}'
    with program(tmp_path, text) as server:
        words = ("-c", "-s", str(sessions), "-m", "100000", "-l", "2000", "-t", ALICE)
        path = which("smtp-source")
        assert path is not None
        with subprocess.Popen(
            [path, *words, f"{HOST}:{server.port('mx')}"],
            env=own_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as source:
            until(lambda: len(server.messages()) > 50, "messages")
            assert server.stop() == 0
            told, said = source.communicate(timeout=PATIENCE)
        # It gives up when it is refused, can't connect any more, or loses a connection.
        assert source.returncode == 1, said
        counted = int(told.split()[-1])
        arrived = [split(message)[1] for message in server.messages()]
    assert counted <= len(arrived) <= counted + sessions
    names = {name for content in arrived for name in re.findall(rb"Message-Id: .*", content)}
    assert len(names) == len(arrived)
    assert {len(content.partition(b"\r\n\r\n")[2]) for content in arrived} == {2002}
