"""Documents from which mail programs set themselves up.

Rules of this file: text in, octets out; no HTTP. What a client sends is not trusted: the XML of a
request has bounds, and may declare nothing, so that no entity multiplies; an address must be one.

Mozilla: https://benbucksch.github.io/autoconfig-spec/draft-ietf-mailmaint-autoconfig.html, which
Thunderbird, K-9, Evolution and KMail read. Microsoft: [MS-OXDSCLI], the "POX" form, for Outlook and
others; only its schema for IMAP and SMTP, as Exchange's is not spoken here.
"""

from __future__ import annotations

from collections.abc import Iterable
from xml.parsers import expat
from xml.sax.saxutils import escape

from fastlisten.mail.address import AddressError, Mailbox, parse_mailbox
from fastlisten.mail.client_setup.services import ClientService, best

__all__ = ["MAX_REQUEST", "RequestError", "autoconfig", "autodiscover", "autodiscover_address"]

#: The largest request that is parsed, in octets; real ones have some 400.
MAX_REQUEST = 16 * 1024

#: Levels of elements; real requests have three.
_MAX_DEPTH = 16

_SCHEMA = "http://schemas.microsoft.com/exchange/autodiscover/"
_ANSWER = _SCHEMA + "responseschema/2006"
_SETTINGS = _SCHEMA + "outlook/responseschema/2006a"

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


class RequestError(ValueError):
    """A request that is not what it should be; says why."""


# --- Mozilla --------------------------------------------------------------------------------------


def autoconfig(services: Iterable[ClientService], domain: str, name: str) -> bytes:
    """Return Mozilla's document.

    Args:
        services: what is offered.
        domain: the domain of the user's address.
        name: what to call the server.
    """
    services = list(services)
    lines = [
        '<clientConfig version="1.1">',
        f'  <emailProvider id="{_attribute(domain)}">',
        f"    <domain>{escape(domain)}</domain>",
        f"    <displayName>{escape(name)}</displayName>",
        f"    <displayShortName>{escape(name)}</displayShortName>",
    ]
    for kind, element in (("imap", "incomingServer"), ("submission", "outgoingServer")):
        for one in best(services, kind):
            lines += [
                f'    <{element} type="{"imap" if kind == "imap" else "smtp"}">',
                f"      <hostname>{escape(one.host)}</hostname>",
                f"      <port>{one.port}</port>",
                f"      <socketType>{'SSL' if one.implicit else 'STARTTLS'}</socketType>",
                "      <username>%EMAILADDRESS%</username>",
                "      <authentication>password-cleartext</authentication>",
                f"    </{element}>",
            ]
    lines += ["  </emailProvider>", "</clientConfig>"]
    return (_HEAD + "\n".join(lines) + "\n").encode()


def _attribute(text: str) -> str:
    return escape(text, {'"': "&quot;"})


# --- Microsoft ------------------------------------------------------------------------------------


def autodiscover_address(body: bytes) -> Mailbox:
    """Return the address that a request of autodiscover asks about.

    Raises:
        RequestError: it is no such request, or asks for another schema.
    """
    if len(body) > MAX_REQUEST:
        raise RequestError("the request is too large")
    found: dict[str, str] = {}
    path: list[str] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def begin(name: str, _: dict[str, str]) -> None:
        path.append(name.rpartition(" ")[2])
        if len(path) > _MAX_DEPTH:
            raise RequestError("the request has too many levels")

    def end(_: str) -> None:
        path.pop()

    def text(data: str) -> None:
        if path[:2] == ["Autodiscover", "Request"] and len(path) == 3:
            found[path[2]] = found.get(path[2], "") + data

    def refuse(*_: object) -> None:
        raise RequestError("the request has a document type declaration")

    parser.StartElementHandler = begin
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise RequestError(f"the request is not XML: {error}") from None
    except (LookupError, ValueError) as error:  # an encoding that is not known
        raise RequestError(str(error)) from None
    wanted = found.get("AcceptableResponseSchema", "").strip()
    if wanted and wanted != _SETTINGS:
        raise RequestError("only the schema outlook/responseschema/2006a is available")
    try:
        return parse_mailbox(found.get("EMailAddress", "").strip())
    except AddressError as error:
        raise RequestError(f"EMailAddress: {error}") from None


def autodiscover(services: Iterable[ClientService], address: Mailbox) -> bytes:
    """Return the answer to a request of autodiscover.

    Args:
        services: what is offered.
        address: the user's.
    """
    services = list(services)
    lines = [
        f'<Autodiscover xmlns="{_ANSWER}">',
        f'  <Response xmlns="{_SETTINGS}">',
        "    <Account>",
        "      <AccountType>email</AccountType>",
        "      <Action>settings</Action>",
    ]
    for kind, name in (("imap", "IMAP"), ("submission", "SMTP")):
        for one in best(services, kind)[:1]:  # a second one is not read
            lines += [
                "      <Protocol>",
                f"        <Type>{name}</Type>",
                f"        <Server>{escape(one.host)}</Server>",
                f"        <Port>{one.port}</Port>",
                "        <DomainRequired>off</DomainRequired>",
                f"        <LoginName>{escape(address.text)}</LoginName>",
                "        <SPA>off</SPA>",
                f"        <SSL>{'on' if one.implicit else 'off'}</SSL>",
                f"        <Encryption>{'SSL' if one.implicit else 'TLS'}</Encryption>",
                "        <AuthRequired>on</AuthRequired>",
                "      </Protocol>",
            ]
    lines += ["    </Account>", "  </Response>", "</Autodiscover>"]
    return (_HEAD + "\n".join(lines) + "\n").encode()
