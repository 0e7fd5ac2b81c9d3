"""The grammar of SMTP command lines: the arguments of MAIL, RCPT, EHLO, BDAT, AUTH.

Rules of this file: text in, values out, no state and no I/O. What is wrong with an argument is
said by raising `Refused` with the whole reply (RFC 5321 4.2.4: 501 for syntax, 555 for parameters
that are not recognised, 553 for an address that is not allowed here).
"""

from __future__ import annotations

import binascii
import re

from fastlisten import _mail_syntax as syntax
from fastlisten.handlers.smtp.engine import parameters
from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.smtp_events import Recipient, Transaction
from fastlisten.mail.address import MAX_PATH, AddressError, Mailbox, mailbox_of, mailbox_pattern

__all__ = [
    "CLIENT_NAME",
    "decode_response",
    "named_in",
    "parse_auth",
    "parse_chunk",
    "parse_client_name",
    "parse_mail",
    "parse_recipient",
]

# RFC 5321 4.1.1.2 and 4.1.1.3 allow no space after the colon, but so many programs write one that
# every server takes it. The source route ("@a,@b:") is accepted and ignored (appendix C).
_ROUTE = r"(?:@[^\s,:<>@]+(?:,@[^\s,:<>@]+)*:)?"
# Letters of other scripts must not pass for ours in another case (U+212A for k): hence (?ai:).
_SENDER = re.compile(rf"(?ai:FROM): *<(?:{_ROUTE}{mailbox_pattern})?>")
_RECIPIENT = re.compile(
    rf"(?ai:TO): *<(?:{_ROUTE}{mailbox_pattern}|(?P<postmaster>(?ai:postmaster)))>"
)
# Most paths are plain: they are found without these expressions, which take ten times as long.
_FROM = b"FROM:"
_TO = b"TO:"

#: What follows BDAT: a size in decimal digits, and perhaps more.
_CHUNK = re.compile(rb" *([0-9]+)(?: +(.+))?\Z", re.DOTALL)

#: What a client may call itself: a domain or an address literal (RFC 5321 4.1.1.1), and besides
#: what real clients send (underscores, bare IP addresses), as long as it can stand in a Received
#: header as it is: no specials of RFC 5322 but dot, colon and the brackets of a literal.
CLIENT_NAME = re.compile(rb"(?:[A-Za-z0-9_.:+/~-]++|\[[A-Za-z0-9_.:-]++\])++\Z")

#: Longest client name: a domain's 255 octets (RFC 5321 4.5.3.1.2).
MAX_CLIENT_NAME = 255


def parse_client_name(argument: bytes) -> str:
    """Return the name that EHLO or HELO gives.

    Raises:
        Refused: no name, or one that is neither a domain nor an address literal.
    """
    if len(argument) > MAX_CLIENT_NAME or not (
        syntax.is_plain_name(argument) or CLIENT_NAME.match(argument)
    ):
        raise Refused(501, "5.5.4", "Invalid or missing host name")
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
        raise Refused(501, status, "Address is not valid UTF-8") from error


def _plain(argument: bytes, begin: int, end: int) -> str:
    """Return the address of a plain path, which is ASCII."""
    return syntax.part(argument, begin, end).decode("ascii")


def _mailbox(match: re.Match[str], argument: bytes, status: str) -> Mailbox:
    """Make the mailbox of a matched path.

    Args:
        match: of the argument as text.
        argument: what follows the verb.
        status: the enhanced code for a path that is not well-formed.

    Raises:
        Refused: it is not, or it is too long.
    """
    if len(argument) > MAX_PATH:
        path = match.group().partition("<")[2]
        if len(path.encode()) >= MAX_PATH:
            raise Refused(501, status, f"Path too long (maximum {MAX_PATH} octets)")
    try:
        return mailbox_of(match)
    except AddressError as error:
        whose = "sender" if status == "5.1.7" else "recipient"
        raise Refused(501, status, f"Bad {whose} address syntax") from error


