"""The management as served by `fastlisten serve`: on TCP and Unix sockets, and how it ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from support.marks import needs_ipv6
from support.program import Program, program
from support.waiting import PATIENCE, until

MANAGE = '[server.listener.manage]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
SMTP = '[server.listener."a/b"]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'


@contextlib.contextmanager
def connection(started: Program, index: int = 0) -> Iterator[http.client.HTTPConnection]:
    """Return a keep-alive connection to the management."""
    host, _, port = started.addresses["manage"][index].rpartition(":")
    client = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=PATIENCE)
    try:
        yield client
    finally:
        client.close()


def token(started: Program) -> str:
    return (started.directory / "data" / "management.token").read_text().strip()


def get_json(
    client: http.client.HTTPConnection, method: str, path: str, key: str = "", body: Any = None
) -> tuple[int, Any]:
    """Return a response's status and JSON."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    client.request(method, path, None if body is None else json.dumps(body), headers)
    answer = client.getresponse()
    return answer.status, json.loads(answer.read())


def test_management_from_start_to_end(tmp_path: Path) -> None:
    with program(tmp_path, MANAGE + SMTP, listeners=2) as started, connection(started) as client:
        file = tmp_path / "data" / "management.token"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        key = token(started)
        assert get_json(client, "GET", "/healthz/ready")[0] == 200
        # A slash in an id arrives as it was sent.
        path = f"/api/listeners/{quote('a/b', safe='')}"
        assert get_json(client, "POST", f"{path}/limit", body={"limit": 1})[0] == 401
        status, found = get_json(client, "POST", f"{path}/limit", key, {"limit": 1})
        assert (status, found["limit"]) == (200, 1)
        with (
            socket.create_connection(("127.0.0.1", started.port("a/b")), PATIENCE) as one,
            socket.create_connection(("127.0.0.1", started.port("a/b")), PATIENCE) as two,
        ):
            assert one.recv(4) == b"220 "
            assert two.recv(4) == b"421 "
            found = get_json(client, "GET", path)[1]
            assert (found["connections"], found["refused"]["limit"]) == (1, 1)
            assert get_json(client, "POST", f"{path}/drain", key)[0] == 200
            # An idle session is told in its own protocol.
            assert b"421 4.3.2" in one.makefile("rb").read()
        until(
            lambda: get_json(client, "GET", path)[1]["state"] == "closed", "the end of the listener"
        )
        assert get_json(client, "GET", "/healthz/ready")[0] == 503
        assert started.stop() == 0
        assert 'listener "a/b": draining, requested by 127.0.0.1' in started.err
        assert '"POST /api/listeners/a%2Fb/drain HTTP/1.1" 200' in started.err
        assert key not in started.err + started.out
        assert " ERROR " not in started.err
        # The token is kept for the next start.
        assert token(started) == key


def test_changing_the_listener_of_the_management(tmp_path: Path) -> None:
    """It is not changed unless asked for by name; paused, it still answers on open connections."""
    with program(tmp_path, MANAGE) as started:
        key = token(started)
        with connection(started) as client:
            for what in ("pause", "drain", "pause?self=no"):
                status, found = get_json(client, "POST", f"/api/listeners/manage/{what}", key)
                assert (status, "is the one that answers" in found["detail"]) == (409, True)
            path = "/api/listeners/manage/pause?self=yes"
            assert get_json(client, "POST", path, key)[1]["state"] == "paused"
            with socket.create_connection(("127.0.0.1", started.port("manage")), PATIENCE) as late:
                late.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
                state = get_json(client, "POST", "/api/listeners/manage/resume", key)[1]["state"]
                assert state == "listening"
                assert late.recv(12) == b"HTTP/1.1 200"
        with connection(started) as client, connection(started) as idle:
            assert get_json(idle, "GET", "/healthz/live")[0] == 200
            path = "/api/listeners/manage/drain?self=yes"
            status, found = get_json(client, "POST", path, key)
            assert (status, found["state"]) == (200, "draining")
            for one in (client, idle):
                if one.sock is not None:
                    assert one.sock.recv(1) == b""
        until(lambda: 'listener "manage": closed' in started.err, "the end of the listener")
        assert started.stop() == 0


def test_unix_sockets_are_local(tmp_path: Path) -> None:
    text = f'[server.listener.manage]\nprotocol = "http"\nbind = "unix:{tmp_path / "it"}"\n'
    with program(tmp_path, text) as started, socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(tmp_path / "it"))
        client.sendall(
            b"GET /api/listeners HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        answer = client.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert f"unix:{tmp_path / 'it'}".encode() in answer
        assert started.stop() == 0


def test_allowed_hosts_of_the_server(tmp_path: Path) -> None:
    text = MANAGE + 'http.allowed-hosts = ["mail.example.net"]\n'
    with program(tmp_path, text) as started, connection(started) as client:
        for host, status in [
            ("mx.example.org", 200),
            ("mail.example.net:8080", 200),
            ("example.net", 403),
        ]:
            client.request("GET", "/healthz/live", headers={"Host": host})
            answer = client.getresponse()
            answer.read()
            assert answer.status == status
        assert started.stop() == 0


@needs_ipv6
def test_loopback_on_a_dual_stack_socket(tmp_path: Path) -> None:
    text = '[server.listener.manage]\nprotocol = "http"\nbind = ["[::1]:0", "[::]:0"]\n'
    with program(tmp_path, text) as started:
        port = started.port("manage", 1)
        for host in ("127.0.0.1", "::1"):
            client = http.client.HTTPConnection(host, port, timeout=PATIENCE)
            assert get_json(client, "GET", "/healthz/live") == (200, {"status": "alive"})
            client.close()
        assert started.stop() == 0


def test_readable_token_file_fails_the_start(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "management.token"
    file.write_text("x" * 43)
    file.chmod(0o640)
    with program(tmp_path, MANAGE, listeners=0) as started:
        assert started.ended() == 3
        assert f"{file}: has mode 0640, so that others may use it" in started.err
        assert "xxx" not in started.err


def test_unusual_request_targets_and_methods(tmp_path: Path) -> None:
    lines = (b"GET //evil.example/", b"GET /%2e%2e/%00", b"GET /api/listeners/%", b"TRACE /")
    with program(tmp_path, MANAGE) as started:
        for line in lines:
            where = ("127.0.0.1", started.port("manage"))
            with socket.create_connection(where, PATIENCE) as client:
                client.sendall(line + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = client.makefile("rb").read()
            assert answer[:12] == (b"HTTP/1.1 405" if b"TRACE" in line else b"HTTP/1.1 404")
            assert b"application/problem+json" in answer
        assert started.stop() == 0
