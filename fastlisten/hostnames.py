"""Host names: whether a string is one, and the name of this host.

Rules of this file: it imports nothing of the package. The kernel accepts any 64 bytes as a host
name, even line feeds; what is not a valid domain name is never sent or used in file names.
"""

from __future__ import annotations

import os
import re
import socket

__all__ = ["FALLBACK", "hostname_for_filenames", "is_hostname", "local_fqdn", "local_hostname"]

#: The name of a host without a usable name.
FALLBACK = "localhost"

# RFC 1123 2.1: letters, digits and hyphens, 63 octets a label; an underscore is seen in practice.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")

# 64 bytes of which each becomes four, as escaped ones do, would make a file name too long.
_MAX_FILENAME_PART = 100


def is_hostname(text: str) -> bool:
    """Tell whether a string is an ASCII host name (RFC 1123 2.1); a final dot is allowed."""
    name = text.removesuffix(".")
    return 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def local_hostname() -> tuple[str, str]:
    """Return this host's name, and the kernel's name if it is invalid, else an empty string."""
    name = socket.gethostname()
    return (name, "") if is_hostname(name) else (FALLBACK, name or "(empty)")


def local_fqdn() -> str:
    """Return this host's fully qualified name, from the resolver, which may query name servers.

    If /etc/hosts or a name server returns an invalid name, this is the host's own.
    """
    try:
        name = socket.getfqdn()
    except UnicodeError:  # it encodes the name as IDNA, which fails for some
        return local_hostname()[0]
    return name if is_hostname(name) else local_hostname()[0]


def hostname_for_filenames() -> str:
    """Return the kernel's host name for use in file names, unsafe bytes as ``\\ooo``."""
    octets = os.fsencode(socket.gethostname())
    escaped = _UNSAFE.sub(lambda match: b"\\%03o" % match[0][0], octets)
    return escaped[:_MAX_FILENAME_PART].decode("ascii") or FALLBACK
