"""Documents for mail programs: what they say, and hostile requests for them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.client_setup.documents import (
    MAX_REQUEST,
    RequestError,
    autoconfig,
    autodiscover,
    autodiscover_address,
)
from fastlisten.mail.client_setup.services import ClientService

IMAPS = ClientService("imap", True, "mail.example.org", 993)
IMAP = ClientService("imap", False, "mail.example.org", 143)
OTHER = ClientService("imap", True, "mail.example.org", 1993)
SUBMISSION = ClientService("submission", False, "mail.example.org", 587)

HEAD = "http://schemas.microsoft.com/exchange/autodiscover/outlook/"
SETTINGS = f"{HEAD}responseschema/2006a"


def request(address: str, schema: str = SETTINGS, before: str = "", more: str = "") -> bytes:
    return (
        f'{before}<Autodiscover xmlns="{HEAD}requestschema/2006"><Request>'
        f"<EMailAddress>{address}</EMailAddress>{more}"
        f"<AcceptableResponseSchema>{schema}</AcceptableResponseSchema>"
        "</Request></Autodiscover>"
    ).encode()


def test_best_service_comes_first() -> None:
    document = ElementTree.fromstring(
        autoconfig([IMAP, OTHER, SUBMISSION, IMAPS], "e.org", "E & Co")
    )
    assert document.findtext("emailProvider/displayName") == "E & Co"
    ports = [each.text for each in document.findall("emailProvider/incomingServer/port")]
    types = [each.text for each in document.findall("emailProvider/incomingServer/socketType")]
    assert (ports, types) == (["993", "1993", "143"], ["SSL", "SSL", "STARTTLS"])
    microsoft = autodiscover([IMAP, OTHER, SUBMISSION, IMAPS], parse_mailbox("al@e.org"))
    ports = [each.text for each in ElementTree.fromstring(microsoft).iter(f"{{{SETTINGS}}}Port")]
    assert ports == ["993", "587"]


def test_markup_in_names_is_text() -> None:
    odd = "a\"<&>'b"
    document = ElementTree.fromstring(autoconfig([], odd, odd))
    provider = document.find("emailProvider")
    assert provider is not None
    assert (provider.get("id"), provider.findtext("domain")) == (odd, odd)
    address = parse_mailbox('"<b>&"@example.org')
    answer = autodiscover([IMAPS], address)
    names = [each.text for each in ElementTree.fromstring(answer).iter(f"{{{SETTINGS}}}LoginName")]
    assert names == [address.text]


@pytest.mark.parametrize(
    "body",
    [
        request("al@example.org"),
        request("\n al@example.org "),
        request("al@example.org", f"\n{SETTINGS}\n"),
        request("al@example.org", before='<?xml version="1.0" encoding="utf-8"?>\n'),
        request("al@example.org").decode().encode("utf-16"),
        request("<![CDATA[al@example.org]]>"),
    ],
)
def test_address_of_a_request(body: bytes) -> None:
    assert autodiscover_address(body).text == "al@example.org"


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no xml",
        request("al@example.org")[:-5],
        request(""),
        request("nobody"),
        request("al@example.org", HEAD + "mobilesync/responseschema/2006"),
        request("&b;@example.org", before=LAUGHS),
        request("&x;@example.org", before='<!DOCTYPE a SYSTEM "file:///etc/passwd">'),
        request("&x;@example.org"),
        request("al@example.org", before='<?xml version="1.0" encoding="klingon"?>'),
        request("al@example.org", more="<a>" * 100 + "</a>" * 100),
        request("al@example.org", more="<!-- " + "x" * MAX_REQUEST + " -->"),
        b"<EMailAddress>al@example.org</EMailAddress>",
        b"\xff\xfe\x00",
        b"<" * MAX_REQUEST,
    ],
)
def test_requests_that_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        autodiscover_address(body)
