r"""Flags of messages: \Seen and the others, and keywords (RFC 3501 2.3.2).

Rules of this file: names only. System flags have one spelling, keywords keep theirs.
"""

from __future__ import annotations

from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner

__all__ = ["parse_flag", "parse_flags"]

_SYSTEM = {
    name.upper().encode("ascii"): name
    for name in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")
}


def parse_flag(scanner: Scanner) -> str:
    r"""Read a flag that clients can set: not \Recent.

    Raises:
        Refused: there is none, or it is not known.
    """
    octets = scanner.flag()
    if octets[0] != 92:
        return octets.decode("ascii")
    flag = _SYSTEM.get(octets.upper())
    if flag is None:
        raise Refused(f"Invalid system flag {octets.decode('ascii')}")
    return flag


def parse_flags(scanner: Scanner) -> tuple[str, ...]:
    """Read a list of flags in parentheses, which may be empty; each is returned once.

    Raises:
        Refused: there is none, or a flag is not known.
    """
    if not scanner.open_list():
        return ()
    flags = [parse_flag(scanner)]
    while not scanner.closes():
        flags.append(parse_flag(scanner))
    return tuple(dict.fromkeys(flags))
