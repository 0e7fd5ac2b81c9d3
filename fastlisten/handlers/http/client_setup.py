"""Answers mail programs that ask how to set themselves up, before the application is asked.

    GET  /.well-known/autoconfig/mail/config-v1.1.xml    Mozilla's, and
    GET  /mail/config-v1.1.xml                           the same at autoconfig.example.org
    POST /autodiscover/autodiscover.xml                  Microsoft's, in any case

Rules of this file: ASGI; what the documents say is made in mail/client_setup. Everything else goes
on to the application, or gets 404 if there is none. The answers are no secret: they are the same
for everybody, and say nothing about which accounts there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

from fastlisten.handlers.http.asgi import Application
from fastlisten.mail.address import AddressError, parse_mailbox
from fastlisten.mail.client_setup.documents import (
    MAX_REQUEST,
    RequestError,
    autoconfig,
    autodiscover,
    autodiscover_address,
)
from fastlisten.mail.client_setup.services import ClientService

__all__ = ["ClientSetup", "nothing"]

_AUTOCONFIG = frozenset({"/.well-known/autoconfig/mail/config-v1.1.xml", "/mail/config-v1.1.xml"})
_AUTODISCOVER = "/autodiscover/autodiscover.xml"

#: The longest query that is looked at: an address, with every octet encoded.
_LONGEST_QUERY = 2048


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Be an application that has nothing."""
    if scope["type"] == "http":
        await _answer(send, 404, b"Not Found\n", b"text/plain; charset=utf-8")
    elif scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})


class ClientSetup:
    """An application around another one.

    Args:
        app: gets all other requests.
        services: what is offered to mail programs.
        hostname: the server's name.
    """

    def __init__(self, app: Application, services: Sequence[ClientService], hostname: str) -> None:
        self._app = app
        self._services = services
        self._hostname = hostname

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            if scope["path"] in _AUTOCONFIG:
                await self._autoconfig(scope, send)
                return
            if scope["path"].lower() == _AUTODISCOVER:
                await self._autodiscover(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _autoconfig(self, scope: Any, send: Any) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"Method Not Allowed\n", allow=b"GET, HEAD")
            return
        document = autoconfig(self._services, self._domain(scope), self._hostname)
        await _answer(send, 200, document, b"text/xml; charset=utf-8", head=scope["method"])

    def _domain(self, scope: Any) -> str:
        """Return the domain of the address that is asked about, or that the name is of."""
        query = scope["query_string"][:_LONGEST_QUERY].decode("latin-1")
        asked = parse_qs(query, max_num_fields=8) if query.count("&") < 8 else {}
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        host = hosts[0].partition(":")[0].removeprefix("autoconfig.") if hosts else ""
        for address in (*asked.get("emailaddress", ()), f"any@{host}"):
            try:
                return parse_mailbox(address).domain
            except AddressError:
                continue
        return self._hostname

    async def _autodiscover(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] != "POST":
            await _answer(send, 405, b"Method Not Allowed\n", allow=b"POST")
            return
        body = b""
        more = True
        while more and len(body) <= MAX_REQUEST:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client has gone
            body += message.get("body", b"")
            more = message.get("more_body", False)
        try:
            document = autodiscover(self._services, autodiscover_address(body))
        except RequestError as error:
            await _answer(send, 413 if len(body) > MAX_REQUEST else 400, f"{error}\n".encode())
            return
        await _answer(send, 200, document, b"text/xml; charset=utf-8")


async def _answer(
    send: Any,
    status: int,
    body: bytes,
    kind: bytes = b"text/plain; charset=utf-8",
    *,
    allow: bytes = b"",
    head: str = "",
) -> None:
    """Send a response; without its body for HEAD."""
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    if allow:
        headers.append((b"allow", allow))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head == "HEAD" else body})
