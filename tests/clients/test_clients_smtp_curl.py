"""curl as a mail client against `fastlisten serve`: smtp:// and smtps://."""

from __future__ import annotations

import pytest
from support.external_programs import run
from support.marks import external
from support.real_server import (
    ALICE,
    BOB,
    CAROL,
    MESSAGE,
    PASSWORDS,
    SENDER,
    ZOE,
    ZOE_ALIAS,
    Mail,
    server_fixture,
    without_old_mail,
)

#: curl's exit codes: sending failed, a login was denied.
SEND_ERROR, LOGIN_DENIED = 55, 67

SCHEMES = {"mx": "smtp", "submission": "smtp", "submissions": "smtps"}


server = server_fixture("mx", "submission", "submissions")
mail = without_old_mail


def curl(mail: Mail, listener: str, *options: str, expect: int = 0) -> str:
    """Send the message with curl over TLS; return the output."""
    done = run(
        *("curl", "--silent", "--show-error", "--verbose", "--ssl-reqd"),
        *("--cacert", mail.authority, "--upload-file"),
        *(str(mail.directory / "letter"), *options),
        f"{SCHEMES[listener]}://{mail.at(listener)}/client.example.com",
        expect=(expect,),
    )
    return done.stderr.decode(errors="replace")


def envelope(sender: str, *recipients: str) -> list[str]:
    words = ["--mail-from", sender]
    for recipient in recipients:
        words += ["--mail-rcpt", recipient]
    return words


@external("curl")
@pytest.mark.parametrize("initial", [(), ("--sasl-ir",)], ids=["challenged", "initial"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "*"])
@pytest.mark.parametrize("listener", ["submission", "submissions"])
def test_user_sends_a_message(
    mail: Mail, listener: str, mechanism: str, initial: tuple[str, ...]
) -> None:
    said = curl(
        mail,
        listener,
        *("--user", f"{ALICE}:{PASSWORDS[ALICE]}", "--login-options", f"AUTH={mechanism}"),
        *initial,
        *envelope(ALICE, BOB, CAROL),
    )
    assert "< 235 2.7.0 " in said
    assert mail.everything() == {BOB: 1, CAROL: 1}
    for account in (BOB, CAROL):
        trace, content = mail.the_one(account)
        assert content == MESSAGE
        assert " with ESMTPSA id " in trace


@external("curl")
def test_passwords_and_names_outside_ascii(mail: Mail) -> None:
    curl(mail, "submissions", "--user", f"{ZOE}:{PASSWORDS[ZOE]}", *envelope(ZOE_ALIAS, CAROL))
    assert mail.arrived(CAROL) == [MESSAGE]


@external("curl")
def test_authorization_identity_and_mail_auth(mail: Mail) -> None:
    """An identity other than the login's is refused; AUTH= of MAIL is only recorded."""
    login = ("--user", f"{ALICE}:{PASSWORDS[ALICE]}")
    # In angle brackets, which RFC 4954 does not allow.
    author = ("--mail-auth", SENDER)
    said = curl(mail, "submission", *login, *author, *envelope(ALICE, CAROL))
    assert f" AUTH=<{SENDER}>" in said
    same = ("--sasl-authzid", ALICE, "--login-options", "AUTH=PLAIN")
    curl(mail, "submission", *login, *same, *envelope(ALICE, CAROL))
    assert mail.arrived(CAROL) == [MESSAGE] * 2
    other = ("--sasl-authzid", BOB, "--login-options", "AUTH=PLAIN")
    said = curl(mail, "submission", *login, *other, *envelope(ALICE, CAROL), expect=LOGIN_DENIED)
    assert "< 535 5.7.8 " in said


@external("curl")
def test_wrong_password(mail: Mail) -> None:
    said = curl(
        mail, "submission", "--user", f"{ALICE}:wrong", *envelope(ALICE, BOB), expect=LOGIN_DENIED
    )
    assert "< 535 5.7.8 " in said
    assert "MAIL FROM" not in said
    assert mail.everything() == {}


@external("curl")
def test_mail_without_a_login(mail: Mail) -> None:
    """Accepted on port 25, with and without some unknown recipients; not for submission."""
    curl(mail, "mx", *envelope(SENDER, ALICE, BOB))
    said = curl(mail, "mx", *envelope(SENDER, ALICE, "no@example.org", CAROL), expect=SEND_ERROR)
    assert "< 550 5.1.1 " in said
    some = envelope(SENDER, CAROL, "no@example.org", "x@example.net", BOB)
    said = curl(mail, "mx", "--mail-rcpt-allowfails", *some)
    assert "< 550 5.7.1 " in said
    assert mail.everything() == {ALICE: 1, BOB: 2, CAROL: 1}
    said = curl(mail, "submissions", *envelope(SENDER, CAROL), expect=SEND_ERROR)
    assert "< 530 5.7.0 " in said
    assert mail.everything() == {ALICE: 1, BOB: 2, CAROL: 1}
    assert {*mail.arrived(), *mail.arrived(BOB), *mail.arrived(CAROL)} == {MESSAGE}


@external("curl")
def test_several_messages_over_one_connection(mail: Mail) -> None:
    url = f"smtp://{mail.at('mx')}/client.example.com"
    one = ["--cacert", mail.authority, "--ssl-reqd", *envelope(SENDER, ALICE)]
    one += ["--upload-file", str(mail.directory / "letter"), url]
    done = run(
        "curl", "--silent", "--show-error", "--verbose", *one, "--next", *one, "--next", *one
    )
    assert done.stderr.count(b"\n< 220 mx.example.org ESMTP") == 1
    assert mail.arrived() == [MESSAGE] * 3


@external("curl")
def test_vrfy_and_help(mail: Mail) -> None:
    """Without an upload curl sends VRFY for a recipient, or a custom command."""
    url = f"smtp://{mail.at('mx')}/client.example.com"
    done = run("curl", "--silent", "--verbose", "--mail-rcpt", ALICE, url)
    assert b"\r\n> VRFY " in done.stderr.replace(b"\n>", b"\r\n>")
    assert b"< 252 2." in done.stderr
    done = run("curl", "--silent", "--verbose", "--request", "NOOP", url)
    assert b"< 250 2.0.0 " in done.stderr
    done = run("curl", "--silent", "--verbose", url)
    assert b"< 214 2.0.0 " in done.stderr
