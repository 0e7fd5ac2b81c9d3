"""One IMAP session: in which order the engine's events are carried out, and how that ends.

Rules of this file: one thing is carried out at a time, in a task if it has to wait; meanwhile the
connection hands out no event (`held_up`). What carries out a command is in session_commands.py,
folder_commands.py and selected_commands.py. The session knows no transport (engine_protocol.py has
it), and of mail only the store's interface.

In IDLE there is no task: the store calls back, and what has happened is told.
"""

from __future__ import annotations

import asyncio
import math
from inspect import CORO_CREATED, getcoroutinestate
from typing import TYPE_CHECKING, cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.imap.connection_interface import Connection, Services
from fastlisten.handlers.imap.dialogue_log import DialogueEngine
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    Cancelled,
    Copy,
    Event,
    Idle,
    IdleDone,
    Move,
    Noop,
    Refusal,
    Select,
    Status,
)
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.folder_commands import FOLDER_COMMANDS
from fastlisten.handlers.imap.quota_commands import QUOTA_COMMANDS
from fastlisten.handlers.imap.reasons import reason_of
from fastlisten.handlers.imap.rejection import (
    BrokenOffError,
    ClientGoneError,
    MailboxDeletedError,
    Rejected,
    code_of,
)
from fastlisten.handlers.imap.selected_commands import SELECTED_COMMANDS
from fastlisten.handlers.imap.session_commands import SESSION_COMMANDS
from fastlisten.handlers.imap.session_log import SessionLog
from fastlisten.handlers.imap.session_state import Commands, SessionState, Work
from fastlisten.handlers.transcript import transcript
from fastlisten.log_events import session_name
from fastlisten.mail.store.interface import StoreError

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["Session"]

#: What a client is told whose account has been changed.
CHANGED = "Account has been changed, please log in again", codes.EXPIRED

_COMMANDS: Commands = {
    **SESSION_COMMANDS,
    **QUOTA_COMMANDS,
    **FOLDER_COMMANDS,
    **SELECTED_COMMANDS,
}

#: Whose errors are about the mailbox that messages are put into.
_PUTTING = (AppendMessage, AppendEnd, Copy, Move)

#: The codes of logins that have failed.
_FAILURES = (codes.AUTHENTICATIONFAILED, codes.AUTHORIZATIONFAILED)

#: What Dovecot says, too.
STILL_HERE = status(b"*", b"OK", "Still here")

#: Commands before which is looked whether the account is still the one that was logged in to: what
#: clients say now and then, and what they begin to read or to store with.
_ADMITTED = (Noop, Idle, Select, Status, AppendMessage)


