"""What asyncio's arguments `ssl`, `ssl_handshake_timeout` and `ssl_shutdown_timeout` mean.

Rules of this file: asyncio's checks, texts and defaults (base_events.py, sslproto.py and
constants.py of CPython); from them `TlsSettings`, made once and shared.
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

#: Settings kept per engine: a program has a context per certificate, not per connection, and one
#: that makes a context for each shall not be kept from freeing them.
KEPT = 16

_Key = tuple[ssl.SSLContext, float | None, float | None]
_shared: weakref.WeakKeyDictionary[Engine, dict[_Key, TlsSettings]] = weakref.WeakKeyDictionary()


def tls_of(
    context: ssl.SSLContext | None, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsSettings | None:
    """Return what the three arguments of `loop.create_server` mean; None: no TLS.

    Raises:
        TypeError: `ssl` is neither a context nor None.
        ValueError: a timeout without TLS, or one that is not positive.
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
    """Raise ValueError for a timeout that is not positive, in the words of asyncio.sslproto."""
    for name, value in (("handshake", handshake_timeout), ("shutdown", shutdown_timeout)):
        if value is not None and value <= 0:
            raise ValueError(f"ssl_{name}_timeout should be a positive number, got {value}")


def _make(
    context: ssl.SSLContext, handshake_timeout: float | None, shutdown_timeout: float | None
) -> TlsSettings:
    """Return settings for checked arguments; a timeout of None stands for asyncio's default."""
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
    """Return the settings that connections of one engine share, so that their handshakes count
    together."""
    kept = _shared.setdefault(engine, {})
    key = (context, handshake_timeout, shutdown_timeout)
    settings = kept.pop(key, None) or _make(*key)
    kept[key] = settings  # the latest used is the last
    if len(kept) > KEPT:
        del kept[next(iter(kept))]
    return settings
