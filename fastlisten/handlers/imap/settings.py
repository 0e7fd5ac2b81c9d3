"""The protocol imap: its ports and timeouts.

Rules of this file: data only, so that the configuration can read it without a loop.
"""

from __future__ import annotations

from fastlisten.handlers.protocol import Protocol

__all__ = ["IMAP"]

IMAP = Protocol(
    name="imap",
    handler="fastlisten.handlers.imap:ImapHandler",
    port=143,  # RFC 9051 2.1
    tls_port=993,  # RFC 8314 7.1
    server_speaks_first=True,
    starttls=True,  # RFC 9051 6.2.1
    # RFC 9051 5.4: the autologout timer must be at least 30 minutes.
    defaults={"timeout.first-byte": 60.0, "timeout.idle": 1800.0},
)
