"""AUTH in the SMTP engine (RFC 4954), and the mechanisms PLAIN (RFC 4616) and LOGIN."""

from __future__ import annotations

import base64

import pytest
from support.engine_driver import NAME, PASSWORD, WRONG, EngineDriver
from support.smtp_harness import ENVELOPE, HELLO, MAIL, RCPT, codes, cut

from fastlisten.handlers.smtp.auth_exchange import refusal_of
from fastlisten.handlers.smtp.engine.engine import Limits, SmtpEngine
from fastlisten.handlers.smtp.engine.input_buffer import AUTH_LINE_LIMIT
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine.smtp_events import Auth, Goodbye, Response
from fastlisten.mail.logins.sasl import (
    MECHANISMS,
    Credentials,
    LoginMechanism,
    PlainMechanism,
    SaslError,
    mechanism,
)

PLAIN_TOKEN = base64.b64encode(f"\0{NAME}\0{PASSWORD}".encode())
PLAIN = b"AUTH PLAIN " + PLAIN_TOKEN + b"\r\n"
NAME_LINE = base64.b64encode(NAME.encode()) + b"\r\n"
PASSWORD_LINE = base64.b64encode(PASSWORD.encode()) + b"\r\n"


def auth_driver(encrypted: bool = True, **limits: object) -> EngineDriver:
    return EngineDriver(encrypted, **{"mechanisms": MECHANISMS, "starttls": True} | limits)


def greeted(encrypted: bool = True, **limits: object) -> EngineDriver:
    driver = auth_driver(encrypted, **limits)
    driver.feed(HELLO)
    return driver


# --- availability ---------------------------------------------------------------------------------


def test_auth_is_offered_over_tls_only() -> None:
    clear, encrypted = auth_driver(False), auth_driver()
    assert b"AUTH" not in clear.feed(HELLO)
    assert b"250-AUTH PLAIN LOGIN\r\n" in encrypted.feed(HELLO)
    assert b"STARTTLS\r\n" in clear.feed(b"HELP\r\n").splitlines(keepends=True)[0]
    assert b"AUTH\r\n" in encrypted.feed(b"HELP\r\n").splitlines(keepends=True)[0]


@pytest.mark.parametrize("starttls", [True, False])
def test_auth_is_offered_in_clear_if_configured(starttls: bool) -> None:
    clear = auth_driver(False, auth_in_clear=True, starttls=starttls)
    assert b"250-AUTH PLAIN LOGIN\r\n" in clear.feed(HELLO)
    assert codes(clear.feed(PLAIN)) == [235]


@pytest.mark.parametrize(
    ("limits", "encrypted", "before", "line", "said"),
    [
        ({"mechanisms": ()}, True, HELLO, PLAIN, b"502 5.5.1 "),
        ({}, False, HELLO, PLAIN, b"538 5.7.11 "),
        ({"starttls": False}, False, HELLO, PLAIN, b"502 5.5.1 "),
        ({}, True, b"", PLAIN, b"503 5.5.1 "),
        ({}, True, b"HELO x\r\n", PLAIN, b"503 5.5.1 "),
        ({}, True, HELLO + PLAIN, PLAIN, b"503 5.5.1 "),
        ({}, True, HELLO + MAIL, PLAIN, b"503 5.5.1 "),
        ({}, True, HELLO, b"AUTH CRAM-MD5\r\n", b"504 5.5.4 "),
        ({}, True, HELLO, b"AUTH CRAM-MD5 !\r\n", b"504 5.5.4 "),
        ({}, True, HELLO, b"AUTH \xff\r\n", b"504 5.5.4 "),
        ({}, True, HELLO, b"AUTH PLAIN\tx\r\n", b"504 5.5.4 "),
        ({}, True, HELLO, b"AUTH\r\n", b"501 5.5.4 "),
        ({}, True, HELLO, b"AUTH PLAIN A B\r\n", b"501 5.5.4 "),
        ({}, True, HELLO, b"AUTH PLAIN !!!!\r\n", b"501 5.5.2 "),
        ({}, True, HELLO, b"AUTH PLAIN QQ\r\n", b"501 5.5.2 "),
        ({}, True, HELLO, b"AUTH PLAIN QQ==QQ==\r\n", b"501 5.5.2 "),
        ({}, True, HELLO, PLAIN.replace(b"PLAIN ", b"PLAIN !"), b"501 5.5.2 Invalid base64"),
        ({}, True, HELLO, PLAIN.replace(b"\r", b"=\r"), b"501 5.5.2 Invalid base64"),
        ({}, True, HELLO, b"AUTH PLAIN =\r\n", b"501 5.5.2 Malformed "),
    ],
)
def test_auth_command_refused(
    limits: dict[str, object], encrypted: bool, before: bytes, line: bytes, said: bytes
) -> None:
    driver = auth_driver(encrypted, **limits)
    driver.feed(before)
    authenticated = driver.engine.authenticated
    assert driver.feed(line).startswith(said)
    assert driver.engine.authenticated is authenticated


