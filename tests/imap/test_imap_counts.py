"""What is counted of imap for the metrics: logins, messages, negative answers, ends.

Rules of this file: counts come from real sessions. A reason is a label, so it is one of a
fixed set.
"""

from __future__ import annotations

import imaplib
import re
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.certificates import authority
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, serve_imap
from support.real_server import ALICE, HOST, Mail, server_fixture
from support.waiting import until

from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.reasons import REASONS, reason_of

MANUAL = Path(__file__).parents[2] / "docs" / "management.md"

server = server_fixture("imaps", "management")


def test_negative_answers(tmp_path: Path) -> None:
    with serve_imap(tmp_path, options={"append-limit": 65_536, "sessions-per-user": 1}) as server:
        client = server.connect()
        client.say("NONSENSE")
        client.say(f"LOGIN {ADDRESS} wrong")
        client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
        server.connect().say(f"LOGIN {ADDRESS} {PASSWORD}")
        client.say("SELECT Nowhere")
        client.say("CREATE INBOX")
        client.send(b"x APPEND INBOX {70000}\r\n")
        client.response()
        assert server.handler is not None
        assert server.handler.counts.rejections == {
            ("5xx", "syntax"): 1,
            ("5xx", "login-failed"): 1,
            ("4xx", "limit"): 1,
            ("5xx", "no-such-mailbox"): 1,
            ("5xx", "mailbox-exists"): 1,
            ("5xx", "too-large"): 1,
        }
        assert server.handler.counts.logins == {"succeeded": 1, "failed": 1, "deferred": 1}


def test_passwords_in_plain_text(tmp_path: Path) -> None:
    with serve_imap(tmp_path, tls="starttls") as server:
        server.connect().say(f"LOGIN {ADDRESS} {PASSWORD}")
        assert server.handler is not None
        assert server.handler.counts.rejections == {("5xx", "tls-required"): 1}


def test_messages(tmp_path: Path) -> None:
    literal = b"{%d+}\r\n%b" % (len(MESSAGE), MESSAGE)
    with serve_imap(tmp_path, quota="{messages = 3}") as server:
        client = server.lines()
        client.ok(b"APPEND INBOX " + literal)
        client.ok(b"APPEND INBOX " + literal + b" " + literal)
        assert b"OVERQUOTA" in client.say(b"APPEND INBOX " + literal)[-1]
        assert server.handler is not None
        counts = server.handler.counts
        assert counts.messages == {"accepted": 3, "rejected": 1}
        assert counts.octets == 3 * len(MESSAGE)
        assert counts.rejections == {("5xx", "over-quota"): 1}


def test_reasons_are_a_fixed_set() -> None:
    known = [value for value in vars(codes).values() if isinstance(value, bytes)]
    found = {reason_of(code, bad=bad)[1] for code in (*known, b"", b"X") for bad in (True, False)}
    assert found == REASONS


@pytest.mark.skipif(not MANUAL.exists(), reason="docs/ is not beside these tests")
def test_manual_has_every_reason() -> None:
    part = MANUAL.read_text().partition("Their reasons:")[2].partition("The format is")[0]
    words = set(re.findall(r"`([a-z-]+)`", part))
    assert words == REASONS


def test_metrics_and_status(server: Mail) -> None:
    """As a server that runs shows them; failed logins are logged for fail2ban."""
    context = authority().client_context()
    port = server.port("imaps")
    with (
        imaplib.IMAP4_SSL(HOST, port, ssl_context=context) as client,
        pytest.raises(imaplib.IMAP4.error),
    ):
        client.login(ALICE, "wrong")
    line = rf"imaps: \[127\.0\.0\.1\]:\d+: authentication failed, user='{ALICE}'"
    until(lambda: re.search(line, server.program.err), "the record")
    base = f"http://{server.at('management')}"
    with httpx.Client(base_url=base) as client:
        until(lambda: client.get("/api/listeners/imaps").json()["mail"]["sessions-ended"])
        report = client.get("/api/listeners/imaps").json()["mail"]
        text = client.get("/metrics").text
    assert report["logins"] == {"failed": 1}
    assert report["rejections"] == {"login-failed": 1}
    assert report["sessions-ended"] == {"quit": 1}
    values = {
        (one.name, *(value for name, value in one.labels.items() if name != "worker")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert values["fastlisten_logins_total", "imaps", "failed"] == 1
    assert values["fastlisten_rejections_total", "5xx", "imaps", "login-failed"] == 1
    assert values["fastlisten_connections", "imaps"] == 0
