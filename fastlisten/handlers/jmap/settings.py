"""The protocol jmap: its port, its timeouts, and the key `url`.

Rules of this file: data only, so that the configuration can read it without a loop.
"""

from __future__ import annotations

from fastlisten.handlers.jmap.checks import check_jmap
from fastlisten.handlers.protocol import Protocol
from fastlisten.option import Option

__all__ = ["JMAP"]

JMAP = Protocol(
    name="jmap",
    port=443,  # RFC 8620 8.1: always over TLS, which usually terminates here
    tls_port=443,
    starttls=False,
    listener_options=(
        Option(
            key="url",
            kind="url",
            default=None,
            text="The URL at which clients reach a jmap listener, as its session object announces "
            "it; `https://` may be left out.",
            extra={
                "default-text": "`https://`, the host name, and the port unless it is 443",
            },
        ),
    ),
    defaults={"timeout.first-byte": 30.0, "timeout.idle": 60.0},
    check=check_jmap,
)
