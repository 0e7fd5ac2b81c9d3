"""swaks against `fastlisten serve`: STARTTLS, TLS on connect, AUTH, pipelining."""

from __future__ import annotations

import re

import pytest
from support.external_programs import run
from support.marks import external
from support.real_server import (
    ALICE,
    BOB,
    CAROL,
    HOST,
    PASSWORDS,
    PLAIN,
    SENDER,
    Mail,
    server_fixture,
    without_old_mail,
)

#: swaks' exit codes: the server rejected MAIL, a RCPT; no AUTH offered or accepted; no TLS.
NO_MAIL, NO_RCPT, NO_AUTH, NO_TLS = 23, 24, 28, 29

TLS = {"submission": "--tls", "submissions": "--tls-on-connect"}


server = server_fixture("mx", "submission", "submissions")
mail = without_old_mail


def swaks(mail: Mail, listener: str, *options: str, expect: int = 0) -> str:
    """Send the plain message with swaks; return the output."""
    done = run(
        *("swaks", "--server", HOST, "--port", str(mail.port(listener))),
        *("--helo", "client.example.com", "--data", f"@{mail.directory / 'plain'}"),
        *("--tls-verify", "--tls-ca-path", mail.authority, *options),
        expect=(expect,),
    )
    return done.stdout.decode()


def login(mechanism: str, password: str = PASSWORDS[ALICE]) -> tuple[str, ...]:
    return ("--auth", mechanism, "--auth-user", ALICE, "--auth-password", password)


@external("swaks")
@pytest.mark.parametrize("pipeline", [(), ("--pipeline",)], ids=["lockstep", "pipelined"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_user_sends_a_message(
    mail: Mail, listener: str, mechanism: str, pipeline: tuple[str, ...]
) -> None:
    envelope = ("--from", ALICE, "--to", f"{BOB},{CAROL}")
    said = swaks(mail, listener, TLS[listener], *login(mechanism), *envelope, *pipeline)
    assert "<~  235 2.7.0 " in said
    assert "Server certificate verified" in said or "<~  250" in said
    assert mail.everything() == {BOB: 1, CAROL: 1}
    for account in (BOB, CAROL):
        trace, content = mail.the_one(account)
        assert content == PLAIN
        assert " with ESMTPSA id " in trace
        assert trace.startswith(f"Return-Path: <{ALICE}>\n")


@external("swaks")
def test_wrong_password(mail: Mail) -> None:
    for mechanism in ("PLAIN", "LOGIN"):
        options = ("--tls-on-connect", *login(mechanism, "wrong"), "--from", ALICE, "--to", BOB)
        said = swaks(mail, "submissions", *options, expect=NO_AUTH)
        assert re.search(r"^<~\* 535 5\.7\.8 ", said, re.MULTILINE)
        assert "MAIL FROM" not in said
    assert mail.everything() == {}


@external("swaks")
def test_no_auth_without_tls(mail: Mail) -> None:
    said = swaks(mail, "submission", *login("PLAIN"), "--from", ALICE, "--to", BOB, expect=NO_AUTH)
    assert "<-  250-STARTTLS" in said
    assert "AUTH" not in re.sub(r"^\*\*\*.*", "", said, flags=re.MULTILINE)
    assert mail.everything() == {}


@external("swaks")
def test_submission_requires_a_login(mail: Mail) -> None:
    said = swaks(mail, "submission", "--tls", "--from", ALICE, "--to", BOB, expect=NO_MAIL)
    assert "<~* 530 5.7.0 " in said
    assert mail.everything() == {}


@external("swaks")
def test_relay_access_is_denied(mail: Mail) -> None:
    envelope = ("--from", ALICE, "--to", "someone@example.net")
    said = swaks(mail, "submission", "--tls", *login("LOGIN"), *envelope, expect=NO_RCPT)
    assert "<~* 550 5.7.1 " in said


@external("swaks")
@pytest.mark.parametrize("protocol", ["SMTP", "ESMTP", "ESMTPS"])
def test_mail_without_a_login(mail: Mail, protocol: str) -> None:
    # --protocol would choose its port, too; the last option counts.
    port = ("--protocol", protocol, "--port", str(mail.port("mx")))
    said = swaks(mail, "mx", *port, "--from", SENDER, "--to", f"{ALICE},nobody@example.org,{BOB}")
    assert re.search(r"^<.\* 550 5\.1\.1 ", said, re.MULTILINE)
    assert mail.everything() == {ALICE: 1, BOB: 1}
    trace, content = mail.the_one()
    assert content == PLAIN
    assert f" with {protocol} id " in trace


@external("swaks")
def test_clients_that_disconnect(mail: Mail) -> None:
    """At every point of a session, without QUIT: nothing is delivered, and the next is served."""
    for point in ("CONNECT", "FIRST-HELO", "MAIL", "RCPT", "DATA"):
        swaks(mail, "mx", "--drop-after", point, "--from", SENDER, "--to", ALICE)
    assert mail.everything() == {}
    swaks(mail, "mx", "--from", SENDER, "--to", ALICE)
    assert mail.arrived() == [PLAIN]
