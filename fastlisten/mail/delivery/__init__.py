"""Delivery: one interface to the maildirs for every protocol.

    post_office       what all listeners of a process share: accounts, logins, storage
      storage         the maildirs, the spool, and the threads that write there
        delivery_queue  group commit: messages that are ready together share what can be shared
      mailbox_delivery  one message for mailboxes: recipients, replies
      message_writer    the same message on its way to the disk, driven from an event loop
      staged_message    the same message as files in tmp/ and new/, driven by a thread
        detail_folder   the folder that a detail of the address names
        mailbox_room    whether it fits into a mailbox that has a quota
      events          tells subscribers what has been delivered

`PostOffice` and `Delivered` are imported when somebody asks for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastlisten.mail.delivery.events import Delivered
    from fastlisten.mail.delivery.post_office import PostOffice

__all__ = ["Delivered", "PostOffice"]

_HOMES = {"Delivered": "events", "PostOffice": "post_office"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
