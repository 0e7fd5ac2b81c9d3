"""curl and httpx as an administrator's tools for the management of `fastlisten serve`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from smtplib import SMTP, SMTPConnectError

import httpx
import pytest
from support.certificates import authority
from support.external_programs import run
from support.marks import external
from support.real_server import HOST, Mail, serving
from support.waiting import PATIENCE

SCHEMES = {"management": "http", "managements": "https"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with serving(tmp_path_factory.mktemp("http"), *SCHEMES, "mx") as started:
        yield started


def curl(server: Mail, listener: str, path: str, *options: str, status: int = 200) -> str:
    """Send a request with curl; return the response, whose status must be the expected one."""
    done = run(
        *("curl", "--silent", "--show-error", "--cacert", server.authority),
        *("--write-out", "\n%{http_code}", *options),
        f"{SCHEMES[listener]}://{server.at(listener)}{path}",
    )
    body, _, code = done.stdout.decode().rpartition("\n")
    assert int(code) == status, body
    return body


def token(server: Mail) -> str:
    """Return the header that allows changes."""
    kept = server.program.directory / "data" / "management.token"
    return f"Authorization: Bearer {kept.read_text().strip()}"


@external("curl")
@pytest.mark.parametrize("listener", list(SCHEMES))
def test_curl_reads_listeners(server: Mail, listener: str) -> None:
    assert json.loads(curl(server, listener, "/healthz/live")) == {"status": "alive"}
    assert json.loads(curl(server, listener, "/healthz/ready"))["status"] == "ready"
    listeners = json.loads(curl(server, listener, "/api/listeners"))["listeners"]
    assert [one["id"] for one in listeners] == ["management", "managements", "mx"]
    assert [one["addresses"] for one in listeners] == [
        [server.at("management"), f"unix:{server.socket('management')}"],
        [server.at("managements")],
        [server.at("mx")],
    ]
    assert json.loads(curl(server, listener, "/openapi.json"))["openapi"].startswith("3.1")
    assert curl(server, listener, "/", "--header", "Accept: text/html").startswith("<!doctype")
    curl(server, listener, "/api/listeners/nobody", status=404)


@external("curl")
def test_curl_on_a_unix_socket(server: Mail) -> None:
    """Reading needs no token there; a change does, there too."""
    words = ("curl", "--silent", "--fail", "--unix-socket", server.socket("management"))
    done = run(*words, "http://localhost/api/listeners/mx")
    assert json.loads(done.stdout)["addresses"] == [server.at("mx")]
    pause = ("--request", "POST", "http://localhost/api/listeners/mx/pause")
    assert run(*words, *pause, expect=(22,)).stdout == b""
    paused = run(*words, "--header", token(server), *pause)
    assert json.loads(paused.stdout)["state"] == "paused"
    resume = ("--request", "POST", "http://localhost/api/listeners/mx/resume")
    resumed = run(*words, "--header", token(server), *resume)
    assert json.loads(resumed.stdout)["state"] == "listening"


@external("curl")
@pytest.mark.parametrize("listener", list(SCHEMES))
def test_curl_changes_a_listener(server: Mail, listener: str) -> None:
    """The listener changes as requested, and only with the token."""
    place = "/api/listeners/mx"
    limit = ("--json", '{"limit": 1}')
    curl(server, listener, f"{place}/limit", *limit, status=401)
    wrong = ("--header", "Authorization: Bearer wrong")
    curl(server, listener, f"{place}/limit", *limit, *wrong, status=401)
    permission = ("--header", token(server))
    answer = curl(server, listener, f"{place}/limit", *limit, *permission)
    assert json.loads(answer)["limit"] == 1
    with SMTP(HOST, server.port("mx"), timeout=PATIENCE) as first:
        assert first.noop()[0] == 250
        with pytest.raises(SMTPConnectError) as refused:
            SMTP(HOST, server.port("mx"), timeout=PATIENCE)
        assert refused.value.smtp_code == 421
        assert json.loads(curl(server, listener, place))["connections"] == 1
    pause = ("--request", "POST", *permission)
    assert json.loads(curl(server, listener, f"{place}/pause", *pause))["state"] == "paused"
    curl(server, listener, "/healthz/ready", status=503)
    assert json.loads(curl(server, listener, f"{place}/resume", *pause))["state"] == "listening"
    again = ("--json", '{"limit": 100}', *permission)
    assert json.loads(curl(server, listener, f"{place}/limit", *again))["limit"] == 100
    curl(server, listener, "/healthz/ready")


@pytest.mark.parametrize("listener", list(SCHEMES))
def test_httpx_watches_metrics(server: Mail, listener: str) -> None:
    """Metrics over one connection, again and again, while mail arrives."""
    site = f"{SCHEMES[listener]}://{server.at(listener)}"

    def accepted(text: str) -> float:
        (line,) = (
            line
            for line in text.splitlines()
            if line.startswith('fastlisten_accepted_total{listener="mx"')
        )
        return float(line.rpartition(" ")[2])

    with httpx.Client(
        base_url=site, verify=authority().client_context(), timeout=PATIENCE
    ) as client:
        before = accepted(client.get("/metrics").text)
        for number in range(1, 6):
            with SMTP(HOST, server.port("mx"), timeout=PATIENCE) as visitor:
                assert visitor.noop()[0] == 250
            assert accepted(client.get("/metrics").text) == before + number
        # With another host's name, as from a page after DNS rebinding.
        assert client.get("/metrics", headers={"host": "evil.example"}).status_code == 403
