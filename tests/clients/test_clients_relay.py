"""Mail for other servers, all the way: swaks or curl, `fastlisten serve`, Postfix's smtp-sink.

The relay is on a Unix socket, so that it needs no free port.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import own_environment
from support.external_programs import run, which
from support.marks import external
from support.real_server import (
    ALICE,
    BOB,
    HOST,
    PASSWORDS,
    PLAIN,
    SENDER,
    Mail,
    serving,
    without_old_mail,
)
from support.waiting import PATIENCE, until

FOREIGN = "someone@example.net"

LOGIN = ("--tls", "--auth", "PLAIN", "--auth-user", ALICE, "--auth-password", PASSWORDS[ALICE])


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that smtp-sink can write to, which drops root's privileges."""
    directory = Path(tempfile.mkdtemp(prefix="sink"))
    directory.chmod(0o777)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def server(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    more = f'[smtp]\nrelay = "unix:{place / "socket"}"\n'
    with serving(tmp_path_factory.mktemp("mail"), "mx", "submission", more=more) as mail:
        yield mail


mail = without_old_mail


@contextlib.contextmanager
def smtp_sink(place: Path, *options: str) -> Iterator[None]:
    """Run the relay; it writes each message into a file."""
    path, sock = which("smtp-sink"), place / "socket"
    assert path is not None
    user = ("-u", "daemon") if os.geteuid() == 0 else ()
    with subprocess.Popen(
        [path, *user, *options, "-d", "message.", f"unix:{sock}", "100"],
        cwd=place,
        env=own_environment(),
        stderr=subprocess.PIPE,
    ) as process:
        try:
            until(lambda: sock.exists() or process.poll() is not None, "smtp-sink")
            assert process.poll() is None, process.communicate()
            yield
        finally:
            process.kill()
            process.wait(PATIENCE)
            sock.unlink(missing_ok=True)


def taken(place: Path) -> list[tuple[list[str], bytes]]:
    """Return recipients and content of what the relay has accepted, and forget it."""
    found = []
    for path in place.glob("message.*"):
        dump = path.read_bytes()
        if not dump:
            continue  # smtp-sink makes the file at MAIL, and removes it if no message follows
        path.unlink()
        # It writes LF, and an empty line at the end; our field comes after its own.
        assert dump.endswith(b"\n\n")
        head = re.search(
            rb"\AX-Client-Addr: (?:.*\n)*?Received: .*\n\tby smtp-sink (?:.*\n)*?"
            rb"Received: .*\n(?:\t.*\n)*?\tby mx\.example\.org with (\w+) (?:.*\n\t)*.*\n",
            dump,
        )
        assert head is not None, dump[:1000]
        assert head[1] == b"ESMTPSA"
        recipients = re.findall(rb"^X-Rcpt-Args: <(.*?)>", head[0], re.MULTILINE)
        content = dump[head.end() : -1].replace(b"\n", b"\r\n")
        found.append(([one.decode() for one in recipients], content))
    return found


def swaks(mail: Mail, listener: str, *options: str, expect: int = 0) -> str:
    """Send the plain message with swaks; return the output."""
    done = run(
        *("swaks", "--server", HOST, "--port", str(mail.port(listener)), "--helo", "me"),
        *("--data", f"@{mail.directory / 'plain'}", *options),
        expect=(expect,),
    )
    return done.stdout.decode()


@external("smtp-sink")
@external("swaks")
@pytest.mark.parametrize("pipeline", [(), ("--pipeline",)], ids=["lockstep", "pipelined"])
def test_swaks_sends_to_remote_and_local_recipients(
    mail: Mail, place: Path, pipeline: tuple[str, ...]
) -> None:
    recipients = f"{FOREIGN},{BOB},other@example.net"
    with smtp_sink(place):
        said = swaks(mail, "submission", *LOGIN, "--from", ALICE, "--to", recipients, *pipeline)
        assert "<~  250 2.0.0 " in said
        assert taken(place) == [([FOREIGN, "other@example.net"], PLAIN)]
        assert mail.everything() == {BOB: 1}
        assert mail.the_one(BOB)[1] == PLAIN
        # Mail for local recipients only never reaches the relay.
        swaks(mail, "submission", *LOGIN, "--from", ALICE, "--to", BOB)
        assert taken(place) == []


@external("smtp-sink")
@external("curl")
def test_curl_sends_to_a_remote_recipient(mail: Mail, place: Path) -> None:
    """All octets except NUL, CR and LF: smtp-sink handles lines as C strings."""
    octets = bytes(octet for octet in range(1, 256) if octet not in b"\r\n")
    letter = b"Subject: octets\r\n\r\n.\r\n..\r\n.x\r\n" + octets + b"\r\n.\r\n"
    with smtp_sink(place):
        run(
            *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", mail.authority),
            *("--user", f"{ALICE}:{PASSWORDS[ALICE]}", "--mail-from", ALICE),
            *("--mail-rcpt", FOREIGN, "--upload-file", "-", f"smtp://{mail.at('submission')}/me"),
            feed=letter,
        )
        assert taken(place) == [([FOREIGN], letter)]
    assert mail.everything() == {}


@external("smtp-sink")
@external("swaks")
def test_relay_access_is_denied_without_a_login(mail: Mail, place: Path) -> None:
    with smtp_sink(place):
        for options in ((), ("--tls",)):
            said = swaks(mail, "mx", *options, "--from", SENDER, "--to", f"{FOREIGN},{BOB}")
            assert re.search(r"^<.\* 550 5\.7\.1 ", said, re.MULTILINE)
        assert taken(place) == []
    assert mail.everything() == {BOB: 2}


@external("smtp-sink")
@external("swaks")
@pytest.mark.parametrize(
    ("options", "code", "delivered"),
    [
        (("-f", "RCPT"), r"5\d\d 5\.", 1),
        (("-r", "MAIL"), r"4\d\d 4\.", 1),
        (("-q", "CONNECT"), r"451 4\.4\.", 1),
        (("-Q", "EHLO"), r"4\d\d 4\.", 1),
        (("-f", "."), r"5\d\d 5\.", 0),
        (("-q", "."), r"451 4\.4\.", 0),
        (("-r", "DATA"), r"4\d\d 4\.", 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_relay_rejects_recipient_or_message(
    mail: Mail, place: Path, options: tuple[str, ...], code: str, delivered: int
) -> None:
    """If it rejects a recipient, the others get the message; if the message, nobody does."""
    with smtp_sink(place, *options):
        said = swaks(
            mail,
            "submission",
            *(*LOGIN, "--from", ALICE, "--to", f"{BOB},{FOREIGN}"),
            expect=0 if delivered else 26,
        )
        assert re.search(rf"^<~\* {code}", said, re.MULTILINE), said
        # If it rejects the message at the end, it has already written it.
        assert len(taken(place)) == (options[1] == ".")
    assert len(mail.stored(BOB)) == delivered


@external("swaks")
def test_relay_is_not_running(mail: Mail) -> None:
    envelope = ("--from", ALICE, "--to", f"{FOREIGN},{BOB}")
    said = swaks(mail, "submission", *LOGIN, *envelope)
    assert re.search(r"^<~\* 451 4\.4\.1 ", said, re.MULTILINE)
    assert mail.everything() == {BOB: 1}
