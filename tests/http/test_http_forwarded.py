"""`http.trusted-proxies`: whose Forwarded and X-Forwarded-* are believed, and how far."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http import App, client_of, serving_app
from support.loops import on_loops

from fastlisten.handlers.http.forwarded import TrustedProxies

NETWORKS = [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "2001:db8::/32")]
TRUSTED = TrustedProxies(NETWORKS)

#: Fields, the client's address and port, and whether it uses TLS.
CASES: list[tuple[list[tuple[str, str]], Any]] = [
    ([], None),
    ([("x-forwarded-host", "a")], None),
    ([("x-forwarded-for", "192.0.2.1")], (("192.0.2.1", 0), None)),
    ([("x-forwarded-for", "192.0.2.1:4711")], (("192.0.2.1", 4711), None)),
    ([("x-forwarded-for", "2001:db9::1")], (("2001:db9::1", 0), None)),
    ([("x-forwarded-for", "[2001:db9::1]:25")], (("2001:db9::1", 25), None)),
    ([("x-forwarded-for", "::ffff:192.0.2.1")], (("192.0.2.1", 0), None)),
    # What the client itself has written stands on the left.
    ([("x-forwarded-for", "1.1.1.1, 192.0.2.1, 10.0.0.9")], (("192.0.2.1", 0), None)),
    ([("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.9")], (None, None)),
    ([("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.1")], (("192.0.2.1", 0), None)),
    ([("x-forwarded-for", "10.0.0.1, 10.0.0.2")], (("10.0.0.1", 0), None)),
    ([("x-forwarded-for", "192.0.2.1, , 10.0.0.2,")], (("192.0.2.1", 0), None)),
    ([("x-forwarded-for", "192.0.2.1:99999")], (None, None)),
    ([("x-forwarded-proto", "https")], (None, True)),
    ([("x-forwarded-proto", "HTTP")], (None, False)),
    ([("x-forwarded-proto", "gopher")], (None, None)),
    ([("x-forwarded-proto", "http, https")], (None, True)),
    ([("forwarded", "for=192.0.2.1")], (("192.0.2.1", 0), None)),
    ([("forwarded", 'For="[2001:db9::1]:4711"; Proto=HTTPS')], (("2001:db9::1", 4711), True)),
    ([("forwarded", "for=1.1.1.1, for=192.0.2.1;by=10.0.0.1")], (("192.0.2.1", 0), None)),
    ([("forwarded", "for=1.1.1.1"), ("forwarded", "for=192.0.2.1")], (("192.0.2.1", 0), None)),
    ([("forwarded", 'for="1.1.1.1, 2.2.2.2";proto=http')], (None, False)),
    ([("forwarded", "for=_hidden;proto=https")], (None, True)),
    ([("forwarded", "for=192.0.2.1;")], (("192.0.2.1", 0), None)),
    # Of one that is malformed nothing is believed.
    ([("forwarded", "for=192.0.2.1, for")], None),
    ([("forwarded", 'for="192.0.2.1')], None),
    # Proxies that write the one kind pass on the other, which a client may have made up.
    ([("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")], (("2.2.2.2", 0), None)),
    ([("forwarded", 'for="'), ("x-forwarded-for", "2.2.2.2")], (("2.2.2.2", 0), None)),
    ([("forwarded", "proto=https"), ("x-forwarded-for", "2.2.2.2")], (("2.2.2.2", 0), None)),
    ([("forwarded", "for=1.1.1.1"), ("x-forwarded-proto", "https")], (None, True)),
    # The scheme is that of an element which a trusted proxy has written.
    ([("forwarded", "for=1.1.1.1;proto=https, for=192.0.2.1")], (("192.0.2.1", 0), None)),
    ([("forwarded", "for=192.0.2.1;proto=https, for=10.0.0.2")], (("192.0.2.1", 0), True)),
    (
        [("forwarded", "for=192.0.2.1;proto=http, for=10.0.0.2;proto=https")],
        (("192.0.2.1", 0), True),
    ),
    ([("forwarded", "for=192.0.2.1, proto=https")], (None, True)),
]


@pytest.mark.parametrize(("fields", "expected"), CASES)
def test_client_is_the_last_address_that_is_not_a_trusted_proxy(
    fields: list[tuple[str, str]], expected: Any
) -> None:
    assert TRUSTED.client([(name.encode(), value.encode()) for name, value in fields]) == expected


def test_peer_is_trusted_by_network_or_unix() -> None:
    peers = ["10.1.2.3", "2001:db8::5", "11.0.0.1", "2001:db9::1", "fe80::1%eth0", ""]
    assert [TRUSTED.trusts(peer) for peer in peers] == [True, True, False, False, False, False]
    unix = TrustedProxies(("unix",))
    assert [unix.trusts(peer) for peer in ("10.1.2.3", "")] == [False, True]


@given(
    name=st.sampled_from(["forwarded", "x-forwarded-for", "x-forwarded-proto"]), value=st.binary()
)
def test_any_octets_in_the_fields_are_survived(name: str, value: bytes) -> None:
    TRUSTED.client([(name.encode(), value)])


def test_long_list_takes_linear_time() -> None:
    assert TRUSTED.client([(b"x-forwarded-for", b"10.0.0.1," * 8000)]) == (("10.0.0.1", 0), None)
    assert TRUSTED.client([(b"forwarded", b'for="' + b"\\" * 60_000)]) is None


@on_loops
@pytest.mark.parametrize("trusted", [True, False])
async def test_scope_and_log_name_the_client_of_a_trusted_proxy(
    trusted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fastlisten.http")
    networks = (ipaddress.ip_network("127.0.0.0/8" if trusted else "10.0.0.0/8"),)
    options = {"trusted_proxies": networks}
    async with serving_app(App(), options=options) as served, client_of(served) as client:
        request = b"GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=192.0.2.1;proto=https\r\n\r\n"
        told = json.loads((await client.ask(request))[1])
        # Each request for itself: a proxy keeps its connections.
        plain = json.loads((await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"))[1])
    port = plain["client"][1]
    assert (plain["client"], plain["scheme"]) == (["127.0.0.1", port], "http")
    shown = [record.getMessage().split()[2] for record in caplog.records]
    if trusted:
        assert (told["client"], told["scheme"]) == (["192.0.2.1", 0], "https")
        assert shown == ["[192.0.2.1]:0", f"[127.0.0.1]:{port}"]
    else:
        assert (told["client"], told["scheme"]) == (plain["client"], "http")
        assert shown == [f"[127.0.0.1]:{port}"] * 2
