"""The grammar of values: what each kind accepts and rejects, and how it is written back."""

from __future__ import annotations

import ipaddress

import pytest
import tomli
from hypothesis import given
from hypothesis import strategies as st

from fastlisten.config import HostPort, Rate, ServerName
from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.values.grammar import BadValueError, format_duration, parse_duration
from fastlisten.config.values.kinds import KINDS, describe, plain, write
from fastlisten.option import Option

ROWS = {
    row.key: row
    for row in (
        *LISTENER_OPTIONS,
        *PROCESS_OPTIONS,
        *CERTIFICATE_OPTIONS,
        *(
            row
            for protocol in known_protocols().definitions.values()
            for row in (*protocol.listener_options, *own_rows(protocol))
        ),
    )
}


def parse(key: str, raw: object) -> object:
    return KINDS[ROWS[key].kind].parse(ROWS[key], raw)


@pytest.mark.parametrize(
    ("key", "raw", "typed"),
    [
        ("tls.implicit", True, True),
        ("tls.implicit", "true", True),
        ("tls.implicit", " False ", False),
        ("max-connections", 1, 1),
        ("max-connections", "8192", 8192),
        ("max-connections", 2**31 - 1, 2**31 - 1),
        ("socket.backlog", "+5", 5),
        ("socket.ttl", 255, 255),
        ("socket.ttl", False, None),
        ("socket.ttl", "false", None),
        ("timeout.idle", "1500ms", 1.5),
        ("timeout.idle", "5s", 5.0),
        ("timeout.idle", "5 s", 5.0),
        ("timeout.idle", "1.5m", 90.0),
        ("timeout.idle", "2h", 7200.0),
        ("timeout.idle", "1d", 86400.0),
        ("timeout.idle", False, None),
        ("socket.keepalive-time", "2m", 120.0),
        ("socket.user-timeout", "1ms", 0.001),
        ("server.shutdown-timeout", "0s", 0.0),
        ("socket.linger", False, None),
        ("socket.linger", "false", None),
        ("socket.linger", 0, 0.0),
        ("socket.linger", 1, 1.0),
        ("socket.linger", 1.001, 1.001),
        ("socket.linger", "2", 2.0),
        ("socket.linger", "250ms", 0.25),
        ("socket.send-buffer-size", 4096, 4096),
        ("socket.send-buffer-size", "256KiB", 262144),
        ("socket.send-buffer-size", "64kB", 64000),
        ("socket.send-buffer-size", "1 m", 1000000),
        ("socket.send-buffer-size", "77", 77),
        ("socket.tos", 184, 184),
        ("socket.tos", "184", 184),
        ("socket.tos", "0xb8", 184),
        ("socket.tos", "EF", 184),
        ("socket.tos", "cs1", 32),
        ("socket.tos", "AF21", 72),
        ("socket.tos", "LE", 4),
        ("socket.tos", False, None),
        ("socket.mode", "0660", 0o660),
        ("socket.mode", "600", 0o600),
        ("socket.mode", "0o777", 0o777),
        ("socket.congestion", "bbr", "bbr"),
        ("limit-action", "WAIT", "wait"),
        ("handler", "package.module:Class", "package.module:Class"),
        ("server.workers", "auto", "auto"),
        ("server.workers", "3", 3),
        ("server.hostname", "mx.example.org.", "mx.example.org"),
        ("server.hostname", "[192.0.2.1]", "[192.0.2.1]"),
        ("server.hostname", "[IPv6:2001:db8::1]", "[IPv6:2001:db8::1]"),
        ("server.greeting", "welcome, all", "welcome, all"),
        ("forward", "127.0.0.1:10025", HostPort("127.0.0.1", 10025)),
        ("forward", "[0::1]:10025", HostPort("::1", 10025)),
        ("forward", "unix:/run/x", HostPort("/run/x", 0)),
        ("smtp.relay", "smart.example.org:587", HostPort("smart.example.org", 587)),
        ("http.allowed-hosts", "Mail.Example.org.", ("mail.example.org",)),
        (
            "http.allowed-hosts",
            ["[2001:DB8::1]", "192.0.2.1", "a"],
            ("2001:db8::1", "192.0.2.1", "a"),
        ),
        ("http.allowed-hosts", [], ()),
        ("limits.rate", "20 / 5m", Rate(20, 300.0)),
        ("limits.rate", "1/1s", Rate(1, 1.0)),
        ("limits.rate", False, None),
        ("limits.deny", "10.0.0.0/8", (ipaddress.ip_network("10.0.0.0/8"),)),
        ("limits.deny", ["10.0.0.1"], (ipaddress.ip_network("10.0.0.1/32"),)),
        ("limits.deny", "::ffff:10.0.0.0/104", (ipaddress.ip_network("10.0.0.0/8"),)),
        ("limits.deny", [], ()),
        (
            "proxy.trusted-networks",
            ["2001:db8::/32", "unix", "unix"],
            (ipaddress.ip_network("2001:db8::/32"), "unix"),
        ),
        ("tls.protocols", "tlsv1.3", ("TLSv1.3",)),
        ("tls.protocols", ["TLSv1.3", "TLSv1.2"], ("TLSv1.2", "TLSv1.3")),
        ("tls.ciphers", [], ()),
        (
            "tls.ciphers",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ("ECDHE-RSA-AES128-GCM-SHA256",),
        ),
        ("tls.ciphers", ["TLS13_AES_128_GCM_SHA256"], ("TLS_AES_128_GCM_SHA256",)),
        (
            "tls.sni",
            [{"subject": "*.Example.org", "certificate": "A b"}],
            (ServerName("*.example.org", "A b"),),
        ),
        ("tls.sni", {"subject": "a.org", "certificate": "x"}, (ServerName("a.org", "x"),)),
        ("cert", "file:///etc/x.pem", "file:///etc/x.pem"),
    ],
)
def test_valid_values(key: str, raw: object, typed: object) -> None:
    value = parse(key, raw)
    assert value == typed
    assert type(value) is type(typed)


