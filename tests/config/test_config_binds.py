"""Binds: the grammar of addresses, standard ports, overlaps, IPV6_V6ONLY."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.config import (
    MACHINE,
    listener,
    listener_problem,
    listener_table,
    load_text,
    only_problem,
    problems,
)

from fastlisten.config import Bind
from fastlisten.config.values.binds import parse_bind
from fastlisten.config.values.grammar import BadValueError


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("10.0.0.21:25", Bind("10.0.0.21:25", "inet", "10.0.0.21", 25)),
        ("10.0.0.21", Bind("10.0.0.21", "inet", "10.0.0.21", 2400)),
        ("0.0.0.0:0", Bind("0.0.0.0:0", "inet", "0.0.0.0", 0, wildcard=True)),
        ("[::]:25", Bind("[::]:25", "inet6", "::", 25, wildcard=True)),
        ("[0:0::0]:25", Bind("[0:0::0]:25", "inet6", "::", 25, wildcard=True)),
        ("a:3f::2", Bind("a:3f::2", "inet6", "a:3f::2", 2400)),
        ("[A:3F::2]", Bind("[A:3F::2]", "inet6", "a:3f::2", 2400)),
        ("[::1]:65535", Bind("[::1]:65535", "inet6", "::1", 65535)),
        ("[fe80::1%eth0]:25", Bind("[fe80::1%eth0]:25", "inet6", "fe80::1", 25, scope="eth0")),
        (
            "fe80::1%4294967295",
            Bind("fe80::1%4294967295", "inet6", "fe80::1", 2400, scope="4294967295"),
        ),
        ("fe80::1%2", Bind("fe80::1%2", "inet6", "fe80::1", 2400, scope="2")),
        (" [::1]:25 ", Bind(" [::1]:25 ", "inet6", "::1", 25)),
        ("unix:/run/x y:z", Bind("unix:/run/x y:z", "unix", "/run/x y:z")),
        ("fd:3", Bind("fd:3", "fd", "", fd=3)),
        ("systemd:smtp.socket", Bind("systemd:smtp.socket", "systemd", "smtp.socket")),
    ],
)
def test_valid_bind(text: str, bind: Bind) -> None:
    assert parse_bind(text, 2400) == bind


@pytest.mark.parametrize(
    ("text", "says", "suggestion"),
    [
        ("", "empty", ""),
        ("25", "the address is missing", '"[::]:25"'),
        (":25", "the address is missing", '"[::]:25"'),
        ("*:25", "the address is missing", '"[::]:25"'),
        ("*", "the address is missing", '"[::]"'),
        ("localhost:25", "this is a host name", '"127.0.0.1:25"'),
        ("mx.example.org:25", "this is a host name", ""),
        ("10.0.0:25", "not an IPv4 address", ""),
        ("010.0.0.1:25", "not an IPv4 address", ""),
        ("10.0.0.1:", "is not a port", ""),
        ("10.0.0.1:65536", "is not a port", ""),
        ("10.0.0.1:smtp", "is not a port", ""),
        ("10.0.0.1:-1", "is not a port", ""),
        ("10.0.0.1:٢٥", "is not a port", ""),
        ("10.0.0.1:999999999999", "is not a port", ""),
        ("[::1:25", "brackets", ""),
        ("[::1]25", "brackets", ""),
        ("[::g]:25", "not an IPv6 address", ""),
        ("1:2:3", "not an IPv6 address", ""),
        ("[10.0.0.1]:25", "brackets are for IPv6", '"10.0.0.1:25"'),
        ("[::ffff:10.0.0.1]:25", "IPv4-mapped IPv6 address", '"10.0.0.1:25"'),
        ("[fe80::1]:25", "needs an interface", ""),
        ("[fe80::1%]:25", "not an interface name", ""),
        ("fe80::1%eth0:25", "not an interface name", ""),
        ("[fe80::1%4294967296]:25", "not an interface name", ""),
        ("[fe80::1%\u00b2]:25", "not an interface name", ""),
        ("tcp://10.0.0.1", "this is not an address", ""),
        ("unix:run/x", "must start with /", ""),
        ("unix:/run/", "names a directory", ""),
        ("unix:/" + "x" * 107, "at most 107 bytes", ""),
        ("unix:/" + "ü" * 54, "at most 107 bytes", ""),
        ("fd:1", "3 or more", ""),
        ("fd:x", "3 or more", ""),
        ("systemd:a:b", "FileDescriptorName", ""),
        ("systemd:", "FileDescriptorName", ""),
    ],
)
def test_invalid_bind(text: str, says: str, suggestion: str) -> None:
    with pytest.raises(BadValueError) as caught:
        parse_bind(text, 2400)
    assert says in caught.value.message
    assert caught.value.suggestion == suggestion


@given(st.one_of(st.text(max_size=30), st.text(alphabet="0123456789abf:.[]%/*", max_size=24)))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    try:
        bind = parse_bind(text, 25)
    except BadValueError:
        return
    assert bind.text == text
    assert 0 <= bind.port <= 65535


@pytest.mark.parametrize(
    ("protocol", "implicit", "port"),
    [
        ("smtp", False, 25),
        ("smtp", True, 465),
        ("lmtp", False, 24),
        ("lmtp", True, 24),
        ("imap", False, 143),
        ("imap", True, 993),
        ("managesieve", False, 4190),
        ("jmap", True, 443),
        ("http", False, 80),
        ("http", True, 443),
    ],
)
def test_standard_port_per_protocol(protocol: str, implicit: bool, port: int) -> None:
    tls = "tls.implicit = true" if implicit else ""
    it = listener(f'protocol = "{protocol}"\nbind = ["127.0.0.1", "::1"]\n{tls}')
    assert [bind.port for bind in it.bind] == [port, port]


def test_standard_port_follows_an_inherited_implicit_tls() -> None:
    it = listener('bind = "127.0.0.1"', before="[server.tls]\nimplicit = true")
    assert it.bind[0].port == 465


def test_ipv6_address_that_looks_like_host_and_port_warns() -> None:
    config = load_text(listener_table("it", 'bind = "2001:db8::1:25"'))
    warning = config.warnings[0]
    assert "25 is taken as part of the address" in warning.message
    assert warning.suggestion == '"[2001:db8::1]:25"'
    assert config.listeners[0].bind[0].address == "2001:db8::1:25"
    for quiet in ('"[2001:db8::1:25]:2525"', '"2001:db8::1:26"'):
        assert not load_text(listener_table("it", f"bind = {quiet}")).warnings


def test_lmtp_on_port_25_is_an_error() -> None:
    problem = listener_problem('protocol = "lmtp"\nbind = ["127.0.0.1", "127.0.0.1:25"]')
    assert problem.key == "server.listener.it.bind[1]"
    assert "RFC 2033" in problem.message


@pytest.mark.parametrize(
    "body",
    [
        'bind = ["127.9.9.9", "[::1]", "unix:/run/jmap"]',
        'bind = "0.0.0.0"\ntls.implicit = true',
        'bind = "0.0.0.0"\nproxy.trusted-networks = "10.0.0.0/8"',
    ],
)
def test_jmap_without_tls_on_local_or_proxied_binds(body: str) -> None:
    assert listener(f'protocol = "jmap"\n{body}').protocol == "jmap"


@pytest.mark.parametrize("bind", ["0.0.0.0", "[::]", "192.0.2.1", "fd:3", "systemd:jmap"])
def test_jmap_without_tls_elsewhere_is_an_error(bind: str) -> None:
    assert "JMAP needs TLS" in listener_problem(f'protocol = "jmap"\nbind = "{bind}"').message


def two(first: str, second: str) -> str:
    return listener_table("a", f"bind = {first}") + listener_table("b", f"bind = {second}")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('"127.0.0.1:25"', '"127.0.0.1:25"'),
        ('"127.0.0.1:25"', '"127.0.0.1"'),
        ('"[::1]:25"', '"0::1"'),
        ('"0.0.0.0:25"', '"127.0.0.1:25"'),
        ('"127.0.0.1:25"', '"0.0.0.0:25"'),
        ('"[::]:25"', '"127.0.0.1:25"'),
        ('"[::]:25"', '"[::1]:25"'),
        ('"[fe80::1%eth0]:25"', '"[::]:25"'),
        ('"[::]:25"', '"[::]:25"'),
        ('"unix:/run/a"', '"unix:/run/a"'),
        ('"fd:3"', '"fd:3"'),
        ('"systemd:a"', '"systemd:a"'),
    ],
)
def test_overlaps_name_both_listeners(first: str, second: str) -> None:
    problem = only_problem(two(first, second))
    one, other = ("a", "b") if problem.key.startswith("server.listener.a.bind") else ("b", "a")
    assert problem.key.startswith(f"server.listener.{one}.bind")
    assert f'address already used by listener "{other}"' in problem.message


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ('"127.0.0.1:25"', '"127.0.0.1:26"'),
        ('"127.0.0.1:25"', '"[::1]:25"'),
        ('"0.0.0.0:25"', '"[::1]:25"'),
        ('"0.0.0.0:25"', '"[::]:25"'),
        ('"[::]:25"', '"127.0.0.1:26"'),
        ('"127.0.0.1:0"', '"127.0.0.1:0"'),
        ('"[::]:0"', '"127.0.0.1:0"'),
        ('"[fe80::1%eth0]:25"', '"[fe80::1%eth1]:25"'),
        ('"unix:/run/a"', '"unix:/run/b"'),
        ('"fd:3"', '"fd:4"'),
    ],
)
def test_no_overlap(first: str, second: str) -> None:
    assert len(load_text(two(first, second)).listeners) == 2


def test_overlap_within_a_listener() -> None:
    problem = listener_problem('bind = ["127.0.0.1", "[::]:25"]')
    assert problem.message == 'address already used by this listener: "[::]:25" covers it'
    assert problem.key == "server.listener.it.bind[0]"


def test_every_overlap_is_reported() -> None:
    text = two('["[::]:25", "0.0.0.0:25"]', '["127.0.0.1:25", "127.0.0.2:25", "[::1]:25"]')
    found = problems(text)
    assert [problem.value for problem in found] == [
        '"127.0.0.1:25"',
        '"127.0.0.2:25"',
        '"[::1]:25"',
    ]
    assert '"0.0.0.0:25"' in found[0].message  # [::] leaves IPv4 to it
    assert '"[::]:25"' in found[2].message


@pytest.mark.parametrize(
    ("binds", "v6only"),
    [
        (["[::]:25"], [False]),
        (["[::]:25", "0.0.0.0:25"], [True, None]),
        (["0.0.0.0:25", "[::]:26"], [None, False]),
        (["[::]:0", "0.0.0.0:0"], [False, None]),
        (["[::1]:25"], [True]),
        (["a:3f::2", "10.0.0.21:25"], [True, None]),
        (["[::1]:0"], [True]),
        (["unix:/run/x", "fd:3"], [None, None]),
    ],
)
def test_v6only(binds: list[str], v6only: list[bool | None]) -> None:
    it = listener(f"bind = {binds}".replace("'", '"'))
    assert [bind.v6only for bind in it.bind] == v6only


def test_v6only_follows_the_ipv4_wildcard_of_another_listener() -> None:
    config = load_text(two('"[::]:25"', '"0.0.0.0:25"'))
    assert config.listeners[0].bind[0].v6only is True


def test_reuse_port_without_an_ip_address_warns() -> None:
    own = "\nsocket.reuse-port = true"
    config = load_text(listener_table("it", f'bind = ["unix:/x", "fd:3"]{own}'))
    (warning,) = config.warnings
    assert (warning.key, warning.message) == (
        "server.listener.it.socket.reuse-port",
        "this has no effect: no bind is an IP address",
    )
    for quiet in (f'bind = ["unix:/x", "127.0.0.1:25"]{own}', 'bind = "unix:/x"'):
        assert not load_text(listener_table("it", quiet), machine=MACHINE).warnings
    inherited = f"[server]{own}\n" + listener_table("it", 'bind = "unix:/x"')
    assert not load_text(inherited, machine=MACHINE).warnings


def test_permissions_without_a_unix_socket_warn() -> None:
    config = load_text(listener_table("it", 'socket.mode = "0600"'), machine=MACHINE)
    assert "no bind is a unix: socket" in config.warnings[0].message
    quiet = load_text(listener_table("it", 'bind = "unix:/x"\nsocket.mode = "0600"'))
    assert not quiet.warnings
    assert quiet.listeners[0]["socket.mode"] == 0o600
