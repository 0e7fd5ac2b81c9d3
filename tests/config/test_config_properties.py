"""Properties: any input is loaded or reported, in the same way twice; written TOML loads again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.config import MACHINE

from fastlisten.config import Config, loads
from fastlisten.config.export import to_plain, to_toml
from fastlisten.config.load import default_text
from fastlisten.config.notation import dotted, quote
from fastlisten.config.protocols import known_protocols, own_rows
from fastlisten.config.rows.listener import LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError
from fastlisten.option import Option

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Values that some row accepts, and some that none does.
_VALUES = st.one_of(
    st.sampled_from(
        [
            "true", "false", "0", "1", "25", "8192", "-1", "1.5", "nan", "[]", "{}", "1979-05-27",
            '"true"', '"5s"', '"1500ms"', '"1h"', '"64KiB"', '"EF"', '"0660"', '"wait"',
            '"20 / 5m"', '"10.0.0.0/8"', '["10.0.0.0/8", "::/0"]', '"unix"', '"auto"', '"info"',
            '"a.module:Class"', '"127.0.0.1:25"', '"mx.example.org"', '"x"', '"TLSv1.3"',
            '"ECDHE-RSA-AES128-GCM-SHA256"', '"/path"', '"reno"', '"mx"',
            '[{ subject = "a.org", certificate = "x" }]', '"%{env:PORT}%"', '"%{env:NONE}%"',
        ]
    ),
    st.text(max_size=8).filter(str.isprintable).map(quote),
)  # fmt: skip
# Values that the rows of a kind accept.
_GOOD = {
    "boolean": ["true", "false", '"true"'],
    "integer": ["100", '"120"'],
    "duration": ['"5s"', '"1m"', '"90s"'],
    "linger": ["0", "1", '"1500ms"', "false"],
    "size": ["65536", '"256KiB"', '"1MB"'],
    "string": ['"text"', '"%{env:PORT}%"'],
    "name": ['"x"'],
    "line": ['"hello"', '""'],
    "workers": ["1", '"auto"'],
    "mode": ['"0660"', "false"],
    "object": ['"a.module:Class"'],
    "path": ['"/a/path"', '"relative"'],
    "congestion": ['"reno"', "false"],
    "networks": ["[]", '"10.0.0.0/8"', '["10.0.0.0/8", "::/0"]'],
    "rate": ['"20 / 5m"', "false"],
    "tos": ['"EF"', "184", "false"],
    "mailbox": ['"alice@example.org"'],
    "hostname": ['"mx.example.org"'],
    "url": ['"https://mail.example.org"', '"jmap.example.org:8080"', '"http://[::1]:80/x/"'],
    "hostnames": ["[]", '"a.org"', '["a.org", "::1"]'],
    "hostport": ['"127.0.0.1:25"', '"[::1]:25"', '"unix:/x"'],
    "endpoint": ['"127.0.0.1:25"', '"unix:/x"'],
    "tls-protocols": ['"TLSv1.3"', '["TLSv1.2", "TLSv1.3"]'],
    "tls-ciphers": ["[]", '["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]'],
    "sni": ["[]", '[{ subject = "a.org", certificate = "x" }]'],
}
_GOOD_BINDS = ("127.0.0.1:0", "[::]:0", "[::1]:0", "unix:/run/{}", "fd:10{}", "10.0.0.{}", "a::{}")
_BAD_BINDS = ("localhost:25", ":25", "", "[::]:25", "127.0.0.1:25", "2001:db8::1:25")
# Those that go with a relay are mistakes without one: test_config_smtp.py has them.
_PROTOCOLS = known_protocols().definitions
_SMTP = tuple(row for row in own_rows(_PROTOCOLS["smtp"]) if not row.key.startswith("smtp.relay-"))
_NO_KEYS = ("socket.override", "run-as", "backlog", "x.y", "tls", "socket")


@st.composite
def entries(draw: st.DrawFn, rows: Sequence[Option], before: str = "", most: int = 4) -> str:
    """Return lines for some rows; one in some thirty of them is likely to be wrong."""
    text = ""
    for row in draw(st.lists(st.sampled_from(rows), max_size=most, unique_by=lambda row: row.key)):
        good = _GOOD.get(row.kind) or [quote(choice) for choice in row.choices]
        wrong = draw(st.integers(0, 29)) == 29
        text += f"{before}{row.key} = {draw(_VALUES if wrong else st.sampled_from(good))}\n"
    return text


@st.composite
def listeners(draw: st.DrawFn, number: int) -> str:
    id = draw(st.sampled_from(["{}", "a.{}", 'q"{}', "é {}"])).format(number)
    protocol = draw(st.sampled_from([*_PROTOCOLS, *["smtp"] * 6]))
    binds = draw(st.lists(st.sampled_from(_GOOD_BINDS), min_size=1, max_size=3, unique=True))
    if draw(st.integers(0, 19)) == 19:
        binds.append(draw(st.sampled_from(_BAD_BINDS)))
    shown = ", ".join(quote(bind.format(number)) for bind in binds)
    text = f"[server.listener.{quote(id)}]\nprotocol = {quote(protocol)}\nbind = [{shown}]\n"
    definition = _PROTOCOLS[protocol]
    rows = [
        row
        for row in (*LISTENER_OPTIONS, *definition.listener_options)
        if row.key not in ("bind", "protocol")
        and (definition.server_speaks_first or not row.extra.get("greets"))
    ]
    text += draw(entries((*rows, *_SMTP) if protocol == "smtp" else rows))
    if draw(st.integers(0, 19)) == 19:
        text += f"{draw(st.sampled_from(_NO_KEYS))} = {draw(_VALUES)}\n"
    return text


@st.composite
def configurations(draw: st.DrawFn) -> str:
    server = [row for row in LISTENER_OPTIONS if "server" in row.scopes]
    parts = [draw(entries(server, "server.")), draw(entries(PROCESS_OPTIONS, most=2))]
    parts.append(draw(entries(_SMTP, most=2)))
    parts += [draw(listeners(number)) for number in range(1, draw(st.integers(2, 4)))]
    if draw(st.integers(0, 9)) < 9:
        parts.append("[certificate.x]\ncert = 'file:///x'\nprivate-key = 'file:///x'\n")
    return "".join(parts)


def attempt(text: str | bytes) -> Config | ConfigurationError:
    try:
        config = loads(text, machine=MACHINE)
    except ConfigurationError as error:
        return error if error.problems and str(error) else pytest.fail("an error without a text")
    find_unavailable(config)
    return config


@QUICK
@given(st.one_of(st.text(), st.binary()))
def test_any_text_is_loaded_or_reported(text: str | bytes) -> None:
    attempt(text)


@settings(QUICK, max_examples=300)
@given(configurations())
def test_any_configuration_is_loaded_or_reported_the_same_way_twice(text: str) -> None:
    first, second = attempt(text), attempt(text)
    if isinstance(first, Config):
        assert first == second
    else:
        assert isinstance(second, ConfigurationError)
        assert first.problems == second.problems


@settings(QUICK, max_examples=300)
@given(configurations())
def test_toml_goes_round(text: str) -> None:
    config = attempt(text)
    if isinstance(config, Config):
        written = to_toml(config)
        again = loads(written, machine=MACHINE)
        assert again.listeners == config.listeners
        assert again.process == config.process
        assert to_plain(again) == to_plain(config)
        assert to_toml(again) == written


@st.composite
def mangled(draw: st.DrawFn) -> str:
    """Return the embedded default with pieces cut out, doubled, or replaced."""
    text = default_text()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = draw(
            st.sampled_from(["", text[start:end] * 2, '"', "[", "]]", "=", "\n", ".", "\0", "3"])
        )
        text = text[:start] + piece + text[end:]
    return text


@settings(QUICK, max_examples=200)
@given(mangled())
def test_a_mangled_file_is_loaded_or_reported(text: str) -> None:
    attempt(text)


# Whatever tomli can hold, in the place of any table or key.
_ANYTHING = st.recursive(
    st.one_of(
        st.booleans().map(lambda value: str(value).lower()),
        st.integers(-(2**70), 2**70).map(str),
        st.sampled_from(["inf", "-nan", "07:32:00", "1979-05-27T07:32:00Z", "0x" + "f" * 5000]),
        st.text(max_size=5).filter(str.isprintable).map(quote),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(
            st.sampled_from(["bind", "protocol", "socket", "x", "subject", ""]), inner, max_size=2
        ).map(
            lambda items: (
                "{" + ", ".join(f"{quote(key)} = {value}" for key, value in items.items()) + "}"
            )
        ),
    ),
    max_leaves=4,
)


@QUICK
@given(
    st.sampled_from(
        ["server", "server.listener", "server.listener.a", "server.socket", "certificate",
         "certificate.x", "certificate.x.cert", "log", "smtp", "server.listener.a.bind",
         "server.listener.a.tls", "server.listener.a.tls.sni", "server.listener.a.smtp",
         "server.run-as", "server.tls.sni", "server.proxy.trusted-networks", "acme"]
    ),
    _ANYTHING,
)  # fmt: skip
@example("server.listener.a.bind", "[" * 300 + "]" * 300)
def test_any_value_in_any_place_is_loaded_or_reported(key: str, value: str) -> None:
    attempt(f"{key} = {value}\n")


def test_keys_are_written_so_that_toml_reads_them() -> None:
    assert dotted(("a", "b c", "", 3, "d.e", '"')) == 'a."b c".""[3]."d.e"."\\""'


def test_loading_does_not_depend_on_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    os.rmdir(gone)
    assert isinstance(attempt(default_text()), Config)
