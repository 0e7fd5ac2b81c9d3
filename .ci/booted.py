"""What checks of a service under systemd share: commands, units, configuration, waiting, clients.

Rules of this file: it runs as root in a Debian booted for nothing else (`.ci/full systemd`), with
the system's own Python. The service is installed by the commands of the documentation.
"""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

UNITS = Path("/etc/systemd/system")
SOURCES = Path("/root/fastlisten")
FILE = Path("/etc/fastlisten/mail.toml")
PROGRAM = "/opt/fastlisten/bin/fastlisten"
DATA = Path("/var/lib/fastlisten")

#: Seconds; far more than anything takes, so that only something that hangs ends the run.
PATIENCE = 60

ALICE, PASSWORD = "alice@example.org", "correct horse battery staple"

CONFIGURATION = """\
[server]
workers = {workers}
hostname = "mail.example.org"
data-directory = "/var/lib/fastlisten"

[server.listener.smtp]
protocol = "smtp"
bind = "{smtp}"

[server.listener.submission]
protocol = "smtp"
bind = "{submission}"
smtp.role = "submission"

[server.listener.lmtp]
protocol = "lmtp"
bind = "unix:/run/fastlisten/lmtp.sock"

[server.listener.http]
protocol = "http"
bind = "127.0.0.1:8080"
"""


def run(command: str, code: int = 0) -> str:
    """Run a shell command in the sources' directory; return what it prints on both streams."""
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=SOURCES,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == code, f"{command}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout


def documented(page: str, word: str) -> str:
    """Return the block of commands on a page of docs/ that begins with a word."""
    text = (SOURCES / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)(?:^    .*\n)+", text)
    (found,) = [block for block in blocks if block.split()[0] == word]
    return re.sub(r"(?m)^    ", "", found)


def shown(name: str, unit: str = "fastlisten") -> str:
    """Return a property of a unit."""
    return run(f"systemctl show --value --property={name} {unit}").strip()


def state(unit: str = "fastlisten") -> str:
    """Return a unit's state and status text."""
    return f"{shown('ActiveState', unit)}: {shown('StatusText', unit)}".removesuffix(": ")


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that systemd or the service does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"{what} does not come; {state()}"
        time.sleep(0.05)


def until_changed(name: str) -> None:
    """Wait until a property of the service has another value than now."""
    before = shown(name)
    until(lambda: shown(name) != before, f"a change of {name}")


def configure(
    workers: int = 1, smtp: str = "[::]:25", submission: str = "[::]:587", more: str = ""
) -> None:
    """Write the configuration; `more` belongs to the listener http."""
    FILE.parent.mkdir(exist_ok=True)
    text = CONFIGURATION.format(workers=workers, smtp=smtp, submission=submission)
    FILE.write_text(text + more, encoding="utf-8")


@contextlib.contextmanager
def changed_unit(text: str) -> Iterator[None]:
    """Change the service by a drop-in until the end of the block; stop it before and after."""
    directory = UNITS / "fastlisten.service.d"
    directory.mkdir()
    (directory / "change.conf").write_text(text, encoding="utf-8")
    run("systemctl stop fastlisten; systemctl daemon-reload")
    try:
        yield
    finally:
        run(f"rm -r {directory}; systemctl stop fastlisten; systemctl daemon-reload")
        forget()


def forget() -> None:
    """Let systemd forget failures and numbers of starts."""
    run("systemctl reset-failed")


def restart(code: int = 0) -> None:
    """Restart the service, however often that has been done."""
    forget()
    run("systemctl restart fastlisten", code)


def logged(since: str, *options: str) -> str:
    """Return what the journal has of the service since a cursor (`cursor`)."""
    run("journalctl --sync")
    words = " ".join(options)
    return run(f"journalctl -u fastlisten -o cat --after-cursor='{since}' {words}")


def cursor() -> str:
    """Return the present end of the journal."""
    run("journalctl --sync")
    return run("journalctl -n 0 --show-cursor").rpartition("-- cursor: ")[2].strip()


def workers() -> list[int]:
    """Return the workers' process ids."""
    return [int(pid) for pid in run(f"pgrep -P {shown('MainPID')} || true").split()]


def deliver(port: int = 25, *, login: bool = False) -> None:
    """Send a message to alice, over TLS."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is self-signed
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.starttls(context=context)
        if login:
            client.login(ALICE, PASSWORD)
        client.sendmail(ALICE, [ALICE], "Subject: hello\r\n\r\nhello\r\n")


@contextlib.contextmanager
def message_in_progress() -> Iterator[smtplib.SMTP]:
    """Begin to send a message, which `end_message` ends."""
    client = smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE)
    with contextlib.closing(client):
        client.ehlo()
        client.mail("a@example.net")
        client.rcpt(ALICE)
        assert client.docmd("DATA")[0] == 354
        client.send(b"Subject: slow\r\n\r\n")
        yield client


def end_message(client: smtplib.SMTP) -> None:
    """Send the rest of a message; it is taken."""
    client.send(b"the end\r\n.\r\n")
    assert client.getreply()[0] == 250


@contextlib.contextmanager
def occupied(port: int) -> Iterator[None]:
    """Let another program use a port until the end of the block."""
    with socket.create_server(("127.0.0.1", port)):
        yield


class Clients:
    """Clients that connect to port 25 one after the other, in several threads.

    Attributes:
        served: how many were greeted, and got an answer to QUIT: 221, or 421 from a server that is
            stopping.
        failures: what happened to all others.
        longest: the seconds that the slowest took.
    """

    def __init__(self, threads: int = 8) -> None:
        self.served = 0
        self.failures: list[str] = []
        self.longest = 0.0
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait(self, count: int) -> None:
        """Wait until so many more have been served."""
        enough = self.served + count
        until(lambda: self.served >= enough, f"{count} clients")

    def _run(self) -> None:
        while not self._end.is_set():
            begin = time.monotonic()
            failure = self._one()
            with self._lock:
                self.longest = max(self.longest, time.monotonic() - begin)
                if failure:
                    self.failures.append(failure)
                else:
                    self.served += 1

    def _one(self) -> str:
        try:
            with (
                socket.create_connection(("127.0.0.1", 25), timeout=PATIENCE) as sock,
                sock.makefile("rwb") as stream,
            ):
                said = [stream.readline()[:4]]
                stream.write(b"QUIT\r\n")
                stream.flush()
                said.append(stream.readline()[:4])
        except OSError as error:
            return repr(error)
        return "" if said in ([b"220 ", b"221 "], [b"220 ", b"421 "]) else repr(said)
