"""The parameters of MAIL and RCPT: SIZE, BODY, SMTPUTF8, AUTH, and those of delivery reports.

Rules of this file: text in, values into a transaction or a recipient, no state and no I/O. What is
wrong is said by raising `Refused` with the whole reply: 501 for a value, 555 for a keyword that is
not known here (RFC 5321 4.1.1.11).

    MAIL   SIZE (RFC 1870), BODY (RFC 6152, 3030), SMTPUTF8 (RFC 6531), RET and ENVID (RFC 3461),
           AUTH (RFC 4954 5) where AUTH is offered
    RCPT   NOTIFY and ORCPT (RFC 3461)

Values written as xtext (RFC 3461 4) are kept as they are, but what they mean must be printable:
they end in the header of a report, and nothing may begin a line there. Where addresses may be
international, so may ORCPT and AUTH (RFC 6533 3, RFC 6531 3.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from fastlisten.handlers.smtp.engine.refusal import Refused
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.smtp_events import Recipient, Transaction
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.mail.xtext import decode_xtext

__all__ = ["apply_mail_parameters", "apply_recipient_parameters"]

#: RFC 3461 4.4 and 4.2: the most characters of the values of ENVID and ORCPT.
MAX_ENVID = 100
MAX_ORCPT = 500

#: RFC 4954 5: by AUTH a MAIL command may become so much longer.
MAX_AUTH = 500 - len(" AUTH=")

# No keyword of any extension is longer than 12; the bound keeps replies that name one short.
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,31})(?:=[!-<>-~\u0080-\U0010ffff]+)?")

#: Parameters whose values may hold characters of other scripts.
_MAY_BE_INTERNATIONAL = re.compile("(?:ORCPT|AUTH)=", re.ASCII | re.IGNORECASE)

#: RFC 1870 3: the most digits of the value of SIZE.
MAX_SIZE = 20

#: xtext: printable ASCII but "+" and "=", and what is not, or not allowed, as "+" and two digits.
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})+\Z")

#: The same with the forms of RFC 6533 3 for characters of other scripts: "\x{20AC}", or raw.
_UTF8_XTEXT = re.compile(
    r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\+[0-7][0-9A-F]|\\x\{[1-9A-F][0-9A-F]{1,5}\})+\Z"
)

#: The address types of ORCPT are atoms (RFC 3461 4.2); the IANA registry's are short.
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~-]{1,32}\Z")

_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


def _split(text: str) -> list[str]:
    """Return the parameters of MAIL or RCPT, a word each.

    Args:
        text: what follows the path, beginning with a space.

    Raises:
        Refused: it does not, or a keyword is given twice, or there are letters of other scripts
            where none can be: some turn into ours where these are compared in upper case.
    """
    if text[0] != " ":
        raise Refused(501, "5.5.4", "Space required between path and parameters")
    words = text[1:].split(" ")
    if not text.isascii():
        for word in words:
            if not word.isascii() and _MAY_BE_INTERNATIONAL.match(word) is None:
                raise Refused(501, "5.5.4", "Bad parameter syntax")
    if len(words) > 1:
        words = [word for word in words if word]
        keywords = {word.partition("=")[0].upper() for word in words}
        if len(keywords) < len(words):
            raise Refused(501, "5.5.4", "Duplicate parameter")
    return words


def _not_here(word: str, command: str) -> Refused:
    """Return the verdict on a parameter that is not known."""
    match = _PARAMETER.fullmatch(word)
    if match is None:
        return Refused(501, "5.5.4", "Bad parameter syntax")
    return Refused(555, "5.5.4", f"Unsupported {command} parameter: {match[1].upper()}")


# --- MAIL -----------------------------------------------------------------------------------------


def apply_mail_parameters(
    transaction: Transaction, text: str, extended: bool, limits: Limits, encrypted: bool
) -> None:
    """Read the parameters of MAIL into its transaction.

    Args:
        transaction: has the sender.
        text: what follows the path.
        extended: the client said EHLO, so that parameters are allowed.
        limits: what holds for the listener.
        encrypted: the session runs over TLS.

    Raises:
        Refused: with the reply to be given.
    """
    words = _split(text)
    for word in words:
        keyword, equals, value = word.partition("=")
        apply = _MAIL.get(keyword) or _MAIL.get(keyword.upper())
        if not (apply and extended) or (apply is _auth and not limits.offers_auth(encrypted)):
            raise _not_here(word, "MAIL")
        apply(transaction, value if equals else None, limits)
    transaction.words = tuple(words)


def _size(transaction: Transaction, value: str | None, limits: Limits) -> None:
    if not (value and value.isascii() and value.isdigit() and len(value) <= MAX_SIZE):
        raise Refused(501, "5.5.4", "Bad message size syntax")
    transaction.size = int(value)
    if transaction.size > limits.max_message_size:
        raise Refused(
            552, "5.3.4", f"Message size exceeds fixed limit of {limits.max_message_size} octets"
        )


def _body(transaction: Transaction, value: str | None, limits: Limits) -> None:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise Refused(501, "5.5.4", "BODY must be 7BIT, 8BITMIME or BINARYMIME")
    transaction.body = body


def _smtputf8(transaction: Transaction, value: str | None, limits: Limits) -> None:
    if value is not None:
        raise Refused(501, "5.5.4", "SMTPUTF8 takes no value")
    transaction.smtputf8 = True


def _ret(transaction: Transaction, value: str | None, limits: Limits) -> None:
    ret = (value or "").upper()
    if ret not in ("FULL", "HDRS"):
        raise Refused(501, "5.5.4", "RET must be FULL or HDRS")
    transaction.ret = ret


def _envid(transaction: Transaction, value: str | None, limits: Limits) -> None:
    if value is None or len(value) > MAX_ENVID or _XTEXT.match(value) is None:
        raise Refused(501, "5.5.4", f"ENVID must be xtext of at most {MAX_ENVID} characters")
    meant = decode_xtext(value)
    if meant is None or not meant.isascii():
        raise Refused(501, "5.5.4", "ENVID must be printable ASCII")
    transaction.envid = value


def _auth(transaction: Transaction, value: str | None, limits: Limits) -> None:
    if value is None or len(value) > MAX_AUTH or _UTF8_XTEXT.match(value) is None:
        raise Refused(501, "5.5.4", f"AUTH must be xtext of at most {MAX_AUTH} characters")
    if value != "<>":
        if value.startswith("<") and value.endswith(">"):
            value = value[1:-1]  # RFC 4954 5 has no brackets there, but curl writes them
        try:
            parse_mailbox(decode_xtext(value, international=True) or "")
        except AddressError as error:
            raise Refused(501, "5.5.4", "AUTH must be <> or an address") from error
    transaction.auth = value


_MAIL: dict[str, Callable[[Transaction, str | None, Limits], None]] = {
    "SIZE": _size,
    "BODY": _body,
    "SMTPUTF8": _smtputf8,
    "RET": _ret,
    "ENVID": _envid,
    "AUTH": _auth,
}


# --- RCPT -----------------------------------------------------------------------------------------


def apply_recipient_parameters(
    recipient: Recipient, text: str, extended: bool, smtputf8: bool
) -> None:
    """Read the parameters of RCPT into its recipient.

    Args:
        recipient: has the mailbox.
        text: what follows the path.
        extended: the client said EHLO, so that parameters are allowed.
        smtputf8: the transaction was begun with SMTPUTF8.

    Raises:
        Refused: with the reply to be given.
    """
    words = _split(text)
    for word in words:
        keyword, equals, value = word.partition("=")
        keyword = keyword.upper()
        if not extended or keyword not in ("NOTIFY", "ORCPT"):
            raise _not_here(word, "RCPT")
        if keyword == "NOTIFY":
            recipient.notify = _notify(value if equals else None)
        else:
            recipient.orcpt = _orcpt(value if equals else None, smtputf8)
    recipient.words = tuple(words)


def _notify(value: str | None) -> str:
    """Return the value of NOTIFY."""
    notify = (value or "").upper()
    wanted = notify.split(",")
    if notify != "NEVER" and not (_NOTIFY.issuperset(wanted) and len(wanted) == len(set(wanted))):
        raise Refused(501, "5.5.4", "NOTIFY must be NEVER or a list of SUCCESS, FAILURE and DELAY")
    return notify


def _orcpt(value: str | None, smtputf8: bool) -> str:
    """Return the value of ORCPT."""
    if value is None or len(value) > MAX_ORCPT:
        raise Refused(501, "5.5.4", f"ORCPT needs a value of at most {MAX_ORCPT} characters")
    kind, _, address = value.partition(";")
    if kind.lower() == "utf-8":
        form = _UTF8_XTEXT
        if not smtputf8 and not address.isascii():
            raise Refused(501, "5.5.4", "Non-ASCII ORCPT requires SMTPUTF8")
    else:
        form = _XTEXT
    if _ADDRESS_TYPE.match(kind) is None or form.match(address) is None:
        raise Refused(501, "5.5.4", "ORCPT must be an address type, a semicolon and xtext")
    meant = decode_xtext(address, international=form is _UTF8_XTEXT)
    if meant is None or (form is _XTEXT and not meant.isascii()):
        raise Refused(501, "5.5.4", "ORCPT must be printable")
    return value
