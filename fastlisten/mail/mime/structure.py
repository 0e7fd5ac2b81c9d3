"""The structure of a message: a tree of parts.

Rules of this file: data and what follows from it, no parsing. Offsets count octets of the message
that was parsed. Sizes count octets as clients see them: if the first line ends with an LF without
CR (Dovecot's and procmail's files), every such LF counts as CRLF. If it ends with CRLF, or the
message is parsed in the form in which it is served, offsets and sizes count the same octets.
Values of fields are octets as
they were written, unfolded; they may be 8-bit, and hold no NUL, CR or LF.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Address", "Envelope", "Parameters", "Part"]

#: Names and values in the order of the field. Names are in lower case. A name that ends in ``*``
#: has a value with charset, language and percent encoding (RFC 2231 4). Values that were split
#: into ``name*0``, ``name*1`` and so on are joined, as RFC 2231 6 asks of IMAP servers.
Parameters = tuple[tuple[bytes, bytes], ...]


class Address(NamedTuple):
    """An address as RFC 3501 7.4.2 wants it, or a mark of where a group begins or ends.

    At the beginning of a group `mailbox` is its name, and all others are None. At its end all four
    are None. In every other address `mailbox` and `host` are set: where a message has no domain,
    `host` is ``MISSING_DOMAIN``, and a local part that is missing is ``MISSING_MAILBOX``, as
    administrators know it from Dovecot.

    Attributes:
        name: the display name, without quotes; encoded words (RFC 2047) are not decoded.
        route: the obsolete source route, ``@a,@b``.
        mailbox: the local part, without quotes.
        host: the domain.
    """

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


@dataclass(slots=True)
class Envelope:
    """What IMAP's ENVELOPE says (RFC 3501 7.4.2). None and empty tuples stand for NIL.

    Where a message has no Sender or no Reply-To, or an empty one, it is the same as From.
    """

    date: bytes | None = None
    subject: bytes | None = None
    from_: tuple[Address, ...] = ()
    sender: tuple[Address, ...] = ()
    reply_to: tuple[Address, ...] = ()
    to: tuple[Address, ...] = ()
    cc: tuple[Address, ...] = ()
    bcc: tuple[Address, ...] = ()
    in_reply_to: bytes | None = None
    message_id: bytes | None = None


@dataclass(slots=True)
class Part:
    """One part of a message, or the message itself; do not change it.

    Attributes:
        header: offset of its header, which ends where the body begins.
        body: offset of its body. The blank line after the header is the header's last.
        end: offset of the end of its body. The line break before the next delimiter belongs to the
            delimiter (RFC 2046 5.1.1), and so neither to a body nor to a header.
        header_lines: line ends in the header.
        lines: line ends in the body.
        header_bare: how many of the header's line ends are served with a CR that the file lacks.
        bare: the same of the body.
        type, subtype: in lower case; ``text`` and ``plain`` if Content-Type is missing or wrong
            (RFC 2045 5.2), ``message`` and ``rfc822`` if it is missing in a digest (RFC 2046
            5.1.5).
        parameters: those of Content-Type.
        encoding: Content-Transfer-Encoding in lower case; ``7bit`` if there is none.
        id, description, md5, location: the fields Content-ID and so on.
        disposition: its kind, in lower case; `disposition_parameters` are its parameters.
        languages: the tags of Content-Language.
        children: the parts of a multipart, which has none if its boundary is missing or never
            occurs; the message inside a ``message/rfc822``, always exactly one.
        envelope: if it is a message: the outermost one, or one inside a ``message/rfc822``.
    """

    header: int = 0
    body: int = 0
    end: int = 0
    header_lines: int = 0
    lines: int = 0
    header_bare: int = 0
    bare: int = 0
    type: bytes = b"text"
    subtype: bytes = b"plain"
    parameters: Parameters = ()
    encoding: bytes = b"7bit"
    id: bytes | None = None
    description: bytes | None = None
    md5: bytes | None = None
    location: bytes | None = None
    disposition: bytes | None = None
    disposition_parameters: Parameters = ()
    languages: tuple[bytes, ...] = ()
    children: list[Part] = field(default_factory=list)
    envelope: Envelope | None = None

    @property
    def header_size(self) -> int:
        """Octets of the header as clients see it."""
        return self.body - self.header + self.header_bare

    @property
    def size(self) -> int:
        """Octets of the body as clients see it."""
        return self.end - self.body + self.bare

    @property
    def is_multipart(self) -> bool:
        """Whether it consists of parts (though a broken one may have none)."""
        return self.type == b"multipart"

    @property
    def is_message(self) -> bool:
        """Whether its body is a message, which is its only child."""
        return self.type == b"message" and self.subtype == b"rfc822"

    def parameter(self, name: bytes) -> bytes | None:
        """Return a parameter of Content-Type by its name in lower case, undecoded."""
        return next((value for known, value in self.parameters if known == name), None)
