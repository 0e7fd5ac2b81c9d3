"""Frames of websockets as octets (RFC 6455 5.2), so that tests can send what no library would."""

from __future__ import annotations

import struct

__all__ = ["BINARY", "CLOSE", "PING", "TEXT", "frame"]

TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode: int, data: bytes, *, fin: bool = True, deflated: bool = False) -> bytes:
    """Return a frame as clients send it, masked with zeros."""
    first = bytes((opcode | 0x80 * fin | 0x40 * deflated,))
    if len(data) < 126:
        length = bytes((0x80 | len(data),))
    elif len(data) < 65536:
        length = b"\xfe" + struct.pack("!H", len(data))
    else:
        length = b"\xff" + struct.pack("!Q", len(data))
    return first + length + bytes(4) + data
