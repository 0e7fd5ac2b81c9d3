"""What http is: its ports, what it serves, and the rows of the table `[http]`.

Rules of this file: data only, so that the configuration can read it without a loop. Keys are
relative to the protocol's table: ``max-body-size`` is written ``http.max-body-size`` on a listener.
Rules between values are in checks.py.
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
        text="ASGI lifespan, which tells the application of startup and shutdown: `auto`: if the "
        "application supports it; `on`: it must; `off`: never.",
        # An application has one lifespan, which is running.
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
        text="The largest request head, from the method to the empty line; larger ones get 431.",
    ),
    Option(
        key="max-body-size",
        kind="size",
        default=16 * 1024 * 1024,
        minimum=0,
        maximum=2**53,
        unit="bytes",
        text="The largest request body and the largest WebSocket message; larger bodies get 413. "
        "`false`: no limit for bodies, and 16 MiB for WebSocket messages.",
        extra={"optional": True},
    ),
    Option(
        key="header-timeout",
        kind="duration",
        default=30.0,
        minimum=1,
        maximum=3600,
        unit="seconds",
        text="Time limit for receiving a request head, from its first byte; then 408.",
    ),
    Option(
        key="allowed-hosts",
        kind="hostnames",
        default=(),
        text="Values of the Host header that the management interface accepts besides "
        "`server.hostname`, `localhost`, loopback addresses and the address that the client "
        "connected to; other applications must check the header themselves.",
    ),
    Option(
        key="trusted-proxies",
        kind="networks",
        default=(),
        text="Proxies whose headers `Forwarded`, `X-Forwarded-For` and `X-Forwarded-Proto` say who "
        "the client is and whether it uses TLS: networks, or `unix` for those on Unix sockets.",
        extra={"unix": True},
    ),
    Option(
        key="autoconfig",
        kind="choice",
        default="off",
        choices=("off", "on", "only"),
        text="Answer mail programs that look for their settings (Mozilla's autoconfig, Microsoft's "
        "autodiscover). `on`: before the application, or the management application, gets the "
        "request; `only`: nothing else is here.",
    ),
    Option(
        key="access-log",
        kind="boolean",
        default=True,
        text="Log each request (at `info`).",
    ),
)

HTTP = Protocol(
    name="http",
    handler="fastlisten.handlers.http:HttpHandler",
    port=80,  # RFC 9110 4.2.1
    tls_port=443,  # RFC 9110 4.2.2
    starttls=False,
    options=_OPTIONS,
    # Browsers open connections in advance; other servers wait for a minute too.
    defaults={"timeout.first-byte": 30.0, "timeout.idle": 60.0},
    default_app="fastlisten.management.app:application",
    other_names={"https": "http with tls.implicit = true"},
    check=check_http,
)
