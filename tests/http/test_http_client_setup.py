"""What mail programs get that look for their settings: autoconfig and autodiscover, over http.

Rules of this file: curl asks, an XML parser reads. What the documents say for which configuration
is in tests/mail/client_setup/.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from xml.etree import ElementTree

import pytest
from support.http import App
from support.marks import external

from fastlisten import testing
from fastlisten.handlers.base import HandlerSettings
from fastlisten.handlers.http import HttpHandler
from fastlisten.mail.client_setup.services import ClientService

SERVICES = (
    ClientService("imap", True, "mail.example.org", 993),
    ClientService("submission", False, "mail.example.org", 587),
)

REQUEST = """<?xml version="1.0" encoding="utf-8"?>
<Autodiscover xmlns="http://schemas.microsoft.com/exchange/autodiscover/outlook/requestschema/2006">
<Request><EMailAddress>al@example.org</EMailAddress><AcceptableResponseSchema>
http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a
</AcceptableResponseSchema></Request></Autodiscover>"""

AUTOCONFIG = "/.well-known/autoconfig/mail/config-v1.1.xml"
AUTODISCOVER = "/Autodiscover/Autodiscover.xml"


@contextlib.asynccontextmanager
async def serving(mode: str, app: App | None = None) -> AsyncIterator[str]:
    """Serve; yield the beginning of URLs."""
    extra = {"client-services": SERVICES, "app": app}
    settings = HandlerSettings(
        "web", "http", "mail.example.org", options={"autoconfig": mode}, extra=extra
    )
    async with testing.serve(HttpHandler(settings)) as served:
        yield f"http://127.0.0.1:{served.port}"


async def curl(*words: str) -> tuple[int, str, bytes]:
    """Return status, kind and body of the answer."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-s", "-w", "\n%{http_code} %{content_type}", *words),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    body, _, rest = said.rpartition(b"\n")
    status, _, kind = rest.decode().partition(" ")
    return int(status), kind, body


@external("curl")
@pytest.mark.parametrize("mode", ["on", "only"])
def test_autoconfig(mode: str) -> None:
    async def main() -> None:
        async with serving(mode, App() if mode == "on" else None) as base:
            for path in (AUTOCONFIG, "/mail/config-v1.1.xml"):
                status, kind, body = await curl(
                    f"{base}{path}?emailaddress=al%40b%C3%BCcher.example"
                )
                assert (status, kind) == (200, "text/xml; charset=utf-8")
                document = ElementTree.fromstring(body)
                assert document.find("emailProvider/domain").text == "bücher.example"  # type: ignore[union-attr]
                found = [
                    [each.get("type"), *(each.findtext(name) for name in ("hostname", "port"))]
                    for each in document.findall("emailProvider/*[@type]")
                ]
                assert found == [
                    ["imap", "mail.example.org", "993"],
                    ["smtp", "mail.example.org", "587"],
                ]

    asyncio.run(main())


@external("curl")
@pytest.mark.parametrize(
    ("host", "query", "domain"),
    [
        ("autoconfig.example.com", "", "example.com"),
        ("autoconfig.example.com", "?emailaddress=x%40example.net", "example.net"),
        ("autoconfig.example.com:8080", "?emailaddress=nobody", "example.com"),
        ("[::1]", "?emailaddress=", "mail.example.org"),
        ("example.com", "?emailaddress=" + "x" * 3000, "example.com"),
        ("example.com", "?emailaddress=%22%3Cb%3E%22%40example.org", "example.org"),
        ("example.com", "?" + "&" * 100 + "emailaddress=x%40example.net", "example.com"),
    ],
)
def test_domain_that_is_asked_about(host: str, query: str, domain: str) -> None:
    async def main() -> None:
        async with serving("only") as base:
            _, _, body = await curl("-H", f"Host: {host}", f"{base}{AUTOCONFIG}{query}")
            assert ElementTree.fromstring(body).findtext("emailProvider/domain") == domain

    asyncio.run(main())


@external("curl")
def test_autodiscover() -> None:
    async def main() -> None:
        async with serving("only") as base:
            status, kind, body = await curl("--data-binary", REQUEST, base + AUTODISCOVER)
            assert (status, kind) == (200, "text/xml; charset=utf-8")
            schema = (
                "{http://schemas.microsoft.com/exchange/autodiscover/outlook/responseschema/2006a}"
            )
            found = {
                protocol.findtext(f"{schema}Type"): [
                    protocol.findtext(schema + name)
                    for name in ("Server", "Port", "LoginName", "Encryption")
                ]
                for protocol in ElementTree.fromstring(body).iter(f"{schema}Protocol")
            }
            assert found == {
                "IMAP": ["mail.example.org", "993", "al@example.org", "SSL"],
                "SMTP": ["mail.example.org", "587", "al@example.org", "TLS"],
            }

    asyncio.run(main())


@external("curl")
def test_refusals() -> None:
    async def main() -> None:
        async with serving("only") as base:
            url = base + AUTODISCOVER.lower()
            assert (await curl(url))[0] == 405
            assert (await curl("-X", "POST", base + AUTOCONFIG))[0] == 405
            assert (await curl("--data-binary", "<a>", url))[0] == 400
            assert (await curl("-H", "Expect:", "--data-binary", "x" * 20_000, url))[0] == 413
            assert (await curl(f"{base}/other"))[0] == 404
            assert (await curl("-I", base + AUTOCONFIG))[0] == 200

    asyncio.run(main())


@external("curl")
def test_application_gets_the_rest() -> None:
    async def main() -> None:
        app = App()
        async with serving("on", app) as base:
            assert (await curl(f"{base}/who"))[0] == 200
            assert (await curl(base + AUTOCONFIG))[0] == 200
        async with serving("off", app) as base:
            assert (await curl(base + AUTOCONFIG))[1] != "text/xml; charset=utf-8"
        assert [scope["path"] for scope in app.seen] == ["/who", AUTOCONFIG]
        assert app.events == ["startup", "shutdown"] * 2

    asyncio.run(main())
