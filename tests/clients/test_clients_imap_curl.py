"""curl reads, looks for and stores mail at `fastlisten serve`, over imaps and STARTTLS.

Rules of this file: what curl writes is compared octet by octet. Its URLs (RFC 5092) name a mailbox,
a message and a part of it; everything else is a command of its own (`--request`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.external_programs import run
from support.imap_sync import message
from support.marks import external
from support.real_server import ALICE, HOST, PASSWORDS, Mail, serving

#: curl's exit codes: a command failed; login, SELECT, an upload was refused; no such part.
QUOTE_ERROR, LOGIN_DENIED, NOT_SELECTED, UPLOAD_FAILED, NOT_FOUND = 21, 67, 67, 25, 78


@pytest.fixture(scope="module")
def mail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mail]:
    with serving(tmp_path_factory.mktemp("mail"), "imap", "imaps") as server:
        for number in range(3):
            (server.directory / str(number)).write_bytes(message(f"upload-{number}", number))
            curl(server, "/INBOX", "--upload-file", str(server.directory / str(number)))
        yield server


def curl(
    mail: Mail,
    path: str,
    *options: str,
    scheme: str = "imaps",
    password: str = PASSWORDS[ALICE],
    expect: int = 0,
) -> bytes:
    """Run curl with a URL; return what it writes."""
    return run(
        *("curl", "--silent", "--show-error", "--cacert", mail.authority, "--ssl-reqd"),
        *("--user", f"{ALICE}:{password}", *options),
        f"{scheme}://{HOST}:{mail.port(scheme)}{path}",
        expect=(expect,),
    ).stdout


@external("curl")
@pytest.mark.parametrize("scheme", ["imap", "imaps"])
def test_fetch(mail: Mail, scheme: str) -> None:
    for number in range(3):
        whole = message(f"upload-{number}", number)
        assert curl(mail, f"/INBOX;MAILINDEX={number + 1}", scheme=scheme) == whole
        assert curl(mail, f"/INBOX;UID={number + 1}", scheme=scheme) == whole
        head, _, body = whole.partition(b"\r\n\r\n")
        section = f"/INBOX;UID={number + 1};SECTION="
        assert curl(mail, f"{section}HEADER") == head + b"\r\n\r\n"
        assert curl(mail, f"{section}TEXT") == body
        subject = quote("HEADER.FIELDS (SUBJECT)")
        assert curl(mail, section + subject) == f"Subject: upload-{number}\r\n\r\n".encode()
    several = curl(mail, "/INBOX;MAILINDEX=[1-3]", scheme=scheme)
    assert several == b"".join(message(f"upload-{number}", number) for number in range(3))


@external("curl")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
@pytest.mark.parametrize("initial", [(), ("--sasl-ir",)], ids=["challenge", "initial response"])
def test_logins(mail: Mail, mechanism: str, initial: tuple[str, ...]) -> None:
    options = ("--login-options", f"AUTH={mechanism}", *initial)
    assert b"* LIST " in curl(mail, "/", *options)


@external("curl")
def test_wrong_password(mail: Mail) -> None:
    curl(mail, "/", password="wrong", expect=LOGIN_DENIED)


@external("curl")
def test_search(mail: Mail) -> None:
    assert curl(mail, "/INBOX?SUBJECT%20upload-1") == b"* SEARCH 2\r\n"
    assert curl(mail, "/INBOX?ALL") == b"* SEARCH 1 2 3\r\n"
    assert curl(mail, "/INBOX?SUBJECT%20nowhere") == b"* SEARCH\r\n"


@external("curl")
def test_commands(mail: Mail) -> None:
    for command in ("CREATE A-B", "CREATE Work/Old", "NOOP", "CAPABILITY", "EXAMINE INBOX"):
        curl(mail, "/", "--request", command)
    listed = curl(mail, "/", "--request", 'LIST "" *')
    assert {line.split(b'"/" ')[1] for line in listed.splitlines()} >= {
        *(b"INBOX", b"A-B", b"Work", b"Work/Old"),
    }
    assert b"UNSEEN" in curl(mail, "/", "--request", "STATUS INBOX (UNSEEN)")
    flags = curl(mail, "/INBOX", "--request", "STORE 1 +FLAGS (\\Flagged $Label1)")
    assert b"* 1 FETCH (FLAGS (" in flags
    assert b"\\Flagged" in flags
    curl(mail, "/INBOX", "--request", "COPY 1:2 Work/Old")
    copied = [curl(mail, f"/Work/Old;UID={uid}") for uid in (1, 2)]
    assert copied == [message(f"upload-{number}", number) for number in (0, 1)]
    curl(mail, "/INBOX", "--request", "NONSENSE", expect=QUOTE_ERROR)
    curl(mail, "/nowhere;UID=1", expect=NOT_SELECTED)
    curl(mail, "/INBOX;UID=1;SECTION=NONSENSE", expect=NOT_FOUND)


@external("curl")
def test_uploads(mail: Mail, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 100_000 + b"\r\n")
    curl(mail, "/", "--request", "CREATE Uploads")
    curl(mail, "/Uploads", "--upload-file", str(large))
    assert curl(mail, "/Uploads;UID=1") == large.read_bytes()
    # The mailbox is not there: the literal must not be taken for commands.
    curl(mail, "/Nowhere", "--upload-file", str(large), expect=UPLOAD_FAILED)
    assert b"Nowhere" not in curl(mail, "/")
