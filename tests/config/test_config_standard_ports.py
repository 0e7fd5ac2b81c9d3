"""Ports that clients use with TLS from the first byte, or without: a listener that does otherwise.

Rules of this file: it is a warning, because an address may be reached by other means.
"""

from __future__ import annotations

import pytest
from support.config import load_text

MISSING = "clients begin with TLS on port {}: tls.implicit = true is missing"
NOT_MEANT = "clients do not begin with TLS on port {}: is tls.implicit meant?"


def warnings_of(protocol: str, bind: str, more: str = "") -> list[tuple[str, str]]:
    text = f'[server.listener.it]\nprotocol = "{protocol}"\nbind = {bind}\n{more}'
    found = load_text(text).warnings
    return [(one.key, one.message) for one in found if "clients " in one.message]


@pytest.mark.parametrize(
    ("protocol", "bind", "implicit", "message"),
    [
        ("imap", '"127.0.0.1:993"', False, MISSING.format(993)),
        ("smtp", '"[::1]:465"', False, MISSING.format(465)),
        ("http", '"127.0.0.1:443"', False, MISSING.format(443)),
        ("imap", '"127.0.0.1:143"', True, NOT_MEANT.format(143)),
        ("smtp", '"127.0.0.1:25"', True, NOT_MEANT.format(25)),
    ],
)
def test_port_of_the_other_kind(protocol: str, bind: str, implicit: bool, message: str) -> None:
    more = "tls.implicit = true" if implicit else ""
    assert ("server.listener.it.bind", message) in warnings_of(protocol, bind, more)


def test_only_the_address_that_is_meant() -> None:
    bind = '["127.0.0.1:1993", "127.0.0.1:993"]'
    assert warnings_of("imap", bind) == [("server.listener.it.bind[1]", MISSING.format(993))]


@pytest.mark.parametrize(
    ("protocol", "bind", "more"),
    [
        ("imap", '["127.0.0.1:993", "127.0.0.1:1143"]', "tls.implicit = true"),
        ("imap", '["127.0.0.1:143", "127.0.0.2", "unix:/run/x"]', ""),
        ("http", '"127.0.0.1:443"', "tls.enable = false"),  # TLS ends elsewhere
        ("lmtp", '"127.0.0.1:24"', ""),  # the same port for both
        ("other", '"127.0.0.1:993"', 'handler = "support.serving_handlers:Echo"'),
    ],
)
def test_nothing_to_say(protocol: str, bind: str, more: str) -> None:
    assert warnings_of(protocol, bind, more) == []
