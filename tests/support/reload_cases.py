"""Two values of every configuration key, and how a running server shows which one it uses.

Rules of this file: data and looks at a server. Clients see it, or the kernel says it; where neither
is cheap, it is what new connections are given.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from fastlisten.config.known_protocols import known_protocols, own_rows
from fastlisten.config.rows.listener import CERTIFICATE_OPTIONS, LISTENER_OPTIONS, PROCESS_OPTIONS
from fastlisten.handlers.installed import installed_protocols
from fastlisten.option import Option
from support.certificates import shake, trusting_all
from support.queues import backlog_of
from support.reloading import Reloadable
from support.server import connect, read_some

__all__ = ["CASES", "ROWS", "Case", "given", "shown"]

Look = Callable[[Reloadable], Any]


class Case(NamedTuple):
    """Two values of a key.

    Attributes:
        before: the value of the running server, as TOML; empty: the key is not written.
        after: the value that is reloaded.
        look: shows which one is used (a coroutine may); None: what the handler was given.
        shown: what `look` returns for each; None: any two different things.
        more: other lines of the listener.
        protocol: of the listener.
        bind: of the listener; PLACE stands for the directory, ID for the listener's id.
    """

    before: str
    after: str
    look: Look | None = None
    shown: tuple[Any, Any] | None = None
    more: str = ""
    protocol: str = "smtp"
    bind: str = '"127.0.0.1:0"'


async def first_line(it: Reloadable) -> bytes:
    """Return what the server says first."""
    with await connect(*it.address()) as client:
        line = b""
        while not line.endswith(b"\n"):
            line += await read_some(client, 1)
        return line.rstrip()


async def offers_starttls(it: Reloadable) -> bool:
    return b"STARTTLS" in await it.answer(said=b"EHLO c\r\nQUIT\r\n")


async def answers_with_tls(it: Reloadable) -> bool:
    """Return whether a client that begins with a handshake gets one in return."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting_all().wrap_bio(to_client, to_server)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    with await connect(*it.address()) as sock:
        sock.send(to_server.read())
        return await read_some(sock, 1) == b"\x16"


async def describes_request(it: Reloadable) -> bool:
    """Return whether an http listener serves the test's application, not the management."""
    said = b"GET /healthz/live HTTP/1.0\r\nHost: localhost\r\n\r\n"
    return b"/healthz/live" in await it.answer(said=said)


async def takes_mail_for_bob(it: Reloadable) -> bool:
    said = b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<bob@example.org>\r\nQUIT\r\n"
    return b"550 5.1.1" not in await it.answer(said=said)


def policy(name: str) -> Look:
    return lambda it: getattr(it.listener()._policy, name)


def process(key: str) -> Look:
    return lambda it: it.server.config.process[key]


def number(level: int, name: int) -> Look:
    return lambda it: it.listener().sockets[0].sock.getsockopt(level, name)


def backlog(it: Reloadable) -> int:
    return backlog_of(it.listener().sockets[0].sock)


def context(it: Reloadable) -> ssl.SSLContext:
    found = it.server.certificates.context(it.id)
    assert found is not None
    return found


def limit(it: Reloadable) -> int:
    places = it.listener().places
    assert places is not None
    return places.limit


def reserve(it: Reloadable) -> int:
    (found,) = [one["reserve"] for one in it.server.config.listeners if one.id == it.id]
    return int(found)


def handshake_timeout(it: Reloadable) -> float:
    tls = it.listener()._tls
    assert tls is not None
    return tls.handshake_timeout


def congestion(it: Reloadable) -> bytes:
    sock = it.listener().sockets[0].sock
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def of_handler(name: str) -> Look:
    return lambda it: getattr(it.listener().handler, name)


def certificate(name: str | None = None) -> Look:
    """Return whose certificate a client sees that asks for a name."""

    def look(it: Reloadable) -> str:
        seen = shake(context(it), trusting_all(), name).shown
        found = {
            ssl.PEM_cert_to_DER_cert((it.path.parent / f"{one}.crt").read_text()): one
            for one in ("mail", "other")
        }
        return found[seen]

    return look


def version(it: Reloadable) -> str | None:
    return shake(context(it), trusting_all()).client.version()


def cipher(it: Reloadable) -> str:
    client = trusting_all(maximum_version=ssl.TLSVersion.TLSv1_2)
    client.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    return shake(context(it), client).cipher