class Session(SessionState):
    """One session.

    Args:
        services: what the listener's sessions share.
        info: about the client.
    """

    __slots__ = ("_early", "_failures", "_idle_left", "_news", "_task")

    def __init__(self, services: Services, info: ConnectionInfo) -> None:
        super().__init__(services, info)
        self._task: asyncio.Task[None] | None = None
        self._news = False  # there was a notice that has not been looked into
        self._early = 0  # commands before login
        self._failures = 0  # of logins
        self._idle_left: float | None = None  # seconds until timeout.idle, while we say we are here

    # --- for the connection -------------------------------------------------------------------

    @property
    def session_log(self) -> SessionLog:
        """The listener's log."""
        return self.services.session_log

    @property
    def tls(self) -> TlsSettings | None:
        """How to start TLS."""
        return self.services.settings.tls

    @property
    def user_name(self) -> str:
        """The account that the client has logged in to, empty if none."""
        return "" if self.login is None else self.login.name

    @property
    def busy(self) -> bool:
        """Whether a command is being carried out, or a message comes."""
        return self.held_up() or self.engine.waiting or self.appending is not None

    def held_up(self) -> bool:
        """Return whether nothing may be executed for now."""
        return self._task is not None

    def connected(self, connection: Connection) -> None:
        """Begin: the client has been greeted."""
        self.connection = connection
        connection.idle_time = self.services.rules.timeout_before_login
        if isinstance(self.engine, DialogueEngine):
            info = self.info
            name = session_name(connection.session)
            self.engine.tell = transcript(info.listener, info.peer, info.port, name)

    def secured(self) -> None:
        """Go on over TLS, on another transport."""
        self.client().idle_time = self.services.rules.timeout_before_login

    def write_resumed(self) -> None:
        """Tell what has happened while the client did not read."""
        self._look()

    def end(self) -> None:
        """Give back everything: the last response has been given."""
        self._end_idle()
        self.drop_append()
        self.close_mailbox()
        if self.login is not None and self.account is not None:
            self.account = None
            self.services.close_account(self.login)
            self.services.end_session(self.login, self.info.peer)

    def disconnected(self) -> None:
        """Drop everything, the connection too: it is lost.

        What is being done goes on to its end, because it runs in threads: they would not be
        stopped, and what they open would be lost. Only a login, which may wait for long, is. A task
        that has not begun ends when it begins.
        """
        task, self.connection = self._task, None
        if task is None:
            self.end()
        elif self.login is not None or not _has_begun(task):
            self.services.run_to_its_end(task)
        else:
            task.cancel()
            self._task = None
            self.end()

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Carry out a command, or begin to."""
        if self.engine.condstore and not self.condstore:
            if isinstance(event, Select):
                self.condstore = True  # which says HIGHESTMODSEQ anyway, of the right mailbox
            else:
                self.condstore_begins()
        if isinstance(event, Refusal | Cancelled):
            if self.login is None:
                self._early += 1
            self.dialogue = None
            self._end_idle()
            self.drop_append()
            if isinstance(event, Refusal):
                self._count_rejection(event.code, event.bad)
                if event.unsaved and self.mailbox is not None:
                    self.mailbox.saved = ()
            return
        login = self.login
        if isinstance(event, _ADMITTED) and login and not self.services.admits(login):
            self.engine.bye(*CHANGED)
            return
        if login is None:
            self._early += 1
            if self._early > self.services.rules.commands_before_login:
                self.engine.bye("Too many commands before login", codes.LIMIT)
                return
        try:
            work = self._begin(event)
        except Rejected as error:
            self._reject(error)
            return
        if work is not None:
            self._start(work, event)

    def _begin(self, event: Event) -> Work | None:
        """Answer an event at once, or return what has to be done for that.

        Raises:
            Rejected: it is not carried out.
        """
        if isinstance(event, Idle):
            return self._begin_idle()
        if isinstance(event, IdleDone):
            self._end_idle()
            return self.tell_at_once("Idle completed.")
        return _COMMANDS[type(event)](self, event)

    def _start(self, work: Work, event: Event | None) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(work, event))

    async def _run(self, work: Work, event: Event | None) -> None:
        """Do something that waits; answer if it fails."""
        connection, engine = self.connection, self.engine
        if connection is None:  # lost before the task has begun
            work.close()
            self._task = None
            self.end()
            return
        try:
            await work
        except Rejected as error:
            self._reject(error)
        except StoreError as error:
            code = code_of(error, target=isinstance(event, _PUTTING))
            self._reject(Rejected(str(error), code))
        except MailboxDeletedError:
            engine.bye("Selected mailbox was deleted, have to disconnect")
        except ClientGoneError:
            pass
        except BrokenOffError:
            connection.abort("error")
        except Exception:
            connection.log_fault()
            self._reject(Rejected("Internal error", codes.SERVERBUG))
        self._task = None
        if self.connection is None:
            self.end()
            return
        self._look()
        connection.resume()

    def _reject(self, error: Rejected) -> None:
        engine = self.engine
        self.dialogue = None
        storing = self.appending is not None
        self.drop_append()
        if not engine.waiting:
            return  # nobody has asked: it is IDLE, and the next notice tries again
        kind = self._count_rejection(error.code, error.bad)
        if storing:
            self.session_log.counts.message("deferred" if kind == b"4" else "rejected")
        if error.bad:
            engine.bad(error.text, error.code)
        else:
            engine.no(error.text, error.code)
            if error.code in _FAILURES:
                self._failures += 1
                if self._failures >= self.services.rules.login_attempts:
                    engine.bye("Too many failed logins", codes.LIMIT)

    def _count_rejection(self, code: bytes, bad: bool) -> bytes:
        """Count a negative answer; return its class."""
        kind, reason = reason_of(code, bad=bad)
        self.session_log.counts.rejection(kind, reason)
        return kind

    # --- IDLE ---------------------------------------------------------------------------------

    async def _begin_idle(self) -> None:
        """Begin IDLE: from now on, what happens is told when it happens (RFC 2177)."""
        self.engine.accept()
        self._keep_alive()
        self.services.idling.add(self)
        if self.mailbox is None:
            return
        self.mailbox.folder.watch(self._noticed)
        await self.mailbox.tell(expunge=True)

    def _end_idle(self) -> None:
        self._news = False
        self.services.idling.discard(self)
        if self._idle_left is not None:
            self._idle_left = None
            if self.connection is not None:
                self.connection.idle_time = 0.0
        if self.mailbox is not None:
            self.mailbox.folder.watch(None)

    def _keep_alive(self) -> None:
        """Begin to say now and then that we are still here."""
        every, connection = self.services.rules.idle_keep_alive, self.client()
        if every:
            self._idle_left = connection.idle_time or math.inf
            connection.idle_time = min(every, self._idle_left)

    def idle_expired(self) -> bool:
        """Return whether the session goes on though the client has been silent."""
        left, connection = self._idle_left, self.connection
        if left is None or connection is None or not self.engine.idling:
            return False
        left -= connection.idle_time
        if left <= 0:
            return False
        self._idle_left = left
        if not connection.write_paused:
            self.engine.send(STILL_HERE)
            connection.write()
        connection.idle_time = min(self.services.rules.idle_keep_alive, left)
        return True

    def end_if_changed(self) -> None:
        """End IDLE, and the session, if the account is no more what was logged in to."""
        connection = self.connection
        if connection is None or self._task is not None or not self.engine.idling:
            if self._task is not None:  # it tells of something; and then it is our turn
                asyncio.get_running_loop().call_later(1.0, self.end_if_changed)
            return
        if self.login is not None and not self.services.admits(self.login):
            self.engine.bye(*CHANGED)
            connection.resume()

    def _noticed(self) -> None:
        self._news = True
        self._look()

    def _look(self) -> None:
        """Look into a notice, unless something is being carried out, or the client does not read.

        Both call this again when that is over.
        """
        connection, mailbox = self.connection, self.mailbox
        if not self._news or self._task is not None or mailbox is None or connection is None:
            return
        if connection.write_paused or not self.engine.idling:
            return
        transport = connection.transport
        if transport is None or transport.is_closing():
            return  # it would be told what is recent, instead of a session that goes on
        self._news = False
        self._start(mailbox.tell(expunge=True), None)


def _has_begun(task: asyncio.Task[None]) -> bool:
    return getcoroutinestate(cast(Work, task.get_coro())) != CORO_CREATED
