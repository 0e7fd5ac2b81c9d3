"""A Maildir that Dovecot has kept is served by us: clients find what they have synchronised.

Rules of this file: Debian's Dovecot makes the Maildir through IMAP, with several hundred messages,
flags, keywords and expunges. What a client can be told is compared, folder by folder. mbsync, which
has synchronised everything with Dovecot, finds nothing to do.
"""

from __future__ import annotations

import imaplib
import os
import random
import re
import shlex
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.dovecot_imap import DOVECOT_IMAP
from support.environment import own_environment
from support.imap_server import ADDRESS, PASSWORD, serve_imap
from support.marks import external
from support.other_user import NOBODY, user_directory

pytestmark = pytest.mark.skipif(
    not os.access(DOVECOT_IMAP, os.X_OK), reason="Dovecot is not installed"
)

FOLDERS = ["INBOX", "Sent Items", "Work", "Work/&AMQ-ndern", "Spam"]

_FETCH = re.compile(rb"UID (\d+) .*?FLAGS \(([^)]*)\)|FLAGS \(([^)]*)\).*? UID (\d+)")

#: A folder as clients know it: UIDVALIDITY, UIDNEXT, and flags and Subject by UID.
State = tuple[bytes, bytes, dict[int, tuple[frozenset[bytes], bytes]]]


@pytest.fixture
def directory() -> Iterator[Path]:
    with user_directory() as path:
        yield path


def command(directory: Path) -> str:
    """Return how a shell starts Dovecot's IMAP process on the account's Maildir."""
    mail = directory / "mail" / ADDRESS
    mail.mkdir(parents=True, exist_ok=True)
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        user, group = NOBODY.pw_uid, NOBODY.pw_gid
        os.chown(mail, user, group)
    configuration = directory / "dovecot.conf"
    configuration.write_text(
        f"""
        mail_location = maildir:{mail}
        mail_uid = {user}
        mail_gid = {group}
        first_valid_uid = 1
        first_valid_gid = 1
        ssl = no
        log_path = /dev/null
        base_dir = {directory}/run
        state_dir = {directory}/state
        namespace inbox {{
          inbox = yes
          separator = /
        }}
        """
    )
    settings = {**own_environment(), "USER": "test", "HOME": str(directory)}
    words = ["env", "-i", *(f"{name}={value}" for name, value in settings.items())]
    words += [DOVECOT_IMAP, "-c", str(configuration)]
    program = directory / "imap.sh"
    program.write_text(f"exec {shlex.join(words)} 2>/dev/null\n")
    return f"sh {program}"


