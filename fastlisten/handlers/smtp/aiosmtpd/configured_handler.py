"""The handler that the configuration names: `smtp.aiosmtpd-handler`, `smtp.aiosmtpd-args`.

Rules of this file: from settings to a served handler; nothing about connections. Errors name the
key that is to blame, and are found when the server is made if they can be. The class is imported
then; the handler itself is made on the running loop, so that it may ask for that loop.

The handler decides where mail goes: accounts, `relay` and the header fields of the server's own
delivery play no part. Where `role` is submission, clients log in by the handler's auth_* hooks if
it has any, else with the passwords of the accounts.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import shlex
from typing import Any, Literal, NoReturn

from fastlisten.handlers.base import ConnectionInfo, HandlerSettings, SettingError
from fastlisten.handlers.importing import explained
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_parameters import AiosmtpdParameters
from fastlisten.handlers.smtp.aiosmtpd.aiosmtpd_session import AiosmtpdSession
from fastlisten.handlers.smtp.aiosmtpd.served_handler import Authenticate, ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import AuthResult, LoginPassword
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.role import Role
from fastlisten.handlers.smtp.session_log import SessionLog
from fastlisten.handlers.smtp.settings import LMTP, SMTP
from fastlisten.mail.accounts import passwords
from fastlisten.mail.delivery.post_office import PostOffice
from fastlisten.mail.logins.logins import LoginsBusyError

__all__ = ["ConfiguredHandler"]

#: Options that have no effect with an aiosmtpd handler.
_WITHOUT_EFFECT = ("relay", "max-received", "sender-must-match")


class _Parser(argparse.ArgumentParser):
    """The parser for from_cli; it raises errors instead of ending the process."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


