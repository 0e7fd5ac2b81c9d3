"""What the server says that it can do (RFC 3501 6.1.1).

Rules of this file: names, and when they are said. A name stands here only if all of what it means
works.
"""

from __future__ import annotations

__all__ = ["CAN_BE_DISABLED", "COMMANDS", "after_login", "before_login"]

_ALWAYS = ("IMAP4rev1", "SASL-IR", "LITERAL+", "ID", "ENABLE", "IDLE")

_AFTER_LOGIN = (
    "NAMESPACE", "UIDPLUS", "MOVE", "UNSELECT", "CHILDREN", "LIST-EXTENDED", "LIST-STATUS",
    "SPECIAL-USE", "CREATE-SPECIAL-USE", "STATUS=SIZE", "ESEARCH", "SEARCHRES", "CONDSTORE",
    "QRESYNC", "OBJECTID", "WITHIN", "MULTIAPPEND", "QUOTA", "QUOTA=RES-STORAGE",
    "QUOTA=RES-MESSAGE",
)  # fmt: skip

#: What `imap.disabled-capabilities` may name: not what a client needs to log in at all.
CAN_BE_DISABLED = (*_ALWAYS[1:], *_AFTER_LOGIN, "APPENDLIMIT")

#: The commands that only a capability brings.
COMMANDS = {
    "ID": ("ID",),
    "ENABLE": ("ENABLE",),
    "IDLE": ("IDLE",),
    "NAMESPACE": ("NAMESPACE",),
    "UIDPLUS": ("UID EXPUNGE",),
    "MOVE": ("MOVE", "UID MOVE"),
    "UNSELECT": ("UNSELECT",),
    "QUOTA": ("GETQUOTA", "GETQUOTAROOT", "SETQUOTA"),
}


def before_login(
    mechanisms: tuple[str, ...], *, encrypted: bool, starttls: bool
) -> tuple[str, ...]:
    """Return the capabilities before login.

    Args:
        mechanisms: what AUTHENTICATE takes.
        encrypted: the session runs over TLS; else nobody can log in (RFC 3501 11.2).
        starttls: it could.
    """
    if encrypted:
        return (*_ALWAYS, *(f"AUTH={name}" for name in mechanisms))
    return (*_ALWAYS, *(("STARTTLS",) if starttls else ()), "LOGINDISABLED")


def after_login(max_message_size: int) -> tuple[str, ...]:
    """Return the capabilities after login.

    Args:
        max_message_size: of a message of APPEND, in octets (RFC 7889).
    """
    return (*_ALWAYS, *_AFTER_LOGIN, f"APPENDLIMIT={max_message_size}")