def wants_certificate(it: Reloadable) -> bool:
    try:
        shake(context(it), trusting_all(maximum_version=ssl.TLSVersion.TLSv1_2))
    except ssl.SSLError:
        return True
    return False


def file_mode(it: Reloadable) -> int:
    return os.stat(it.path.parent / f"{it.id}.sock").st_mode & 0o777


def file_owner(it: Reloadable) -> tuple[int, int]:
    found = os.stat(it.path.parent / f"{it.id}.sock")
    return found.st_uid, found.st_gid


_ROOT = os.geteuid() == 0
_UID, _GID = ("12345", "23456") if _ROOT else (str(os.geteuid()), str(os.getegid()))
_TCP, _SOL, _IP = socket.IPPROTO_TCP, socket.SOL_SOCKET, socket.IPPROTO_IP
_UNIX = '"unix:PLACE/ID.sock"'
_ECHO = 'handler = "support.serving_handlers:Echo"'
_TLS = "tls.implicit = true"
_IMPLICIT = {"more": _TLS, "protocol": "http"}
_SUITES = ('["ECDHE-ECDSA-AES128-GCM-SHA256"]', '["ECDHE-ECDSA-AES256-GCM-SHA384"]')
_RELAY = 'smtp.relay = "127.0.0.1:2626"\n'
_USER = f'{_RELAY}smtp.relay-user = "u"\n'
_AIOSMTPD = "aiosmtpd.handlers"

