"""The smtp handler on real sockets: dialogues, segmentation, changing accounts."""

from __future__ import annotations

import os
import smtplib
from pathlib import Path

import pytest
from support import smtp_fixtures
from support.accounts import write_accounts
from support.smtp_harness import (
    DIALOGUE,
    DONE,
    ENVELOPE,
    HELLO,
    MAIL,
    MESSAGE,
    RCPT,
    Served,
    body_of,
    codes,
    cut,
    read_until,
    serve,
)

served, plain = smtp_fixtures.on_all_transports, smtp_fixtures.as_in_production


# --- dialogues ------------------------------------------------------------------------------------


def test_smtplib_delivers(served: Served) -> None:
    with smtplib.SMTP("127.0.0.1", served.port, timeout=20) as client:
        refused = client.sendmail(
            "sender@example.com",
            ["alice@example.org", "bob@EXAMPLE.ORG", "AL@example.org", "nobody@example.org"],
            MESSAGE,
        )
        assert client.vrfy("alice")[0] == 252
        assert client.noop()[0] == 250
        assert client.rset()[0] == 250
        assert client.help().startswith(b"2.0.0 Commands")
    assert refused == {"nobody@example.org": (550, b"5.1.1 No such mailbox here")}
    for account in ("alice@example.org", "bob@example.org"):
        (stored,) = served.delivered(account)
        assert body_of(stored) == MESSAGE
    assert served.left_over() == []


def test_smtplib_with_smtputf8(served: Served) -> None:
    path = served.directory / "accounts.toml"
    path.write_text('[account."jürgen@bücher.example"]\n')
    with smtplib.SMTP("127.0.0.1", served.port, timeout=20) as client:
        client.ehlo()
        client.mail("søren@example.com", ["SMTPUTF8", "BODY=8BITMIME"])
        assert client.rcpt("jürgen@xn--bcher-kva.example")[0] == 250
        assert client.data("Subject: ü\r\n\r\nü\r\n".encode())[0] == 250
    (stored,) = served.delivered("jürgen@bücher.example")
    assert "Return-Path: <søren@example.com>\r\n".encode() in stored
    assert b" with UTF8SMTP id " in stored
    assert body_of(stored) == "Subject: ü\r\n\r\nü\r\n".encode()


@pytest.mark.parametrize("size", [1, 2, 13, 65536])
def test_result_is_independent_of_segmentation(served: Served, size: int) -> None:
    assert codes(served.say(*cut(DIALOGUE, size))) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [MESSAGE]


def test_many_transactions_in_one_pipeline(served: Served) -> None:
    messages = [f"Subject: {number}\r\n\r\n{number}\r\n".encode() for number in range(50)]
    transactions = b"".join(MAIL + RCPT + b"DATA\r\n" + text + b".\r\n" for text in messages)
    said = served.say(HELLO + transactions + b"QUIT\r\n")
    assert codes(said) == [250] + [250, 250, 354, 250] * 50 + [221]
    assert [body_of(stored) for stored in served.delivered()] == messages


@pytest.mark.parametrize("size", [1460, 65536, 2_000_000])
def test_large_message_is_spooled_unchanged(served: Served, size: int) -> None:
    lines = b"".join(
        b".%07d " % number + os.urandom(40).hex().encode() + b"\r\n" for number in range(40_000)
    )
    stuffed = (b"\r\n" + lines).replace(b"\r\n.", b"\r\n..")[2:]
    said = served.say(ENVELOPE + b"DATA\r\n", *cut(stuffed + b".\r\n", size), b"QUIT\r\n")
    assert codes(said) == DONE
    assert [body_of(stored) for stored in served.delivered()] == [lines]
    assert served.left_over() == []


def test_two_addresses_of_one_account_get_one_copy(plain: Served) -> None:
    other = b"RCPT TO:<al@example.org>\r\n"
    assert codes(plain.say(HELLO, MAIL, RCPT, other, b"DATA\r\n.\r\nQUIT\r\n"))[-1] == 221
    assert len(plain.delivered()) == 1


def test_postmaster_is_always_accepted(plain: Served) -> None:
    said = plain.say(
        HELLO, MAIL, b"RCPT TO:<Postmaster>\r\nRCPT TO:<postmaster@EXAMPLE.org>\r\n"
        b"RCPT TO:<postmaster@elsewhere.example>\r\nDATA\r\n.\r\nQUIT\r\n"
    )  # fmt: skip
    assert codes(said) == [250, 250, 250, 250, 550, 354, 250, 221]
    assert len(plain.delivered()) == 1


def test_limits_take_effect(tmp_path: Path) -> None:
    with serve(tmp_path, max_message_size=70_000, max_recipients=100, max_errors=2) as server:
        said = server.say(HELLO, b"MAIL FROM:<a@b> SIZE=70001\r\nX\r\nX\r\nNOOP\r\n")
        assert b"250-SIZE 70000\r\n" in said
        assert codes(said) == [250, 552, 500, 421]
        said = server.say(ENVELOPE + b"DATA\r\n", b"x" * 80_000, b"\r\n.\r\n" + MAIL, RCPT * 101)
        assert codes(said) == [250, 250, 250, 354, 552, 250] + [250] * 100 + [452]
        assert server.delivered() == []
        assert server.left_over() == []


# --- accounts -------------------------------------------------------------------------------------


def test_accounts_file_is_reloaded_when_it_changes(served: Served) -> None:
    path = served.directory / "accounts.toml"
    new = b"RCPT TO:<carol@example.org>\r\n"
    with served.connect() as client:

        def ask(command: bytes) -> list[int]:
            client.sendall(command)
            return codes(read_until(client, b"\r\n"))

        assert ask(b"HELO c\r\n") == [250]
        assert ask(MAIL) == [250]
        assert ask(new) == [550]
        write_accounts(path, '[account."carol@example.org"]\n')
        assert ask(new) == [250]
        assert ask(RCPT) == [550]
        write_accounts(path, "[account.")
        assert ask(new) == [250]
        assert ask(new) == [250]
        path.unlink()
        assert ask(new) == [250]
        write_accounts(path, '[account."alice@example.org"]\n')
        assert ask(RCPT) == [250]
        assert ask(new) == [550]


@pytest.mark.parametrize("text", [None, "[account.", '[account."x"]'])
def test_mail_is_deferred_until_accounts_are_known(
    tmp_path: Path, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(tmp_path, accounts=text) as server:
        assert codes(server.say(ENVELOPE)) == [250, 250, 451]
        (tmp_path / "accounts.toml").write_text('[account."alice@example.org"]\n')
        assert codes(server.say(DIALOGUE)) == DONE
    assert "mail is deferred with 451" in caplog.text
