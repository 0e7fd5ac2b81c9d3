"""One IMAP session: what the engine's events mean, and in which order they are answered.

Rules of this file: which command is carried out by what, and what the session holds between
commands: the login, the account, the selected mailbox, an APPEND, an AUTHENTICATE dialogue. It
knows no transport (engine_protocol.py has it), and of mail only the store's interface.

One thing is carried out at a time, in a task if it has to wait; meanwhile the connection hands out
no event (`held_up`). In IDLE there is no task: the store calls back, and what has happened is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.imap.appending import Appending
from fastlisten.handlers.imap.capabilities import after_login, before_login
from fastlisten.handlers.imap.connection_interface import Connection, Services
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.engine.commands import (
    AppendEnd,
    AppendMessage,
    AppendOctets,
    Authenticate,
    AuthenticateResponse,
    Cancelled,
    Capability,
    Check,
    Close,
    Copy,
    Create,
    Delete,
    Enable,
    Event,
    Expunge,
    Fetch,
    GetQuota,
    GetQuotaRoot,
    Id,
    Idle,
    IdleDone,
    List,
    Login,
    Logout,
    Lsub,
    Move,
    Namespace,
    Noop,
    Qresync,
    Refusal,
    Rename,
    Search,
    Select,
    SetQuota,
    Status,
    Store,
    Subscribe,
)
from fastlisten.handlers.imap.engine.engine import ImapEngine
from fastlisten.handlers.imap.engine.mailbox_responses import (
    NAMESPACE,
    capability_response,
    enabled_response,
    id_response,
)
from fastlisten.handlers.imap.engine.session_states import State
from fastlisten.handlers.imap.engine.status_responses import status
from fastlisten.handlers.imap.fetching import fetch
from fastlisten.handlers.imap.login import Dialogue, credentials_of, log_in
from fastlisten.handlers.imap.mailbox_commands import (
    create,
    list_mailboxes,
    list_subscribed,
    status_of,
)
from fastlisten.handlers.imap.message_commands import copy, expunge, move, store
from fastlisten.handlers.imap.message_sets import places_of
from fastlisten.handlers.imap.rejection import (
    BrokenOffError,
    ClientGoneError,
    MailboxDeletedError,
    Rejected,
    code_of,
)
from fastlisten.handlers.imap.searching import search
from fastlisten.handlers.imap.selected_mailbox import SelectedMailbox
from fastlisten.handlers.imap.session_log import SessionLog
from fastlisten.handlers.imap.vanished import vanished_earlier
from fastlisten.mail.accounts.roster import Account as LoginAccount
from fastlisten.mail.logins.sasl import Credentials
from fastlisten.mail.store.interface import Account, StoreError

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["Session"]

#: Extensions that ENABLE knows (RFC 5161).
_ENABLED = frozenset({"CONDSTORE", "QRESYNC"})

#: Whose errors are about the mailbox that messages are put into.
_PUTTING = (AppendMessage, AppendEnd, Copy, Move)

#: Commands before which is looked whether the account is still the one that was logged in to: what
#: clients say now and then, and what they begin to read or to store with.
_ADMITTED = (Noop, Idle, Select, Status, AppendMessage)

Work = Coroutine[Any, Any, None]


class Session:
    """One session.

    Args:
        services: what the listener's sessions share.
        info: about the client.

    Attributes:
        engine: the protocol.
        info: as given.
    """

    __slots__ = (
        "_account",
        "_appending",
        "_condstore",
        "_connection",
        "_dialogue",
        "_login",
        "_mailbox",
        "_news",
        "_services",
        "_task",
        "_unwatch",
        "engine",
        "info",
    )

    def __init__(self, services: Services, info: ConnectionInfo) -> None:
        self.engine = ImapEngine(services.limits, info.tls)
        self.info = info
        self._services = services
        self._connection: Connection | None = None  # None before its start and after its end
        self._login: LoginAccount | None = None
        self._account: Account | None = None
        self._mailbox: SelectedMailbox | None = None
        self._appending: Appending | None = None
        self._dialogue: Dialogue | None = None
        self._task: asyncio.Task[None] | None = None
        self._condstore = False  # the client has been told HIGHESTMODSEQ
        self._unwatch: list[Callable[[], None]] = []  # ends IDLE's notices
        self._news = False  # there was a notice that has not been looked into

    # --- for the connection -------------------------------------------------------------------

    @property
    def session_log(self) -> SessionLog:
        """The listener's log."""
        return self._services.session_log

    @property
    def tls(self) -> TlsSettings | None:
        """How to start TLS."""
        return self._services.settings.tls

    @property
    def user_name(self) -> str:
        """The account that the client has logged in to, empty if none."""
        return "" if self._login is None else self._login.name

    @property
    def busy(self) -> bool:
        """Whether a command is being carried out, or a message comes."""
        return self.held_up() or self.engine.waiting or self._appending is not None

    def held_up(self) -> bool:
        """Return whether nothing may be executed for now."""
        return self._task is not None

    def connected(self, connection: Connection) -> None:
        """Begin: the client has been greeted."""
        self._connection = connection

    def write_resumed(self) -> None:
        """Tell what has happened while the client did not read."""
        self._look()

    def end(self) -> None:
        """Give back everything: the last response has been given."""
        self._end_idle()
        self._drop_append()
        self._close_mailbox()
        if self._login is not None and self._account is not None:
            self._account = None
            self._services.close_account(self._login)

    def disconnected(self) -> None:
        """Drop everything, the connection too: it is lost.

        What is being done goes on to its end, because it runs in threads: they would not be
        stopped, and what they open would be lost. Only a login, which may wait for long, is.
        """
        task, self._connection = self._task, None
        if task is None:
            self.end()
        elif self._login is None:
            task.cancel()
            self._task = None
            self.end()
        else:
            self._services.run_to_its_end(task)

    def _drop_append(self) -> None:
        if self._appending is not None:
            self._appending.drop()
            self._appending = None

    def _close_mailbox(self) -> None:
        if self._mailbox is not None:
            self._mailbox.folder.close()
            self._mailbox = None

    # --- events -------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Carry out a command, or begin to."""
        if self.engine.condstore and not self._condstore:
            if isinstance(event, Select):
                self._condstore = True  # which says HIGHESTMODSEQ anyway, of the right mailbox
            else:
                self._condstore_begins()
        if isinstance(event, Refusal | Cancelled):
            self._dialogue = None
            self._end_idle()
            self._drop_append()
            if isinstance(event, Refusal) and event.unsaved and self._mailbox is not None:
                self._mailbox.saved = ()
            return
        login = self._login
        if isinstance(event, _ADMITTED) and login and not self._services.admits(login):
            self.engine.bye("Account has been changed, please log in again", codes.EXPIRED)
            return
        try:
            work = self._begin(event)
        except Rejected as error:
            self._reject(error)
            return
        if work is not None:
            self._task = asyncio.get_running_loop().create_task(self._run(work, event))

    def _condstore_begins(self) -> None:
        """Say HIGHESTMODSEQ: the client has shown that it knows it (RFC 7162 3.1.2)."""
        self._condstore = True
        if self._mailbox is not None:
            self._mailbox.say_highest_modseq()

    async def _run(self, work: Work, event: Event | None) -> None:
        """Do something that waits; answer if it fails."""
        connection, engine = self._connection, self.engine
        assert connection is not None
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
        if self._connection is None:
            self.end()
            return
        self._look()
        connection.resume()

    def _reject(self, error: Rejected) -> None:
        engine = self.engine
        self._dialogue = None
        self._drop_append()
        if not engine.waiting:
            return  # nobody has asked: it is IDLE, and the next notice tries again
        if error.bad:
            engine.bad(error.text, error.code)
        else:
            engine.no(error.text, error.code)

    def _begin(self, event: Event) -> Work | None:
        """Answer an event at once, or return what has to be done for that.

        Raises:
            Rejected: it is not carried out.
        """
        if isinstance(event, Fetch):
            return self._fetch(event)
        if isinstance(event, AppendOctets):
            appending = self._appending
            return None if appending is None else appending.add(event)
        if isinstance(event, Store):
            return self._store(event)
        if isinstance(event, Search):
            return self._search(event)
        if isinstance(event, Noop):
            return self._tell("NOOP completed.")
        if isinstance(event, Idle):
            return self._begin_idle()
        if isinstance(event, IdleDone):
            self._end_idle()
            return self._tell("Idle completed.")
        if isinstance(event, Select):
            return self._select(event)
        if isinstance(event, Expunge | Close | Copy | Move | Check):
            return self._begin_change(event)
        if isinstance(event, AppendMessage | AppendEnd):
            return self._begin_append(event)
        if isinstance(event, Login | Authenticate | AuthenticateResponse):
            return self._begin_login(event)
        return self._begin_other(event)

    def _begin_change(self, event: Expunge | Close | Copy | Move | Check) -> Work | None:
        if isinstance(event, Expunge):
            return self._expunge(event)
        if isinstance(event, Copy):
            return self._copy(event)
        if isinstance(event, Move):
            return self._move(event)
        if isinstance(event, Close):
            return self._close(event)
        return self._tell("Check completed.")

    def _begin_other(self, event: Event) -> Work | None:
        """Begin a command that has nothing to do with messages."""
        engine = self.engine
        if isinstance(event, Capability):
            engine.send(capability_response(self._capabilities()))
            engine.ok("Capability completed.")
        elif isinstance(event, Id):
            engine.send(id_response({"name": "fastlisten"}))
            engine.ok("ID completed.")
        elif isinstance(event, Namespace):
            engine.send(NAMESPACE)
            engine.ok("Namespace completed.")
        elif isinstance(event, Enable):
            names = [name for name in event.names if name in _ENABLED]
            engine.enable(frozenset(names))
            if engine.condstore and not self._condstore:
                self._condstore_begins()
            engine.send(enabled_response(names))
            engine.ok("Enabled.")
        elif isinstance(event, Logout):
            engine.ok("Logout completed.")
        elif isinstance(event, GetQuota | GetQuotaRoot | SetQuota):
            raise Rejected("Unknown command", bad=True)
        else:
            return self._about_mailboxes(event)
        return None

    def _capabilities(self) -> tuple[str, ...]:
        limits = self._services.limits
        if self._login is not None:
            return after_login(limits.max_message_size)
        return before_login(
            limits.mechanisms, encrypted=self.engine.encrypted, starttls=limits.starttls
        )

    # --- login --------------------------------------------------------------------------------

    def _begin_login(self, event: Login | Authenticate | AuthenticateResponse) -> Work | None:
        if isinstance(event, Login):
            return self._log_in(credentials_of(event.user, event.password))
        if isinstance(event, Authenticate):
            self._dialogue = Dialogue(event.mechanism)
            response = event.initial
        else:
            response = event.data
        assert self._dialogue is not None
        result = self._dialogue.step(response)
        if isinstance(result, Credentials):
            return self._log_in(result)
        self.engine.challenge(result)
        return None

    async def _log_in(self, credentials: Credentials) -> None:
        assert self._connection is not None
        login = await log_in(credentials, self._connection, self.info, self._services)
        self._dialogue = None
        self._account = self._services.open_account(login)
        self._login = login
        self.engine.ok("Logged in", codes.capability(self._capabilities()))

    # --- mailboxes ----------------------------------------------------------------------------

    def _mail(self) -> Account:
        assert self._account is not None
        return self._account

    async def _about_mailboxes(self, event: Event) -> None:
        engine, account = self.engine, self._mail()
        largest = self._services.limits.max_message_size
        if isinstance(event, List):
            engine.send(await list_mailboxes(account, event, largest))
            engine.ok("List completed.")
        elif isinstance(event, Lsub):
            engine.send(await list_subscribed(account, event))
            engine.ok("Lsub completed.")
        elif isinstance(event, Status):
            engine.send(await status_of(account, event.mailbox, event.items, largest))
            engine.ok("Status completed.")
        elif isinstance(event, Create):
            engine.ok("Create completed.", await create(account, event))
        elif isinstance(event, Delete):
            await self._delete(event.mailbox)
        elif isinstance(event, Rename):
            await account.rename(event.old, event.new)
            engine.ok("Rename completed.")
        elif isinstance(event, Subscribe):
            await account.subscribe(event.mailbox, event.subscribed)
            engine.ok("Subscribe completed." if event.subscribed else "Unsubscribe completed.")
        else:
            raise AssertionError(f"unexpected {event}")

    async def _delete(self, name: str) -> None:
        """Delete a mailbox; if it is the selected one, none is selected any more."""
        account, mailbox, engine = self._mail(), self._mailbox, self.engine
        selected = mailbox is not None and (
            (await account.status(name)).mailbox_id == mailbox.folder.mailbox_id
        )
        await account.delete(name)
        if selected:
            self._close_mailbox()
            engine.send(status(b"*", b"OK", "Selected mailbox was deleted.", codes.CLOSED))
        engine.ok("Delete completed.")
        if selected:
            engine.state = State.AUTHENTICATED

    async def _select(self, event: Select) -> None:
        assert self._connection is not None
        engine = self.engine
        self._close_mailbox()
        if event.closed:
            engine.send(status(b"*", b"OK", "Previous mailbox closed.", codes.CLOSED))
        folder = await self._mail().open(event.mailbox, read_only=event.read_only)
        mailbox = SelectedMailbox(folder, self._connection)
        try:
            await mailbox.greet()
            if event.qresync is not None:
                await self._resynchronise(mailbox, event.qresync)
        except BaseException:
            folder.close()
            raise
        self._mailbox = mailbox
        if event.read_only:
            engine.ok("Examine completed.", codes.READ_ONLY)
        else:
            engine.ok("Select completed.", codes.READ_WRITE)

    async def _resynchronise(self, mailbox: SelectedMailbox, known: Qresync) -> None:
        """Say what has happened since a client was here last (RFC 7162 3.2.5)."""
        folder = mailbox.folder
        if known.uidvalidity != folder.uidvalidity:
            return
        changes = await folder.changes(known.modseq)
        self.engine.send(vanished_earlier(changes, folder.uids(), known.known_uids))
        states = sorted((*changes.changed, *changes.arrived), key=lambda one: one.uid)
        if known.known_uids is not None:
            uids = [one.uid for one in states]
            wanted = places_of(known.known_uids, uids, (), uid=True)
            states = [states[place] for one in wanted for place in one]
        await mailbox.say_changed(states, uid=True)

    async def _close(self, event: Close) -> None:
        mailbox = self._selected()
        code = b""
        if event.expunge and not mailbox.folder.read_only:
            await expunge(Expunge(), mailbox)
            if self.engine.condstore:
                # RFC 7162 3.2.8: the client was not told what is gone, but that something is.
                await mailbox.folder.sync()
                code = codes.highest_modseq(mailbox.folder.highestmodseq)
        self._close_mailbox()
        self.engine.ok("Close completed." if event.expunge else "Unselect completed.", code)

    # --- messages -----------------------------------------------------------------------------

    def _selected(self) -> SelectedMailbox:
        assert self._mailbox is not None
        return self._mailbox

    async def _tell(
        self, text: str, code: bytes = b"", *, expunge: bool = True, uid: bool = False
    ) -> None:
        """Say what has happened in the selected mailbox, if one is, and that a command is done."""
        if self._mailbox is not None:
            await self._mailbox.tell(expunge=expunge, uid=uid)
        self.engine.ok(text, code)

    async def _fetch(self, event: Fetch) -> None:
        assert self._connection is not None
        if await fetch(event, self._selected(), self._connection):
            await self._tell("Fetch completed.", expunge=event.uid, uid=event.uid)
        else:
            text = "Some messages were already expunged."
            await self._tell(text, codes.EXPUNGEISSUED, expunge=event.uid, uid=event.uid)

    async def _store(self, event: Store) -> None:
        assert self._connection is not None
        code = await store(event, self._selected(), self._connection)
        text = "Conditional store failed." if code else "Store completed."
        await self._tell(text, code, expunge=event.uid, uid=event.uid)

    async def _search(self, event: Search) -> None:
        assert self._connection is not None
        await search(event, self._selected(), self._connection)
        await self._tell("Search completed.", expunge=event.uid, uid=event.uid)

    async def _expunge(self, event: Expunge) -> None:
        mailbox = self._selected()
        await expunge(event, mailbox)
        await mailbox.tell(expunge=True)
        code = b""
        if "QRESYNC" in self.engine.enabled:  # RFC 7162 3.2.7
            code = codes.highest_modseq(mailbox.folder.highestmodseq)
        self.engine.ok("Expunge completed.", code)

    async def _copy(self, event: Copy) -> None:
        code = await copy(event, self._selected())
        await self._tell("Copy completed.", code, uid=event.uid)

    async def _move(self, event: Move) -> None:
        assert self._connection is not None
        await move(event, self._selected(), self._connection)
        code = b""
        mailbox = self._selected()
        await mailbox.tell(expunge=True, uid=event.uid)
        if "QRESYNC" in self.engine.enabled:  # RFC 7162 3.2.9
            code = codes.highest_modseq(mailbox.folder.highestmodseq)
        self.engine.ok("Move completed.", code)

    # --- APPEND -------------------------------------------------------------------------------

    def _begin_append(self, event: AppendMessage | AppendEnd) -> Work:
        assert self._connection is not None
        if isinstance(event, AppendEnd):
            return self._end_append()
        if self._appending is None:
            self._appending = Appending(self._mail(), self._connection, self._services)
        return self._appending.begin(event)

    async def _end_append(self) -> None:
        assert self._appending is not None
        code = await self._appending.end()
        self._appending = None
        await self._tell("Append completed.", code)

    # --- IDLE ---------------------------------------------------------------------------------

    async def _begin_idle(self) -> None:
        """Begin IDLE: from now on, what happens is told when it happens (RFC 2177)."""
        self.engine.accept()
        if self._mailbox is None or self._login is None:
            return
        self._unwatch = [
            self._mail().watch(self._noticed),
            self._services.watch_deliveries(self._login, self._noticed),
        ]
        await self._mailbox.tell(expunge=True)

    def _end_idle(self) -> None:
        self._news = False
        unwatch, self._unwatch = self._unwatch, []
        for end in unwatch:
            end()

    def _noticed(self) -> None:
        self._news = True
        self._look()

    def _look(self) -> None:
        """Look into a notice, unless something is being carried out, or the client does not read.

        Both call this again when that is over.
        """
        connection, mailbox = self._connection, self._mailbox
        if not self._news or self._task is not None or mailbox is None or connection is None:
            return
        if connection.write_paused or not self.engine.idling:
            return
        self._news = False
        work = mailbox.tell(expunge=True)
        self._task = asyncio.get_running_loop().create_task(self._run(work, None))
