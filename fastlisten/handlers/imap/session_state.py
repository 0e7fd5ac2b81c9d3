"""What a session holds between commands, and what many commands do with it.

Rules of this file: state, and telling the client of it. Which command is carried out by what is
session.py's; the modules with the commands get this object and nothing else of the session.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.imap.appending import Appending
from fastlisten.handlers.imap.capabilities import after_login, before_login
from fastlisten.handlers.imap.connection_interface import Connection, Services
from fastlisten.handlers.imap.dialogue_log import DialogueEngine
from fastlisten.handlers.imap.engine.engine import ImapEngine
from fastlisten.handlers.imap.login import Dialogue
from fastlisten.handlers.imap.selected_mailbox import SelectedMailbox
from fastlisten.mail.accounts.roster import Account as LoginAccount
from fastlisten.mail.store.interface import Account

__all__ = ["Commands", "SessionState", "Work"]

Work = Coroutine[Any, Any, None]


class SessionState:
    """The state of one session.

    Args:
        services: what the listener's sessions share.
        info: about the client.

    Attributes:
        engine: the protocol.
        info: as given.
        services: as given.
        connection: None before its start and after its end.
        login: the account as it was when the client logged in; None before.
        account: its mail.
        mailbox: the one that is selected.
        appending: the APPEND whose messages come.
        dialogue: that of an AUTHENTICATE.
        condstore: the client has been told HIGHESTMODSEQ.
    """

    __slots__ = (
        "account",
        "appending",
        "condstore",
        "connection",
        "dialogue",
        "engine",
        "info",
        "login",
        "mailbox",
        "services",
    )

    def __init__(self, services: Services, info: ConnectionInfo) -> None:
        kind = DialogueEngine if services.rules.log_dialogue else ImapEngine
        self.engine = kind(services.limits, info.tls)
        self.info = info
        self.services = services
        self.connection: Connection | None = None
        self.login: LoginAccount | None = None
        self.account: Account | None = None
        self.mailbox: SelectedMailbox | None = None
        self.appending: Appending | None = None
        self.dialogue: Dialogue | None = None
        self.condstore = False

    # --- what the engine's states promise -----------------------------------------------------

    def client(self) -> Connection:
        """Return the connection; a command does not begin without."""
        assert self.connection is not None
        return self.connection

    def mail(self) -> Account:
        """Return the account's mail: the client has logged in."""
        assert self.account is not None
        return self.account

    def selected(self) -> SelectedMailbox:
        """Return the mailbox: one is selected."""
        assert self.mailbox is not None
        return self.mailbox

    # --- what several commands do -------------------------------------------------------------

    def capabilities(self) -> tuple[str, ...]:
        """Return what the client can use now."""
        limits = self.services.limits
        if self.login is not None:
            names = after_login(limits.max_message_size)
        else:
            names = before_login(
                limits.mechanisms, encrypted=self.engine.encrypted, starttls=limits.starttls
            )
        return self.services.rules.announced(names)

    async def tell(
        self, text: str, code: bytes = b"", *, expunge: bool = True, uid: bool = False
    ) -> None:
        """Say what has happened in the selected mailbox, if one is, and that a command is done.

        Args:
            text: of the tagged OK.
            code: its response code.
            expunge: messages may be said to be gone.
            uid: UIDs are to be said with flags.

        Raises:
            MailboxDeletedError: the mailbox is no more.
        """
        if self.mailbox is not None:
            await self.mailbox.tell(expunge=expunge, uid=uid)
        self.engine.ok(text, code)

    def tell_at_once(self, text: str) -> Work | None:
        """Say that a command is done; return what has to be done before, if there is something."""
        if self.mailbox is None or self.mailbox.is_current():
            self.engine.ok(text)
            return None
        return self.tell(text)

    def condstore_begins(self) -> None:
        """Say HIGHESTMODSEQ: the client has shown that it knows it (RFC 7162 3.1.2)."""
        self.condstore = True
        if self.mailbox is not None:
            self.mailbox.say_highest_modseq()

    def close_mailbox(self) -> None:
        """Select none."""
        if self.mailbox is not None:
            self.mailbox.folder.close()
            self.mailbox = None

    def drop_append(self) -> None:
        """Store none of the messages that have come."""
        if self.appending is not None:
            self.appending.drop()
            self.appending = None


#: What carries out commands, by the command's class: at once, or it returns what has to be awaited.
#: Both raise Rejected if the command is not carried out, and what is awaited StoreError too.
Commands = dict[type[Any], Callable[[SessionState, Any], Work | None]]
