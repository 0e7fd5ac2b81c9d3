"""A message while it is being received: passed to its delivery, its header kept for DSNs.

Rules of this file: the octets of one message; only the delivery knows where they go. A message with
too many Received fields is in a mail loop (RFC 5321 6.3): its delivery is aborted at once, and the
rest is dropped.
"""

from __future__ import annotations

from fastlisten.handlers.smtp.received_count import ReceivedCount
from fastlisten.mail.delivery_interface import Delivery
from fastlisten.mail.dsn.message import LARGEST_HEADER, header_of

__all__ = ["IncomingMessage"]


class IncomingMessage:
    """One message, of a transaction whose recipients are known.

    Args:
        delivery: where it goes.
        max_received: how many Received fields it may have.
        keeps_header: DSNs will quote its header.

    Attributes:
        looping: it has more of them; its delivery has been aborted.
    """

    __slots__ = ("_delivery", "_header", "_max_received", "_received", "looping")

    def __init__(self, delivery: Delivery, max_received: int, *, keeps_header: bool) -> None:
        self._delivery = delivery
        self._max_received = max_received
        self._received = ReceivedCount()
        self._header: bytearray | None = bytearray() if keeps_header else None
        self.looping = False

    @property
    def received(self) -> int:
        """How many Received fields have come."""
        return self._received.count

    @property
    def header(self) -> bytes | None:
        """The header as a DSN quotes it; None if it has not been kept."""
        return None if self._header is None else header_of(bytes(self._header))

    def add(self, data: bytes) -> None:
        """Take the next octets."""
        if not self._received.over:
            self._received.add(data)
            if self._header is not None and len(self._header) < LARGEST_HEADER:
                self._header += data[:LARGEST_HEADER]
            if self._received.count > self._max_received and not self.looping:
                self.looping = True
                self._delivery.abort()
        if data and not self.looping:
            self._delivery.add(data)
