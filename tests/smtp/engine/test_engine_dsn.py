"""DSN parameters of MAIL and RCPT (RFC 3461), and MAIL's AUTH parameter (RFC 4954 5)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_driver import EngineDriver
from support.smtp_harness import HELLO, MAIL, codes

from fastlisten.mail.xtext import decode_xtext

OFFERED: dict[str, Any] = {"mechanisms": ("PLAIN",), "auth_in_clear": True}


def mail(parameters: str, extended: bool = True) -> tuple[EngineDriver, bytes]:
    driver = EngineDriver(**OFFERED)
    driver.feed(HELLO if extended else b"HELO x\r\n")
    return driver, driver.feed(f"MAIL FROM:<a@b> {parameters}\r\n".encode())


def rcpt(parameters: str, start: bytes = MAIL, hello: bytes = HELLO) -> tuple[EngineDriver, bytes]:
    driver = EngineDriver()
    driver.feed(hello + start)
    return driver, driver.feed(f"RCPT TO:<a@b> {parameters}\r\n".encode())


def test_dsn_is_announced() -> None:
    assert b"250-DSN\r\n" in EngineDriver().feed(HELLO)


def test_mail_parameters_are_passed_on() -> None:
    driver, said = mail("ret=hdrs ENVID=QQ+20314 AUTH=e+3Dmc2@example.com SMTPUTF8 size=10")
    assert codes(said) == [250]
    transaction = driver.engine.transaction
    assert transaction is not None
    assert transaction.ret == "HDRS"
    assert transaction.envid == "QQ+20314"
    assert transaction.auth == "e+3Dmc2@example.com"
    assert transaction.words == (
        "ret=hdrs",
        "ENVID=QQ+20314",
        "AUTH=e+3Dmc2@example.com",
        "SMTPUTF8",
        "size=10",
    )


def test_rcpt_parameters_are_passed_on() -> None:
    driver, said = rcpt("notify=Success,DELAY  orcpt=RFC822;Bob+2B@example.org")
    assert codes(said) == [250]
    assert driver.engine.transaction is not None
    (recipient,) = driver.engine.transaction.recipients
    assert recipient.mailbox.text == "a@b"
    assert recipient.notify == "SUCCESS,DELAY"
    assert recipient.orcpt == "RFC822;Bob+2B@example.org"
    assert recipient.words == ("notify=Success,DELAY", "orcpt=RFC822;Bob+2B@example.org")


def test_absent_parameters_are_empty() -> None:
    driver = EngineDriver()
    driver.feed(HELLO + MAIL + b"RCPT TO:<a@b>\r\nRCPT TO:<a@b>\r\n")
    transaction = driver.engine.transaction
    assert transaction is not None
    assert (transaction.ret, transaction.envid, transaction.auth) == ("", "", "")
    assert transaction.words == ()
    assert [(r.notify, r.orcpt, r.words) for r in transaction.recipients] == [("", "", ())] * 2


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("RET=FULL", 250),
        ("RET=hdrs", 250),
        ("RET=ALL", 501),
        ("RET=", 501),
        ("RET", 501),
        ("RET=FULL RET=FULL", 501),
        ("RET=FULL ret=HDRS", 501),
        ("ENVID=" + "x" * 100, 250),
        ("ENVID=" + "x" * 101, 501),
        ("ENVID=+41+09+20+7E", 250),
        ("ENVID=a+2Bb", 250),
        ("ENVID=a+b", 501),
        ("ENVID=a+4", 501),
        ("ENVID=a+4g", 501),
        ("ENVID=a+4a", 501),
        ("ENVID=a=b", 501),
        ("ENVID=a+0D+0AReply-To:x", 501),
        ("ENVID=a+00", 501),
        ("ENVID=a+7F", 501),
        ("ENVID=a+E9", 501),
        ("ENVID=ü SMTPUTF8", 501),
        ("ENVID=a\x7f", 501),
        ("ENVID=", 501),
        ("ENVID", 501),
        ("AUTH=<>", 250),
        ("AUTH=a@b", 250),
        ("AUTH=a+20b@c", 501),
        ("AUTH=+22a+20b+22@c", 250),
        ("AUTH=" + "a" * 240 + "@b.example", 250),
        ("AUTH=a@b+0D+0AX:y", 501),
        ("AUTH=ü@b SMTPUTF8", 250),
        ("AUTH=\\x{FC}@b SMTPUTF8", 250),
        ("AUTH=nobody", 501),
        ("AUTH=<a@b>", 250),  # as curl writes it
        ("AUTH=<a@b", 501),
        ("AUTH=<<a@b>>", 501),
        ("AUTH=", 501),
        ("AUTH", 501),
        ("AUTH=+", 501),
        ("AUTH=" + "+41" * 164 + "@b", 250),
        ("AUTH=" + "+41" * 164 + "@bc", 501),
        ("NOTIFY=NEVER", 555),
        ("ORCPT=rfc822;a@b", 555),
        ("BODY=8bıtmime", 501),
        ("\u017fIZE=1", 501),
        ("\u017fmtputf8", 501),
        ("XUTF8=ü", 501),
    ],
)
def test_mail_parameters(parameters: str, code: int) -> None:
    driver, said = mail(parameters)
    assert codes(said) == [code], said
    assert (driver.engine.transaction is not None) is (code == 250)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("NOTIFY=NEVER", 250),
        ("NOTIFY=never", 250),
        ("NOTIFY=SUCCESS", 250),
        ("NOTIFY=DELAY,FAILURE,SUCCESS", 250),
        ("NOTIFY=NEVER,SUCCESS", 501),
        ("NOTIFY=SUCCESS,SUCCESS", 501),
        ("NOTIFY=SUCCESS,", 501),
        ("NOTIFY=,SUCCESS", 501),
        ("NOTIFY=SUCCESS;DELAY", 501),
        ("NOTIFY=ALWAYS", 501),
        ("NOTIFY=\u017fuccess", 501),
        ("NOTIFY=", 501),
        ("NOTIFY", 501),
        ("NOTIFY=NEVER NOTIFY=NEVER", 501),
        ("ORCPT=rfc822;a@b", 250),
        ("ORCPT=x400;/C=DE/", 501),
        ("ORCPT=x400;/C+3DDE/", 250),
        ("ORCPT=rfc822;", 501),
        ("ORCPT=;a@b", 501),
        ("ORCPT=a@b", 501),
        ("ORCPT=a@b;c", 501),
        ("ORCPT=rfc822;a;b", 250),
        ("ORCPT=rfc822;" + "x" * 493, 250),
        ("ORCPT=rfc822;" + "x" * 494, 501),
        ("ORCPT=rfc822;a+0D+0Ab", 501),
        ("ORCPT=rfc822;a+FFb", 501),
        ("ORCPT=rfc822;a\\x{20AC}", 250),
        ("ORCPT=utf-8;a\\x{20AC}@b", 250),
        ("ORCPT=UTF-8;a\\x{1F600}@b", 250),
        ("ORCPT=utf-8;a+20b", 250),
        ("ORCPT=utf-8;a\\x{D800}@b", 501),
        ("ORCPT=utf-8;a\\x{0A}@b", 501),
        ("ORCPT=utf-8;a\\x{85}@b", 501),
        ("ORCPT=utf-8;a\\x{2028}@b", 501),
        ("ORCPT=utf-8;a\\x{110000}@b", 501),
        ("ORCPT=utf-8;a\\x{zz}@b", 501),
        ("ORCPT=utf-8;a\\b", 501),
        ("ORCPT=utf-8;ü@b", 501),
        ("ORCPT=rfc822;ü@b", 501),
        ("ORCPT", 501),
        ("RET=FULL", 555),
        ("X=1", 555),
        ("X=1=2", 501),
    ],
)
def test_rcpt_parameters(parameters: str, code: int) -> None:
    driver, said = rcpt(parameters)
    assert codes(said) == [code], said
    assert driver.engine.transaction is not None
    assert len(driver.engine.transaction.recipients) == (code == 250)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ("ORCPT=utf-8;ü@b", 250),
        ("ORCPT=utf-8;ü@b+0A", 501),
        ("ORCPT=utf-8;ü\u2028@b", 501),
        ("ORCPT=rfc822;ü@b", 501),
        ("orcpt=UTF-8;€", 250),
        ("NOTIFY=ü", 501),
    ],
)
def test_non_ascii_orcpt_with_smtputf8(parameters: str, code: int) -> None:
    _, said = rcpt(parameters, b"MAIL FROM:<a@b> SMTPUTF8\r\n")
    assert codes(said) == [code]


def test_dsn_parameters_need_ehlo() -> None:
    assert codes(mail("RET=FULL", extended=False)[1]) == [555]
    assert codes(rcpt("NOTIFY=NEVER", hello=b"HELO x\r\n")[1]) == [555]


@pytest.mark.parametrize(
    ("encrypted", "limits", "code"),
    [
        (False, {}, 555),
        (True, {}, 555),
        (False, {"mechanisms": ("PLAIN",), "starttls": True}, 555),
        (True, {"mechanisms": ("PLAIN",)}, 250),
        (False, OFFERED, 250),
    ],
)
def test_mail_auth_parameter_needs_auth_extension(
    encrypted: bool, limits: dict[str, Any], code: int
) -> None:
    driver = EngineDriver(encrypted, **limits)
    driver.feed(HELLO)
    assert codes(driver.feed(b"MAIL FROM:<a@b> AUTH=<>\r\n")) == [code]


def test_longest_parameters_fit_in_a_line() -> None:
    path = "a" * 240 + "@b.example"
    driver, said = mail(
        f"SIZE=00000000000000000001 BODY=BINARYMIME SMTPUTF8 RET=FULL ENVID={'x' * 100} "
        f"AUTH={'+61' * 157}@b.example"
    )
    assert codes(said) == [250]
    line = f"RCPT TO:<{path}> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{'+61' * 164}\r\n"
    assert codes(driver.feed(line.encode())) == [250]


# --- xtext ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", ""),
        ("a@b", "a@b"),
        ("a+2Bb+3Dc", "a+b=c"),
        ("a+0Ab", None),
        ("a+09b", "a b"),
        ("\\x{20AC}", "\\x{20AC}"),
    ],
)
def test_decode_xtext(text: str, meant: str | None) -> None:
    assert decode_xtext(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("\\x{20AC}+41", "€A"),
        ("ü", "ü"),
        ("\\x{FFFFFF}", None),
        ("\\x{0A}", None),
        ("\\x{1F600}", "\U0001f600"),
    ],
)
def test_decode_international_xtext(text: str, meant: str | None) -> None:
    assert decode_xtext(text, international=True) == meant


@given(text=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=90))
def test_printable_envid_round_trip(text: str) -> None:
    written = re.sub(r"[^!-*,-<>-~]", lambda match: f"+{ord(match[0]):02X}", text)
    if len(written) > 100:
        written, text = written[:99].rpartition("+")[0] or "x", ""
    driver, said = mail(f"ENVID={written}")
    assert codes(said) == [250]
    assert driver.engine.transaction is not None
    assert driver.engine.transaction.envid == written
    if text:
        assert decode_xtext(written) == text


@given(octets=st.binary(max_size=60))
def test_parameters_cannot_inject_lines(octets: bytes) -> None:
    driver = EngineDriver(max_errors=1000, **OFFERED)
    driver.feed(HELLO)
    for start in (b"MAIL FROM:<a@b> SMTPUTF8 ENVID=", b"MAIL FROM:<a@b> SMTPUTF8 AUTH="):
        driver.feed(start + octets.translate(None, b"\r\n\0") + b"\r\n", b"RSET\r\n", MAIL)
        driver.feed(b"RCPT TO:<a@b> ORCPT=utf-8;" + octets.translate(None, b"\r\n\0") + b"\r\n")
        driver.feed(b"RSET\r\n")
    for values in driver.parameters:
        for value in values:
            for word in [value] if isinstance(value, str) else value:
                assert word.isprintable()
                meant = decode_xtext(word, international="ENVID" not in word)
                assert meant is not None
                assert meant.isprintable()
