"""A complete Postfix as a client of `fastlisten serve`: it delivers its queue by LMTP and SMTP.

It is a separate instance with its own configuration and queue; none of its services listens.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.external_programs import run
from support.marks import external
from support.real_server import (
    ALICE,
    BOB,
    CROWD,
    HOST,
    PLAIN,
    ZOE,
    Mail,
    server_fixture,
    without_old_mail,
)
from support.waiting import until

if os.geteuid() != 0:
    pytest.skip("an instance of Postfix needs root", allow_module_level=True)

#: The sender of a message chooses the transport.
SENDERS = {"lmtp": "by-lmtp@example.com", "smtp": "by-smtp@example.com"}

CONFIGURATION = """\
compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
maillog_file = {place}/log
maillog_file_prefixes = {place}
myhostname = postfix.example.net
mydestination =
inet_interfaces = loopback-only
smtp_tls_security_level = verify
lmtp_tls_security_level = verify
smtp_tls_CAfile = {authority}
lmtp_tls_CAfile = {authority}
smtp_tls_verify_cert_match = mx.example.org
lmtp_tls_verify_cert_match = mx.example.org
default_transport = lmtp:inet:{lmtp}
sender_dependent_default_transport_maps = inline:{{
    {{ by-lmtp@example.com = lmtp:inet:{lmtp} }},
    {{ by-smtp@example.com = smtp:[{host}]:{mx} }},
    {{ {bob} = smtp:[{host}]:{mx} }} }}
"""

#: The services that delivering needs; none listens on the network.
SERVICES = """\
pickup  unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
tlsmgr  unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
smtp    unix - - n - - smtp
lmtp    unix - - n - - lmtp
error   unix - - n - - error
retry   unix - - n - - error
scache  unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running instance.

    Attributes:
        place: where its files are.
        seen: how much of its log belongs to other tests.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.seen = 0

    @property
    def log(self) -> str:
        """What it has logged for this test."""
        path = self.place / "log"
        return path.read_text()[self.seen :] if path.exists() else ""

    def send(
        self, sender: str, *recipients: str, content: bytes, options: tuple[str, ...] = ()
    ) -> None:
        """Put a message into the queue."""
        run(
            *("sendmail", "-C", str(self.place / "etc"), "-i"),
            *(*options, "-f", sender, *recipients),
            feed=content.replace(b"\r\n", b"\n"),
        )

    def outcome(self, recipient: str) -> str:
        """Wait for a recipient's outcome; return its status and the server's reply."""
        pattern = re.compile(rf" to=<{re.escape(recipient)}>, .*?status=(.*)")
        until(lambda: pattern.search(self.log), f"mail to {recipient}")
        found = pattern.search(self.log)
        assert found is not None
        return found[1]


server = server_fixture("mx", "lmtp")
mail = without_old_mail


@pytest.fixture(scope="module")
def instance(server: Mail) -> Iterator[Postfix]:
    # Where its own user has access, which pytest's directories do not allow.
    place = Path(tempfile.mkdtemp(prefix="postfix"))
    try:
        place.chmod(0o755)
        for name in ("etc", "queue", "data"):
            (place / name).mkdir()
        shutil.chown(place / "data", "postfix")
        authority = shutil.copy(server.authority, place / "authority.pem")
        (place / "etc" / "main.cf").write_text(
            CONFIGURATION.format(
                place=place,
                authority=authority,
                host=HOST,
                lmtp=server.at("lmtp"),
                mx=server.port("mx"),
                bob=BOB,
            )
        )
        (place / "etc" / "master.cf").write_text(SERVICES)
        run("postfix", "-c", place / "etc", "start")
        try:
            yield Postfix(place)
        finally:
            run("postfix", "-c", place / "etc", "abort")
    finally:
        shutil.rmtree(place)


@pytest.fixture
def postfix(instance: Postfix) -> Postfix:
    instance.seen += len(instance.log)
    return instance


@external("postfix")
@pytest.mark.parametrize("way", list(SENDERS))
def test_many_recipients(mail: Mail, postfix: Postfix, way: str) -> None:
    """Each one, and the unknown one, gets its own reply; Postfix verifies the certificate."""
    postfix.send(SENDERS[way], "nobody@example.org", ALICE, *CROWD, content=PLAIN)
    assert postfix.outcome("nobody@example.org").startswith("bounced")
    assert "550 5.1.1 " in postfix.outcome("nobody@example.org")
    for name in (ALICE, *CROWD):
        assert postfix.outcome(name).startswith("sent (250 2.")
    assert mail.everything() == dict.fromkeys((ALICE, *CROWD), 1)
    for name in (ALICE, *CROWD):
        trace, content = mail.the_one(name)
        assert f" with {'LMTPS' if way == 'lmtp' else 'ESMTPS'} id " in trace
        # Postfix adds header fields and leaves the rest.
        assert content.startswith(b"Received: by postfix.example.net (Postfix, from userid 0)\r\n")
        assert content.partition(b"\r\n\r\n")[2] == PLAIN.partition(b"\r\n\r\n")[2]


@external("postfix")
def test_addresses_outside_ascii(mail: Mail, postfix: Postfix) -> None:
    postfix.send("rené@example.com", ZOE, content="Subject: grüße\r\n\r\nschön\r\n".encode())
    assert postfix.outcome(ZOE).startswith("sent (250 2.")
    trace, content = mail.the_one(ZOE)
    assert trace.startswith("Return-Path: <rené@example.com>\n")
    assert " with UTF8LMTPS id " in trace
    assert "\r\nSubject: grüße\r\n".encode() in content
    assert content.endswith("\r\n\r\nschön\r\n".encode())


@external("postfix")
def test_dsn_of_success(mail: Mail, postfix: Postfix) -> None:
    """Postfix passes NOTIFY and ENVID on; the DSN goes to the sender, a local user."""
    wishes = ("-N", "success", "-V", "the envelope")
    postfix.send(BOB, ALICE, content=PLAIN, options=wishes)
    assert postfix.outcome(ALICE).startswith("sent (250 2.")
    until(lambda: mail.stored(BOB), "the notice")
    (notice,) = mail.stored(BOB)
    assert notice.startswith(b"Return-Path: <>\r\n")
    for field in ("Original-Envelope-Id: the envelope", f"Final-Recipient: rfc822; {ALICE}"):
        assert f"\r\n{field}\r\n".encode() in notice
    assert b"\r\nAction: delivered\r\n" in notice
