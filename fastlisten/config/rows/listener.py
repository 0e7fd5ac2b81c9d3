"""The rows of listeners: keys that are set on a listener, most of them also in `[server]`.

Rules of this file: data only. Parser, resolver, `show`, the generated documentation and the
socket options all read these rows; a key without a row does not exist. Protocols add rows and
defaults of their own (handlers/protocol.py, known_protocols.py).

Scopes: ``listener`` is `server.listener.<id>.KEY`; ``server`` is `server.KEY`, a default that
listeners override; ``process`` is a key of the whole process, written in full.
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

# RFC 5321 4.5.3.2.7: a mail server should wait at least 5 minutes for the next command.
_MAIL_TIMEOUT = 300.0

LISTENER_OPTIONS: tuple[Option, ...] = (
    Option(
        key="bind",
        kind="bind",
        default=(),
        text="The address or addresses to listen on.",
        scopes=("listener",),
        reload="rebind",
        extra={"default-text": "required"},
    ),
    Option(
        key="protocol",
        kind="string",
        default="",
        text="The listener's protocol: one of those above, one registered by an installed package, "
        "or, with `handler`, any name.",
        scopes=("listener",),
        extra={"default-text": "required"},
    ),
    Option(
        key="handler",
        kind="object",
        default=None,
        text="The handler class to use instead of the protocol's own.",
        scopes=("listener",),
    ),
    Option(
        key="forward",
        kind="endpoint",
        default=None,
        text="Another server to forward connections to, with a PROXY v2 header.",
        scopes=("listener",),
        available=False,
    ),
    Option(
        key="app",
        kind="object",
        default=None,
        text="The ASGI application to serve, or, with `()` at the end, a function that returns it.",
        scopes=("listener",),
        extra={"factory": True, "default-text": "the management of this server"},
    ),
    Option(
        key="hostname",
        kind="hostname",
        default=None,
        text="The host name that this listener uses in its greeting.",
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
        text="The most connections that a listener may have at a time, from accept to close, over "
        "all its addresses and all workers.",
    ),
    Option(
        key="reserve",
        kind="integer",
        default=0,
        minimum=0,
        maximum=2**31 - 1,
        unit="connections",
        text="How many of `server.total-connections` are kept for this listener, so that it can be "
        "reached when the others use up all the rest.",
        scopes=("listener",),
        reload="restart",
    ),
    Option(
        key="limit-action",
        kind="choice",
        default="refuse",
        choices=("refuse", "wait"),
        text="What happens to clients beyond `max-connections` or `server.total-connections`: "
        "`refuse` accepts them, replies with an error of the protocol and closes; `wait` leaves "
        "them in the backlog.",
    ),
    *SOCKET_OPTIONS,
    Option(
        key="tls.enable",
        kind="boolean",
        default=True,
        text="Enable TLS: STARTTLS, if the protocol has it.",
    ),
    Option(
        key="tls.implicit",
        kind="boolean",
        default=False,
        text="TLS from the first byte; on a listener it overrides an inherited `tls.enable = "
        "false`.",
    ),
    Option(
        key="tls.certificate",
        kind="name",
        default=None,
        text='The ID of the `[certificate."ID"]` table to use.',
        extra={
            "default-text": "the one with `default = true`, else the one called `default`, else "
            "the only one, else a self-signed one"
        },
    ),
    Option(
        key="tls.sni",
        kind="sni",
        default=(),
        text="Certificates by the host name that a client asks for (SNI): an array of tables with "
        "`subject` and `certificate`; `*.` matches one label.",
    ),
    Option(
        key="tls.protocols",
        kind="tls-protocols",
        default=("TLSv1.2", "TLSv1.3"),
        text="The TLS versions to accept.",
    ),
    Option(
        key="tls.ciphers",
        kind="tls-ciphers",
        default=(),
        text="The cipher suites to accept, in order of preference; empty: all AEAD suites with "
        "forward secrecy.",
    ),
    Option(
        key="tls.ignore-client-order",
        kind="boolean",
        default=True,
        text="Choose the cipher suite by the server's order of preference, not the client's.",
    ),
    Option(
        key="tls.client-ca",
        kind="path",
        default=None,
        text="A PEM file of certificate authorities; if set, clients must present a certificate "
        "issued by one of them.",
    ),
    Option(
        key="tls.timeout",
        kind="duration",
        default=60.0,
        minimum=1,
        maximum=3600,
        unit="seconds",
        text="Time limit for a TLS handshake, from accept or from STARTTLS.",
    ),
    Option(
        key="proxy.trusted-networks",
        kind="networks",
        default=(),
        text="Peers that must send a PROXY protocol header first: networks, or `unix`. A header "
        "from any other peer is not recognized. An empty array on a listener turns this off there.",
        available=False,
        inert=((),),
        extra={"unix": True, "older": "proxy-trusted-networks"},
    ),
    Option(
        key="proxy.timeout",
        kind="duration",
        default=5.0,
        # The specification demands at least 3 seconds, to cover a TCP retransmission.
        minimum=3,
        maximum=3600,
        unit="seconds",
        text="Time limit for the PROXY protocol header.",
        available=False,
    ),
    Option(
        key="timeout.first-byte",
        kind="duration",
        default=_MAIL_TIMEOUT,
        minimum=1,
        maximum=86400,
        unit="seconds",
        text="How long a client may stay silent after connecting; `false`: no limit.",
        extra={"optional": True},
    ),
    Option(
        key="timeout.idle",
        kind="duration",
        default=_MAIL_TIMEOUT,
        minimum=1,
        maximum=7 * 86400,
        unit="seconds",
        text="How long a client may be idle once it has sent something; `false`: no limit.",
        extra={"optional": True},
    ),
    Option(
        key="limits.per-address",
        kind="integer",
        default=None,
        minimum=1,
        maximum=2**31 - 1,
        unit="connections",
        text="The most connections that one client address (IPv6: one /64) may have at a time.",
        available=False,
        inert=(None,),
        extra={"optional": True},
    ),
    Option(
        key="limits.rate",
        kind="rate",
        default=None,
        text='The most new connections from one client address in a period, such as "20 / 5m".',
        available=False,
        inert=(None,),
        extra={"optional": True},
    ),
    Option(
        key="limits.exempt",
        kind="networks",
        default=(),
        text="Networks to which the limits per address do not apply.",
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
