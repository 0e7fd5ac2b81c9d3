"""What the rows of `[imap]` mean for a session, beside the engine's limits.

Rules of this file: data, made once for a listener; what costs something is looked up here once.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from fastlisten.handlers.imap.capabilities import COMMANDS
from fastlisten.handlers.imap.engine.limits import Limits

__all__ = ["SessionRules", "engine_limits", "session_rules"]

#: The extensions that ENABLE knows (RFC 5161).
_ENABLED = ("CONDSTORE", "QRESYNC")


@dataclass(frozen=True, slots=True)
class SessionRules:
    """What holds for all sessions of a listener.

    Attributes:
        disabled: capabilities that are not announced.
        enabled: what ENABLE can enable.
        id_send: the answer to ID.
        id_log: fields of ID to log.
        login_attempts: failed logins after which a connection is closed.
        commands_before_login: commands after which it is closed if nobody has logged in.
        sessions_per_user: that an account may have from one address, 0 for any number.
        sessions_per_account: that it may have from all, 0 for any number.
        timeout_before_login: seconds that a client may be silent who has not logged in.
        idle_keep_alive: seconds between two notices in IDLE that we are still here, 0 for none.
        log_dialogue: commands and responses are logged.
        search_timeout: seconds that a SEARCH may take, 0 for any time.
    """

    disabled: frozenset[str]
    enabled: frozenset[str]
    id_send: Mapping[str, str]
    id_log: tuple[str, ...]
    login_attempts: int
    commands_before_login: int
    sessions_per_user: int
    sessions_per_account: int
    timeout_before_login: float
    idle_keep_alive: float
    search_timeout: float
    log_dialogue: bool

    def announced(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the capabilities that are announced; ``NAME=VALUE`` goes by its name."""
        if not self.disabled:
            return names
        return tuple(
            name
            for name in names
            if name not in self.disabled and name.partition("=")[0] not in self.disabled
        )


def session_rules(options: Mapping[str, Any]) -> SessionRules:
    """Return what a listener's options say."""
    disabled = frozenset(options["disabled-capabilities"])
    return SessionRules(
        disabled=disabled,
        enabled=frozenset(_ENABLED) - disabled,
        id_send={name: _ID[name]() for name in options["id-send"]},
        id_log=options["id-log"],
        login_attempts=options["login-attempts"],
        commands_before_login=options["max-commands-before-login"],
        sessions_per_user=options["sessions-per-user"] or 0,
        sessions_per_account=options["sessions-per-account"] or 0,
        timeout_before_login=options["timeout-before-login"],
        idle_keep_alive=options["idle-keep-alive"] or 0.0,
        search_timeout=options["search-timeout"] or 0.0,
        log_dialogue=options["log-dialogue"],
    )


def engine_limits(options: Mapping[str, Any], starttls: bool) -> Limits:
    """Return the engine's limits.

    Args:
        options: the listener's.
        starttls: clients may begin TLS by STARTTLS.
    """
    disabled = options["disabled-capabilities"]
    return Limits(
        max_command=options["max-line"],
        max_literal=options["max-literal"],
        max_command_before_login=options["max-line-before-login"],
        max_message_size=options["append-limit"],
        max_bad_commands=options["max-errors"],
        max_bad_before_login=options["max-errors-before-login"],
        disabled=frozenset(name for each in disabled for name in COMMANDS.get(each, ())),
        starttls=starttls,
        mechanisms=options["mechanisms"],
    )


_ID = {
    "name": lambda: "fastlisten",
    "version": lambda: version("fastlisten"),
    "vendor": lambda: "The fastlisten developers",
    "support-url": lambda: "https://pypi.org/project/fastlisten/",
    "os": platform.system,
    "os-version": platform.release,
}
