"""Bounds on what is parsed of a message.

Rules of this file: numbers with their reasons. What is beyond a bound is not an error: it is left
unparsed, and counts as text of the part that it is in, so that every octet can still be fetched.
"""

from __future__ import annotations

__all__ = [
    "MAX_ADDRESSES",
    "MAX_BOUNDARY",
    "MAX_DEPTH",
    "MAX_FIELD",
    "MAX_HEADER",
    "MAX_PARAMETERS",
    "MAX_PARTS",
    "MAX_VALUES",
]

#: Parts of a message, itself included. Dovecot's bound too; mailing list digests have hundreds.
MAX_PARTS = 10_000

#: Parts within each other, the message itself included. Dovecot's bound too; mail that has been
#: forwarded again and again reaches twenty.
MAX_DEPTH = 100

#: Octets of a boundary. RFC 2046 5.1.1 allows 70; some programs write more.
MAX_BOUNDARY = 200

#: Octets of a header that are searched for fields. The longest seen in practice, with thousands of
#: recipients in To, have some 200 kB.
MAX_HEADER = 1024 * 1024

#: Octets of a field that describes a part, such as Content-Type.
MAX_FIELD = 64 * 1024

#: Octets of fields' values that are read in a message, all its parts together; a value that is
#: longer than what is left is skipped. Addresses that are made to be slow take a microsecond for
#: each octet. Messages with hundreds of parts have some 100 kB.
MAX_VALUES = 512 * 1024

#: Parameters of one Content-Type or Content-Disposition, pieces of RFC 2231 counted separately.
MAX_PARAMETERS = 500

#: Addresses in one kind of field (To, for example), groups included.
MAX_ADDRESSES = 20_000
