"""Parses the commands that concern the session and no mailbox: ID, LOGIN, AUTHENTICATE, ENABLE.

Rules of this file: from a command's arguments to its event.
"""

from __future__ import annotations

import binascii

from fastlisten.handlers.imap.engine.commands import Authenticate, Enable, Id, Login
from fastlisten.handlers.imap.engine.refusal import Refused
from fastlisten.handlers.imap.engine.scanner import Scanner

__all__ = ["decode_response", "parse_authenticate", "parse_enable", "parse_id", "parse_login"]

#: RFC 2971 3.3.
_MOST_ID_FIELDS = 30
_LONGEST_ID_NAME = 30
_LONGEST_ID_VALUE = 1024


def parse_login(scanner: Scanner) -> Login:
    """LOGIN."""
    # imaplib writes the name of a master login, user*master, without quotes, and Dovecot takes it.
    user = scanner.list_mailbox()
    scanner.space()
    return Login(user, scanner.astring())


def decode_response(text: bytes) -> bytes:
    """Return what a client has said in base64.

    Raises:
        Refused: it is no base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise Refused("Invalid base64 data") from None


def parse_authenticate(scanner: Scanner) -> Authenticate:
    """AUTHENTICATE, perhaps with an initial response (RFC 4959); ``=`` is an empty one."""
    mechanism = scanner.word().decode("ascii")
    if scanner.at_end():
        return Authenticate(mechanism, None)
    scanner.space()
    text = scanner.atom()
    return Authenticate(mechanism, b"" if text == b"=" else decode_response(text))


def parse_id(scanner: Scanner) -> Id:
    """ID (RFC 2971)."""
    fields: dict[str, str | None] = {}
    if not scanner.opens():
        if scanner.nstring() is not None:
            raise Refused("Expected a list or NIL")
        return Id(fields)
    if scanner.skip(b")"):
        return Id(fields)
    while True:
        name = scanner.string().decode("utf-8", "replace").lower()
        scanner.space()
        value = scanner.nstring()
        if len(name) > _LONGEST_ID_NAME or len(value or b"") > _LONGEST_ID_VALUE:
            raise Refused("ID field too long")
        fields[name] = None if value is None else value.decode("utf-8", "replace")
        if len(fields) > _MOST_ID_FIELDS:
            raise Refused("Too many ID fields")
        if scanner.closes():
            return Id(fields)


def parse_enable(scanner: Scanner) -> Enable:
    """ENABLE (RFC 5161)."""
    names = [scanner.word().decode("ascii")]
    while not scanner.at_end():
        scanner.space()
        names.append(scanner.word().decode("ascii"))
    return Enable(tuple(dict.fromkeys(names)))
