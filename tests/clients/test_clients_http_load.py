"""wrk and h2load against `fastlisten serve`: many connections, and a response to every request."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from support.external_programs import run
from support.marks import external
from support.real_server import Mail, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    # Logging each request would be most of the work.
    quiet = "[http]\naccess-log = false\n"
    names = ("application", "applications", "management")
    with serving(tmp_path_factory.mktemp("http"), *names, more=quiet) as started:
        yield started


@external("wrk")
@pytest.mark.parametrize(("listener", "path"), [("application", "/stream"), ("applications", "/")])
def test_wrk_without_errors(server: Mail, listener: str, path: str) -> None:
    """It runs for a fixed time; the errors are counted."""
    done = run(
        *("wrk", "--threads", "2", "--connections", "20", "--duration", "1s", "--timeout", "20s"),
        f"{'https' if listener.endswith('s') else 'http'}://{server.at(listener)}{path}",
    )
    said = done.stdout.decode()
    found = re.search(r"(\d+) requests in ", said)
    assert found is not None
    assert int(found[1]) >= 20
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


@external("h2load")
@pytest.mark.parametrize("listener", ["application", "applications", "management"])
def test_h2load_without_errors(server: Mail, listener: str) -> None:
    """HTTP/1.1, with several requests of each connection in flight (pipelining)."""
    scheme = "https" if listener.endswith("s") else "http"
    path = "/healthz/live" if listener == "management" else "/"
    done = run(
        *("h2load", "--h1", "--requests", "500", "--clients", "10", "--max-concurrent-streams"),
        *("4", f"{scheme}://{server.at(listener)}{path}"),
    )
    said = done.stdout.decode()
    counts = "500 total, 500 started, 500 done, 500 succeeded, 0 failed, 0 errored, 0 timeout"
    assert f"requests: {counts}\n" in said
    assert "status codes: 500 2xx, 0 3xx, 0 4xx, 0 5xx\n" in said
    if scheme == "https":
        assert "Application protocol: http/1.1" in said