class ConfiguredHandler:
    """The aiosmtpd handler of one listener.

    Args:
        settings: the listener's; `aiosmtpd-handler` is set.
        role: the listener's.
        session_log: the listener's log.
        logs_dialogue: whether commands and replies are logged.

    Raises:
        SettingError: the class cannot be imported, or does not accept its arguments.
    """

    def __init__(
        self,
        settings: HandlerSettings,
        role: Role,
        session_log: SessionLog,
        logs_dialogue: bool,
    ) -> None:
        self._settings = settings
        self._submission = role == "submission"  # clients must authenticate
        self._logs_dialogue = logs_dialogue
        self._session_log = session_log
        protocol = LMTP if settings.protocol == "lmtp" else SMTP
        self._options = {row.key: row.default for row in protocol.options} | dict(settings.options)
        self._kind = self._load(self._options["aiosmtpd-handler"])
        self._arguments = self._split(self._options["aiosmtpd-args"] or "")
        if self._submission and not self._owns_auth and not passwords.available():
            message = (
                "users cannot log in without the package argon2-cffi "
                '(pip install "fastlisten[auth]") or auth_* methods of the handler'
            )
            raise self._error("role", message)
        self._served: ServedHandler | None = None

    def _error(self, key: str, message: str) -> SettingError:
        return SettingError(f"{self._settings.protocol}.{key}", message)

    def _load(self, name: str) -> Any:
        """Return the handler class, or function that makes the handler."""
        key = "aiosmtpd-handler"
        module, _, attribute = name.partition(":")
        if not (module and attribute):
            module, _, attribute = name.rpartition(".")
            raise self._error(key, f'write "package.module:Class", as in "{module}:{attribute}"')
        try:
            kind: Any = importlib.import_module(module)
            for part in attribute.split("."):
                kind = getattr(kind, part)
        except (ImportError, AttributeError) as error:
            raise self._error(key, f"{name}: {explained(error, module)}") from error
        except Exception as error:
            # The code of the module itself raised.
            text = f"importing {module} raised {type(error).__name__}: {error}"
            raise self._error(key, text) from error
        if not callable(kind):
            raise self._error(key, f"{name} is not a class")
        return kind

    def _split(self, text: str) -> list[str]:
        """Return the arguments, checked against the signature of the class."""
        key = "aiosmtpd-args"
        try:
            arguments = shlex.split(text)
        except ValueError as error:
            raise self._error(key, f"cannot be split into words: {error}") from error
        if not hasattr(self._kind, "from_cli"):
            try:
                inspect.signature(self._kind).bind(*arguments)
            except TypeError as error:
                name = self._options["aiosmtpd-handler"]
                raise self._error(key, f"{name} does not accept them: {error}") from error
        return arguments

    @property
    def _owns_auth(self) -> bool:
        """Whether the handler decides who may log in."""
        kind = self._kind
        return hasattr(kind, "handle_AUTH") or any(
            name.startswith("auth_") and callable(getattr(kind, name, None)) for name in dir(kind)
        )

    def notes(self) -> tuple[str, ...]:
        """Return which settings have no effect."""
        written = [
            f"{self._settings.protocol}.{key}"
            for key in _WITHOUT_EFFECT
            if key in self._settings.options
            and self._options[key] != next(row.default for row in SMTP.options if row.key == key)
        ]
        name = self._options["aiosmtpd-handler"]
        return tuple(f"{key} has no effect: {name} handles the mail" for key in written)

    def start(self, office: PostOffice) -> None:
        """Make the handler; call it on the loop that serves.

        Raises:
            SettingError: the handler cannot be made.
        """
        settings, options, kind = self._settings, self._options, self._kind
        asks_accounts = self._submission and not self._owns_auth
        try:
            from_cli = getattr(kind, "from_cli", None)
            if from_cli is None:
                handler = kind(*self._arguments)
            else:
                handler = from_cli(_Parser(add_help=False), *self._arguments)
            protocol: Literal["smtp", "lmtp"] = "lmtp" if settings.protocol == "lmtp" else "smtp"
            self._served = ServedHandler(
                handler,
                AiosmtpdParameters(
                    data_size_limit=options["max-message-size"],
                    enable_SMTPUTF8=True,
                    auth_required=self._submission,
                    max_recipients=options["max-recipients"],
                    max_errors=options["max-errors"],
                ),
                settings.hostname,
                protocol=protocol,
                tls=None if settings.tls_implicit else settings.tls,
                authenticate=_by_accounts(office, self._session_log) if asks_accounts else None,
                session_log=self._session_log,
                logs_dialogue=self._logs_dialogue,
            )
        except Exception as error:
            # Foreign code may raise anything; its message tells the administrator what to change.
            name = options["aiosmtpd-handler"]
            text = f"{settings.protocol}.aiosmtpd-handler = {name!r}: {type(error).__name__}: "
            if self._arguments:
                text += f"with {settings.protocol}.aiosmtpd-args = {options['aiosmtpd-args']!r}: "
            raise self._error("aiosmtpd-handler", text + str(error)) from error

    def stop(self) -> None:
        """Release the handler."""
        served, self._served = self._served, None
        if served is not None:
            served.close()

    def connection(self, info: ConnectionInfo) -> EngineProtocol:
        """Return the protocol object for one connection."""
        assert self._served is not None, "the handler has not been started"
        return EngineProtocol(AiosmtpdSession(self._served, info))


def _by_accounts(office: PostOffice, session_log: SessionLog) -> Authenticate:
    """Return an authenticator that verifies the passwords of accounts."""

    async def authenticate(
        server: Any, session: Any, envelope: Any, mechanism: str, given: Any
    ) -> Any:
        context = server._log_context
        try:
            name, password = given.login.decode(), given.password.decode()
            account = await office.logins.check(
                name, password, context.peer, context.listener, context.session, context.port
            )
        except UnicodeDecodeError:
            account = None
        except LoginsBusyError as error:
            session_log.login_deferred(context, str(error))
            message = "454 4.7.0 Temporary authentication failure; try again later"
            return AuthResult(success=False, handled=False, message=message)
        if account is None:
            return AuthResult(success=False, handled=False)
        session_log.logged_in(context, account.name)
        # The handler has no use for the password, so it does not get it.
        return AuthResult(success=True, auth_data=LoginPassword(account.name.encode(), b""))

    return authenticate
