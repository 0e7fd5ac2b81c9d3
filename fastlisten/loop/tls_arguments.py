"""`TlsSettings` from asyncio's arguments `ssl`, `ssl_handshake_timeout`, `ssl_shutdown_timeout`.

Rules of this file: checks, error messages and defaults are asyncio's (base_events.py, sslproto.py
and constants.py of CPython).
"""

from __future__ import annotations

import ssl
import weakref

from fastlisten._core import Engine
from fastlisten._tls import TlsSettings

__all__ = ["check_timeouts", "shared_settings", "tls_of"]

#: Seconds; asyncio.constants.SSL_HANDSHAKE_TIMEOUT and SSL_SHUTDOWN_TIMEOUT.
HANDSHAKE_TIMEOUT = 60.0
SHUTDOWN_TIMEOUT = 30.0

#: How many settings to keep per engine. A program usually has a context per certificate. If it
#: makes one per connection, only this many are kept alive.
KEPT = 16

_Key = tuple[ssl.SSLContext, float | None, float | None]
_shared: weakref.WeakKeyDictionary[Engine, dict[_Key, TlsSettings]] = weakref.WeakKeyDictionary()


def tls_of(
    context: ssl.SSLContext | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsSettings | None:
    """Return the settings for the three arguments of `loop.create_server`; None without TLS.

    Raises:
        TypeError: `ssl` is neither a context nor None.
        ValueError: a timeout is given without `ssl`, or is not positive.
    """
    if isinstance(context, bool):
        raise TypeError("ssl argument must be an SSLContext or None")
    if handshake_timeout is not None and not context:
        raise ValueError("ssl_handshake_timeout is only meaningful with ssl")
    if shutdown_timeout is not None and not context:
        raise ValueError("ssl_shutdown_timeout is only meaningful with ssl")
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise TypeError("ssl argument must be an SSLContext or None")
    check_timeouts(handshake_timeout, shutdown_timeout)
    return None if context is None else _make(context, handshake_timeout, shutdown_timeout)


def check_timeouts(handshake_timeout: float | None, shutdown_timeout: float | None) -> None:
    """Raise ValueError for a timeout that is not positive, as asyncio.sslproto does."""
    for name, value in (("handshake", handshake_timeout), ("shutdown", shutdown_timeout)):
        if value is not None and value <= 0:
            raise ValueError(f"ssl_{name}_timeout should be a positive number, got {value}")


def _make(
    context: ssl.SSLContext, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsSettings:
    """Return settings for arguments that have been checked; None means asyncio's default."""
    return TlsSettings(
        context,
        handshake_timeout=HANDSHAKE_TIMEOUT if handshake_timeout is None else handshake_timeout,
        shutdown_timeout=SHUTDOWN_TIMEOUT if shutdown_timeout is None else shutdown_timeout,
    )


def shared_settings(
    engine: Engine,
    context: ssl.SSLContext,
    handshake_timeout: float | None,
    shutdown_timeout: float | None,
) -> TlsSettings:
    """Return settings that are shared by an engine's connections with the same arguments, so that
    their failed handshakes are counted together."""
    kept = _shared.setdefault(engine, {})
    key = (context, handshake_timeout, shutdown_timeout)
    settings = kept.pop(key, None) or _make(*key)
    kept[key] = settings  # the most recently used is the last
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
    return settings
