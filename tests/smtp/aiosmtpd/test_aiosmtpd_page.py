"""docs/aiosmtpd.md: its programs run unchanged, and its tables are complete."""

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
from support.aiosmtpd import Recorder, serving
from support.documented_programs import Ports, run, trust
from support.foreign import foreign
from support.smtp_client import connected
from support.waiting import PATIENCE

from fastlisten.handlers import smtp
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_parameters import AiosmtpdParameters

PAGE = Path(__file__).parents[3] / "docs" / "aiosmtpd.md"

aiosmtpd_smtp, controllers, handlers, pytestmark = foreign(
    "aiosmtpd.smtp", "aiosmtpd.controller", "aiosmtpd.handlers"
)
pytestmark += [pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside these tests")]


def text() -> str:
    return PAGE.read_text() if PAGE.exists() else ""


def blocks() -> dict[str, str]:
    """Return the page's programs and configurations, by the name in their first line."""
    found = re.findall(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", text(), re.DOTALL | re.M)
    return dict(found)


def rows(section: str) -> dict[str, str]:
    """Return a table's text by each name in the first column."""
    part = text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    said = {}
    for first, *others in re.findall(r"^\| (`.*?) \| (.*) \|$", part, re.M):
        for name in re.findall(r"`@?([^`]+)`", first):
            said[name] = " ".join(others)
    return said


def check_moved(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("localhost", ports[8025], timeout=PATIENCE) as client:
        client.starttls(context=trust(folder))
        client.login("alice", "secret")
        refused = client.sendmail("a@example.com", ["b@example.org", "c@example.com"], b"x")
        assert refused == {"c@example.com": (550, b"5.7.1 not here")}
    assert "to ['b@example.org'] by b'alice'" in (folder / "log").read_text()


def check_running(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("127.0.0.1", ports[8026], timeout=PATIENCE) as client:
        assert not client.sendmail("a@example.com", ["b@example.org"], b"x")


def check_mail(ports: Ports, folder: Path) -> None:
    with smtplib.SMTP("127.0.0.1", ports[8027], timeout=PATIENCE) as client:
        assert not client.sendmail("a@example.com", ["b@example.org"], b"Subject: kept\r\n\r\nx")
    (message,) = mailbox.Maildir(folder / "inbox", create=False)
    assert message["Subject"] == "kept"


CHECKS = {"moved.py": check_moved, "running.py": check_running, "mail.toml": check_mail}


def test_every_program_has_a_test() -> None:
    assert list(blocks()) == list(CHECKS)


@pytest.mark.external("openssl")
@pytest.mark.parametrize("name", CHECKS)
def test_program_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    ports = Ports()
    (tmp_path / name).write_text(ports.replace(blocks()[name]))
    command = [sys.executable, "-X", "dev", "-u"]
    command += [name] if name.endswith(".py") else ["-m", "fastlisten", "serve", name]
    run(command, tmp_path, ports, CHECKS[name])


# -- the tables


def test_every_parameter_has_a_row() -> None:
    said = rows("Parameters")
    names = set(inspect.signature(aiosmtpd_smtp.SMTP).parameters)
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
    source = inspect.getsource(aiosmtpd_smtp)
    called = set(re.findall(r'_call_handler_hook\(\s*[\'"](\w+)', source))
    called |= set(re.findall(r'_handle_hooks\.get\("(\w+)"\)', source)) | {"exception"}
    assert {"EHLO", "DATA", "PROXY", "STARTTLS"} <= called
    assert {f"handle_{name}" for name in called} <= said.keys()


def test_every_server_attribute_has_a_row() -> None:
    said = rows("`server`")
    loop = asyncio.SelectorEventLoop()
    one = aiosmtpd_smtp.SMTP(handlers.Sink(), loop=loop)
    loop.close()
    names = {name for name in dir(one) if not name.startswith("_")}
    names -= set(dir(asyncio.StreamReaderProtocol))
    assert names == said.keys() - {"_auth_interact"}
    with serving(Recorder()) as controller, connected(controller.port) as client:
        client.codes("NOOP")
        server: Any = controller.smtpd
        for name, what in said.items():
            assert hasattr(server, name) is not what.startswith("not supported"), name


def test_every_session_and_envelope_attribute_has_a_row() -> None:
    said = rows("`session` and `envelope`")
    loop = asyncio.SelectorEventLoop()
    session, envelope = aiosmtpd_smtp.Session(loop), aiosmtpd_smtp.Envelope()
    loop.close()
    names = {f"session.{name}" for name in dir(session) if not name.startswith("_")}
    names |= {f"envelope.{name}" for name in dir(envelope) if not name.startswith("_")}
    assert names == said.keys()


def test_every_controller_attribute_has_a_row() -> None:
    said = rows("Controllers")
    with serving(Recorder()) as controller:
        names = {name for name in dir(controllers.Controller) if not name.startswith("_")}
        names |= {"SMTP_kwargs", "handler", "hostname", "loop", "port", "ssl_context"}
        assert names <= said.keys()
        for name, what in said.items():
            assert hasattr(controller, name) is not what.startswith("not supported"), name
