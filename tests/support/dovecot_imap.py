"""Dovecot's IMAP process on messages of a test: what it says of them, as values.

Rules of this file: the process speaks IMAP on its standard input and output, without a login and
without any other process of Dovecot. Root lends it to nobody, as Dovecot refuses root. If the
environment has DOVECOT_ROOT, it is the one of the Debian in that directory, a Dovecot 2.4 or newer
(`.ci/full dovecot`); that takes root.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fastlisten.mail.mime.structure import Part
from support.environment import own_environment
from support.other_user import NOBODY, user_directory

__all__ = [
    "DOVECOT_IMAP",
    "MIME",
    "ROOT",
    "SLASHES",
    "Dovecot",
    "account_directory",
    "command_of",
    "configured",
    "cut_off",
    "doubtful",
    "dovecot",
    "dovecot_command",
    "values_of",
]

#: The Debian that has it, empty for the one that runs.
ROOT = os.environ.get("DOVECOT_ROOT", "")

#: Where Debian's package dovecot-imapd has it.
DOVECOT_IMAP = f"{ROOT}/usr/lib/dovecot/imap"

#: For names without Maildir++'s dots in them.
SLASHES = "namespace inbox {\n inbox = yes\n separator = /\n}\n"

#: Begins a message: without it, or a Content-Type, Dovecot ignores fields such as Content-ID, as
#: RFC 2045 4 allows.
MIME = (b"MIME-Version: 1.0\r\n", b"MIME-Version: 1.0\n")

_TOKEN = re.compile(
    rb'[ ]*+(?:(?P<list>[()])|"(?P<quoted>(?:[^"\\]|\\.)*+)"|\{(?P<literal>[0-9]+)\}\r\n'
    rb"|(?P<atom>(?:\[[^\]]*\]|[^\s()\[\]])+))",
    re.DOTALL,
)


def values_of(text: bytes) -> list[Any]:
    """Return values in IMAP's notation: lists, octets, numbers, None for NIL."""
    levels: list[list[Any]] = [[]]
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if match["list"] == b"(":
            levels.append([])
        elif match["list"]:
            levels[-2].append(levels.pop())
        elif match["quoted"] is not None:
            levels[-1].append(re.sub(rb"\\(.)", rb"\1", match["quoted"]))
        elif match["literal"]:
            end = position + int(match["literal"])
            levels[-1].append(text[position:end])
            position = end
        elif match["atom"] == b"NIL":
            levels[-1].append(None)
        else:
            atom = match["atom"]
            levels[-1].append(int(atom) if atom.isdigit() else atom)
    assert not text[position:].strip(), text[position:]
    assert len(levels) == 1, text
    return levels[0]


class Dovecot:
    """A session of Dovecot's on a folder of messages."""

    def __init__(self, client: imaplib.IMAP4) -> None:
        self._client = client

    def fetch(self, items: str, number: int | None = None) -> list[dict[bytes, Any]]:
        """Return what FETCH says of each message, or of one: the items by their names."""
        status, response = self._client.fetch(
            "1:*" if number is None else str(number), f"({items})"
        )
        assert status == "OK", response
        text = b""
        for piece in response:
            # imaplib takes the literals out.
            text += piece[0] + b"\r\n" + piece[1] if isinstance(piece, tuple) else piece or b""
        found = values_of(text)
        return [dict(zip(each[::2], each[1::2], strict=True)) for each in found[1::2]]

    def search(self, key: str, text: str | None = None) -> set[int]:
        """Return the numbers of the messages that a search for a text finds."""
        if text is not None:
            # Octets are what imaplib sends; typeshed says otherwise.
            self._client.literal = text.encode()  # type: ignore[assignment]
        status, response = self._client.search(None if text is None else "UTF-8", key)
        assert status == "OK", response
        return {int(number) for number in response[0].split()}

    def sort(self, key: str) -> list[int]:
        """Return the numbers of all messages, sorted."""
        status, response = self._client.sort(f"({key})", "UTF-8", "ALL")
        assert status == "OK", response
        return [int(number) for number in response[0].split()]


