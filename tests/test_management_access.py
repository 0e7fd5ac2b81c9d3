"""Who may read and who may change: peer, token, Host, origin."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers_management import lifespan, listener, managed, settings
from hypothesis import given
from hypothesis import strategies as st
from serving import on_loops, served
from starlette.datastructures import Headers

from fastlisten.handlers.base import HandlerSettings
from fastlisten.management.access import Access
from fastlisten.management.answers import RefusedError
from fastlisten.management.app import application

TOKEN = "t" * 43

LOCAL = [("127.0.0.1", 1), ("127.8.9.10", 1), ("::1", 1), ("::ffff:127.0.0.1", 1)]

REMOTE = [
    ("192.0.2.7", 1),
    ("::ffff:192.0.2.7", 1),
    ("fe80::1%eth0", 1),
    ("2001:db8::1", 1),
    ("127.0.0.1.example.com", 1),
    ("", 0),
]

UNMANAGED = listener("it", "tls.enable = false")

WAYS = [("GET", "/api/listeners"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/healthz/live")]

CHANGES = ["pause", "resume", "drain", "limit"]


def decide(
    *given: tuple[str, str],
    peer: tuple[str, int] | None = ("127.0.0.1", 1),
    server: tuple[str, int | None] | None = ("192.0.2.1", 8080),
    method: str = "GET",
    names: tuple[str, ...] = ("mx.example.org",),
) -> int | bool:
    """Return what is decided: the status of the refusal, else whether the token is there."""
    headers = list(given)
    if not any(name == "host" for name, _ in headers):
        headers.append(("host", "localhost"))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    access = Access(names)
    access.token = TOKEN
    scope: Mapping[str, Any] = {"client": peer, "server": server, "method": method}
    try:
        return access.check(scope, Headers(raw=raw))
    except RefusedError as error:
        return error.status


# --- where from --------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", LOCAL, ids=str)
def test_loopback_reads_freely(peer: tuple[str, int]) -> None:
    assert decide(peer=peer) is False


@pytest.mark.parametrize("peer", REMOTE, ids=str)
def test_others_need_the_token(peer: tuple[str, int]) -> None:
    assert decide(peer=peer) == 401
    assert decide(("authorization", f"Bearer {TOKEN}"), peer=peer) is True


def test_a_unix_socket_is_local_and_a_vanished_client_is_not() -> None:
    assert decide(peer=None, server=("/run/management", None)) is False
    assert decide(peer=None, server=("192.0.2.1", 8080)) == 401
    assert decide(peer=None, server=None) == 401


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip", "via"])
def test_a_proxy_on_this_machine_does_not_lend_its_address(header: str) -> None:
    assert decide((header, "anything")) == 401
    assert decide((header, "anything"), ("authorization", f"Bearer {TOKEN}")) is True


# --- the token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_token_is_known(text: str) -> None:
    assert decide(("authorization", text)) is True


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer t\xfct",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[1:]}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer\t{TOKEN}",
        f'Bearer "{TOKEN}"',
        f"Basic {TOKEN}",
        TOKEN,
    ],
)
def test_a_wrong_token_is_refused_also_where_none_is_needed(text: str) -> None:
    assert decide(("authorization", text)) == 401


def test_two_tokens_are_none() -> None:
    assert decide(*[("authorization", f"Bearer {TOKEN}")] * 2) == 401


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_no_other_text_is_the_token(text: str) -> None:
    assert decide(("authorization", text)) == 401


def test_nothing_opens_as_long_as_the_token_is_not_known() -> None:
    access = Access()
    scope = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "method": "GET"}
    raw = [(b"host", b"localhost"), (b"authorization", b"Bearer ")]
    with pytest.raises(RefusedError, match="401"):
        access.check(scope, Headers(raw=raw))


# --- the name that the server is called by ------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "localhost:8080",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:1",
        "127.5.5.5",
        "[::1]",
        "[::1]:8080",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "192.0.2.1",
        "192.0.2.1:8080",
        "[::ffff:192.0.2.1]",
        "mx.example.org",
        "MX.example.org.:8",
    ],
)
def test_own_names(host: str) -> None:
    assert decide(("host", host)) is False


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.0.2.2",
        "0.0.0.0",
        "example.org",
        "[2001:db8::1]",
        "[::]",
        "127.1",
        "0x7f000001",
        "2130706433",
        "foolocalhost",
        "mx.example.org.evil.example",
    ],
)
def test_names_of_others(host: str) -> None:
    assert decide(("host", host)) == 403
    # The token opens nothing here: it would be sent to whoever the name belongs to.
    assert decide(("host", host), ("authorization", f"Bearer {TOKEN}")) == 403


@pytest.mark.parametrize(
    "host", ["", " ", "a b", "localhost:x", "localhost:123456", "::1", "[::1", "u@localhost", "a/b"]
)
def test_malformed_names(host: str) -> None:
    assert decide(("host", host)) == 400


def test_one_name_is_needed() -> None:
    assert decide(("host", "localhost"), ("host", "localhost")) == 400
    scope = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "method": "GET"}
    with pytest.raises(RefusedError, match="400"):
        Access().check(scope, Headers(raw=[]))


def test_further_names() -> None:
    names = ("mail.example.net", "2001:DB8::1", "", "[IPv6:2001:db8::2]", "[192.0.2.9]")
    assert decide(("host", "[2001:db8::2]:80"), names=names) is False
    assert decide(("host", "192.0.2.9"), names=names) is False
    assert decide(("host", "mail.example.net:1"), names=names) is False
    assert decide(("host", "[2001:db8:0::1]"), names=names) is False
    assert decide(("host", "mx.example.org"), names=names) == 403


# --- pages of others ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost", "http://localhost"),
        ("localhost:8080", "http://localhost:8080"),
        ("localhost:80", "http://localhost"),
        # TLS ends at a proxy.
        ("mx.example.org", "https://mx.example.org"),
        ("[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_own_pages(host: str, origin: str) -> None:
    assert decide(("host", host), ("origin", origin)) is False


@pytest.mark.parametrize(
    "origin",
    [
        "",
        *[
            "null",
            "http://evil.example",
            "http://localhost:3000",
            "http://localhost.evil.example:8080",
            "http://127.0.0.1:8080",
            "http://localhost:99999",
            "localhost:8080",
            "http://[::1",
        ],
    ],
)
def test_pages_of_others_are_refused(origin: str) -> None:
    given = [("host", "localhost:8080"), ("origin", origin)]
    assert decide(*given) == 403
    assert decide(*given, ("authorization", f"Bearer {TOKEN}"), method="POST") == 403
    assert decide(("origin", "http://localhost:8080"), *given) == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_requests_of_a_browser(site: str) -> None:
    assert decide(("sec-fetch-site", site)) is False


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything"])
def test_other_requests_of_a_browser(site: str) -> None:
    told = ("sec-fetch-site", site)
    assert decide(told) == 403
    assert decide(told, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")) == 403
    link = (told, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
    assert decide(*link) is False
    assert decide(*link, method="POST") == 403
    assert decide(told, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")) == 403


# --- the whole ----------------------------------------------------------------------------------


@on_loops
async def test_reading_and_changing(tmp_path: Path) -> None:
    async with managed(tmp_path) as it:
        everyone: list[tuple[Callable[[], httpx.AsyncClient], bool, bool]] = [
            (lambda: it.client(), True, False),
            (lambda: it.client(peer=("192.0.2.7", 1)), False, False),
            (lambda: it.client("wrong"), False, False),
            (lambda: it.client(it.token), True, True),
            (lambda: it.client(it.token, peer=("192.0.2.7", 1)), True, True),
            (lambda: it.client(it.token, base="http://evil.example"), False, False),
            (lambda: it.client(it.token, origin="http://evil.example"), False, False),
        ]
        for make, reads, changes in everyone:
            async with make() as client:
                for method, path in WAYS:
                    status = (await client.request(method, path)).status_code
                    assert status == 200 if reads else status in (401, 403)
                for change in CHANGES[:2]:
                    status = (await client.post(f"/api/listeners/it/{change}")).status_code
                    assert status == 200 if changes else status in (401, 403)


@on_loops
async def test_who_may_not_read_learns_nothing(tmp_path: Path) -> None:
    """Neither what there is, nor by which method, nor whether a body would be good."""
    async with managed(tmp_path) as it, it.client(peer=("192.0.2.7", 1)) as client:
        answers = [
            await client.request(method, path, content=body)
            for method, path, body in [
                ("GET", "/api/listeners/it", b""),
                ("GET", "/api/listeners/nobody", b""),
                ("GET", "/nowhere", b""),
                ("DELETE", "/", b""),
                ("POST", "/api/listeners/it/limit", b"x" * 10_000),
            ]
        ]
        assert {one.status_code for one in answers} == {401}
        assert len({one.content for one in answers}) == 1
        assert answers[0].headers["www-authenticate"] == 'Bearer realm="fastlisten"'


@on_loops
async def test_the_token_is_in_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with managed(tmp_path) as it, it.manager() as client:
            await client.post("/api/listeners/it/limit", json={"limit": 3})
            await client.post("/api/listeners/it/pause")
            async with it.client(it.token[:-1] + "!") as other:
                await other.post("/api/listeners/it/pause")
        assert 'listener "it": max-connections set to 3 by 127.0.0.1, was 8192' in caplog.messages
        assert 'listener "it": paused by 127.0.0.1' in caplog.messages
        assert (
            f"the token for changes has been made: {tmp_path}/management.token" in caplog.messages
        )
        assert it.token not in caplog.text
        assert it.token[:-1] not in caplog.text


@on_loops
async def test_without_lifespan_nothing_can_be_changed(tmp_path: Path) -> None:
    async with served(UNMANAGED) as server:
        app = application(settings(server, tmp_path))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/healthz/live")).status_code == 200
            answer = await client.post("/api/listeners/it/pause")
            assert answer.status_code == 401


@on_loops
async def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "management.token").write_text("x" * 43)
    (tmp_path / "management.token").chmod(0o644)
    async with served(UNMANAGED) as server:
        async with lifespan(application(settings(server, tmp_path))) as said:
            (failed,) = said
            assert failed["type"] == "lifespan.startup.failed"
            assert f"{tmp_path}/management.token: has mode 0644" in failed["message"]
        nowhere = dataclasses.replace(settings(server, tmp_path), data_directory="")
        async with lifespan(application(nowhere)) as said:
            (failed,) = said
            assert "needs a data directory" in failed["message"]


@on_loops
async def test_a_websocket_is_not_accepted(tmp_path: Path) -> None:
    async with managed(tmp_path) as it:
        said: asyncio.Queue[Any] = asyncio.Queue()
        await it.app({"type": "websocket"}, asyncio.Queue().get, said.put)
        assert said.get_nowait()["type"] == "websocket.close"
        assert said.empty()


def test_there_must_be_a_server(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no server to manage"):
        application(HandlerSettings("it", "http", "mx.example.org", data_directory=str(tmp_path)))
