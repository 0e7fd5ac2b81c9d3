"""The main job of the installed package: from a TOML file to mail that is delivered and read.

    python -I .ci/main_job.py

Rules of this file: it uses the standard library and the installed program, as a user would run it,
and imports nothing from the source tree. Every step prints what it did; the first that fails ends
the run.
"""

from __future__ import annotations

import contextlib
import imaplib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

PROGRAM = Path(sysconfig.get_path("scripts"), "fastlisten")

#: Seconds; far more than any step takes, so that only a server that hangs ends the run.
PATIENCE = 30

CONFIGURATION = """\
[server]
hostname = "mail.example.org"
data-directory = "{directory}"

[server.listener."http"]
protocol = "http"
bind = ["127.0.0.1:0"]

[server.listener."imap"]
protocol = "imap"
bind = ["127.0.0.1:0"]

[server.listener."lmtp"]
protocol = "lmtp"
bind = ["127.0.0.1:0"]

[server.listener."smtp"]
protocol = "smtp"
bind = ["127.0.0.1:0"]
max-connections = 100

[server.listener."submission"]
protocol = "smtp"
bind = ["127.0.0.1:0"]
smtp.role = "submission"
"""

ALICE, BOB = "alice@example.org", "bob@example.org"
PASSWORD = "correct horse battery staple"

#: Dots at the start of lines, a line with a single dot, 8-bit octets.
MESSAGE = b"Subject: the main job\r\n\r\n.\r\n..two\r\n.hidden\r\n\xc3\xa9\r\nthe last line\r\n"


def fastlisten(*arguments: str, feed: str = "") -> str:
    """Run the program until it exits; return what it prints."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        input=feed,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode:
        sys.exit(f"fastlisten {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
    return done.stdout


def check_installation() -> None:
    """Check that the installed package is used, not the source tree, and that its program runs."""
    spec = importlib.util.find_spec("fastlisten")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(sys.prefix), spec.origin
    version = importlib.metadata.version("fastlisten")
    assert fastlisten("--version") == f"fastlisten {version}\n"
    fastlisten("check")
    print(f"installed: {version} in {sys.prefix}")


def check_configuration(file: Path) -> None:
    """Check that the file has no errors, and is shown as it was written."""
    fastlisten("check", str(file))
    shown = json.loads(fastlisten("show", str(file), "--json"))
    assert shown["format"] == 1
    listeners = {listener["id"]: listener for listener in shown["listeners"]}
    assert list(listeners) == ["http", "imap", "lmtp", "smtp", "submission"]
    assert listeners["smtp"]["max-connections"] == {"value": 100, "origin": "listener"}
    assert listeners["smtp"]["socket.backlog"] == {"value": 1024, "origin": "default"}
    print("configuration: checked and shown")


@contextlib.contextmanager
def serving(file: Path) -> Iterator[dict[str, int]]:
    """Serve the file until the end of the block; yield the port of each listener."""
    with subprocess.Popen(
        [PROGRAM, "serve", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        guard = threading.Timer(PATIENCE, server.kill)
        guard.start()
        try:
            assert server.stdout is not None
            ports: dict[str, int] = {}
            while len(ports) < 5:
                line = server.stdout.readline()
                found = re.search(r'listener "(\w+)": \w+ on 127\.0\.0\.1:(\d+);', line)
                if found is not None:
                    ports[found[1]] = int(found[2])
                elif not line:
                    sys.exit(f"serve has ended\n{server.communicate()[1]}")
            yield ports
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate()
        finally:
            guard.cancel()
            server.kill()
    assert server.returncode == 0, f"serve ended with {server.returncode}\n{log}"
    print("ended: with 0")


def take_mail(directory: Path, account: str) -> tuple[bytes, bytes]:
    """Remove an account's only message; return the header added on top, and the message."""
    (delivered,) = (directory / "mail" / account / "new").iterdir()
    content = delivered.read_bytes()
    delivered.unlink()
    assert content.endswith(b"\r\n" + MESSAGE), content
    return content[: -len(MESSAGE)], MESSAGE


