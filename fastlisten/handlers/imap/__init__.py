"""imap: our own engine, and sessions that read the store.

The modules, from the listener down to the octets:

    settings               ports, timeouts, rows of `[imap]`; checks: what must hold between them
    handler                what all connections of a listener share
      session_rules        the rows as sessions use them
      capabilities         what is announced, before and after login
      engine_protocol      transport, flow control, STARTTLS
      connection_interface  what a connection, a session and the listener know of each other
      session              in which order commands are carried out, IDLE, and the end
        session_state      what it holds between commands
        session_commands   CAPABILITY, ID, ENABLE and so on
          login            LOGIN and AUTHENTICATE
        quota_commands     GETQUOTA, GETQUOTAROOT, SETQUOTA
        folder_commands    commands that name mailboxes
          mailbox_commands what LIST, LSUB, STATUS and CREATE say
          list_matching    patterns of names
          appending        APPEND
        selected_commands  commands about the selected mailbox
        selected_mailbox   what the session sees of a mailbox, and telling its changes
          message_sets     numbers and UIDs to places in it
          vanished         what was expunged before
        fetching           FETCH
          message_content  structure, header and sections of one message
        searching          SEARCH
        message_commands   STORE, EXPUNGE, COPY, MOVE
          message_flags    flags between protocol and store
        reasons            by which reason that is counted
        rejection          why a command is not carried out
      session_log          the log of sessions; dialogue_log: their commands and responses
      engine/              octets to commands, and responses to octets, without I/O

The public names are imported when somebody asks for them, so that reading a configuration loads no
event loop and no native module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlisten.handlers.imap.handler import ImapHandler

__all__ = ["ImapHandler"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.handler"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