def test_refused_auth_starts_no_dialogue() -> None:
    driver = greeted()
    said = driver.feed(b"AUTH PLAIN !!!!\r\nAUTH NTLM\r\nAUTH LOGIN ====\r\nNOOP\r\n")
    assert codes(said) == [501, 504, 501, 250]


# --- dialogues ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 10, 10_000])
@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (PLAIN, [235]),
        (b"auth plain " + PLAIN_TOKEN + b"  \r\n", [235]),
        (b"AUTH PLAIN\r\n" + PLAIN_TOKEN + b"\r\n", [334, 235]),
        (b"AUTH LOGIN\r\n" + NAME_LINE + PASSWORD_LINE, [334, 334, 235]),
        (b"AUTH LOGIN " + NAME_LINE + PASSWORD_LINE, [334, 235]),
        (b"AUTH LOGIN\r\n" + PASSWORD_LINE + NAME_LINE, [334, 334, 535]),
        (b"AUTH PLAIN " + base64.b64encode(b"\0a\0b") + b"\r\n", [535]),
        (b"AUTH PLAIN " + base64.b64encode(b"bob\0alice\0b") + b"\r\n", [535]),
        (b"AUTH PLAIN " + base64.b64encode(b"alice\0b") + b"\r\n", [501]),
        (b"AUTH PLAIN\r\n*\r\n", [334, 501]),
        (b"AUTH PLAIN\r\n\r\n", [334, 501]),
        (b"AUTH PLAIN\r\n=\r\n", [334, 501]),
        (b"AUTH PLAIN\r\n" + PLAIN_TOKEN + b" \r\n", [334, 501]),
        (b"AUTH PLAIN\r\n-" + PLAIN_TOKEN + b"\r\n", [334, 501]),
        (b"AUTH PLAIN\r\nQUIT!\r\n", [334, 501]),
        (b"AUTH PLAIN\r\nA\0B\r\n", [334, 500]),
        (b"AUTH PLAIN\r\nA\nB\r\n", [334, 500]),
        (b"AUTH LOGIN\r\n" + NAME_LINE + b"*\r\n", [334, 334, 501]),
        (b"AUTH LOGIN\r\n\r\n", [334, 501]),
    ],
)
def test_auth_dialogue(lines: bytes, said: list[int], size: int) -> None:
    driver = greeted()
    assert codes(driver.feed(*cut(lines + b"NOOP\r\n", size))) == [*said, 250]
    assert driver.engine.authenticated is (said[-1] == 235)
    assert driver.engine.buffered == 0


