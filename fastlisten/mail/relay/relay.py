"""The relay of a listener: its address, its TLS and login, and the limits on sessions with it.

Rules of this file: settings, TLS contexts and the limits on sessions; SMTP is in session.py.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastlisten.addresses import is_loopback, with_port
from fastlisten.errors import SettingError
from fastlisten.files import read_file
from fastlisten.mail.user_sessions import UserSessions

__all__ = ["SESSIONS", "SESSIONS_OF_USER", "Relay", "RelaySettings", "relay_of", "share_sessions"]

#: The most sessions with relays, over all workers; further ones wait. Relays limit the sessions of
#: each client too: Postfix refuses the 51st.
SESSIONS = 50

#: How many of these one user may have with a relay, over all workers, so that one stolen password
#: does not keep all other users from sending.
SESSIONS_OF_USER = 10

#: Seconds that relays get to answer QUIT when the server stops: a relay that hangs must not delay
#: that.
LAST_QUIT_TIMEOUT = 1.0

#: Seconds until the next attempt when the other workers have all sessions. Nobody is told when one
#: ends, because they are seldom that many.
_LOOK_AGAIN = 0.05

# A semaphore belongs to a loop; a process has one loop for serving, tests have several.
_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)


class SharedPlaces(Protocol):
    """Counts the sessions of all workers (`fastlisten._arena.Places`)."""

    @property
    def held(self) -> int:
        """How many this process has."""

    def take(self) -> bool:
        """Count another one; false if there are as many as may be."""

    def give(self) -> None:
        """Count one less."""


_shared: SharedPlaces | None = None
_shared_users: UserSessions | None = None


def share_sessions(places: SharedPlaces | None, users: UserSessions | None = None) -> None:
    """Count the sessions of this process together with those of other workers.

    Args:
        places: of `SESSIONS`; None to count no longer.
        users: of users; None to count no longer.
    """
    global _shared, _shared_users
    _shared, _shared_users = places, users


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """A relay's address, and how to connect to it.

    Attributes:
        host: its name, its IP address, or the path of its Unix socket.
        port: its port, 0 for a Unix socket.
        tls: `verify`, `implicit`, `may` or `none`, as `smtp.relay-tls` explains them.
        hostname: our name for EHLO.
        user: the name to log in with; empty to not log in.
        password: the password to log in with.
        ca: a PEM file of certificate authorities; empty for those of the host.
        timeout: seconds to wait, as `smtp.relay-timeout` explains.
    """

    host: str
    port: int
    tls: str
    hostname: str
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    timeout: float = 60.0

    def __str__(self) -> str:
        if not self.port:
            return f"unix:{self.host}"
        return with_port(self.host, self.port)

    @property
    def is_on_this_host(self) -> bool:
        """Whether the relay is on this host, so that a password may be sent in plain text."""
        return not self.port or self.host == "localhost" or is_loopback(self.host)


def relay_of(values: Mapping[str, Any], hostname: str) -> RelaySettings | None:
    """Return the relay that a listener's options describe, None if it has none."""
    endpoint = values["relay"]
    if endpoint is None:
        return None
    user = values["relay-user"] or ""
    tls = values["relay-tls"] or ("none" if not endpoint.port else "verify" if user else "may")
    return RelaySettings(
        host=endpoint.host,
        port=endpoint.port,
        tls=tls,
        hostname=hostname,
        user=user,
        password=values["relay-password"] or "",
        ca=values["relay-ca"] or "",
        timeout=values["relay-timeout"],
    )


#: A bundle of all public authorities has 220 KiB.
_LARGEST_CA = 4 << 20


@functools.lru_cache(maxsize=64)
def _context(ca: str, verified: bool) -> ssl.SSLContext:
    """Return a context; it is shared, because reading the host's authorities takes milliseconds."""
    if ca:
        read_file(ca, _LARGEST_CA, "authorities")  # OpenSSL would block on a pipe or a device
    context = ssl.create_default_context(cafile=ca or None)
    # Some builds of Python leave this to the configuration of OpenSSL, which may set none.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    if not verified:
        # Opportunistic TLS: encryption without verification is better than none.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Relay:
    """The relay of one listener.

    Attributes:
        settings: as given.
        context: for TLS; None if it is not used.
        sessions: how many are open now.

    Raises:
        SettingError: the authorities cannot be read.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self.settings = settings
        self.sessions = 0
        self.context: ssl.SSLContext | None = None
        self._users: Counter[str] = Counter()
        self._ending: set[asyncio.Task[None]] = set()
        if settings.tls != "none":
            try:
                self.context = _context(settings.ca, settings.tls in ("verify", "implicit"))
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                reason = getattr(error, "strerror", None) or error
                message = f"the authorities cannot be read: {reason}"
                raise SettingError("smtp.relay-ca", message) from error

    async def acquire_session(self, user: str) -> None:
        """Wait until another session is allowed, and count it.

        Args:
            user: the user whose mail it is for; empty for the server itself.

        Raises:
            TimeoutError: there were too many sessions for too long, or the user has too many.
        """
        if user and not self._take(user):
            raise TimeoutError(f"{user} has {SESSIONS_OF_USER} sessions already")
        loop = asyncio.get_running_loop()
        places = _places.get(loop)
        if places is None:
            places = _places[loop] = asyncio.Semaphore(SESSIONS)
        self._users[user] += 1  # before waiting: the user's other sessions may be waiting too
        try:
            async with asyncio.timeout(self.settings.timeout):
                await places.acquire()
                try:
                    while _shared is not None and not _shared.take():  # noqa: ASYNC110
                        await asyncio.sleep(_LOOK_AGAIN)
                except BaseException:
                    places.release()
                    raise
        except BaseException:
            self._forget(user)
            raise
        self.sessions += 1

    def release_session(self, user: str) -> None:
        """Undo `acquire_session`, on the same loop."""
        self.sessions -= 1
        self._forget(user)
        _places[asyncio.get_running_loop()].release()
        if _shared is not None and _shared.held:
            _shared.give()

    def _take(self, user: str) -> bool:
        """Tell whether a user may have another session, and count it for other workers."""
        if self._users[user] >= SESSIONS_OF_USER:
            return False
        return _shared_users is None or _shared_users.take(
            f"{user} {self.settings}", SESSIONS_OF_USER
        )

    def _forget(self, user: str) -> None:
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]
        if user and _shared_users is not None:
            _shared_users.give(f"{user} {self.settings}")

    def quit_later(self, ending: Coroutine[Any, Any, None], close: Callable[[], None]) -> None:
        """Run a session's QUIT in the background; only `close` waits for it.

        Args:
            ending: sends QUIT.
            close: called afterwards, even if the task is cancelled before its first step.
        """
        task = asyncio.get_running_loop().create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: close())

    async def close(self) -> None:
        """Wait a moment for replies to QUIT; no mail depends on them."""
        ending = list(self._ending)
        if ending:
            _, late = await asyncio.wait(ending, timeout=LAST_QUIT_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
