"""The grammar of SMTP command lines: foreign verbs, the arguments of MAIL, RCPT, EHLO and HELO.

Rules of this file: text in, values out, no state and no I/O. What is wrong with an argument is
said by raising `Refused` with the whole reply (RFC 5321 4.2.4: 501 for syntax, 555 for parameters
that are not recognised, 553 for an address that is not allowed here).
"""

from __future__ import annotations

import re

from fastlisten.errors import PeerError
from fastlisten.handlers.smtp_events import Transaction
from fastlisten.handlers.smtp_replies import reply
from fastlisten.mail.address import MAX_PATH, AddressError, Mailbox, mailbox_of, mailbox_pattern

__all__ = [
    "CLIENT_NAME",
    "HTTP_VERBS",
    "NOT_HERE",
    "Refused",
    "parse_client_name",
    "parse_mail",
    "parse_recipient",
    "split_parameters",
]

#: Commands of RFC 5321 and its extensions that exist, but not here (502 instead of 500).
NOT_HERE = frozenset(b"AUTH BDAT ETRN EXPN SAML SEND SOML STARTTLS TURN XCLIENT XFORWARD".split())

#: First words of HTTP requests: a browser was led here to have its request's body executed as
#: commands. Nothing good follows.
HTTP_VERBS = frozenset(b"CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT TRACE".split())


class Refused(PeerError):  # noqa: N818 - a verdict on the peer's command, not a fault of ours
    """A command that is not carried out; `reply` says why to the client."""

    def __init__(self, code: int, status: str, text: str) -> None:
        super().__init__(text, reply(code, status, text))


# RFC 5321 4.1.1.2 and 4.1.1.3 allow no space after the colon, but so many programs write one that
# every server takes it. The source route ("@a,@b:") is accepted and ignored (appendix C).
_ROUTE = r"(?:@[^\s,:<>@]+(?:,@[^\s,:<>@]+)*:)?"
# Letters of other scripts must not pass for ours in another case (U+212A for k): hence (?ai:).
_SENDER = re.compile(rf"(?ai:FROM): *<(?:{_ROUTE}{mailbox_pattern})?>")
_RECIPIENT = re.compile(
    rf"(?ai:TO): *<(?:{_ROUTE}{mailbox_pattern}|(?P<postmaster>(?ai:postmaster)))>"
)
# No keyword of any extension is longer than 12; the bound keeps replies that name one short.
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,31})(?:=([!-<>-~\u0080-\U0010ffff]+))?")
_SIZE = re.compile(r"[0-9]{1,20}\Z")

#: What a client may call itself: a domain or an address literal (RFC 5321 4.1.1.1), and besides
#: what real clients send (underscores, bare IP addresses), as long as it can stand in a Received
#: header as it is: no specials of RFC 5322 but dot, colon and the brackets of a literal.
CLIENT_NAME = re.compile(rb"(?:[A-Za-z0-9_.:+/~-]|\[[A-Za-z0-9_.:-]+\])+\Z")

#: Longest client name: a domain's 255 octets (RFC 5321 4.5.3.1.2).
MAX_CLIENT_NAME = 255


def parse_client_name(argument: bytes) -> str:
    """Return the name that EHLO or HELO gives.

    Raises:
        Refused: no name, or one that is neither a domain nor an address literal.
    """
    if len(argument) > MAX_CLIENT_NAME or CLIENT_NAME.match(argument) is None:
        raise Refused(501, "5.5.4", "Your name is missing, or is no domain or address literal")
    return argument.decode("ascii")


def _decode(argument: bytes, status: str) -> str:
    """Return the argument as text.

    Args:
        argument: what follows the verb.
        status: the enhanced code for an address that cannot be read.
    """
    try:
        return argument.decode()
    except UnicodeDecodeError as error:
        raise Refused(501, status, "The address is not UTF-8") from error