def bring_mail(port: int, directory: Path) -> None:
    """Send a message by SMTP without logging in."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.sendmail("bob@example.net", [ALICE], MESSAGE)
    head, _ = take_mail(directory, ALICE)
    assert re.fullmatch(rb"Return-Path: <bob@example\.net>\r\nReceived: .*\r\n", head, re.DOTALL)
    print(f"smtp: {len(MESSAGE)} bytes delivered as they were sent")


def submit_mail(port: int, directory: Path) -> None:
    """Send a message as a user: STARTTLS with the self-signed certificate, and AUTH."""
    context = ssl.create_default_context(cafile=str(directory / "self-signed.pem"))
    context.check_hostname = False
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.starttls(context=context)
        client.login(ALICE, PASSWORD)
        client.sendmail(ALICE, [BOB], MESSAGE)
    head, _ = take_mail(directory, BOB)
    assert b" with ESMTPSA id " in head, head
    print("submission: STARTTLS, AUTH, a message")


def hand_over_mail(port: int, directory: Path) -> None:
    """Deliver a message by LMTP: one reply for each of two recipients."""
    wire = MESSAGE.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    with (
        socket.create_connection(("127.0.0.1", port), PATIENCE) as connection,
        connection.makefile("rb") as replies,
    ):

        def say(words: bytes, code: bytes, count: int = 1) -> None:
            connection.sendall(words)
            for _ in range(count):
                line = replies.readline()
                while line[3:4] == b"-":
                    line = replies.readline()
                assert line.startswith(code), (words, line)

        say(b"", b"220 ")
        say(b"LHLO client.example.net\r\nMAIL FROM:<bob@example.net>\r\n", b"250 ", 2)
        say(b"RCPT TO:<nobody@example.org>\r\n", b"550 ")
        say(f"RCPT TO:<{ALICE}>\r\nRCPT TO:<{BOB}>\r\n".encode(), b"250 ", 2)
        say(b"DATA\r\n", b"354 ")
        say(wire, b"250 ", 2)
        say(b"QUIT\r\n", b"221 ")
    for account in (ALICE, BOB):
        head, _ = take_mail(directory, account)
        assert b" with LMTP id " in head, head
    print("lmtp: a message for two")


def read_mail(ports: dict[str, int], directory: Path) -> None:
    """Read a message by IMAP that SMTP has brought: STARTTLS, LOGIN, SELECT, FETCH."""
    with smtplib.SMTP("127.0.0.1", ports["smtp"], timeout=PATIENCE) as sender:
        sender.sendmail("bob@example.net", [ALICE], MESSAGE)
    context = ssl.create_default_context(cafile=str(directory / "self-signed.pem"))
    context.check_hostname = False
    with imaplib.IMAP4("127.0.0.1", ports["imap"], timeout=PATIENCE) as client:
        client.starttls(context)
        client.login(ALICE, PASSWORD)
        assert client.select() == ("OK", [b"1"])
        _, data = client.fetch("1", "(BODY.PEEK[])")
        assert isinstance(data[0], tuple), data
        assert data[0][1].endswith(b"\r\n" + MESSAGE), data
    print("imap: STARTTLS, LOGIN, a message read")


def ask(url: str, body: object = None, token: str = "") -> tuple[int, str]:
    """Send a GET, or a POST with a JSON body; return the status and the response."""
    request = urllib.request.Request(url)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode()


def manage(port: int, directory: Path) -> None:
    """Read from the management application, and change a limit with the token."""
    site = f"http://127.0.0.1:{port}"
    assert ask(f"{site}/healthz/ready")[0] == 200
    metrics = ask(f"{site}/metrics")[1]
    assert 'fastlisten_connections_limit{listener="smtp"} 100.0\n' in metrics
    limit = f"{site}/api/listeners/smtp/limit"
    assert ask(limit, {"limit": 7})[0] == 401
    token = (directory / "management.token").read_text(encoding="ascii").strip()
    status, answer = ask(limit, {"limit": 7}, token)
    assert (status, json.loads(answer)["limit"]) == (200, 7)
    print("http: ready, metrics, a limit changed")


def main() -> None:
    """Run all steps in a temporary directory."""
    check_installation()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        file = directory / "mail.toml"
        file.write_text(CONFIGURATION.format(directory=name), encoding="utf-8")
        check_configuration(file)
        words = ("--config", str(file), "--password-stdin")
        fastlisten("account", "add", ALICE, *words, feed=f"{PASSWORD}\n")
        fastlisten("account", "add", BOB, *words, feed="another\n")
        # As long as the accounts file is this new, nobody is refused permanently.
        os.utime(directory / "accounts.toml", (1, 1))
        with serving(file) as ports:
            bring_mail(ports["smtp"], directory)
            submit_mail(ports["submission"], directory)
            hand_over_mail(ports["lmtp"], directory)
            read_mail(ports, directory)
            manage(ports["http"], directory)


if __name__ == "__main__":
    main()
