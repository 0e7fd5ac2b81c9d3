"""alice+work: mail for alice, which goes into her folder work if she has one (RFC 5233)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.config import listener_table, load_text
from support.smtp_harness import HELLO, MAIL, Served, codes, serve

from fastlisten.mail.delivery.detail_folder import detail_folder
from fastlisten.mail.maildir.folder_names import directory_of
from fastlisten.mail.maildir.maildir import Maildir
from fastlisten.runtime.handler_factory import handler_settings

DATA = b"DATA\r\nSubject: x\r\n\r\ntext\r\n.\r\n"

ACCOUNTS = """
[account."alice@example.org"]
aliases = ["al@example.org", "@example.net"]
[account."alice+boss@example.org"]
[account."bob@example.org"]
quota = { messages = 1 }
"""


def folder(served: Served, name: str, account: str = "alice") -> None:
    root = served.directory / "mail" / f"{account}@example.org"
    Maildir(str(root)).prepare()
    Maildir(f"{root}/{directory_of(name)}").prepare()


def counts(served: Served, account: str = "alice") -> dict[str, int]:
    """Return how many messages each folder has, INBOX by an empty name."""
    box = Maildir(str(served.directory / "mail" / f"{account}@example.org"))
    found = {"": len(box.messages())}
    found.update({name: len(box.folder(name).messages()) for name in box.folders()})
    return {name: count for name, count in found.items() if count}


def to(*locals: str, domain: str = "example.org") -> bytes:
    return MAIL + b"".join(f"RCPT TO:<{local}@{domain}>\r\n".encode() for local in locals)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, accounts=ACCOUNTS, delimiter="+") as server:
        for name in ("work", "Lists/Dev", "Ärger"):
            folder(server, name)
        yield server


@pytest.mark.parametrize(
    ("local", "where"),
    [
        ("alice+work", "work"),
        ("Alice+WORK", "work"),
        ("al+work", "work"),
        ("alice+lists/dev", "Lists/Dev"),
        ("alice+lists.dev", "Lists/Dev"),
        ("alice", ""),
        ("alice+", ""),
        ("alice+none", ""),
        ("alice+inbox", ""),
        ("alice+work+more", ""),
        ('"alice+../../bob@example.org"', ""),
        ('"alice+..work"', ""),
        ('"alice+/"', ""),
        ("alice+" + "x" * 150, ""),
    ],
)
def test_folder_of_a_detail(served: Served, local: str, where: str) -> None:
    assert codes(served.say(HELLO + to(local) + DATA)) == [250, 250, 250, 354, 250]
    assert counts(served) == {where: 1}
    assert counts(served, "bob") == {}
    assert served.left_over() == []


def test_address_outside_ascii(served: Served) -> None:
    mail = (
        MAIL.replace(b">\r\n", b"> SMTPUTF8\r\n") + "RCPT TO:<alice+ärger@example.org>\r\n".encode()
    )
    assert codes(served.say(HELLO + mail + DATA)) == [250, 250, 250, 354, 250]
    assert counts(served) == {"Ärger": 1}


def test_whole_address_comes_first(served: Served) -> None:
    folder(served, "boss")
    folder(served, "boss", "alice+boss")
    assert codes(served.say(HELLO + to("alice+boss") + DATA))[-1] == 250
    assert counts(served) == {}
    assert counts(served, "alice+boss") == {"": 1}


def test_unknown_base_is_refused(served: Served) -> None:
    assert codes(served.say(HELLO + to("carol+work", "+work"))) == [250, 250, 550, 550]


def test_catch_all_gets_what_it_got_before(served: Served) -> None:
    said = served.say(HELLO + to("anybody+work", domain="example.net") + DATA)
    assert codes(said)[-1] == 250
    assert counts(served) == {"": 1}


def test_account_gets_a_message_once(served: Served) -> None:
    assert codes(served.say(HELLO + to("alice+work", "alice", "al+lists.dev") + DATA))[-1] == 250
    assert counts(served) == {"work": 1}


def test_quota_counts_for_folders(served: Served) -> None:
    folder(served, "work", "bob")
    message = to("bob+work") + DATA
    assert codes(served.say(HELLO + message)) == [250, 250, 250, 354, 250]
    assert codes(served.say(HELLO + to("bob+work"))) == [250, 250, 452]
    assert counts(served, "bob") == {"work": 1}


def test_lmtp(tmp_path: Path) -> None:
    with serve(tmp_path, accounts=ACCOUNTS, delimiter="-", lmtp=True) as served:
        folder(served, "work")
        hello = HELLO.replace(b"EHLO", b"LHLO")
        said = served.say(hello + to("alice-work", "bob-work") + DATA)
        assert codes(said) == [250, 250, 250, 250, 354, 250, 250]
        assert (counts(served), counts(served, "bob")) == ({"work": 1}, {"": 1})


def test_nothing_without_a_delimiter(tmp_path: Path) -> None:
    with serve(tmp_path, accounts=ACCOUNTS) as served:
        folder(served, "work")
        assert codes(served.say(HELLO + to("alice+work"))) == [250, 250, 550]


def test_two_folders_that_differ_in_case(tmp_path: Path) -> None:
    box = Maildir(str(tmp_path))
    for name in ("Work", "WORK"):
        box.create_folder(name)
    for name in ("Work", "WORK"):
        assert detail_folder(box, name).path == box.folder(name).path
    assert detail_folder(Maildir(str(tmp_path / "missing")), "Work").path.endswith("missing")


@pytest.mark.parametrize(("line", "expected"), [("", "+"), ('"-"', "-"), ("false", "")])
def test_delimiter_is_that_of_the_configuration(line: str, expected: str) -> None:
    text = listener_table("mx", 'protocol = "smtp"\nbind = "127.0.0.1:25"')
    config = load_text(f"[server]\nrecipient-delimiter = {line}\n{text}" if line else text)
    settings = handler_settings(config, config.listeners[0])
    assert settings.extra["recipient-delimiter"] == expected


@pytest.mark.parametrize("detail", ["INBOX", "inbox"])
def test_a_directory_called_inbox_is_not_the_inbox(tmp_path: Path, detail: str) -> None:
    """Clients see it as ".INBOX", and nobody who writes to +inbox means that."""
    box = Maildir(str(tmp_path / "alice"))
    box.prepare()
    Maildir(f"{box.path}/.INBOX").prepare()
    assert detail_folder(box, detail) is box
