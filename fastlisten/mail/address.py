"""Mailbox addresses: what RFC 5321 4.1.2 and RFC 6531 3.3 allow, and when two are the same.

Rules of this file: text in, values out, no state. An address keeps the text that it was written
with; what is compared is its key. The form is strict: an address that is accepted here can be put
into a header and a log without quoting. Only one length is more generous than the RFC's: a local
part may have more than 64 octets, because bounce addresses of mailing lists do, as long as the
whole path has at most 256.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass

__all__ = ["MAX_PATH", "AddressError", "Mailbox", "domain_key", "mailbox_pattern", "parse_mailbox"]

#: RFC 5321 4.5.3.1.3: the most octets of a path, its angle brackets and its source route included.
MAX_PATH = 256

#: RFC 1035 2.3.4, RFC 5321 4.5.3.1.2: the most octets of a domain name.
MAX_DOMAIN = 255

_NON_ASCII = "\u0080-\U0010ffff"
_ATOM = rf"[A-Za-z0-9!#$%&'*+/=?^_`{{|}}~{_NON_ASCII}-]+"
_QUOTED = rf'"(?:[ !#-\[\]-~{_NON_ASCII}]|\\[ -~])*"'
# A label neither begins nor ends with a hyphen. 63 counts characters; the octets are counted
# by MAX_DOMAIN.
_LABEL = rf"(?!-)[A-Za-z0-9{_NON_ASCII}-]{{1,63}}(?<!-)"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"
_LITERAL = r"\[[!-Z^-~]+\]"

#: Groups ``local`` and ``domain`` of a mailbox, for use inside a larger pattern.
mailbox_pattern = rf"(?P<local>{_ATOM}(?:\.{_ATOM})*|{_QUOTED})@(?P<domain>{_DOMAIN}|{_LITERAL})"

_MAILBOX = re.compile(mailbox_pattern)
_QUOTED_PAIR = re.compile(r"\\(.)")
_NEEDS_NO_QUOTES = re.compile(rf"{_ATOM}(?:\.{_ATOM})*\Z")

#: Categories of non-ASCII characters that no address may have: controls (NEL could break a header),
#: invisible characters that change the direction of text, lone surrogates, and everything that
#: looks like a space or a line break.
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"})

#: Of category Cf, but some scripts need them (RFC 5892 A.1, A.2).
_JOINERS = frozenset("\u200c\u200d")

#: Full stops of other scripts, which software that maps domains turns into a dot.
_OTHER_DOTS = frozenset("\u3002\uff0e\uff61")


class AddressError(ValueError):
    """A text that is not a mailbox address; says why."""


# Not frozen: each command with an address makes one, and setting the attributes of a frozen class
# takes four times as long.
@dataclass(slots=True, unsafe_hash=True)
class Mailbox:
    """One mailbox; do not change it.

    Attributes:
        text: the address as it was written, without angle brackets and source route.
        local: its local part without quotes and backslashes, in composed Unicode (NFC).
        domain: its domain as `domain_key` gives it; empty for the ``<postmaster>`` of RFC 5321
            4.1.1.3, which has none.
    """

    text: str
    local: str
    domain: str

    def __str__(self) -> str:
        """Return the address as it was written."""
        return self.text

    @property
    def canonical(self) -> str:
        """The address with no more quotes than it needs, and its domain as it is compared."""
        local = self.local
        if not _NEEDS_NO_QUOTES.match(local):
            local = '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return f"{local}@{self.domain}" if self.domain else local


def domain_key(domain: str) -> str:
    """Return the form in which a domain is compared.

    Lower case; internationalised labels in their Unicode form, so that ``xn--bcher-kva.example``
    and ``bücher.example`` are one; IP literals in their shortest spelling.

    Raises:
        AddressError: it is a literal without an address, or a name too long for the DNS.
    """
    if domain.startswith("["):
        return _literal_key(domain)
    if len(domain) > MAX_DOMAIN:
        raise AddressError(f"a domain has at most {MAX_DOMAIN} octets")
    key = domain.lower()
    if key.isascii() and "xn--" not in key:
        return key
    labels = []
    for label in key.split("."):
        if label.startswith("xn--") and label.isascii():
            try:
                label = label[4:].encode("ascii").decode("punycode").lower()
            except UnicodeError as error:
                raise AddressError(f"{label} is not a valid internationalised label") from error
        if not label or not _printable(label) or "." in label:
            raise AddressError(f"{domain!r} is not a domain name")
        labels.append(unicodedata.normalize("NFC", label))
    return ".".join(labels)


def _literal_key(domain: str) -> str:
    """Return the key of an address literal (RFC 5321 4.1.3): IPv4, or IPv6 with its tag."""
    inner = domain[1:-1]
    try:
        if inner[:5].lower() == "ipv6:":
            if "%" in inner:
                raise AddressError("an address literal has no scope")
            return f"[ipv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ipaddress.AddressValueError as error:
        raise AddressError(f"{domain} does not contain an IP address") from error


def _printable(text: str) -> bool:
    """Whether an address may have all characters of a text."""
    return text.isascii() or not any(
        character > "\x7f"
        and (character in _OTHER_DOTS or unicodedata.category(character) in _FORBIDDEN)
        and character not in _JOINERS
        for character in text
    )


def mailbox_of(match: re.Match[str]) -> Mailbox:
    """Make a mailbox of a match whose pattern contains `mailbox_pattern`.

    Raises:
        AddressError: the form is right but the content is not: a literal without an address, a
            control character, a domain that is too long.
    """
    local, domain = match.group("local", "domain")
    text = f"{local}@{domain}"
    if not text.isascii():
        if not _printable(text):
            raise AddressError(f"{text!r} has a character that is not allowed in an address")
        if len(domain.encode()) > MAX_DOMAIN:
            raise AddressError(f"a domain has at most {MAX_DOMAIN} octets")
        local = unicodedata.normalize("NFC", local)
    if local[0] == '"':
        local = _QUOTED_PAIR.sub(r"\1", local[1:-1])
    return Mailbox(text, local, domain_key(domain))


def parse_mailbox(text: str) -> Mailbox:
    """Return the mailbox of a bare address (without angle brackets).

    Args:
        text: the address, ASCII or (RFC 6531) Unicode.

    Raises:
        AddressError: it is not ``local-part@domain``, or it is longer than a path may be.
    """
    match = _MAILBOX.fullmatch(text)
    if match is None:
        raise AddressError(f"{text!r} is not an address of the form name@domain")
    if len(text.encode("utf-8", "surrogatepass")) + 2 > MAX_PATH:
        raise AddressError(f"an address has at most {MAX_PATH - 2} octets")
    return mailbox_of(match)