#: By key; keys of a certificate as `certificate.KEY`.
CASES: dict[str, Case] = {
    # --- listeners
    "bind": Case(
        '"127.0.0.1:0"', '"127.0.0.2:0"', lambda it: it.address()[0], ("127.0.0.1", "127.0.0.2")
    ),
    "protocol": Case('"smtp"', '"lmtp"', first_line, (b"220 mx ESMTP", b"220 mx LMTP")),
    "handler": Case(
        "",
        '"support.serving_handlers:Echo"',
        lambda it: type(it.listener().handler).__name__,
        ("SmtpHandler", "Echo"),
    ),
    "app": Case(
        "", '"support.http_application:app"', describes_request, (False, True), protocol="http"
    ),
    "hostname": Case(
        '"a.example"', '"b.example"', first_line, (b"220 a.example ESMTP", b"220 b.example ESMTP")
    ),
    "greeting": Case('"one"', '"two"', first_line, (b"220 mx ESMTP one", b"220 mx ESMTP two")),
    "max-connections": Case("5", "6", limit, (5, 6)),
    "reserve": Case("0", "1", reserve),
    "limit-action": Case('"refuse"', '"wait"', lambda it: it.listener().waits, (False, True)),
    "timeout.first-byte": Case('"7s"', '"8s"', policy("first_byte"), (7.0, 8.0)),
    "timeout.idle": Case('"7s"', "false", policy("idle"), (7.0, 0.0)),
    # --- sockets
    "socket.reuse-addr": Case("true", "false", number(_SOL, socket.SO_REUSEADDR), (1, 0)),
    "socket.reuse-port": Case("false", "true", number(_SOL, socket.SO_REUSEPORT)),
    "socket.free-bind": Case("false", "true", number(_IP, 15), (0, 1)),
    "socket.backlog": Case("50", "60", backlog, (50, 60)),
    "socket.nodelay": Case("true", "false", number(_TCP, socket.TCP_NODELAY), (1, 0)),
    "socket.ttl": Case("", "33", number(_IP, socket.IP_TTL), (64, 33)),
    "socket.tos": Case("", '"CS1"', number(_IP, socket.IP_TOS), (0, 32)),
    "socket.priority": Case("", "3", number(_SOL, socket.SO_PRIORITY), (0, 3)),
    "socket.send-buffer-size": Case("", "100000", number(_SOL, socket.SO_SNDBUF)),
    "socket.recv-buffer-size": Case("", "50000", number(_SOL, socket.SO_RCVBUF)),
    "socket.linger": Case('"2s"', '"3s"', policy("linger"), (2.0, 3.0)),
    "socket.keepalive": Case("false", "true", number(_SOL, socket.SO_KEEPALIVE), (0, 1)),
    "socket.keepalive-time": Case("", '"70s"', number(_TCP, socket.TCP_KEEPIDLE), (7200, 70)),
    "socket.keepalive-interval": Case("", '"71s"', number(_TCP, socket.TCP_KEEPINTVL), (75, 71)),
    "socket.keepalive-probes": Case("", "5", number(_TCP, socket.TCP_KEEPCNT), (9, 5)),
    "socket.user-timeout": Case("", '"5s"', number(_TCP, socket.TCP_USER_TIMEOUT), (0, 5000)),
    "socket.defer-accept": Case(
        "", '"7s"', number(_TCP, socket.TCP_DEFER_ACCEPT), (0, 7), protocol="http"
    ),
    "socket.congestion": Case("", '"reno"', congestion),
    "socket.mode": Case('"0600"', '"0660"', file_mode, (0o600, 0o660), bind=_UNIX),
    "socket.user": Case(
        "",
        f'"{_UID}"',
        file_owner,
        ((os.geteuid(), os.getegid()), (int(_UID), os.getegid())),
        bind=_UNIX,
    ),
    "socket.group": Case(
        "",
        f'"{_GID}"',
        file_owner,
        ((os.geteuid(), os.getegid()), (os.geteuid(), int(_GID))),
        bind=_UNIX,
    ),
    # --- TLS
    "tls.enable": Case("true", "false", offers_starttls, (True, False)),
    "tls.implicit": Case("false", "true", answers_with_tls, (False, True)),
    "tls.certificate": Case('"default"', '"other"', certificate(), ("mail", "other")),
    "tls.sni": Case(
        "[]",
        '[{subject = "a.example", certificate = "other"}]',
        certificate("a.example"),
        ("mail", "other"),
    ),
    "tls.protocols": Case('["TLSv1.2"]', '["TLSv1.3"]', version, ("TLSv1.2", "TLSv1.3")),
    "tls.ciphers": Case(*_SUITES, cipher, (_SUITES[0][2:-2], _SUITES[1][2:-2])),
    "tls.ignore-client-order": Case(
        "true", "false", cipher, more=f"tls.ciphers = [{_SUITES[1][1:-1]}, {_SUITES[0][1:-1]}]"
    ),
    "tls.client-ca": Case("", '"ca.pem"', wants_certificate, (False, True)),
    "tls.timeout": Case('"7s"', '"8s"', handshake_timeout, (7.0, 8.0), **_IMPLICIT),
    # --- the process
    "server.hostname": Case('"mx"', '"my"', first_line, (b"220 mx ESMTP", b"220 my ESMTP")),
    "server.greeting": Case(
        '"one"', '"two"', first_line, (b"220 mx ESMTP one", b"220 mx ESMTP two")
    ),
    "server.run-as.user": Case("", f'"{os.geteuid()}"', process("server.run-as.user")),
    "server.run-as.group": Case("", f'"{os.getegid()}"', process("server.run-as.group")),
    "server.workers": Case("1", "2", process("server.workers")),
    "server.total-connections": Case("", "9000", process("server.total-connections")),
    "server.shutdown-timeout": Case('"7s"', '"8s"', process("server.shutdown-timeout"), (7.0, 8.0)),
    "server.data-directory": Case(
        '"data"', '"elsewhere"', lambda it: it.listener().handler.settings.data_directory
    ),
    "server.accounts": Case('"accounts.toml"', '"bob.toml"', takes_mail_for_bob, (False, True)),
    "server.postmaster": Case(
        '"alice@example.org"', '"bob@example.org"', process("server.postmaster")
    ),
    "server.control-socket": Case("", '"control"', process("server.control-socket")),
    "server.quota.bytes": Case("", '"1MiB"', process("server.quota.bytes"), (None, 1024 * 1024)),
    "server.quota.messages": Case("", "9", process("server.quota.messages"), (None, 9)),
    "server.recipient-delimiter": Case('"+"', '"-"', process("server.recipient-delimiter")),
    "log.level": Case('"info"', '"error"', process("log.level"), ("info", "error")),
    "log.format": Case('"text"', '"json"', process("log.format")),
    # --- certificates
    "certificate.cert": Case(
        '"file://mail.crt"', '"file://other.crt"', certificate(), ("mail", "other")
    ),
    "certificate.private-key": Case(
        '"file://mail.key"', '"file://other.key"', certificate(), ("mail", "other")
    ),
    "certificate.default": Case("true", "false", certificate(), ("mail", "other")),
    # --- protocols
    "smtp.role": Case('"mx"', '"submission"', of_handler("role"), ("mx", "submission")),
    "smtp.sender-must-match": Case("false", "true", of_handler("sender_must_match"), (False, True)),
    "smtp.relay": Case('"127.0.0.1:2626"', '"127.0.0.1:2727"'),
    "smtp.relay-tls": Case('"may"', '"none"', more=_RELAY),
    "smtp.relay-user": Case('"u"', '"v"', more=_RELAY + 'smtp.relay-password = "p"'),
    "smtp.relay-password": Case('"p"', '"q"', more=_USER),
    "smtp.relay-ca": Case("", '"ca.pem"', more=_RELAY + 'smtp.relay-tls = "verify"'),
    "smtp.relay-timeout": Case('"7s"', '"8s"', more=_RELAY),
    "smtp.greeting-delay": Case('"100ms"', '"200ms"'),
}

