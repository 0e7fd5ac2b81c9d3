"""Writes untagged responses about the server, mailboxes and quotas (RFC 3501 7.2, and extensions).

Rules of this file: values to octets, each a complete line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fastlisten.handlers.imap.engine.strings import (
    write_astring,
    write_mailbox,
    write_nstring,
    write_string,
)

__all__ = [
    "NAMESPACE",
    "capability_response",
    "enabled_response",
    "id_response",
    "list_response",
    "lsub_response",
    "quota_response",
    "quota_root_response",
    "status_response",
]

#: One namespace, the user's own, without a prefix (RFC 2342).
NAMESPACE = b'* NAMESPACE (("" "/")) NIL NIL\r\n'


def capability_response(names: Iterable[str]) -> bytes:
    """CAPABILITY."""
    return b"* CAPABILITY %b\r\n" % " ".join(names).encode("ascii")


def enabled_response(names: Iterable[str]) -> bytes:
    """ENABLED (RFC 5161 3.2); without names, too."""
    return f"{' '.join(['* ENABLED', *names])}\r\n".encode("ascii")


def id_response(fields: Mapping[str, str | None]) -> bytes:
    """ID (RFC 2971 3.2); NIL if there are no fields."""
    if not fields:
        return b"* ID NIL\r\n"
    pairs = [
        b"%b %b"
        % (write_string(name.encode()), write_nstring(None if value is None else value.encode()))
        for name, value in fields.items()
    ]
    return b"* ID (%b)\r\n" % b" ".join(pairs)


def list_response(
    name: str, attributes: Iterable[str], *, subscribed_children: bool = False
) -> bytes:
    r"""LIST (RFC 3501 7.2.2, RFC 5258).

    Args:
        name: of the mailbox; empty in the answer to ``LIST "" ""``.
        attributes: with their backslashes, as in ``\HasChildren``.
        subscribed_children: CHILDINFO: mailboxes below it, which are not listed themselves, are
            subscribed (RFC 5258 3.5).
    """
    extended = b' ("CHILDINFO" ("SUBSCRIBED"))' if subscribed_children else b""
    return _listed(b"LIST", name, attributes, extended)


def lsub_response(name: str, attributes: Iterable[str]) -> bytes:
    """LSUB."""
    return _listed(b"LSUB", name, attributes, b"")


def _listed(kind: bytes, name: str, attributes: Iterable[str], extended: bytes) -> bytes:
    written = " ".join(attributes).encode("ascii")
    return b'* %b (%b) "/" %b%b\r\n' % (kind, written, write_mailbox(name), extended)


def status_response(mailbox: str, values: Mapping[str, int | str | None]) -> bytes:
    """STATUS.

    Args:
        mailbox: its name.
        values: of the items; MAILBOXID's is text, and None is NIL (APPENDLIMIT, RFC 7889 5).
    """
    items = [b"%b %b" % (name.encode("ascii"), _value(value)) for name, value in values.items()]
    return b"* STATUS %b (%b)\r\n" % (write_mailbox(mailbox), b" ".join(items))


def _value(value: int | str | None) -> bytes:
    if value is None:
        return b"NIL"
    if isinstance(value, str):
        return b"(%b)" % value.encode("ascii")
    return b"%d" % value


def quota_response(root: str, resources: Sequence[tuple[str, int, int]]) -> bytes:
    """QUOTA (RFC 9208 4.2.1).

    Args:
        root: its name.
        resources: name, usage and limit of each; STORAGE counts units of 1024 octets.
    """
    written = b" ".join(
        [b"%b %d %d" % (name.encode("ascii"), used, most) for name, used, most in resources]
    )
    return b"* QUOTA %b (%b)\r\n" % (write_astring(root.encode()), written)


def quota_root_response(mailbox: str, roots: Iterable[str]) -> bytes:
    """QUOTAROOT (RFC 9208 4.2.2)."""
    written = [write_mailbox(mailbox), *(write_astring(root.encode()) for root in roots)]
    return b"* QUOTAROOT %b\r\n" % b" ".join(written)
