"""The last reply to a client whose session the server ends, at every point of the dialogue.

Rules of this file: a table of points, and a server as users run it for each way to end a session:
the first signal and the timeout after it, a second signal, a silent client. RFC 5321 section 3.8
lets a server send 421 at any time and close. Where no reply is possible (in a handshake, in a
response that has begun) the connection just ends.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.program import Program, program
from support.relay import AUTH, USERS
from support.tls_listener import client_hello
from support.tls_probes import context
from support.waiting import PATIENCE, until

SHUTDOWN = b"421 4.3.2 mx.example.org Shutting down; try again later\r\n"
TIMEOUT = b"421 4.4.2 mx.example.org Timeout; closing connection\r\n"
NOTHING = b""

HELLO, MAIL, RCPT = (
    b"EHLO c.example.com\r\n",
    b"MAIL FROM:<alice@example.org>\r\n",
    b"RCPT TO:<alice@example.org>\r\n",
)
GET = b"GET /%b HTTP/1.1\r\nHost: mx.example.org\r\n"
HALF_CHUNK = b"BDAT 100 LAST\r\nhalf"

#: By name: the listener; what is sent, waiting for a reply after each part but the last; and how
#: the last line begins, after a shutdown and after silence (None: the client is not to blame).
Point = tuple[str, tuple[bytes, ...], bytes, bytes | None]
POINTS: dict[str, Point] = {
    "silent": ("smtp", (), SHUTDOWN, TIMEOUT),
    "greeted": ("smtp", (HELLO, b""), SHUTDOWN, TIMEOUT),
    "half a command": ("smtp", (HELLO, b"NOO"), SHUTDOWN, TIMEOUT),
    "MAIL": ("smtp", (HELLO, MAIL, b""), SHUTDOWN, TIMEOUT),
    "RCPT": ("smtp", (HELLO, MAIL, RCPT, b""), SHUTDOWN, TIMEOUT),
    "DATA": ("smtp", (HELLO, MAIL, RCPT, b"DATA\r\n", b""), SHUTDOWN, TIMEOUT),
    "half a message": ("smtp", (HELLO, MAIL, RCPT, b"DATA\r\n", b"a: b\r\nhal"), SHUTDOWN, TIMEOUT),
    "half a chunk": ("smtp", (HELLO, MAIL, RCPT, HALF_CHUNK), SHUTDOWN, TIMEOUT),
    "a transaction reset": ("smtp", (HELLO, MAIL, b"RSET\r\n", b""), SHUTDOWN, TIMEOUT),
    "not greeted yet": ("delayed", (), SHUTDOWN, None),
    "STARTTLS, no handshake": ("smtp", (HELLO, b"STARTTLS\r\n", b""), NOTHING, None),
    "half a handshake after it": (
        "smtp",
        (HELLO, b"STARTTLS\r\n", client_hello()[:100]),
        NOTHING,
        None,
    ),
    "lmtp": ("lmtp", (b"LHLO c.example.com\r\n", b""), SHUTDOWN, TIMEOUT),
    "lmtp, half a message": (
        "lmtp",
        (b"LHLO c.example.com\r\n", MAIL, RCPT, b"DATA\r\n", b"hal"),
        SHUTDOWN,
        TIMEOUT,
    ),
    "a hook": ("hooks", (HELLO, MAIL, b"RCPT TO:<x@example.com>\r\n"), SHUTDOWN, None),
    "a hook's challenge": ("hooks", (HELLO, b"AUTH WAITS\r\n", b""), SHUTDOWN, TIMEOUT),
    "TLS, silent": ("tls", (), SHUTDOWN, TIMEOUT),
    "TLS, greeted": ("tls", (HELLO, b""), SHUTDOWN, TIMEOUT),
    "TLS, AUTH": ("tls", (HELLO, b"AUTH LOGIN\r\n", b""), SHUTDOWN, TIMEOUT),
    "TLS, half a message": (
        "tls",
        (HELLO, AUTH, MAIL, RCPT, b"DATA\r\n", b"hal"),
        SHUTDOWN,
        TIMEOUT,
    ),
    "TLS, the relay": (
        "tls",
        (HELLO, AUTH, MAIL, b"RCPT TO:<x@elsewhere.example>\r\n"),
        SHUTDOWN,
        None,
    ),
    "a request": ("http", (GET % b"" + b"\r\n",), b"HTTP/1.1 503 ", None),
    "half a head": ("http", (GET % b"",), b"HTTP/1.1 503 ", b"HTTP/1.1 408 "),
    "a response": ("http", (GET % b"begun" + b"\r\n", b""), NOTHING, None),
    "no request": ("http", (), NOTHING, NOTHING),
}


def configuration(relay: int, times: str) -> str:
    text = table(Path(), "mx").replace("file://", "file://../")
    for name, more in {
        "smtp": 'tls.timeout = "1h"\n',
        "lmtp": "",
        "delayed": 'smtp.greeting-delay = "60s"\n',
        "hooks": 'smtp.aiosmtpd-handler = "support.hanging_handlers:Waits"\ntls.enable = false\n',
        "tls": f'tls.implicit = true\nsmtp.relay = "127.0.0.1:{relay}"\nsmtp.relay-tls = "none"\n',
        "http": 'app = "support.hanging_handlers:app"\nhttp.header-timeout = "1s"\n',
    }.items():
        protocol = name if name in ("lmtp", "http") else "smtp"
        text += f'[server.listener.{name}]\nprotocol = "{protocol}"\nbind = "127.0.0.1:0"\n'
        text += f"{more}{times}"
    return text


class Session:
    """A client at its point of the dialogue."""

    def __init__(self, sock: socket.socket, point: Point) -> None:
        listener, words, self.cut, self.silence = point
        self.sock = sock
        self.lines = sock.makefile("rb", buffering=0)
        if listener not in ("http", "delayed"):
            self.reply()
        for index, word in enumerate(words):
            sock.sendall(word)
            if index < len(words) - 1:
                self.http() if listener == "http" else self.reply()

    def reply(self) -> None:
        while self.lines.readline()[3:4] == b"-":
            pass

    def http(self) -> None:
        """Read what there is of the response that never ends."""
        seen = b""
        while b"part\r\n" not in seen:
            seen += self.lines.readline()

    def rest(self) -> bytes:
        """Return everything up to the end."""
        with self.lines, self.sock:
            return self.lines.read()


def check_end(name: str, session: Session, expected: bytes) -> None:
    said = session.rest()
    if expected.startswith(b"HTTP"):
        assert said.startswith(expected), name
    else:
        assert said == expected, name


@contextlib.contextmanager
def at_points(
    directory: Path, process: str, times: str, wanted: Callable[[Point], bool]
) -> Iterator[tuple[Program, dict[str, Session]]]:
    """Serve, with a client at each point."""
    write(directory, authority().sign("mx.example.org", "127.0.0.1"), "mx")
    (directory / "run").mkdir()
    # A relay that does not answer.
    with socket.create_server(("127.0.0.1", 0)) as relay, contextlib.ExitStack() as stack:
        text = process + configuration(relay.getsockname()[1], times)
        served = stack.enter_context(program(directory / "run", text, accounts=USERS, listeners=6))
        sessions = {}
        for name, point in POINTS.items():
            if not wanted(point):
                continue
            address = ("127.0.0.1", served.port(point[0]))
            sock = stack.enter_context(socket.create_connection(address, PATIENCE))
            if point[0] == "tls":
                sock = stack.enter_context(
                    context().wrap_socket(sock, server_hostname="mx.example.org")
                )
            sessions[name] = Session(sock, point)
        if "TLS, the relay" in sessions:
            stack.enter_context(relay.accept()[0])
        yield served, sessions


def requests_begun(served: Program) -> None:
    until(lambda: "still open" in served.err, "the drain")


@pytest.mark.parametrize("way", ["timeout", "second signal"])
def test_last_reply_at_shutdown(tmp_path: Path, way: str) -> None:
    timeout = "500ms" if way == "timeout" else "1d"
    process = f'shutdown-timeout = "{timeout}"\n'
    with at_points(tmp_path, process, "", lambda point: True) as (served, sessions):
        silent = [
            socket.create_connection(("127.0.0.1", served.port("tls")), PATIENCE) for _ in range(2)
        ]
        silent[1].sendall(client_hello()[:100])
        served.signal()
        requests_begun(served)
        if way == "second signal":
            served.signal(signal.SIGTERM)
        for name, session in sessions.items():
            check_end(name, session, session.cut)
        for client in silent:
            # Outside TLS no reply can be sent.
            with client, contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""
        assert served.ended() == 0
        # What was not acknowledged is not delivered.
        assert served.messages() == []
        assert not list((tmp_path / "run/data/mail").glob("*/tmp/*"))
        assert "Traceback" not in served.err


def test_last_reply_at_a_timeout(tmp_path: Path) -> None:
    # Idle is longer than http.header-timeout, or either of the two may end half a head.
    times = 'timeout.first-byte = "3s"\ntimeout.idle = "5s"\n'
    with at_points(tmp_path, "", times, lambda point: point[3] is not None) as (served, sessions):
        for name, session in sessions.items():
            assert session.silence is not None
            check_end(name, session, session.silence)
        assert served.stop() == 0
        assert served.messages() == []


def test_client_that_does_not_read_its_replies(tmp_path: Path) -> None:
    """It gets the 421 after its replies if it reads within the drain's timeout."""
    process = 'shutdown-timeout = "1d"\n'
    with at_points(tmp_path, process, "", lambda point: False) as (served, _):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", served.port("smtp")))
            client.settimeout(1)
            with contextlib.suppress(TimeoutError):
                while True:
                    client.sendall(b"HELP\r\n" * 1000)
            client.settimeout(PATIENCE)
            served.signal()
            requests_begun(served)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                while data := client.recv(65536):
                    said += data
        assert said.endswith(SHUTDOWN)
        assert served.ended() == 0


def test_tls_clients_get_close_notify(tmp_path: Path) -> None:
    """It follows the last reply, so the client knows that nothing was cut off."""
    process = 'shutdown-timeout = "500ms"\n'
    with at_points(tmp_path, process, "", lambda point: False) as (served, _):
        with (
            socket.create_connection(("127.0.0.1", served.port("tls")), PATIENCE) as plain,
            context().wrap_socket(
                plain, server_hostname="mx.example.org", suppress_ragged_eofs=False
            ) as client,
        ):
            assert client.recv(4096).startswith(b"220 ")
            for words in (HELLO, AUTH, MAIL):
                client.sendall(words)
                client.recv(4096)
            served.signal()
            said = b""
            while data := client.recv(4096):
                said += data
            assert said == SHUTDOWN
        assert served.ended() == 0
