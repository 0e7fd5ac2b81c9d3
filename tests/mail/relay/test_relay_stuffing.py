"""Dot stuffing of relayed messages, wherever a message is split into pieces.

A dot that is not doubled would end the message, and the rest would be read as commands: smuggling.
A message is read in pieces whose size is a power of two. Lines of odd length are therefore split at
another offset each time, so that as many pieces as a line has octets cover every offset, however
long the added header fields are.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import MAIL
from support.waiting import until

from fastlisten.mail.relay.message_source import PIECE


@pytest.mark.parametrize("line", [b".\r\n", b"..x\r\n", b".QUIT\r\n"])
def test_dots_are_doubled_at_every_split(tmp_path: Path, line: bytes) -> None:
    assert PIECE & (PIECE - 1) == 0
    assert len(line) % 2 == 1
    message = line * ((len(line) + 1) * PIECE // len(line))
    with relaying() as relay, serving(tmp_path, relay) as served, client_of(served) as client:
        client.say(MAIL)
        client.say(rcpt(FOREIGN))
        client.say(b"DATA")
        assert client.say(message.replace(line, b"." + line) + b".\r\n").startswith(b"250 ")
        ((_, _, content),) = relay.messages
        assert content.endswith(b"\r\n" + message)
        assert content.count(line) == message.count(line)
        # Nothing of it was read as a command.
        until(relay.at_rest)
        words = [command.partition(" ")[0] for command in relay.commands]
        assert words == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
