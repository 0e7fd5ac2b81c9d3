"""The main job of the installed package: from a TOML file to a message in a Maildir.

    python -I .ci/main_job.py

Rules of this file: the standard library, and the installed program as a user would run it; nothing
of the source tree is imported. Every step says what it did, and the first that fails ends it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import signal
import smtplib
import subprocess
import sys
import sysconfig
import tempfile
import threading
from pathlib import Path

PROGRAM = Path(sysconfig.get_path("scripts"), "fastlisten")

#: Far more than any step takes: a server that hangs must end the run, not the day.
PATIENCE = 30

CONFIGURATION = """\
[server]
hostname = "mail.example.org"
data-directory = "{directory}"

[server.listener."smtp"]
protocol = "smtp"
bind = ["127.0.0.1:0"]
max-connections = 100
"""

#: Dots at the start of lines, a line of one dot, 8-bit octets, no end of line at the end.
MESSAGE = b"Subject: the main job\r\n\r\n.\r\n..two\r\n.hidden\r\n\xc3\xa9\r\nthe last line\r\n"


def fastlisten(*arguments: str) -> str:
    """Run the program to its end; return what it prints."""
    done = subprocess.run(
        [PROGRAM, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        sys.exit(f"fastlisten {' '.join(arguments)}: {done.returncode}\n{done.stderr}")
    return done.stdout


def check_installation() -> None:
    """The package is the installed one, whole, and its program runs."""
    spec = importlib.util.find_spec("fastlisten")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(sys.prefix), spec.origin
    version = importlib.metadata.version("fastlisten")
    assert fastlisten("--version") == f"fastlisten {version}\n"
    fastlisten("check")
    print(f"installed: {version} in {sys.prefix}")


def check_configuration(file: Path) -> None:
    """The file is without mistakes, and is shown as it was written."""
    fastlisten("check", str(file))
    shown = json.loads(fastlisten("show", str(file), "--json"))
    assert shown["format"] == 1
    (listener,) = shown["listeners"]
    assert listener["id"] == "smtp"
    assert listener["max-connections"] == {"value": 100, "origin": "listener"}
    assert listener["socket.backlog"] == {"value": 1024, "origin": "default"}
    print("configuration: checked and shown")


def serve_and_deliver(file: Path, directory: Path) -> None:
    """Serve the file, send a message, find it in the Maildir, stop the server."""
    fastlisten("account", "add", "alice@example.org", "--config", str(file))
    with subprocess.Popen(
        [PROGRAM, "serve", file], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        guard = threading.Timer(PATIENCE, server.kill)
        guard.start()
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            found = re.search(r'listener "smtp": smtp on 127\.0\.0\.1:(\d+);', first)
            if found is None:
                sys.exit(f"serve says {first!r}\n{server.communicate()[1]}")
            with smtplib.SMTP("127.0.0.1", int(found[1]), timeout=PATIENCE) as client:
                client.sendmail("bob@example.net", ["alice@example.org"], MESSAGE)
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate()
        finally:
            guard.cancel()
            server.kill()
    assert server.returncode == 0, f"serve ended with {server.returncode}\n{log}"
    (delivered,) = (directory / "mail" / "alice@example.org" / "new").iterdir()
    content = delivered.read_bytes()
    assert content.endswith(b"\r\n" + MESSAGE), content
    head = content[: -len(MESSAGE)]
    assert re.fullmatch(rb"Return-Path: <bob@example\.net>\r\nReceived: .*\r\n", head, re.DOTALL)
    print(f"served: {len(MESSAGE)} bytes delivered as they were sent; ended with 0")


def main() -> None:
    """Do all of it in a directory of its own."""
    check_installation()
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "mail.toml")
        file.write_text(CONFIGURATION.format(directory=name), encoding="utf-8")
        check_configuration(file)
        serve_and_deliver(file, Path(name))


if __name__ == "__main__":
    main()
