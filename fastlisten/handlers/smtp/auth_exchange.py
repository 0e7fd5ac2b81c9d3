"""One AUTH exchange (RFC 4954): the mechanism's steps, and the password in the background.

Rules of this file: an object for one AUTH command. A failure of the code must neither leave a
client without an answer nor keep its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine_user import EngineConnection
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.log_events import session_name
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.logins.logins import Logins, LoginsBusyError
from fastlisten.mail.logins.sasl import Credentials, SaslError, mechanism

__all__ = ["AuthExchange", "refusal_of"]

_INVALID_CREDENTIALS = reply(535, "5.7.8", "Authentication credentials invalid")
_LOGINS_BUSY = reply(454, "4.7.0", "Temporary authentication failure; try again later")
_INTERNAL_ERROR = reply(451, "4.3.0", "Internal error; try again later")


def refusal_of(error: SaslError) -> bytes:
    """Return the reply to a response that no password is verified for (RFC 4954 6)."""
    if error.malformed:
        return reply(501, "5.5.2", error.text)
    return reply(535, "5.7.8", error.text)


class AuthExchange:
    """The exchange, from AUTH to its last reply.

    Args:
        connection: the client's.
        info: about the client.
        mechanism_name: one that the engine offers.
        logins: verify the password.
        session_log: the listener's.
        ended: called at the end, before the reply: with the account if the password is right.
    """

    __slots__ = (
        "_connection",
        "_ended",
        "_info",
        "_logins",
        "_mechanism",
        "_session_log",
        "_task",
    )

    def __init__(
        self,
        connection: EngineConnection,
        info: ConnectionInfo,
        mechanism_name: str,
        logins: Logins,
        session_log: SessionLog,
        ended: Callable[[Account | None], None],
    ) -> None:
        self._connection = connection
        self._info = info
        self._mechanism = mechanism(mechanism_name)
        self._logins = logins
        self._session_log = session_log
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    def step(self, response: bytes | None) -> None:
        """Answer AUTH, or a response to a challenge; None: there is no initial response."""
        engine = self._connection.engine
        try:
            result = self._mechanism.step(response)
        except SaslError as error:
            self._ended(None)
            engine.reject(refusal_of(error))
            return
        if isinstance(result, Credentials):
            self._task = asyncio.get_running_loop().create_task(self._work(result))
        else:
            engine.challenge(result)

    def abort(self) -> None:
        """Drop it: the client is gone."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _work(self, credentials: Credentials) -> None:
        connection = self._connection
        try:
            await self._log_in(credentials)
        except Exception:
            connection.log_fault()
            self._ended(None)
            if connection.transport is not None and connection.engine.waiting:
                connection.engine.reject(_INTERNAL_ERROR)
        self._task = None
        connection.resume()

    async def _log_in(self, credentials: Credentials) -> None:
        """Verify the password, and answer."""
        connection, info = self._connection, self._info
        try:
            account = await self._logins.check(
                credentials.name,
                credentials.password,
                info.peer,
                info.listener,
                session_name(connection.session),
                info.port,
            )
        except LoginsBusyError as error:
            self._session_log.login_deferred(connection.log_context(), str(error))
            self._ended(None)
            connection.engine.reject(_LOGINS_BUSY)
            return
        self._ended(account)
        if account is None:
            connection.engine.reject(_INVALID_CREDENTIALS)
            return
        self._session_log.logged_in(connection.log_context(), account.name)
        connection.engine.accept()
