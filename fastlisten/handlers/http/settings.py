"""What http is: its ports, what it serves, and the rows of the table `[http]`.

Rules of this file: data only, so that the configuration can read it without a loop. Keys are
relative to the protocol's table: ``max-body-size`` is written ``http.max-body-size`` on a listener.
What must hold between rows is in checks.py.
"""

from __future__ import annotations

from fastlisten.handlers.http.checks import check_http
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

__all__ = ["HTTP"]

_OPTIONS: tuple[Option, ...] = (
    Option(
        key="lifespan",
        kind="choice",
        default="auto",
        choices=("auto", "on", "off"),
        text="Whether the application is told of start and end (ASGI lifespan): `auto` tries, "
        "`on` makes it an error if the application does not know it.",
        reload="restart",
    ),
    Option(
        key="max-header-size",
        kind="size",
        default=64 * 1024,
        # Cookies of a browser alone may take 4 KiB each.
        minimum=4 * 1024,
        # A head is held whole in memory, once for each connection.
        maximum=1024 * 1024,
        unit="bytes",
        text="The largest head of a request, from its method to the empty line; larger ones are "
        "answered by 431.",
        reload="restart",
    ),
    Option(
        key="max-body-size",
        kind="size",
        default=16 * 1024 * 1024,
        minimum=0,
        maximum=2**53,
        unit="bytes",
        text="The largest body of a request, and the largest message of a websocket; larger "
        "bodies are answered by 413. `false`: no limit, and 16 MiB for a websocket's message.",
        reload="restart",
        extra={"optional": True},
    ),
    Option(
        key="header-timeout",
        kind="duration",
        default=30.0,
        minimum=1,
        maximum=3600,
        unit="seconds",
        text="Time for the whole head of a request, from its first byte; then 408.",
        reload="restart",
    ),
    Option(
        key="allowed-hosts",
        kind="hostnames",
        default=(),
        text="Host names and addresses that the management answers to in the header Host, beside "
        "`server.hostname`, `localhost`, loopback addresses and the address that was connected "
        "to; other applications check that header themselves.",
        reload="restart",
    ),
    Option(
        key="trusted-proxies",
        kind="networks",
        default=(),
        text="Proxies whose headers `Forwarded`, `X-Forwarded-For` and `X-Forwarded-Proto` say who "
        "the client is and whether it uses TLS: networks, or `unix` for those on Unix sockets.",
        reload="restart",
        extra={"unix": True},
    ),
    Option(
        key="access-log",
        kind="boolean",
        default=True,
        text="One line of log (at `info`) for each request.",
        reload="restart",
    ),
)

HTTP = Protocol(
    name="http",
    handler="fastlisten.handlers.http:HttpHandler",
    port=80,  # RFC 9110 4.2.1
    tls_port=443,  # RFC 9110 4.2.2
    starttls=False,
    options=_OPTIONS,
    # Browsers open connections in advance; a minute is what they find with other servers.
    defaults={"timeout.first-byte": 30.0, "timeout.idle": 60.0},
    default_app="fastlisten.management.app:application",
    other_names={"https": "http with tls.implicit = true"},
    check=check_http,
)
