"""`fastlisten account backup|restore`: copies of an account's mail, from the command line.

Rules of this file: where a copy goes to or comes from, and messages. What the caller names is
opened before this process becomes the owner of the data directory, who could perhaps not open it.
mail/store/backup.py and restore.py do the work.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, TextIO

from fastlisten.cli.account_mail import Place, opened, root_of
from fastlisten.cli.account_owner import owner_of, work_as_owner
from fastlisten.errors import FastlistenError
from fastlisten.mail.address import parse_mailbox
from fastlisten.mail.store import backup_forms
from fastlisten.mail.store.backup import back_up
from fastlisten.mail.store.restore import HasMailError
from fastlisten.mail.store.restore import restore as put_back
from fastlisten.mail.store.usage import catch_up, sums
from fastlisten.private_files import open_new

__all__ = ["backup", "restore"]


def backup(name: str, target: str, place: Place, out: TextIO) -> None:
    """Copy an account.

    Args:
        name: its address.
        target: a new file that ends with ``.tar``, a new or empty directory, or ``-``.
        place: where the account is.
        out: receives what was done, unless it receives the copy.

    Raises:
        FastlistenError, OSError, sqlite3.Error: it cannot be copied; nothing is left of the copy.
    """
    root = root_of(name, place)
    if not os.path.isdir(root):
        raise FastlistenError(f"{parse_mailbox(name).canonical} has no mail")
    with contextlib.ExitStack() as stack:
        sink: backup_forms.TarSink | backup_forms.DirectorySink
        file: IO[bytes] | None = None
        if target == "-":
            sink = backup_forms.TarSink(sys.stdout.buffer)
        elif target.endswith(".tar"):
            file = stack.enter_context(_new_file(target))
            sink = backup_forms.TarSink(file)
        else:
            sink = backup_forms.DirectorySink(stack.enter_context(_empty(target, place)))
        work_as_owner(place.directory)
        with opened(root) as index:
            done = back_up(index, sink)
        sink.close()
        if file is not None:
            file.flush()
            os.fsync(file.fileno())
    if target != "-":
        out.write(
            f"copied {done.messages} messages ({done.octets} bytes) in {done.folders} folders of "
            f"{parse_mailbox(name).canonical} to {target}\n"
        )


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[IO[bytes]]:
    """Make a file, which is removed again if the block fails; root may have made it for others."""
    above = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with open(open_new(path), "wb") as file:
            try:
                yield file
            except BaseException:
                os.ftruncate(file.fileno(), 0)  # it may be in a directory of root's
                with contextlib.suppress(OSError):
                    os.unlink(os.path.basename(path), dir_fd=above)
                raise
    finally:
        os.close(above)


@contextlib.contextmanager
def _empty(path: str, place: Place) -> Iterator[int]:
    """Return a descriptor of an empty directory, made if it is missing, for the mail's owner."""
    made = not os.path.isdir(path)
    if made:
        os.mkdir(path, 0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.listdir(fd):
            raise FastlistenError(f"{path} is not empty")
        owner = owner_of(place.directory)
        if made and owner is not None:
            os.fchown(fd, owner.uid, owner.gid)
        yield fd
    finally:
        os.close(fd)


def restore(name: str, source: str, place: Place, out: TextIO, *, force: bool = False) -> None:
    """Make an account's mail from a backup.

    Args:
        name: its address.
        source: a tar archive, a directory, or ``-``.
        place: where the account is.
        out: receives what was done.
        force: replace the mail that is there.

    Raises:
        FastlistenError, OSError, sqlite3.Error: it cannot be done; nothing has changed.
    """
    root = root_of(name, place, removed=False)
    canonical = parse_mailbox(name).canonical
    with contextlib.ExitStack() as stack:
        form: backup_forms.Source
        if source == "-":
            form = backup_forms.TarSource(sys.stdin.buffer)
        elif os.path.isdir(source):
            fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, fd)
            form = backup_forms.DirectorySource(fd)
        else:
            form = backup_forms.TarSource(stack.enter_context(open(source, "rb")))
        work_as_owner(place.directory)
        try:
            restored = put_back(root, form, force=force)
        except HasMailError:
            message = f"{canonical} has mail already: --force replaces it, and keeps it aside"
            raise FastlistenError(message) from None
        except backup_forms.NotABackupError as error:
            raise FastlistenError(f"{source} is no backup of an account: {error}") from error
    with opened(root) as index:
        catch_up(index)
        used = sums(index)
    out.write(f"restored {used.messages} messages of {canonical} from {source}\n")
    if restored.renumbered:
        out.write(
            f"clients fetch {restored.renumbered} folders again: the account has had mail here "
            "before, so their UIDVALIDITY is a new one\n"
        )
    if restored.before:
        out.write(f"the mail that was there before is in {restored.before}\n")
