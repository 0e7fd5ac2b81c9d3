"""The protocol managesieve: its port and timeouts.

Rules of this file: data only, so that the configuration can read it without a loop.
"""

from __future__ import annotations

from fastlisten.handlers.protocol import Protocol

__all__ = ["MANAGESIEVE"]

MANAGESIEVE = Protocol(
    name="managesieve",
    port=4190,  # RFC 5804 1.8; there is no separate port for implicit TLS
    server_speaks_first=True,
    starttls=True,  # RFC 5804 2.2
    # RFC 5804 1.2: the autologout timer must be at least 30 minutes.
    defaults={"timeout.first-byte": 60.0, "timeout.idle": 1800.0},
)
