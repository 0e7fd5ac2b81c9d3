"""Dots at the beginning of a line, wherever a message is cut into pieces on its way to the relay.

A dot that is not doubled ends the message for the relay, and what follows is read as commands:
smuggling. A message is read in pieces of a size that is a power of two. Lines of an odd length are
therefore cut at another place each time, and as many cuts as a line has octets are cuts at every
place in it, however long the fields are that stand before the message.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import MAIL
from support.waiting import until

from fastlisten.mail.relay.message_source import PIECE


@pytest.mark.parametrize("line", [b".\r\n", b"..x\r\n", b".QUIT\r\n"])
def test_at_every_cut(tmp_path: Path, line: bytes) -> None:
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
