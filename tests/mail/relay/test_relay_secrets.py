"""A relay that repeats our credentials: they appear in no log and in no reply to a client.

That applies to every reply from AUTH to the end of the session: refusals, unexpected replies, and
lines that are no replies at all.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
from support.scripted_relay import Do, Script, relay_message, scripted

MESSAGE = b"Subject: x\r\n\r\ntext\r\n"
PLAIN = base64.b64encode(b"\0user\0secret")
LOGIN = [base64.b64encode(b"user"), base64.b64encode(b"secret")]


@pytest.mark.parametrize(
    "said",
    [
        [b"535 5.7.8 AUTH PLAIN %b\r\n"],
        [b"AUTH PLAIN %b\r\n"],
        [b"421 4.7.0 AUTH PLAIN %b\r\n", Do.CLOSE],
        [b"235 ok\r\n500 AUTH PLAIN %b\r\n"],
        [b"235 ok\r\n421 AUTH PLAIN %b\r\n", Do.CLOSE],
        [b"235 ok\r\nAUTH PLAIN %b\r\n"],
        [b"235 ok\r\n250-AUTH PLAIN %b"],
    ],
    ids=str,
)
def test_credentials_in_reply_to_auth(said: list[Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    actions = [item.replace(b"%b", PLAIN) if isinstance(item, bytes) else item for item in said]
    with scripted(Script({"AUTH": actions}, extensions=("AUTH PLAIN",))) as relay:
        assert relay_message(relay, MESSAGE, user="user").last.startswith(b"451 ")
    assert "AUTH PLAIN ***" in caplog.text
    assert PLAIN[:12].decode() not in caplog.text


@pytest.mark.parametrize("answer", [b"no, %b", b"535 %b is not it"])
def test_password_in_reply_to_auth_login(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    answers = [b"334 UGFzc3dvcmQ6\r\n", answer.replace(b"%b", LOGIN[1]) + b"\r\n"]
    script = Script({"AUTH": [b"334 VXNlcm5hbWU6\r\n"]}, extensions=("AUTH LOGIN",))
    script.answers = answers
    with scripted(script) as relay:
        assert relay_message(relay, MESSAGE, user="user").last.startswith(b"451 ")
    assert "***" in caplog.text
    assert LOGIN[1].decode() not in caplog.text


@pytest.mark.parametrize("step", ["MAIL", "RCPT", "DATA", "."])
def test_credentials_in_later_replies(step: str, caplog: pytest.LogCaptureFixture) -> None:
    refusal = b"550 5.5.1 not after AUTH PLAIN " + PLAIN + b", secret\r\n"
    with scripted(Script({step: [refusal]}, extensions=("AUTH PLAIN",))) as relay:
        reply = relay_message(relay, MESSAGE, user="user").last
    assert reply == b"550 5.5.1 The relay says: not after AUTH PLAIN *** ***\r\n"
    assert PLAIN.decode() not in caplog.text
