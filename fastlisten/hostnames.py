"""Names of hosts: which texts are one, and what this host is called.

Rules of this file: it imports nothing of the package. The kernel takes any 64 octets for a host
name, line feeds among them; what is no domain name goes neither on the wire nor into a file's name.
"""

from __future__ import annotations

import os
import re
import socket

__all__ = ["FALLBACK", "hostname_for_filenames", "is_hostname", "local_fqdn", "local_hostname"]

#: What a host without a usable name is called.
FALLBACK = "localhost"

# RFC 1123 2.1: letters, digits and hyphens, 63 octets a label; an underscore is seen in practice.
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

_UNSAFE = re.compile(rb"[^A-Za-z0-9._-]")

# Octets of a file's name: 64 of the kernel's, each written with four, would not fit with the rest.
_MAX_FILENAME_PART = 100


def is_hostname(text: str) -> bool:
    """Tell whether a text is a host name in ASCII (RFC 1123 2.1); a final dot is allowed."""
    name = text.removesuffix(".")
    return 0 < len(name) <= 253 and all(_LABEL.fullmatch(label) for label in name.split("."))


def local_hostname() -> tuple[str, str]:
    """Return this host's name, and the kernel's where that is none and the first is a fallback."""
    name = socket.gethostname()
    return (name, "") if is_hostname(name) else (FALLBACK, name or "(empty)")


def local_fqdn() -> str:
    """Return this host's name with its domain, as the resolver knows it (it may have to ask).

    /etc/hosts and name servers say what they like: what is no domain name is the fallback.
    """
    try:
        name = socket.getfqdn()
    except UnicodeError:  # it encodes the kernel's name as IDNA, which refuses some
        return local_hostname()[0]
    return name if is_hostname(name) else local_hostname()[0]


def hostname_for_filenames() -> str:
    """Return the kernel's name in the form that names of files have it: odd octets as ``\\ooo``."""
    octets = os.fsencode(socket.gethostname())
    escaped = _UNSAFE.sub(lambda match: b"\\%03o" % match[0][0], octets)
    return escaped[:_MAX_FILENAME_PART].decode("ascii") or FALLBACK
