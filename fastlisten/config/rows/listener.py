"""The option table: one row per key that may stand in a configuration.

Rules of this file: data only. Parser, resolver, `show`, the generated documentation and the
socket options all read these rows; a key that is not here does not exist. Protocols bring rows of
their own (handlers/protocol.py), which `known_protocols.py` adds, and defaults that differ.

Scopes: ``listener`` is `server.listener.<id>.KEY`, ``server`` is `server.KEY`, a default that
listeners override, ``process`` is a property of the whole process whose key is written in full.
"""

from __future__ import annotations

from fastlisten.config.rows.process import (
    CERTIFICATE_OPTIONS,
    MAX_GREETING,
    PROCESS_OPTIONS,
)
from fastlisten.config.rows.socket import SOCKET_OPTIONS
from fastlisten.option import Option

__all__ = ["CERTIFICATE_OPTIONS", "LISTENER_OPTIONS", "PROCESS_OPTIONS"]

# RFC 5321 4.5.3.2.7: a mail server waits 5 minutes at least for the next command.
_MAIL_TIMEOUT = 300.0

LISTENER_OPTIONS: tuple[Option, ...] = (
    Option(
        key="bind",
        kind="bind",
        default=(),
        text="The addresses to listen on, one or an array.",
        scopes=("listener",),
        reload="rebind",
        extra={"default-text": "required"},
    ),
    Option(
        key="protocol",
        kind="string",
        default="",
        text="The protocol that is spoken: one of those above, one that an installed package "
        "registers, or, with `handler`, any name.",
        scopes=("listener",),
        reload="rebind",
        extra={"default-text": "required"},
    ),
    Option(
        key="handler",
        kind="object",
        default=None,
        text="The class that serves the connections, instead of the protocol's own.",
        scopes=("listener",),
        reload="restart",
    ),
    Option(
        key="forward",
        kind="endpoint",
        default=None,
        text="Another server that the connections are forwarded to, with a PROXY v2 header.",
        scopes=("listener",),
        available=False,
    ),
    Option(
        key="app",
        kind="object",
        default=None,
        text="The ASGI application that the listener serves; with `()` at the end, a function "
        "that makes it.",
        scopes=("listener",),
        reload="restart",
        extra={"factory": True, "default-text": "the management of this server"},
    ),
    Option(
        key="hostname",
        kind="hostname",
        default=None,
        text="The name that this listener greets with.",
        scopes=("listener",),
        extra={"default-text": "`server.hostname`"},
    ),
    Option(
        key="greeting",
        kind="line",
        default="",
        maximum=MAX_GREETING,
        unit="bytes",
        text="Text after the host name in the greeting, if the protocol has one.",
        scopes=("listener",),
        extra={"default-text": "`server.greeting`", "greets": True},
    ),
    Option(
        key="max-connections",
        kind="integer",
        default=8192,
        minimum=1,
        maximum=2**31 - 1,
        unit="connections",
        text="Simultaneous connections of a listener over all its addresses and all workers, from "
        "accept to close.",
    ),
    Option(
        key="limit-action",
        kind="choice",
        default="refuse",
        choices=("refuse", "wait"),
        text="What happens to clients beyond max-connections: `refuse` accepts, says so in the "
        "protocol and closes; `wait` leaves them in the backlog.",
    ),
    *SOCKET_OPTIONS,
    Option(
        key="tls.enable",
        kind="boolean",
        default=True,
        text="TLS is available: STARTTLS where the protocol has it.",
        reload="rebind",
    ),
    Option(
        key="tls.implicit",
        kind="boolean",
        default=False,
        text="TLS from the first byte; written on a listener it wins over an inherited "
        "`tls.enable = false`.",
        reload="rebind",
    ),
    Option(
        key="tls.certificate",
        kind="name",
        default=None,
        text='Id of a `[certificate."ID"]` table.',
        extra={
            "default-text": "the one with `default = true`, else the one called `default`, else "
            "the only one, else a self-signed one"
        },
    ),
    Option(
        key="tls.sni",
        kind="sni",
        default=(),
        text="Certificates for host names that a client asks for: an array of tables with "
        "`subject` and `certificate`; `*.` stands for one label.",
    ),
    Option(
        key="tls.protocols",
        kind="tls-protocols",
        default=("TLSv1.2", "TLSv1.3"),
        text="The TLS versions that are spoken.",
    ),
    Option(
        key="tls.ciphers",
        kind="tls-ciphers",
        default=(),
        text="The cipher suites that are spoken, in order of preference; empty: all with forward "
        "secrecy that encrypt and authenticate in one (AEAD).",
    ),
    Option(
        key="tls.ignore-client-order",
        kind="boolean",
        default=True,
        text="Choose the cipher suite by the server's order, not by the client's.",
    ),
    Option(
        key="tls.client-ca",
        kind="path",
        default=None,
        text="PEM file of authorities; clients must then show a certificate of one of them.",
    ),
    Option(
        key="tls.timeout",
        kind="duration",
        default=60.0,
        minimum=1,
        maximum=3600,
        unit="seconds",
        text="Time for a TLS handshake, from accept or STARTTLS on.",
    ),
    Option(
        key="proxy.trusted-networks",
        kind="networks",
        default=(),
        text="Peers that must open with a PROXY protocol header: networks, or `unix`; from others "
        "it is not understood. An empty array on a listener switches it off there.",
        available=False,
        inert=((),),
        extra={"unix": True, "older": "proxy-trusted-networks"},
    ),
    Option(
        key="proxy.timeout",
        kind="duration",
        default=5.0,
        # The PROXY protocol's text: at least 3 seconds, to cover one retransmission.
        minimum=3,
        maximum=3600,
        unit="seconds",
        text="Time for the PROXY protocol header.",
        available=False,
    ),
    Option(
        key="timeout.first-byte",
        kind="duration",
        default=_MAIL_TIMEOUT,
        minimum=1,
        maximum=86400,
        unit="seconds",
        text="How long a client may stay silent after it has connected; `false`: for ever.",
        extra={"optional": True},
    ),
    Option(
        key="timeout.idle",
        kind="duration",
        default=_MAIL_TIMEOUT,
        minimum=1,
        maximum=7 * 86400,
        unit="seconds",
        text="How long a client that has spoken may stay silent; `false`: for ever.",
        extra={"optional": True},
    ),
    Option(
        key="limits.per-address",
        kind="integer",
        default=None,
        minimum=1,
        maximum=2**31 - 1,
        unit="connections",
        text="Simultaneous connections of one client address (IPv6: of one /64).",
        available=False,
        inert=(None,),
        extra={"optional": True},
    ),
    Option(
        key="limits.rate",
        kind="rate",
        default=None,
        text='New connections of one client address in a time, as "20 / 5m".',
        available=False,
        inert=(None,),
        extra={"optional": True},
    ),
    Option(
        key="limits.exempt",
        kind="networks",
        default=(),
        text="Networks that the limits per address do not apply to.",
        available=False,
        inert=((),),
    ),
    Option(
        key="limits.allow",
        kind="networks",
        default=(),
        text="Networks that may connect; empty: all.",
        available=False,
        inert=((),),
    ),
    Option(
        key="limits.deny",
        kind="networks",
        default=(),
        text="Networks that may not connect.",
        available=False,
        inert=((),),
    ),
)