for _protocol in ("smtp", "lmtp"):
    CASES |= {
        f"{_protocol}.{_key}": _case._replace(protocol=_protocol)
        for _key, _case in {
            "aiosmtpd-handler": Case("", f'"{_AIOSMTPD}:Sink"'),
            "aiosmtpd-args": Case(
                "", '"stderr"', more=f'{_protocol}.aiosmtpd-handler = "{_AIOSMTPD}:Debugging"'
            ),
            "max-message-size": Case("70000", "80000"),
            "max-recipients": Case("101", "102"),
            "max-received": Case("11", "12"),
            "max-errors": Case("5", "6"),
            "log-dialogue": Case("false", "true"),
        }.items()
    }
CASES |= {
    f"http.{_key}": _case._replace(protocol="http")
    for _key, _case in {
        "lifespan": Case('"auto"', '"off"'),
        "max-header-size": Case("5000", "6000"),
        "max-body-size": Case("5000", "false"),
        "header-timeout": Case('"7s"', '"8s"'),
        "allowed-hosts": Case("[]", '["a.example"]'),
        "trusted-proxies": Case("[]", '["10.0.0.0/8"]'),
        "access-log": Case("true", "false"),
        "autoconfig": Case('"off"', '"on"'),
    }.items()
}
CASES |= {
    f"imap.{_key}": _case._replace(protocol="imap")
    for _key, _case in {
        "max-line": Case("9000", "10000"),
        "max-literal": Case("5000", "6000"),
        "append-limit": Case("70000", "80000"),
        "max-errors": Case("5", "6"),
        "mechanisms": Case('["PLAIN"]', '["LOGIN"]'),
        "login-attempts": Case("5", "6"),
        "max-commands-before-login": Case("50", "60"),
        "timeout-before-login": Case('"70s"', '"80s"'),
        "max-errors-before-login": Case("5", "6"),
        "max-line-before-login": Case("5000", "6000"),
        "search-timeout": Case("", '"7s"'),
        "sessions-per-user": Case("5", "6"),
        "sessions-per-account": Case("", "60"),
        "idle-keep-alive": Case('"70s"', '"80s"'),
        "disabled-capabilities": Case("[]", '["IDLE"]'),
        "id-send": Case("[]", '["name"]'),
        "id-log": Case("[]", '["name"]'),
        "log-dialogue": Case("false", "true"),
        "max-folders": Case("50", "60"),
        "max-name-depth": Case("5", "6"),
        "max-keywords": Case("50", "60"),
        "autoexpunge.trash": Case("", '"30d"'),
        "autoexpunge.junk": Case("", '"30d"'),
        **{
            f"folders.{_role}": Case(f'"{_role.title()}"', '"Other"')
            for _role in ("drafts", "sent", "junk", "trash", "archive")
        },
    }.items()
}


def _rows() -> dict[str, Option]:
    """Return the rows of the page that can be configured, by key as in `CASES`."""
    known = known_protocols().definitions
    found = {row.key: row for row in (*LISTENER_OPTIONS, *PROCESS_OPTIONS)}
    found |= {f"certificate.{row.key}": row for row in CERTIFICATE_OPTIONS}
    for name in sorted(installed_protocols().own):  # in all workers of pytest alike
        if known[name].handler:
            found |= {row.key: row for row in own_rows(known[name])}
    return {key: row for key, row in found.items() if row.available}


ROWS = _rows()


def given(it: Reloadable, key: str) -> Any:
    """Return what the handler was given."""
    return it.listener().handler.settings.options[key.partition(".")[2]]


async def shown(it: Reloadable, key: str, case: Case) -> Any:
    """Return what shows the value in use."""
    if case.look is None:
        return given(it, key)
    found = case.look(it)
    return await found if inspect.isawaitable(found) else found
