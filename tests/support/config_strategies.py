"""Strategies for configurations: mostly valid, some with an error.

Rules of this file: a configuration is text, and depends only on what hypothesis draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.notation import quote
from fastlisten.config.rows.listener import LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.option import Option

__all__ = ["VALUES", "configurations", "entries"]

# Values that some row accepts, and some that none does.
VALUES = st.one_of(
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
    """Return lines for some rows; about one in thirty is likely to be invalid."""
    text = ""
    for row in draw(st.lists(st.sampled_from(rows), max_size=most, unique_by=lambda row: row.key)):
        good = _GOOD.get(row.kind) or [quote(choice) for choice in row.choices]
        wrong = draw(st.integers(0, 29)) == 29
        text += f"{before}{row.key} = {draw(VALUES if wrong else st.sampled_from(good))}\n"
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
        text += f"{draw(st.sampled_from(_NO_KEYS))} = {draw(VALUES)}\n"
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
