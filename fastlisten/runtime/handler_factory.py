"""Makes the handler of a listener from the listener's settings.

Rules of this file: a handler that cannot be used is a mistake in the configuration and is reported
with the line that names it. Nothing is started here.
"""

from __future__ import annotations

from fastlisten._tls import TlsSettings
from fastlisten.config import Config, ListenerSettings
from fastlisten.errors import ConfigurationError, SettingError
from fastlisten.handlers.base import Handler, HandlerSettings
from fastlisten.handlers.importing import HandlerNotFoundError, named_handler
from fastlisten.handlers.registry import registered_handler
from fastlisten.mail.accounts.quota import Quota
from fastlisten.runtime.client_services import client_services
from fastlisten.runtime.control import Control
from fastlisten.runtime.handler_problem import handler_problem

__all__ = ["handler_kind", "handler_settings", "make_handler"]


def handler_kind(config: Config, settings: ListenerSettings) -> type[Handler]:
    """Return the class of a listener's handler.

    Raises:
        ConfigurationError: it cannot be found.
    """
    name = settings["handler"] or settings.definition.handler
    try:
        return named_handler(name) if name else registered_handler(settings.protocol)
    except HandlerNotFoundError as error:
        problem = handler_problem(config, settings, str(error))
        raise ConfigurationError([problem], config.warnings) from error


def handler_settings(
    config: Config,
    settings: ListenerSettings,
    starttls: TlsSettings | None = None,
    control: Control | None = None,
) -> HandlerSettings:
    """Return what the handler of a listener is given.

    Args:
        config: the whole configuration.
        settings: the listener's.
        starttls: settings for STARTTLS, None if it is not available.
        control: the server's control, for handlers that manage the server.
    """
    return HandlerSettings(
        listener=settings.id,
        protocol=settings.protocol,
        hostname=settings["hostname"],
        greeting=settings["greeting"],
        tls_implicit=settings["tls.implicit"],
        tls_available=starttls is not None,
        tls=starttls,
        port=next((bind.port for bind in settings.bind if bind.port), 0),
        data_directory=config.process["server.data-directory"],
        options=settings.handler_options,
        extra={
            "accounts": config.process["server.accounts"] or "",
            "postmaster": config.process["server.postmaster"] or "",
            "recipient-delimiter": config.process["server.recipient-delimiter"] or "",
            "quota": Quota(
                config.process["server.quota.bytes"], config.process["server.quota.messages"]
            ),
            "app": settings["app"],
            # Only there, because its change would make the handler of every listener again.
            "client-services": client_services(config) if _shows_services(settings) else (),
            "control": control,
        },
    )


def _shows_services(settings: ListenerSettings) -> bool:
    return settings.protocol == "http" and settings["http.autoconfig"] != "off"


def make_handler(
    config: Config,
    settings: ListenerSettings,
    kind: type[Handler] | None = None,
    given: HandlerSettings | None = None,
) -> Handler:
    """Make the handler of a listener.

    Args:
        config: the whole configuration.
        settings: the listener's.
        kind: the handler's class; None to look it up.
        given: what to give it; None: as `handler_settings`, without TLS and control.

    Raises:
        ConfigurationError: the handler cannot be found, rejects its settings or has none.
    """
    if kind is None:
        kind = handler_kind(config, settings)
    if given is None:
        given = handler_settings(config, settings)
    try:
        handler = kind(given)
    except SettingError as error:
        problem = handler_problem(config, settings, str(error), error.key)
        raise ConfigurationError([problem], config.warnings) from error
    except Exception as error:
        # Somebody else's code: its own message tells the administrator most.
        text = f"{kind.__name__} rejects its settings: {type(error).__name__}: {error}"
        problem = handler_problem(config, settings, text)
        raise ConfigurationError([problem], config.warnings) from error
    if not isinstance(getattr(handler, "settings", None), HandlerSettings):
        text = f"{kind.__name__} has no settings; its __init__ must call super().__init__(settings)"
    elif getattr(handler.connection, "__func__", None) is Handler.connection:
        text = f"{kind.__name__} cannot serve clients: it has no method connection()"
    else:
        return handler
    raise ConfigurationError([handler_problem(config, settings, text)], config.warnings)
