"""LOGIN and AUTHENTICATE: from the client's octets to an account.

Rules of this file: an object for one attempt. Passwords are verified by mail/logins, which bounds
and logs wrong ones; that they come over TLS only is up to the engine. A master (accounts.toml) logs
in to another account as Dovecot has it: ``user*master`` with the master's password, or PLAIN with
the user as authorization identity.
"""

from __future__ import annotations

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.imap.connection_interface import Connection, Services
from fastlisten.handlers.imap.engine import response_codes as codes
from fastlisten.handlers.imap.rejection import Rejected
from fastlisten.log_events import session_name
from fastlisten.mail.accounts.roster import Account
from fastlisten.mail.logins.logins import LoginsBusyError
from fastlisten.mail.logins.sasl import Credentials, SaslError, mechanism

__all__ = ["Dialogue", "credentials_of", "log_in"]

_FAILED = "Authentication failed."


def credentials_of(user: bytes, password: bytes) -> Credentials:
    """Return the arguments of LOGIN.

    Raises:
        Rejected: they can be no name and password.
    """
    try:
        name, secret = user.decode(), password.decode()
    except UnicodeDecodeError:
        raise Rejected(_FAILED, codes.AUTHENTICATIONFAILED) from None
    if not name or not secret or "\0" in name + secret:
        raise Rejected(_FAILED, codes.AUTHENTICATIONFAILED)
    return Credentials(name, secret)


class Dialogue:
    """The dialogue of AUTHENTICATE.

    Args:
        name: of the mechanism, one that is offered.
    """

    __slots__ = ("_mechanism",)

    def __init__(self, name: str) -> None:
        self._mechanism = mechanism(name, acting=True)

    def step(self, response: bytes | None) -> bytes | Credentials:
        """Return the challenge that answers a response (None: there is none yet), or the end.

        Raises:
            Rejected: no password is verified for it.
        """
        try:
            return self._mechanism.step(response)
        except SaslError as error:
            if error.malformed:
                raise Rejected(error.text, bad=True) from None
            raise Rejected(error.text, codes.AUTHORIZATIONFAILED) from None


async def log_in(
    credentials: Credentials, connection: Connection, info: ConnectionInfo, services: Services
) -> Account:
    """Return the account that a name and its password are of.

    Raises:
        Rejected: they are wrong, cannot be verified now, or the account has too many sessions.
    """
    logins = services.logins
    user, name = credentials.user, credentials.name
    if user and not logins.has_masters:
        text = "Authorization identity must be empty or match the user name"
        raise Rejected(text, codes.AUTHORIZATIONFAILED)
    if not user:
        user, name = logins.split(name)
    try:
        account = await logins.check(
            name,
            credentials.password,
            info.peer,
            info.listener,
            session_name(connection.session),
            info.port,
            user,
        )
    except LoginsBusyError as error:
        services.session_log.login_deferred(connection.log_context(), str(error))
        text = "Temporary authentication failure; try again later"
        raise Rejected(text, codes.UNAVAILABLE) from error
    if account is None:
        services.session_log.counts.login("failed")
        raise Rejected(_FAILED, codes.AUTHENTICATIONFAILED)
    refused = services.admit_session(account, info.peer)
    if refused:
        text = f"Maximum number of connections from {refused}"
        services.session_log.login_deferred(connection.log_context(), text)
        raise Rejected(text, codes.LIMIT)
    master = account.by.name if account.by is not None else ""
    services.session_log.logged_in(connection.log_context(), account.name, master)
    return account
