"""Which of the relay's extensions a message needs, and the parameters that declare it.

Rules of this file: decisions and parameters; nothing about sessions. What a message needs depends
on its content, not on what its sender declared: a relay without 8BITMIME never gets octets beyond
ASCII, and a message that is plain ASCII is not refused because BODY=8BITMIME was declared. Only
BINARYMIME depends on the declaration, because no other message has bare CRs or LFs.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Mapping
from dataclasses import dataclass

from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.message_source import MessageSource
from fastlisten.mail.relay.relay_error import (
    NO_BINARY,
    NO_EIGHT_BITS,
    NO_UTF8_HEADER,
    NO_UTF8_RECIPIENT,
    NO_UTF8_SENDER,
    NOT_READ,
    TOO_LARGE,
    RelayError,
)

__all__ = [
    "RequiredExtensions",
    "check_envelope",
    "check_message",
    "mail_parameters",
    "rcpt_parameters",
    "required_extensions",
]

#: The most octets of a header that are examined.
_LONGEST_HEADER = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RequiredExtensions:
    """Which extensions a message needs.

    Attributes:
        eight_bits: 8BITMIME (RFC 6152): it has octets beyond ASCII.
        utf8_header: SMTPUTF8 (RFC 6531): its header has characters beyond ASCII, as UTF-8.
    """

    eight_bits: bool = False
    utf8_header: bool = False


def _examine(content: MessageSource) -> RequiredExtensions:
    header, ended, whole, eight_bits = bytearray(), False, True, False
    offset = 0
    while offset < content.size and not (ended and eight_bits):
        piece = content.read(offset)
        offset += len(piece)
        eight_bits = eight_bits or not piece.isascii()
        if not ended:
            # With the last three octets of the piece before, in case the header's end was cut.
            seen = max(0, len(header) - 3)
            header += piece
            end = header.find(b"\r\n\r\n", seen)
            whole = end >= 0 or len(header) <= _LONGEST_HEADER
            ended = end >= 0 or not whole
            if ended:
                del header[end if end >= 0 else _LONGEST_HEADER :]
    return RequiredExtensions(eight_bits, not header.isascii() and _is_utf8(header, whole))


def _is_utf8(octets: bytearray, whole: bool) -> bool:
    """Whether octets are UTF-8; unless they are whole, the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(octets, whole)
    except UnicodeDecodeError:
        return False
    return True


async def required_extensions(content: MessageSource) -> RequiredExtensions:
    """Find out which extensions a message needs.

    Raises:
        RelayError: it cannot be read.
    """
    try:
        return await asyncio.to_thread(_examine, content)
    except OSError as error:
        raise RelayError(NOT_READ, str(error)) from error


# --- what the relay lacks -------------------------------------------------------------------------


def check_envelope(envelope: Envelope, offered: Mapping[str, str]) -> None:
    """Raise RelayError if the relay cannot take a message with this envelope.

    Args:
        envelope: the message's.
        offered: the relay's extensions: parameters by keyword.
    """
    if envelope.body == "BINARYMIME" and not offered.keys() >= {"BINARYMIME", "CHUNKING"}:
        raise RelayError(NO_BINARY)
    if not envelope.sender.isascii() and "SMTPUTF8" not in offered:
        raise RelayError(NO_UTF8_SENDER)
    if envelope.size and envelope.size > _largest(offered):
        raise RelayError(TOO_LARGE)


def check_message(
    envelope: Envelope, required: RequiredExtensions, size: int, offered: Mapping[str, str]
) -> None:
    """Raise RelayError if the relay lacks what a message needs.

    Args:
        envelope: the message's.
        required: what the message needs.
        size: its octets.
        offered: the relay's extensions: parameters by keyword.
    """
    if required.utf8_header and "SMTPUTF8" not in offered:
        raise RelayError(NO_UTF8_HEADER)
    binary = envelope.body == "BINARYMIME"
    if required.eight_bits and not binary and "8BITMIME" not in offered:
        raise RelayError(NO_EIGHT_BITS)
    if size > _largest(offered):
        raise RelayError(TOO_LARGE)


def _largest(offered: Mapping[str, str]) -> float:
    """Return the relay's size limit in octets (RFC 1870 3), infinity if it has none."""
    limit = offered.get("SIZE", "")
    return int(limit) if limit.isascii() and limit.isdecimal() and int(limit[:20]) else float("inf")


# --- parameters -----------------------------------------------------------------------------------


def mail_parameters(
    envelope: Envelope,
    required: RequiredExtensions,
    offered: Mapping[str, str],
    authenticated: bool,
) -> list[str]:
    """Return what follows MAIL, with the parameters that the relay supports.

    Args:
        envelope: the message's.
        required: what the message is known to need so far.
        offered: the relay's extensions: parameters by keyword.
        authenticated: we have logged in to the relay.
    """
    words = [f"FROM:<{envelope.sender}>"]
    if envelope.body == "BINARYMIME":
        words.append("BODY=BINARYMIME")
    elif "8BITMIME" in offered and (envelope.body == "8BITMIME" or required.eight_bits):
        words.append("BODY=8BITMIME")
    if "SMTPUTF8" in offered and (envelope.smtputf8 or required.utf8_header):
        words.append("SMTPUTF8")
    if envelope.size and "SIZE" in offered:
        words.append(f"SIZE={envelope.size}")
    if "DSN" in offered:
        if envelope.ret:
            words.append(f"RET={envelope.ret}")
        if envelope.envid:
            words.append(f"ENVID={envelope.envid}")
    if envelope.auth and authenticated and "AUTH" in offered:
        # RFC 4954 5: we do not vouch for what the client says about the origin of its message.
        words.append("AUTH=<>")
    return words


def rcpt_parameters(recipient: EnvelopeRecipient, offered: Mapping[str, str]) -> list[str]:
    """Return what follows RCPT, with the parameters that the relay supports.

    Args:
        recipient: the recipient.
        offered: the relay's extensions: parameters by keyword.

    Raises:
        RelayError: the relay does not accept addresses beyond ASCII.
    """
    words = [f"TO:<{recipient.mailbox.text}>"]
    if "DSN" in offered:
        if recipient.notify:
            words.append(f"NOTIFY={recipient.notify}")
        if recipient.orcpt:
            words.append(f"ORCPT={recipient.orcpt}")
    if "SMTPUTF8" not in offered and not all(word.isascii() for word in words):
        raise RelayError(NO_UTF8_RECIPIENT)
    return words