@pytest.mark.parametrize(
    ("key", "raw", "says"),
    [
        ("tls.implicit", 1, "neither true nor false"),
        ("tls.implicit", "yes", "neither true nor false"),
        ("max-connections", 0, "does not mean unlimited"),
        ("max-connections", -1, "too small"),
        ("max-connections", 2**31, "too large"),
        ("max-connections", True, "not a whole number"),
        ("max-connections", 1.0, "not a whole number"),
        ("max-connections", "1e3", "not a whole number"),
        ("max-connections", "9" * 5000, "not a whole number"),
        ("max-connections", False, "not a whole number"),
        ("http.allowed-hosts", "mail.example.org:80", "neither a host name nor an address"),
        ("http.allowed-hosts", ["*"], "neither a host name nor an address"),
        ("http.allowed-hosts", ["[a]"], "neither a host name nor an address"),
        ("socket.ttl", 0, "the minimum is 1"),
        ("socket.ttl", 256, "the maximum is 255"),
        ("timeout.idle", 5, "needs a unit"),
        ("timeout.idle", "5", "needs a unit"),
        ("timeout.idle", 5.5, "needs a unit"),
        ("timeout.idle", "5 minutes", "not a duration"),
        ("timeout.idle", "-5s", "not a duration"),
        ("timeout.idle", "999ms", "the minimum is 1s"),
        ("timeout.idle", "8d", "the maximum is 7d"),
        ("timeout.idle", "1000.0005ms", "whole number of milliseconds"),
        ("timeout.idle", [], "not a duration"),
        ("proxy.timeout", "2s", "the minimum is 3s"),
        ("socket.keepalive-time", "1500ms", "whole seconds"),
        ("socket.keepalive-probes", 128, "the maximum is 127"),
        ("socket.linger", True, "not a duration"),
        ("socket.linger", -1, "from 0 to 3600"),
        ("socket.linger", float("nan"), "from 0 to 3600"),
        ("socket.linger", float("inf"), "from 0 to 3600"),
        ("socket.linger", 10**400, "from 0 to 3600"),
        ("socket.linger", 0.0001, "whole number of milliseconds"),
        ("socket.send-buffer-size", 0, "too small"),
        ("socket.send-buffer-size", "1GiB", "too large"),
        ("socket.send-buffer-size", "1.5MiB", "not a size"),
        ("socket.send-buffer-size", True, "not a size"),
        ("socket.tos", 256, "out of range"),
        ("socket.tos", "AF51", "neither a number nor a DSCP class"),
        ("socket.mode", 0o660, "not a file mode"),
        ("socket.mode", "888", "not a file mode"),
        ("socket.mode", "7777", "only permission bits"),
        ("socket.congestion", "a" * 16, "not the name"),
        ("socket.user", "", "empty"),
        ("limit-action", "drop", "not one of the allowed values"),
        ("limit-action", 3, "not one of the allowed values"),
        ("handler", "package.module", "not the name of a Python object"),
        ("server.workers", 0, "the minimum is 1"),
        ("server.workers", "many", "not a whole number"),
        ("server.hostname", "a b", "not a host name"),
        ("server.hostname", "a\r\nb", "control character"),
        ("server.greeting", "hello\r\n", "control character"),
        ("server.greeting", "x" * 241, "longer than 240 bytes"),
        ("server.greeting", 3, "not a string"),
        ("server.data-directory", "", "empty"),
        ("forward", "example.org:25", "not an address with a port"),
        ("forward", "127.0.0.1", "not an address with a port"),
        ("forward", "::1:25", "not an address with a port"),
        ("forward", "unix:run", "must start with /"),
        ("smtp.relay", "-bad-:25", "not an address with a port"),
        ("limits.rate", "20", "not a rate"),
        ("limits.rate", "0 / 5m", "before the slash is out of range"),
        ("limits.rate", "5 / 2d", "after the slash is out of range"),
        ("limits.rate", "5 / 60", "needs a unit"),
        ("limits.deny", "10.0.0.1/8", "has host bits set"),
        ("limits.deny", "unix", "not a network"),
        ("limits.deny", ["example.org"], "not a network"),
        ("limits.deny", [3], "3 in this array is not a string"),
        ("limits.deny", 3, "not a string"),
        ("tls.protocols", ["TLSv1.1"], "obsolete"),
        ("tls.protocols", "TLSv1.4", "not a supported TLS version"),
        ("tls.protocols", [], "at least one version is needed"),
        ("tls.ciphers", "ECDHE-RSA-AES128-SHA", "not a supported cipher suite"),
        ("tls.sni", "a.org", "not an array of tables"),
        ("tls.sni", [{"subject": "a.org"}], "must have just `subject` and `certificate`"),
        ("tls.sni", [{"subject": 1, "certificate": "x"}], "must be strings"),
        ("tls.sni", [{"subject": "a b", "certificate": "x"}], "not a host name"),
        ("tls.sni", [{"subject": "a.b", "certificate": "x"}] * 2, "twice"),
        ("tls.certificate", 3, "not a string"),
        ("cert", "nonsense", "neither PEM text nor a file:// path"),
        ("cert", 3, "not a string"),
        ("bind", 25, "a port alone is not an address"),
        ("bind", [], "empty"),
        ("bind", {"address": "x"}, "not a string"),
    ],
)
def test_invalid_values(key: str, raw: object, says: str) -> None:
    with pytest.raises(BadValueError) as caught:
        parse(key, raw)
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("key", "raw", "suggestion"),
    [
        ("timeout.idle", 30, '"30s"'),
        ("timeout.idle", 60000, '"60000ms"'),
        ("limits.deny", "10.0.0.1/8", '"10.0.0.0/8"'),
        ("bind", 25, '"[::]:25"'),
        ("tls.ciphers", "ECDHE-RSA-AES128-GCM-SHA25", '"ECDHE-RSA-AES128-GCM-SHA256"'),
    ],
)
def test_suggested_values(key: str, raw: object, suggestion: str) -> None:
    with pytest.raises(BadValueError) as caught:
        parse(key, raw)
    assert caught.value.suggestion == suggestion