def split_parameters(text: str) -> dict[str, str | None]:
    """Return the ESMTP parameters of MAIL or RCPT by their keywords in upper case.

    Args:
        text: what follows the path, empty or beginning with a space.

    Raises:
        Refused: bad syntax, or a keyword given twice.
    """
    if text and text[0] != " ":
        raise Refused(501, "5.5.4", "A space belongs between the path and its parameters")
    parameters: dict[str, str | None] = {}
    for word in filter(None, text.split(" ")):
        match = _PARAMETER.fullmatch(word)
        if match is None:
            raise Refused(501, "5.5.4", "Bad syntax of a parameter")
        keyword = match.group(1).upper()
        if keyword in parameters:
            raise Refused(501, "5.5.4", f"{keyword} is given twice")
        parameters[keyword] = match.group(2)
    return parameters


def _mailbox(match: re.Match[str], status: str) -> Mailbox:
    """Make the mailbox of a matched path, or refuse it with the given enhanced status code."""
    path = match.group().partition("<")[2]
    if len(path) >= MAX_PATH or (not path.isascii() and len(path.encode()) >= MAX_PATH):
        raise Refused(501, status, f"A path has at most {MAX_PATH} octets")
    try:
        return mailbox_of(match)
    except AddressError as error:
        raise Refused(501, status, "The address is not well-formed") from error


def parse_mail(argument: bytes, extended: bool, max_size: int) -> Transaction:
    """Return the transaction that a MAIL command begins.

    Args:
        argument: what follows ``MAIL ``.
        extended: the client said EHLO, so that parameters are allowed.
        max_size: the largest message that is accepted, in octets.

    Raises:
        Refused: with the reply to be given.
    """
    text = _decode(argument, "5.1.7")
    match = _SENDER.match(text)
    if match is None:
        raise Refused(501, "5.1.7", "Syntax: MAIL FROM:<address>")
    sender = _mailbox(match, "5.1.7").text if match.group("local") else ""
    transaction = Transaction(sender)
    if match.end() < len(text):
        _apply_mail_parameters(transaction, text[match.end() :], extended, max_size)
    if not sender.isascii() and not transaction.smtputf8:
        raise Refused(553, "5.6.7", "Such an address needs SMTPUTF8")
    return transaction


def _apply_mail_parameters(
    transaction: Transaction, text: str, extended: bool, max_size: int
) -> None:
    """Read the parameters of MAIL: SIZE (RFC 1870), BODY (RFC 6152), SMTPUTF8 (RFC 6531)."""
    for keyword, value in split_parameters(text).items():
        if not extended or keyword not in ("SIZE", "BODY", "SMTPUTF8"):
            raise Refused(555, "5.5.4", f"{keyword} is not a parameter of MAIL here")
        if keyword == "SIZE":
            if value is None or _SIZE.match(value) is None:
                raise Refused(501, "5.5.4", "SIZE needs a number of octets")
            transaction.size = int(value)
            if transaction.size > max_size:
                raise Refused(552, "5.3.4", f"A message has at most {max_size} octets here")
        elif keyword == "BODY":
            body = (value or "").upper()
            if body not in ("7BIT", "8BITMIME"):
                raise Refused(501, "5.5.4", "BODY is 7BIT or 8BITMIME")
            transaction.body = body
        else:
            if value is not None:
                raise Refused(501, "5.5.4", "SMTPUTF8 has no value")
            transaction.smtputf8 = True


def parse_recipient(argument: bytes, smtputf8: bool) -> Mailbox:
    """Return the mailbox that a RCPT command names.

    Args:
        argument: what follows ``RCPT ``.
        smtputf8: the transaction was begun with SMTPUTF8.

    Raises:
        Refused: with the reply to be given.
    """
    text = _decode(argument, "5.1.3")
    match = _RECIPIENT.match(text)
    if match is None:
        raise Refused(501, "5.1.3", "Syntax: RCPT TO:<address>")
    name = match.group("postmaster")
    mailbox = Mailbox(name, "postmaster", "") if name else _mailbox(match, "5.1.3")
    if match.end() < len(text):
        for keyword in split_parameters(text[match.end() :]):
            raise Refused(555, "5.5.4", f"{keyword} is not a parameter of RCPT here")
    if not smtputf8 and not mailbox.text.isascii():
        raise Refused(553, "5.6.7", "Such an address needs SMTPUTF8")
    return mailbox