def make_mail(directory: Path, messages: int, seed: int) -> None:
    """Have Dovecot make folders of messages, and change them at random."""
    chance = random.Random(seed)
    client = imaplib.IMAP4_stream(command(directory))
    for folder in FOLDERS:
        if folder != "INBOX":
            assert client.create(f'"{folder}"')[0] == "OK"
        if folder != "Spam":
            assert client.subscribe(f'"{folder}"')[0] == "OK"
    flags = [r"\Seen", r"\Flagged", r"\Answered", r"\Draft", "$Forwarded", "Label", "Wichtig"]
    for number in range(messages):
        folder = chance.choice(FOLDERS)
        some = " ".join(chance.sample(flags, chance.randrange(4)))
        text = b"Subject: %d\r\n\r\nbody of %d\r\n" % (number, number)
        assert client.append(f'"{folder}"', f"({some})", "", text)[0] == "OK"
    for folder in FOLDERS:
        client.select(f'"{folder}"')
        _, (found,) = client.uid("SEARCH", "ALL")
        uids = found.decode().split()
        for uid in chance.sample(uids, len(uids) // 3):
            client.uid(
                "STORE", uid, chance.choice("+-") + "FLAGS.SILENT", f"({chance.choice(flags)})"
            )
        gone = ",".join(chance.sample(uids, len(uids) // 4))
        client.uid("STORE", gone, "+FLAGS.SILENT", r"(\Deleted)")
        client.expunge()
        client.uid("COPY", ",".join(uids[:5]), '"Work"')
    client.logout()
    client.process.wait()


def state_of(client: imaplib.IMAP4, folder: str) -> State:
    assert client.select(f'"{folder}"', readonly=True)[0] == "OK"
    (validity,) = client.response("UIDVALIDITY")[1]
    (following,) = client.response("UIDNEXT")[1]
    assert isinstance(validity, bytes)
    assert isinstance(following, bytes)
    _, data = client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    found = {}
    for piece in data:
        if isinstance(piece, tuple):
            match = _FETCH.search(piece[0])
            assert match is not None, piece
            flags = frozenset((match[2] or match[3] or b"").split()) - {rb"\Recent"}
            found[int(match[1] or match[4])] = (flags, piece[1])
    return validity, following, found


def seen_by(client: imaplib.IMAP4) -> tuple[dict[str, State], set[bytes]]:
    """Return the folders, and the lines that name the subscribed ones."""
    _, subscribed = client.lsub('""', "*")
    names = {
        line.rpartition(b"/")[0] and line.split(b'"/" ')[-1].strip(b'"') for line in subscribed
    }
    return {folder: state_of(client, folder) for folder in FOLDERS}, names


def test_client_finds_what_it_knows(directory: Path) -> None:
    make_mail(directory, 300, 1)
    dovecot = imaplib.IMAP4_stream(command(directory))
    before, subscribed = seen_by(dovecot)
    dovecot.logout()
    dovecot.process.wait()
    assert sum(len(messages) for _, _, messages in before.values()) > 200
    assert (
        len(
            {flag for _, _, them in before.values() for flags, _ in them.values() for flag in flags}
        )
        == 7
    )
    with serve_imap(directory) as server:
        client = server.client()
        after, now_subscribed = seen_by(client)
        client.logout()
    assert after == before
    assert subscribed == {folder.encode() for folder in FOLDERS if folder != "Spam"}
    assert now_subscribed == subscribed


@external("mbsync")
def test_mbsync_has_nothing_to_do(directory: Path) -> None:
    make_mail(directory, 60, 2)
    local = directory / "local"
    local.mkdir()
    state = directory / "sync"
    state.mkdir()

    def mbsync(account: str) -> str:
        rules = directory / "mbsyncrc"
        rules.write_text(
            f"""
IMAPAccount account
{account}

IMAPStore far
Account account

MaildirStore near
Path {local}/
Inbox {local}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Near
Remove Near
Expunge Near
Sync All
SyncState {state}/
CopyArrivalDate yes
"""
        )
        done = subprocess.run(
            ["mbsync", "-c", str(rules), "-V", "-a"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def files() -> list[tuple[str, bytes]]:
        paths = [path for path in local.rglob("*") if path.is_file()]
        return sorted((str(path), path.read_bytes()) for path in paths)

    # A tunnel is a socket, and Dovecot refuses that as its standard input.
    tunnel = directory / "tunnel.sh"
    tunnel.write_text(
        f"exec 3<&0; mkfifo {directory}/pipe; cat <&3 >{directory}/pipe &\n"
        f"{command(directory)} <{directory}/pipe | cat; kill $!; rm {directory}/pipe\n"
    )
    mbsync(f'Tunnel "exec sh {tunnel}"')
    before = files()
    assert sum("/cur/" in path or "/new/" in path for path, _ in before) > 30
    with serve_imap(directory) as server:
        certificate = directory / "certificate.pem"
        certificate.write_text(ssl.get_server_certificate(("127.0.0.1", server.port)))
        said = mbsync(
            f"Host 127.0.0.1\nPort {server.port}\nUser {ADDRESS}\nPass {PASSWORD}\n"
            f"SSLType IMAPS\nSystemCertificates no\nCertificateFile {certificate}"
        )
    assert files() == before
    assert "far side" in said
    assert re.search(r"Error|Warning|UIDVALIDITY", said) is None, said