@given(st.integers(min_value=0, max_value=10**12))
def test_durations_round_trip(milliseconds: int) -> None:
    assert round(parse_duration(format_duration(milliseconds / 1000)) * 1000) == milliseconds


# Anything TOML can hold, and some of what our grammars accept, so that both are covered.
_TOML_VALUES = st.recursive(
    st.one_of(
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.dates(),
        st.sampled_from(
            ["true", "5s", "1.5m", "10.0.0.0/8", "EF", "0660", "auto", "20 / 5m", "a:b", "64KiB"]
        ),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.sampled_from(sorted(ROWS)), _TOML_VALUES)
def test_any_value_is_rejected_or_round_trips(key: str, raw: object) -> None:
    row = ROWS[key]
    try:
        value = parse(key, raw)
    except BadValueError:
        return
    written = tomli.loads(f"k = {write(row, value)}")["k"]
    plain(row, value)
    if row.kind == "secret":
        # It is not written, but replaced with a placeholder that is rejected.
        with pytest.raises(BadValueError, match="in the place of the secret"):
            parse(key, written)
    else:
        assert parse(key, written) == value


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.key)
def test_rows_are_complete(row: Option) -> None:
    assert row.text.endswith(".")
    assert describe(row)
    assert row.scopes
    if row.default is not None and not row.extra.get("default-text"):
        assert parse(row.key, tomli.loads(f"k = {write(row, row.default)}")["k"]) == row.default


@pytest.mark.parametrize(
    ("subject", "suggestion"),
    [
        ("bücher.example", '"xn--bcher-kva.example"'),
        ("*.Bücher.example", '"*.xn--bcher-kva.example"'),
        ("b cher.example", ""),
        ("bü cher.example", ""),
        ("..ü", ""),
    ],
)
def test_sni_names_outside_ascii_get_a_suggestion(subject: str, suggestion: str) -> None:
    with pytest.raises(BadValueError) as caught:
        parse("tls.sni", [{"subject": subject, "certificate": "x"}])
    assert "is not a host name" in caught.value.message
    assert caught.value.suggestion == suggestion
