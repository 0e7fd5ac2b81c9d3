"""Checks the files that `serve` would open: a relay's CAs, and the accounts.

Rules of this file: it reads files and changes nothing. If `serve` would refuse to start, that is an
error; accounts that cannot be used are a warning, because `serve` starts and defers mail.
"""

from __future__ import annotations

from fastlisten.config import Config, ListenerSettings
from fastlisten.config.notation import quote
from fastlisten.errors import ConfigurationError, Problem, SettingError
from fastlisten.mail.accounts.accounts_file import parse_file
from fastlisten.mail.accounts.roster import Roster, read_accounts
from fastlisten.runtime.handler_problem import handler_problem

__all__ = ["check_files"]


def check_files(config: Config) -> tuple[list[Problem], list[str]]:
    """Return problems with the files that a configuration names, and warnings."""
    own = [each for each in config.listeners if not each["handler"] and _is_ours(each)]
    problems: dict[Problem, None] = {}  # without repetitions for listeners that share a file
    for settings in own:
        if settings.protocol == "smtp":
            problems.update(_try_relay(config, settings))
    warnings: list[str] = []
    if any(_delivers(settings) for settings in own):
        try:
            roster = _accounts(config.process["server.accounts"])
        except (OSError, ConfigurationError) as error:
            warnings += _deferred(config.process["server.accounts"], error)
        else:
            problems.update(_try_postmaster(config, roster))
    return list(problems), warnings


def _is_ours(settings: ListenerSettings) -> bool:
    """Tell whether this package serves a listener; another one may replace smtp."""
    return settings.definition.handler.startswith("fastlisten.")


def _delivers(settings: ListenerSettings) -> bool:
    """Tell whether a listener delivers to accounts."""
    name = settings.protocol
    return name in ("smtp", "lmtp") and settings[f"{name}.aiosmtpd-handler"] is None


def _try_relay(config: Config, settings: ListenerSettings) -> dict[Problem, None]:
    if settings["smtp.relay"] is None:
        return {}
    # It loads asyncio, which a configuration without a relay can be checked without.
    from fastlisten.mail.relay.relay import Relay, relay_of

    relay = relay_of(settings.handler_options, settings["hostname"])
    if relay is not None:
        try:
            Relay(relay)
        except SettingError as error:
            return {handler_problem(config, settings, str(error), error.key): None}
    return {}


def _accounts(path: str) -> Roster | None:
    """Return the accounts, None if there is no file yet; `account add` creates it."""
    try:
        return parse_file(read_accounts(path), path)
    except FileNotFoundError:
        return None


def _deferred(path: str, error: OSError | ConfigurationError) -> list[str]:
    if isinstance(error, OSError):
        return [f"{path} cannot be read: {error.strerror}; mail is deferred until this is fixed"]
    return [
        f"{path} cannot be used; mail is deferred until this is fixed",
        *map(str, error.problems),
    ]


def _try_postmaster(config: Config, roster: Roster | None) -> dict[Problem, None]:
    name = config.process["server.postmaster"]
    if not name or roster is None or roster.login(name) is not None:
        return {}
    message = f"{config.process['server.accounts']} has no account of this name"
    return {config.problem(("server", "postmaster"), message, quote(name)): None}
