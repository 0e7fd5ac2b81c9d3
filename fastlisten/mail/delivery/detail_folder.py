"""The folder that ``alice+work@example.org`` is for: the one called work, if there is one.

Rules of this file: blocking; it looks and makes nothing. Senders and programs between change the
case of addresses, so it does not matter here unless two folders differ in nothing else. A dot may
stand for the separator of levels, which few clients let people type into an address.
"""

from __future__ import annotations

import contextlib
import os

from fastlisten.mail.maildir.folder_names import FolderNameError, directory_of
from fastlisten.mail.maildir.maildir import Maildir

__all__ = ["detail_folder"]


def detail_folder(maildir: Maildir, detail: str) -> Maildir:
    """Return the folder that a detail of an address names, else the inbox.

    Args:
        maildir: the account's.
        detail: what is behind the delimiter.
    """
    if detail.upper() == "INBOX":  # a directory of that name has no folder that clients call so
        return maildir
    with contextlib.suppress(FolderNameError):
        directory = f"{maildir.path}/{directory_of(detail)}"
        if os.path.isdir(f"{directory}/cur"):
            return Maildir(directory)
    wanted = detail.casefold()
    try:
        names = {name.casefold(): name for name in maildir.folders()}
    except OSError:
        return maildir
    for spelling in (wanted, wanted.replace(".", "/")):
        if spelling in names:
            return maildir.folder(names[spelling])
    return maildir
