"""curl and httpx against `fastlisten serve`: an ASGI application over http and https."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import authority
from support.external_programs import run
from support.http_application import PIECE
from support.marks import external
from support.real_server import HOST, Mail, serving
from support.waiting import PATIENCE, until

STREAM = hashlib.sha256(PIECE * 64).hexdigest()

#: Random octets, more than any buffer holds.
UPLOAD = random.Random(3).randbytes(3_000_000)
DIGEST = hashlib.sha256(UPLOAD).hexdigest()

SCHEMES = {"application": "http", "applications": "https"}
LISTENERS = list(SCHEMES)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    directory = tmp_path_factory.mktemp("http")
    (directory / "upload").write_bytes(UPLOAD)
    unlimited = "[http]\nmax-body-size = false\n"
    with serving(directory, *LISTENERS, "management", more=unlimited) as started:
        yield started


def url(server: Mail, listener: str, path: str = "/") -> str:
    return f"{SCHEMES[listener]}://{server.at(listener)}{path}"


def curl(server: Mail, *options: str | Path, feed: bytes | None = None) -> tuple[bytes, str]:
    """Run curl; return what it received and its own report."""
    done = run(
        *("curl", "--silent", "--show-error", "--verbose", "--cacert", server.authority, *options),
        feed=feed,
    )
    return done.stdout, done.stderr.decode(errors="replace")


def request_seen(body: bytes) -> dict[str, Any]:
    """Return what the application reports about a request."""
    found: dict[str, Any] = json.loads(body)
    return found


@external("curl")
@pytest.mark.parametrize("listener", LISTENERS)
def test_curl_requests(server: Mail, listener: str) -> None:
    body, said = curl(server, url(server, listener, "/a%20b?c=d"))
    request = request_seen(body)
    assert request == {
        "method": "GET",
        "path": "/a b",
        "query": "c=d",
        "scheme": SCHEMES[listener],
        "version": "1.1",
        "client": [HOST, request["client"][1]],
        "chunked": "",
        "size": 0,
        "pieces": 1,
        "sha256": hashlib.sha256().hexdigest(),
    }
    assert "< HTTP/1.1 200 OK" in said
    assert ("ALPN: server accepted http/1.1" in said) is (listener == "applications")


@external("curl")
@pytest.mark.parametrize("listener", LISTENERS)
def test_curl_reuses_a_connection(server: Mail, listener: str) -> None:
    """For several URLs and methods; the server sees one client."""
    # Each URL has its own output and options.
    words: list[str] = []
    for method in ("GET", "DELETE", "PATCH"):
        words += ["--next"] * bool(words)
        words += ["--silent", "--cacert", server.authority, "--request", method]
        words += ["--write-out", "\n%{num_connects}\n", url(server, listener)]
    lines = run("curl", *words).stdout.splitlines()
    requests = [request_seen(line) for line in lines[0::2]]
    assert [request["method"] for request in requests] == ["GET", "DELETE", "PATCH"]
    assert len({request["client"][1] for request in requests}) == 1
    assert lines[1::2] == [b"1", b"0", b"0"]


@external("curl")
@pytest.mark.parametrize("listener", LISTENERS)
def test_curl_uploads_with_and_without_a_length(server: Mail, listener: str) -> None:
    """A file, whose size is known, and standard input, whose size is not: in chunks."""
    place = url(server, listener)
    body, said = curl(server, "--upload-file", server.directory / "upload", place)
    request = request_seen(body)
    assert (request["method"], request["size"], request["sha256"]) == ("PUT", len(UPLOAD), DIGEST)
    assert request["chunked"] == ""
    assert request["pieces"] > 1
    assert "< HTTP/1.1 100 Continue" in said
    body, _ = curl(server, "--upload-file", "-", place, feed=UPLOAD)
    request = request_seen(body)
    assert (request["method"], request["size"], request["sha256"]) == ("PUT", len(UPLOAD), DIGEST)
    assert request["chunked"] == "chunked"
    body, _ = curl(server, "--data-binary", "@-", place, feed=b"a=b\r\n\0")
    request = request_seen(body)
    assert (request["method"], request["size"]) == ("POST", 6)
    assert request["sha256"] == hashlib.sha256(b"a=b\r\n\0").hexdigest()


@external("curl")
@pytest.mark.parametrize("listener", LISTENERS)
def test_curl_downloads(server: Mail, listener: str) -> None:
    place = url(server, listener, "/stream")
    body, said = curl(server, place)
    assert hashlib.sha256(body).hexdigest() == STREAM
    assert "transfer-encoding: chunked" in said.lower()
    # HTTP/1.0 has no chunks: the end of the connection is the end of the body.
    body, said = curl(server, "--http1.0", place)
    assert hashlib.sha256(body).hexdigest() == STREAM
    assert "transfer-encoding" not in said.lower()
    body, said = curl(server, "--head", place)
    assert body.startswith(b"HTTP/1.1 200 OK\r\n")
    assert PIECE not in body


@external("curl")
def test_curl_requests_other_protocols(server: Mail) -> None:
    """HTTP/2 is not spoken, however it is requested; the server is not a proxy."""
    place = url(server, "application")
    body, said = curl(server, "--http2", place)
    assert request_seen(body)["version"] == "1.1"
    assert "> Upgrade: h2c" in said
    body, said = curl(server, "--http2", url(server, "applications"))
    assert request_seen(body)["version"] == "1.1"
    assert re.search(r"ALPN: (curl )?offers h2,http/1\.1", said)
    # "Nothing was returned", or, newer, "a problem in the HTTP2 framing layer".
    run("curl", "--silent", "--http2-prior-knowledge", place, expect=(16, 52))
    # A proxy is asked for the whole URL, which every server must understand.
    body, said = curl(server, "--proxy", place, "http://example.org/path?query")
    assert "> GET http://example.org/path?query HTTP/1.1" in said
    assert (request_seen(body)["path"], request_seen(body)["query"]) == ("/path", "query")
    tunnel = ("--proxytunnel", "--proxy", place, "http://example.org/")
    done = run("curl", "--silent", "--verbose", *tunnel, expect=(7, 56))
    assert b"< HTTP/1.1 501 " in done.stderr


@external("curl")
@pytest.mark.parametrize(
    ("options", "status"),
    [
        (("--header", "Host:"), 400),
        (("--header", "Content-Length: 1x", "--data", "x"), 400),
        (("--header", "Transfer-Encoding: chunked", "--header", "Content-Length: 1"), 400),
        (("--header", f"X: {'y' * 70_000}"), 431),
    ],
    ids=["no host", "no length", "two lengths", "a large head"],
)
def test_curl_sends_malformed_requests(server: Mail, options: tuple[str, ...], status: int) -> None:
    words = ("--output", "/dev/null", "--write-out", "%{http_code}", *options)
    body, said = curl(server, *words, "--data", "x", url(server, "application"))
    assert int(body) == status
    assert "< connection: close" in said.lower()


@external("curl")
def test_curl_disconnects_in_the_middle(server: Mail) -> None:
    """During an endless download and an endless upload; nothing is left of either."""
    place = url(server, "application")
    briefly = ("curl", "--silent", "--max-time", "0.2", "--output", "/dev/null")
    run(*briefly, f"{place}endless", expect=(28,))
    run(*briefly, "--upload-file", "/dev/zero", place, expect=(28,))
    report = f"http://{server.at('management')}/api/listeners/application"
    with httpx.Client(timeout=PATIENCE) as client:
        until(lambda: client.get(report).json()["connections"] == 0, "the ends of connections")
    assert request_seen(curl(server, place)[0])["method"] == "GET"


@pytest.mark.parametrize("listener", LISTENERS)
def test_httpx_reuses_a_connection(server: Mail, listener: str) -> None:
    with httpx.Client(verify=authority().client_context(), timeout=PATIENCE) as client:
        ports = set()
        for number in range(20):
            answer = client.post(url(server, listener, f"/{number}"), content=b"x" * number)
            request = request_seen(answer.content)
            assert (answer.status_code, answer.http_version) == (200, "HTTP/1.1")
            assert (request["path"], request["size"]) == (f"/{number}", number)
            assert request["scheme"] == SCHEMES[listener]
            ports.add(request["client"][1])
        assert len(ports) == 1
        assert client.head(url(server, listener)).content == b""


@pytest.mark.parametrize("listener", LISTENERS)
def test_httpx_with_a_pool(server: Mail, listener: str) -> None:
    """30 uploads, then 30 downloads, on at most 10 connections, in pieces."""

    async def pieces() -> Any:
        for start in range(0, 200_000, 7000):
            yield UPLOAD[start : min(start + 7000, 200_000)]

    async def upload(client: httpx.AsyncClient) -> int:
        request = request_seen((await client.put(url(server, listener), content=pieces())).content)
        assert request["chunked"] == "chunked"
        assert request["sha256"] == hashlib.sha256(UPLOAD[:200_000]).hexdigest()
        return int(request["client"][1])

    async def download(client: httpx.AsyncClient) -> None:
        digest = hashlib.sha256()
        async with client.stream("GET", url(server, listener, "/stream")) as answer:
            async for piece in answer.aiter_bytes():
                digest.update(piece)
        assert digest.hexdigest() == STREAM

    async def talk() -> None:
        limits = httpx.Limits(max_connections=10, max_keepalive_connections=10)
        context = authority().client_context()
        async with httpx.AsyncClient(verify=context, limits=limits, timeout=PATIENCE) as client:
            ports = await asyncio.gather(*(upload(client) for _ in range(30)))
            await asyncio.gather(*(download(client) for _ in range(30)))
        assert len(set(ports)) <= 10

    asyncio.run(talk())