@contextlib.contextmanager
def dovecot(messages: Sequence[bytes]) -> Iterator[Dovecot]:
    """Let Dovecot serve messages, numbered from 1 in their order."""
    with account_directory() as directory:
        mail = directory / "mail"
        for folder in ("cur", "new", "tmp"):
            (mail / folder).mkdir(parents=True)
        for number, data in enumerate(messages):
            (mail / "cur" / f"{number + 1}.M{number}.host:2,S").write_bytes(data)
        yield from _session(configured(directory))


@contextlib.contextmanager
def dovecot_command() -> Iterator[list[str]]:
    """Make an empty account of Dovecot's; return the command that serves it."""
    with account_directory() as directory:
        (directory / "mail").mkdir()
        yield command_of(configured(directory, SLASHES))


@contextlib.contextmanager
def account_directory() -> Iterator[Path]:
    """Make a directory for an account, where Dovecot can see it."""
    if not ROOT:
        with user_directory() as directory:
            yield directory
        return
    path = Path(tempfile.mkdtemp(prefix="fastlisten-test-", dir=f"{ROOT}/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def _inside(path: Path) -> Path:
    """Return a path as Dovecot sees it."""
    return Path("/") / path.relative_to(ROOT) if ROOT else path


def configured(directory: Path, more: str = "") -> Path:
    """Write a configuration that serves `mail` in a directory, and let Dovecot own that."""
    mail, inside = directory / "mail", _inside(directory)
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        user, group = NOBODY.pw_uid, NOBODY.pw_gid
        for path in (mail, *mail.rglob("*")):
            os.chown(path, user, group)
    place = f"mail_location = maildir:{inside}/mail\n"
    if ROOT:
        place = (
            "dovecot_config_version = 2.4.0\ndovecot_storage_version = 2.4.0\n"
            f"mail_driver = maildir\nmail_path = {inside}/mail\n"
            # Otherwise messages get $HasAttachment or $HasNoAttachment when they are read.
            "mail_attachment_detection_options =\n"
        )
    configuration = directory / "dovecot.conf"
    configuration.write_text(
        f"{place}mail_uid = {user}\nmail_gid = {group}\n"
        "first_valid_uid = 1\nfirst_valid_gid = 1\nssl = no\nlog_path = /dev/null\n"
        f"base_dir = {inside}/run\nstate_dir = {inside}/state\n{more}"
    )
    return configuration


def command_of(configuration: Path) -> list[str]:
    """Return the command that serves an account on its standard input and output."""
    inside = _inside(configuration)
    settings = {**own_environment(), "USER": "test", "HOME": str(inside.parent)}
    words = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
    if ROOT:
        words += ["chroot", ROOT]
    return [*words, DOVECOT_IMAP.removeprefix(ROOT), "-c", str(inside)]


def _session(configuration: Path) -> Iterator[Dovecot]:
    command = shlex.join(command_of(configuration))
    client = imaplib.IMAP4_stream(f"exec {command} 2>/dev/null")
    try:
        assert client.select("INBOX", readonly=True)[0] == "OK"
        yield Dovecot(client)
    finally:
        client.logout()
        client.process.wait()


def _mistakable(part: Part, around: tuple[bytes, ...] = ()) -> bool:
    """Whether the end of a multipart is spelt like the delimiter of one around it.

    ``--a--`` may be the end of one with the boundary ``a`` or begin a part of one with ``a--``. No
    RFC says which: the inner one must not be made like this (RFC 2046 5.1.1).
    """
    boundary = part.parameter(b"boundary") if part.is_multipart else None
    if boundary is not None:
        if boundary + b"--" in around:
            return True
        around = (*around, boundary)
    return any(_mistakable(child, around) for child in part.children)


def cut_off(part: Part) -> bool:
    """Whether a delimiter ends the header of the last part in another, so that both end there.

    Dovecot counts the line break before it as the other's. RFC 2046 5.1.1: it is the delimiter's.
    """
    if not part.children:
        return False
    last = part.children[-1]
    return (last.body == last.end == part.end) or any(map(cut_off, part.children))


def doubtful(part: Part) -> bool:
    """Whether a made-up message is left out, because Dovecot's reading is another one."""
    return cut_off(part) or _mistakable(part)