def test_auth_dialogue_replies() -> None:
    driver = greeted()
    assert driver.feed(b"AUTH PLAIN\r\n") == b"334 \r\n"
    assert driver.feed(b"*\r\n") == b"501 5.7.0 Authentication aborted\r\n"
    assert driver.feed(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert driver.feed(NAME_LINE) == b"334 UGFzc3dvcmQ6\r\n"
    assert driver.feed(PASSWORD_LINE) == b"235 2.7.0 Authentication successful\r\n"
    assert driver.events == [
        ("auth", "PLAIN"),
        ("auth aborted",),
        ("auth", "LOGIN"),
        ("login", NAME, True),
    ]


def test_empty_initial_response_differs_from_none() -> None:
    engine = SmtpEngine(Limits("x", mechanisms=("EXTERNAL",)), encrypted=True)
    engine.receive(HELLO + b"AUTH EXTERNAL =\r\nAUTH EXTERNAL\r\n")
    event = engine.next_event()
    assert isinstance(event, Auth)
    assert event.response == b""
    engine.reject(WRONG)
    event = engine.next_event()
    assert isinstance(event, Auth)
    assert event.response is None
    engine.challenge(b"\xff" * 57)
    assert engine.replies().endswith(b"334 " + b"/" * 76 + b"\r\n")


def test_repr_hides_passwords() -> None:
    shown = repr([Auth("PLAIN", b"secret"), Response(b"secret"), Credentials("a", "secret")])
    assert "secret" not in shown


def test_pipelined_commands_wait_for_auth_result() -> None:
    engine = SmtpEngine(Limits("x", mechanisms=MECHANISMS), encrypted=True)
    engine.receive(HELLO + PLAIN + MAIL)
    assert isinstance(engine.next_event(), Auth)
    assert engine.waiting
    assert engine.next_event() is None
    assert engine.buffered == len(MAIL)
    before = engine.authenticated
    engine.accept(reply(235, "2.7.0", "Hello"))
    assert (before, engine.authenticated) == (False, True)
    assert engine.replies().endswith(b"235 2.7.0 Hello\r\n")


def test_421_to_auth_response_closes_session() -> None:
    engine = SmtpEngine(Limits("x", mechanisms=MECHANISMS), encrypted=True)
    engine.receive(HELLO + b"AUTH PLAIN\r\n")
    engine.next_event()
    engine.challenge(b"")
    engine.receive(PLAIN_TOKEN + b"\r\n" + MAIL)
    assert isinstance(engine.next_event(), Response)
    engine.reject(reply(421, "4.3.2", "Going"))
    assert isinstance(engine.next_event(), Goodbye)
    assert engine.next_event() is None


def test_challenge_outside_auth_raises() -> None:
    engine = SmtpEngine(Limits("x"))
    with pytest.raises(RuntimeError):
        engine.challenge(b"")
    engine.receive(ENVELOPE)
    engine.next_event()
    with pytest.raises(RuntimeError):
        engine.challenge(b"")


# --- what follows from it -------------------------------------------------------------------------


def test_authentication_lasts_until_starttls() -> None:
    driver = greeted(False, auth_in_clear=True, auth_required=True)
    driver.feed(PLAIN)
    driver.feed(b"RSET\r\n" + HELLO + b"HELO x\r\n" + HELLO)
    known = [driver.engine.authenticated]
    assert codes(driver.feed(MAIL + b"RSET\r\n")) == [250, 250]
    driver.feed(b"STARTTLS\r\n")
    known.append(driver.engine.authenticated)
    driver.engine.tls_started()
    known.append(driver.engine.authenticated)
    assert known == [True, False, False]
    assert codes(driver.feed(HELLO + MAIL + PLAIN + MAIL)) == [250, 530, 235, 250]


def test_mail_commands_need_auth_if_required() -> None:
    driver = greeted(auth_required=True)
    before = driver.feed(
        MAIL + RCPT + b"DATA\r\nVRFY a\r\nBDAT 1 LAST\r\nx" + b"AUTH PLAIN QQ==\r\n" + MAIL
    )
    assert codes(before) == [530, 530, 530, 530, 530, 501, 530]
    assert before.startswith(b"530 5.7.0 Authentication required\r\n")
    assert codes(driver.feed(b"NOOP\r\nHELP\r\nRSET\r\nEHLO y\r\n")) == [250, 214, 250, 250]
    after = driver.feed(PLAIN + MAIL + RCPT + b"VRFY a\r\nDATA\r\n.\r\n")
    assert codes(after) == [235, 250, 250, 252, 354, 250]


def test_auth_required_reply_mentions_starttls() -> None:
    driver = greeted(False, auth_required=True)
    assert driver.feed(MAIL) == b"530 5.7.0 Authentication required; use STARTTLS, then AUTH\r\n"


def test_mail_before_ehlo_is_out_of_sequence() -> None:
    assert auth_driver(auth_required=True).feed(MAIL).startswith(b"503 5.5.1 Send EHLO first")


# --- hostile input --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 100_000])
def test_auth_line_length_limit(size: int) -> None:
    driver = greeted(max_errors=100)
    start = b"AUTH PLAIN "
    longest = (AUTH_LINE_LIMIT - len(start) - 2) // 4 * 4
    line = start + b"A" * longest + b"\r\n"
    assert driver.feed(*cut(line, size)).startswith(b"501 5.5.2 Malformed PLAIN ")
    over = start + b"A" * (AUTH_LINE_LIMIT - len(start) - 1) + b"\r\n"
    assert driver.feed(*cut(over, size)) == b"500 5.5.6 Line too long\r\n"
    driver.feed(b"AUTH PLAIN\r\n")
    assert driver.feed(*cut(b"A" * 12_288 + b"\r\n", size)) == b"500 5.5.6 Line too long\r\n"
    driver.feed(b"AUTH PLAIN\r\n")
    assert driver.feed(*cut(b"A" * 12_284 + b"\r\nNOOP\r\n", size)).startswith(b"501 5.5.2 ")
    assert driver.engine.buffered == 0


@pytest.mark.parametrize("before", [b"AUTH PLAIN ", b"AUTH PLAIN\r\n"])
def test_endless_auth_line_gets_one_reply_and_is_discarded(before: bytes) -> None:
    driver = greeted()
    driver.feed(before)
    said = b""
    for _ in range(300):
        said += driver.feed(b"A" * 1000)
        assert driver.engine.buffered <= AUTH_LINE_LIMIT
    assert said == b"500 5.5.6 Line too long\r\n"
    assert codes(driver.feed(b"\r\nNOOP\r\n")) == [250]
    assert not driver.engine.authenticated


def test_repeated_failed_auth_closes_session() -> None:
    driver = greeted(max_errors=3)
    wrong = b"AUTH PLAIN " + base64.b64encode(b"\0alice\0guess") + b"\r\n"
    assert codes(driver.feed(wrong * 10)) == [535, 535, 535, 421]
    assert driver.events[-1] == ("goodbye",)


def test_repeated_cancelled_auth_closes_session() -> None:
    driver = greeted(max_errors=3)
    assert codes(driver.feed(b"AUTH LOGIN\r\n*\r\n" * 10)) == [334, 501] * 3 + [334, 421]
    assert driver.events[-2:] == [("auth aborted",), ("goodbye",)]


def test_replies_are_flushed_during_endless_challenges() -> None:
    engine = SmtpEngine(Limits("x", mechanisms=("X",)), encrypted=True)
    engine.receive(HELLO + b"AUTH X\r\n" + b"QQ==\r\n" * 1000)
    asked, most = 0, 0
    while (event := engine.next_event()) is not None:
        if isinstance(event, Auth | Response):
            engine.challenge(b"?")
            asked += 1
        else:
            most = max(most, len(engine.replies()))
    assert asked == 1001
    assert 0 < most < 2000


# --- mechanisms -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("response", "result"),
    [
        (b"\0name\0word", ("name", "word")),
        (b"name\0name\0word", ("name", "word")),
        ("\0näme\0wörd".encode(), ("näme", "wörd")),
        (b"\0 \0 ", (" ", " ")),
        (b"other\0name\0word", 535),
        (b"\0\0word", 501),
        (b"\0name\0", 501),
        (b"\0name", 501),
        (b"name", 501),
        (b"", 501),
        (b"\0name\0word\0", 501),
        (b"\0\xff\0word", 501),
        (b"\0name\0\xff", 501),
        (b"\xff\0name\0word", 535),
    ],
)
def test_plain_response(response: bytes, result: tuple[str, str] | int) -> None:
    assert PlainMechanism().step(None) == b""
    if isinstance(result, tuple):
        assert PlainMechanism().step(response) == Credentials(*result)
    else:
        with pytest.raises(SaslError) as refused:
            PlainMechanism().step(response)
        assert codes(refusal_of(refused.value)) == [result]


@pytest.mark.parametrize("initial", [True, False])
def test_login_steps(initial: bool) -> None:
    dialogue = LoginMechanism()
    if not initial:
        assert dialogue.step(None) == b"Username:"
    assert dialogue.step(b"name") == b"Password:"
    assert dialogue.step(b"word") == Credentials("name", "word")


@pytest.mark.parametrize("response", [b"", b"\xff", b"a\0b"])
@pytest.mark.parametrize("named", [True, False])
def test_login_rejects_malformed_responses(response: bytes, named: bool) -> None:
    dialogue = LoginMechanism()
    if named:
        dialogue.step(b"name")
    with pytest.raises(SaslError) as refused:
        dialogue.step(response)
    assert codes(refusal_of(refused.value)) == [501]


def test_mechanism_lookup_by_name() -> None:
    assert [type(mechanism(name)) for name in MECHANISMS] == [PlainMechanism, LoginMechanism]
    with pytest.raises(ValueError, match="CRAM-MD5"):
        mechanism("CRAM-MD5")