def parse_mail(argument: bytes, extended: bool, limits: Limits, encrypted: bool) -> Transaction:
    """Return the transaction that a MAIL command begins.

    Args:
        argument: what follows ``MAIL ``.
        extended: the client said EHLO, so that parameters are allowed.
        limits: what holds for the listener.
        encrypted: the session runs over TLS.

    Raises:
        Refused: with the reply to be given.
    """
    begin, at, end = syntax.plain_path(argument, _FROM)
    if at > begin:
        sender = _plain(argument, begin, end)
        rest = _decode(argument[end + 1 :], "5.1.7")
    else:
        text = _decode(argument, "5.1.7")
        match = _SENDER.match(text)
        if match is None:
            raise Refused(501, "5.1.7", "Syntax: MAIL FROM:<address>")
        sender = _mailbox(match, argument, "5.1.7").text if match.group("local") else ""
        rest = text[match.end() :]
    transaction = Transaction(sender)
    if rest:
        parameters.apply_mail_parameters(transaction, rest, extended, limits, encrypted)
    if not sender.isascii() and not transaction.smtputf8:
        raise Refused(553, "5.6.7", "Non-ASCII address requires SMTPUTF8")
    return transaction


def parse_recipient(argument: bytes, extended: bool, smtputf8: bool) -> Recipient:
    """Return the recipient that a RCPT command names.

    Args:
        argument: what follows ``RCPT ``.
        extended: the client said EHLO, so that parameters are allowed.
        smtputf8: the transaction was begun with SMTPUTF8.

    Raises:
        Refused: with the reply to be given.
    """
    begin, at, end = syntax.plain_path(argument, _TO)
    if at > begin:
        address = _plain(argument, begin, end)
        mailbox = Mailbox(address, address[: at - begin], address[at - begin + 1 :].lower())
        rest = _decode(argument[end + 1 :], "5.1.3")
    else:
        text = _decode(argument, "5.1.3")
        match = _RECIPIENT.match(text)
        if match is None:
            raise Refused(501, "5.1.3", "Syntax: RCPT TO:<address>")
        name = match.group("postmaster")
        mailbox = Mailbox(name, "postmaster", "") if name else _mailbox(match, argument, "5.1.3")
        rest = text[match.end() :]
    recipient = Recipient(mailbox)
    if rest:
        parameters.apply_recipient_parameters(recipient, rest, extended, smtputf8)
    if not smtputf8 and not mailbox.text.isascii():
        raise Refused(553, "5.6.7", "Non-ASCII address requires SMTPUTF8")
    return recipient


def named_in(line: bytes) -> tuple[str | None, tuple[Recipient, ...]]:
    """Return whom a command that was refused names, for the log.

    Args:
        line: the whole command, whatever is wrong with it.

    Returns:
        The sender, if it is a MAIL command from which that can be read; the recipient of a RCPT.
    """
    verb, _, argument = line.partition(b" ")
    verb = verb.upper()
    # Without the parameters, and as if SMTPUTF8 had been among them.
    path = argument.strip(b" \t").partition(b"> ")[0].removesuffix(b">") + b">"
    try:
        if verb == b"RCPT":
            return None, (parse_recipient(path, True, True),)
        match = _SENDER.match(_decode(path, "5.1.7")) if verb == b"MAIL" else None
        if match is None:
            return None, ()
        return (_mailbox(match, path, "5.1.7").text if match.group("local") else ""), ()
    except Refused:
        return None, ()


def parse_chunk(argument: bytes) -> tuple[int, bool | None] | None:
    """Return what a BDAT command says (RFC 3030 2).

    Args:
        argument: what follows ``BDAT ``.

    Returns:
        The octets of its chunk, and whether it is the last one, None if that is not said rightly;
        or None if nobody can know where the chunk ends.
    """
    match = _CHUNK.match(argument)
    if match is None:
        return None
    size, word = match.groups()
    return int(size), False if word is None else True if word.upper() == b"LAST" else None


def decode_response(line: bytes) -> bytes:
    """Return what a client says in a dialogue of AUTH, or with AUTH itself (RFC 4954 4).

    Args:
        line: base64, possibly empty.

    Raises:
        Refused: it is no base64.
    """
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise Refused(501, "5.5.2", "Invalid base64") from error


def parse_auth(argument: bytes, mechanisms: tuple[str, ...]) -> tuple[str, bytes | None]:
    """Return the mechanism that an AUTH command names, in upper case, and the initial response.

    Args:
        argument: what follows ``AUTH ``.
        mechanisms: those that are offered.

    Raises:
        Refused: with the reply to be given.
    """
    words = [word for word in argument.split(b" ") if word]
    if not 1 <= len(words) <= 2:
        raise Refused(501, "5.5.4", "Syntax: AUTH mechanism [response]")
    mechanism = words[0].upper().decode("ascii", "replace")
    if mechanism not in mechanisms:
        raise Refused(504, "5.5.4", "Unrecognized authentication type")
    if len(words) == 1:
        return mechanism, None
    # One equals sign is a response without octets.
    return mechanism, b"" if words[1] == b"=" else decode_response(words[1])
