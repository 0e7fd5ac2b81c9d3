"""docs/aiosmtpd.md: its programs run as they stand, and its tables name all there is."""

from __future__ import annotations

import asyncio
import inspect
import mailbox
import re
import smtplib
import sys
from pathlib import Path
from typing import Any

import pytest
from support.aiosmtpd import Recorder, controlled
from support.documented_programs import Ports, run, trust
from support.foreign import foreign
from support.smtp_client import connected
from support.waiting import PATIENCE

from fastlisten.handlers import smtp
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_parameters import AiosmtpdParameters

PAGE = Path(__file__).parents[3] / "docs" / "aiosmtpd.md"

theirs, controllers, handlers, pytestmark = foreign(
    "aiosmtpd.smtp", "aiosmtpd.controller", "aiosmtpd.handlers"
)
pytestmark += [pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")]


def text() -> str:
    return PAGE.read_text() if PAGE.exists() else ""


def blocks() -> dict[str, str]:
    """Return the programs and configurations by the name in their first line."""
    found = re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", text(), re.DOTALL | re.M)
    return dict(found)


def rows(section: str) -> dict[str, str]:
    """Return what a table says, by each name in the first column of its rows."""
    part = text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    said = {}
    for first, *others in re.findall(r"^\| (`.*?) \| (.*) \|$", part, re.M):
        for name in re.findall(r"`@?([^`]+)`", first):
            said[name] = " ".join(others)
    return said


def talk_to_moved(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("localhost", ports[8025], timeout=PATIENCE) as client:
        client.starttls(context=trust(folder))
        client.login("alice", "secret")
        refused = client.sendmail("a@example.com", ["b@example.org", "c@example.com"], b"x")
        assert refused == {"c@example.com": (550, b"5.7.1 not here")}
    assert "to ['b@example.org'] by b'alice'" in (folder / "log").read_text()


def talk_to_running(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("127.0.0.1", ports[8026], timeout=PATIENCE) as client:
        assert not client.sendmail("a@example.com", ["b@example.org"], b"x")


def talk_to_mail(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("127.0.0.1", ports[8027], timeout=PATIENCE) as client:
        assert not client.sendmail("a@example.com", ["b@example.org"], b"Subject: kept\r\n\r\nx")
    (message,) = mailbox.Maildir(folder / "inbox", create=False)
    assert message["Subject"] == "kept"


TALKS = {"moved.py": talk_to_moved, "running.py": talk_to_running, "mail.toml": talk_to_mail}


def test_every_program_of_the_page_is_talked_to() -> None:
    assert list(blocks()) == list(TALKS)


@pytest.mark.external("openssl")
@pytest.mark.parametrize("name", TALKS)
def test_a_program_of_the_page_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    ports = Ports()
    (tmp_path / name).write_text(ports.replace(blocks()[name]))
    command = [sys.executable, "-X", "dev", "-u"]
    command += [name] if name.endswith(".py") else ["-m", "fastlisten", "serve", name]
    run(command, tmp_path, ports, TALKS[name])


# -- the tables


def test_every_parameter_has_a_row() -> None:
    said = rows("Parameters")
    names = set(inspect.signature(theirs.SMTP).parameters)
    for controller in (controllers.Controller, controllers.BaseThreadedController):
        names |= set(inspect.signature(controller).parameters)
    names -= {"kwargs", "SMTP_parameters"}
    assert names <= said.keys()
    for name in names:
        if name in {"tls_context", "require_starttls", "handler", "loop"}:
            continue
        if name in AiosmtpdParameters.__dataclass_fields__:
            assert said[name].startswith("supported")
        elif "TypeError" in said[name]:
            given: dict[str, Any] = {name: 1}
            with pytest.raises(TypeError):
                smtp.Controller(Recorder(), **given)


def test_every_hook_has_a_row() -> None:
    said = rows("Hooks")
    source = inspect.getsource(theirs)
    called = set(re.findall(r'_call_handler_hook\(\s*[\'"](\w+)', source))
    called |= set(re.findall(r'_handle_hooks\.get\("(\w+)"\)', source)) | {"exception"}
    assert {"EHLO", "DATA", "PROXY", "STARTTLS"} <= called
    assert {f"handle_{name}" for name in called} <= said.keys()


def test_every_attribute_of_the_server_has_a_row() -> None:
    said = rows("`server`")
    loop = asyncio.SelectorEventLoop()
    one = theirs.SMTP(handlers.Sink(), loop=loop)
    loop.close()
    names = {name for name in dir(one) if not name.startswith("_")}
    names -= set(dir(asyncio.StreamReaderProtocol))
    assert names == said.keys() - {"_auth_interact"}
    with controlled(Recorder()) as controller, connected(controller.port) as client:
        client.codes("NOOP")
        server: Any = controller.smtpd
        for name, what in said.items():
            assert hasattr(server, name) is not what.startswith("not supported"), name


def test_every_attribute_of_session_and_envelope_has_a_row() -> None:
    said = rows("`session` and `envelope`")
    loop = asyncio.SelectorEventLoop()
    session, envelope = theirs.Session(loop), theirs.Envelope()
    loop.close()
    names = {f"session.{name}" for name in dir(session) if not name.startswith("_")}
    names |= {f"envelope.{name}" for name in dir(envelope) if not name.startswith("_")}
    assert names == said.keys()


def test_every_attribute_of_controllers_has_a_row() -> None:
    said = rows("Controllers")
    with controlled(Recorder()) as controller:
        names = {name for name in dir(controllers.Controller) if not name.startswith("_")}
        names |= {"SMTP_kwargs", "handler", "hostname", "loop", "port", "ssl_context"}
        assert names <= said.keys()
        for name, what in said.items():
            assert hasattr(controller, name) is not what.startswith("not supported"), name
