"""The status page: what a person sees, and that no listener id can inject anything."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.loops import on_loops
from support.management import IDS, listener, managed

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Page(HTMLParser):
    """A page's tags, attributes, cell texts and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.cells: list[str] = []
        self.style = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag in ("td", "style"):
            self._inside = tag
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "td":
            self.cells[-1] += data
        elif self._inside == "style":
            self.style += data


@on_loops
async def test_page_shows_all_listeners(tmp_path: Path) -> None:
    text = (listener("a", "max-connections = 7"), listener("b", 'limit-action = "wait"'))
    async with managed(tmp_path, *text) as it, it.manager() as client:
        answer = await client.get("/")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "All listeners accept." in answer.text
        address = f"127.0.0.1:{it.server.listeners[0].sockets[0].port}"
        cells = Page(answer.text).cells
        assert cells[:10] == ["a", "smtp", "listening", address, "0", "7, then refuse", *"0000"]
        assert cells[10] == "b"
        assert cells[15] == "8192, then wait"
        await client.post("/api/listeners/b/pause")
        answer = await client.get("/")
        assert "Not every listener accepts." in answer.text
        assert Page(answer.text).cells[12] == "paused"
        assert answer.text.count('class="bad"') == 1


@on_loops
async def test_ids_are_escaped(tmp_path: Path) -> None:
    async with managed(tmp_path, listener("it")) as it, it.client() as client:
        tags = Page((await client.get("/")).text).tags
    ids = (*IDS, "<script>alert(1)</script>", "</table><img src=x onerror=alert(1)>", "\u202ex")
    async with managed(tmp_path, *(listener(id) for id in ids)) as it, it.client() as client:
        page = Page((await client.get("/")).text)
        assert page.tags == tags
        assert "script" not in tags
        assert page.attributes == {"lang", "charset", "class", "href"}
        # Invisible characters are shown as visible ones.
        wanted = ["".join(one if one.isprintable() else "\ufffd" for one in id) for id in ids]
        assert sorted(page.cells[::10]) == sorted(wanted)


@on_loops
async def test_content_security_policy_allows_only_the_own_style(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.client() as client:
        answer = await client.get("/")
        policy = dict(
            one.strip().split(" ", 1)
            for one in answer.headers["content-security-policy"].split(";")
        )
        page = Page(answer.text)
        digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
        assert policy.pop("style-src") == f"'sha256-{digest}'"
        assert policy == dict.fromkeys(
            ("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"
        )
        assert answer.headers["x-frame-options"] == "DENY"
        assert not re.search("https?:|//", answer.text)
        for link in page.links:
            assert (await client.get(link)).status_code == 200
