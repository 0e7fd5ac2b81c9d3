"""Who may read and who may change: peer address, token, Host, Origin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from fastlisten.management.access import Access
from fastlisten.management.responses import RefusedError

TOKEN = "t" * 43

LOCAL = [("127.0.0.1", 1), ("127.8.9.10", 1), ("::1", 1), ("::ffff:127.0.0.1", 1), ("::1%lo", 1)]

REMOTE = [
    ("192.0.2.7", 1),
    ("::ffff:192.0.2.7", 1),
    ("fe80::1%eth0", 1),
    ("2001:db8::1", 1),
    ("127.0.0.1.example.com", 1),
    ("", 0),
]


def decide(
    *given: tuple[str, str],
    peer: tuple[str, int] | None = ("127.0.0.1", 1),
    server: tuple[str, int | None] | None = ("192.0.2.1", 8080),
    method: str = "GET",
    names: tuple[str, ...] = ("mx.example.org",),
) -> int | bool:
    """Return the decision: the status of a refusal, otherwise whether the token was given."""
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


# --- peer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", LOCAL, ids=str)
def test_loopback_may_read_without_a_token(peer: tuple[str, int]) -> None:
    assert decide(peer=peer) is False


@pytest.mark.parametrize("peer", REMOTE, ids=str)
def test_other_peers_need_the_token(peer: tuple[str, int]) -> None:
    assert decide(peer=peer) == 401
    assert decide(("authorization", f"Bearer {TOKEN}"), peer=peer) is True


def test_unix_socket_is_local_and_unknown_peer_is_not() -> None:
    assert decide(peer=None, server=("/run/management", None)) is False
    assert decide(peer=None, server=("192.0.2.1", 8080)) == 401
    assert decide(peer=None, server=None) == 401


@pytest.mark.parametrize("header", ["forwarded", "x-forwarded-for", "x-real-ip", "via"])
def test_request_through_a_local_proxy_is_not_local(header: str) -> None:
    assert decide((header, "anything")) == 401
    assert decide((header, "anything"), ("authorization", f"Bearer {TOKEN}")) is True


# --- the token ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_valid_token_is_accepted(text: str) -> None:
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
def test_wrong_token_is_refused_even_if_none_is_needed(text: str) -> None:
    assert decide(("authorization", text)) == 401


def test_two_tokens_are_refused() -> None:
    assert decide(*[("authorization", f"Bearer {TOKEN}")] * 2) == 401


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_other_text_is_refused_as_token(text: str) -> None:
    assert decide(("authorization", text)) == 401


def test_no_token_is_accepted_before_it_is_set() -> None:
    access = Access()
    scope = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "method": "GET"}
    raw = [(b"host", b"localhost"), (b"authorization", b"Bearer ")]
    with pytest.raises(RefusedError, match="401"):
        access.check(scope, Headers(raw=raw))


# --- Host ---------------------------------------------------------------------------------------


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
def test_own_host_names(host: str) -> None:
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
        # Not 127.0.0.1 with a scope.
        "127.0.0.1%ab",
        "127.0.0.1%25evil.example",
        "192.0.2.1%ee",
    ],
)
def test_foreign_host_names(host: str) -> None:
    assert decide(("host", host)) == 403
    # The token does not help: it would be sent to whoever owns the name.
    assert decide(("host", host), ("authorization", f"Bearer {TOKEN}")) == 403


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "a b", "localhost:x", "localhost:123456", "::1", "[::1", "u@localhost", "a/b"),
        *(
            "127.0.0.1%evil.example",
            "localhost%",
            "localhost%2",
            "[::1%evil.example]",
            "[::1%25lo]",
        ),
    ],
)
def test_malformed_host_names(host: str) -> None:
    assert decide(("host", host)) == 400


def test_exactly_one_host_is_required() -> None:
    assert decide(("host", "localhost"), ("host", "localhost")) == 400
    scope = {"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "method": "GET"}
    with pytest.raises(RefusedError, match="400"):
        Access().check(scope, Headers(raw=[]))


def test_host_of_a_scoped_address() -> None:
    assert decide(("host", "[fe80::1]:80"), server=("fe80::1%eth0", 80)) is False
    assert decide(("host", "[fe80::2]:80"), server=("fe80::1%eth0", 80)) == 403


def test_allowed_hosts() -> None:
    names = ("mail.example.net", "2001:DB8::1", "", "[IPv6:2001:db8::2]", "[192.0.2.9]")
    assert decide(("host", "[2001:db8::2]:80"), names=names) is False
    assert decide(("host", "192.0.2.9"), names=names) is False
    assert decide(("host", "mail.example.net:1"), names=names) is False
    assert decide(("host", "[2001:db8:0::1]"), names=names) is False
    assert decide(("host", "mx.example.org"), names=names) == 403


# --- Origin -------------------------------------------------------------------------------------


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
def test_requests_from_own_pages(host: str, origin: str) -> None:
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
            "http://localhost%2e:8080",
            "http://localhost:99999",
            "localhost:8080",
            "http://[::1",
        ],
    ],
)
def test_requests_from_foreign_pages_are_refused(origin: str) -> None:
    given = [("host", "localhost:8080"), ("origin", origin)]
    assert decide(*given) == 403
    assert decide(*given, ("authorization", f"Bearer {TOKEN}"), method="POST") == 403
    assert decide(("origin", "http://localhost:8080"), *given) == 403


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_same_site_browser_requests(site: str) -> None:
    assert decide(("sec-fetch-site", site)) is False


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "anything"])
def test_cross_site_browser_requests(site: str) -> None:
    told = ("sec-fetch-site", site)
    assert decide(told) == 403
    assert decide(told, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")) == 403
    link = (told, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
    assert decide(*link) is False
    assert decide(*link, method="POST") == 403
    assert decide(told, ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1%evil.example"),
        ("127.0.0.1:8080", "http://127.0.0.1%25evil.example:8080"),
        ("[::1]", "http://[::1%evil.example]"),
    ],
)
def test_origin_with_a_scope_is_another_site(host: str, origin: str) -> None:
    assert decide(("host", host), ("origin", origin)) == 403
