"""The relay: where mail for others goes, and what is the same for all that goes there.

Rules of this file: settings, TLS contexts and the bound on sessions; no SMTP (session.py).
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import weakref
from collections import Counter
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastlisten.addresses import is_loopback, with_port
from fastlisten.errors import SettingError
from fastlisten.files import read_file

if TYPE_CHECKING:
    from fastlisten.mail.envelope import Envelope
    from fastlisten.mail.relay.session import RelaySession

__all__ = ["Relay", "RelaySettings", "relay_of"]

#: Sessions with relays that a process has at a time; whoever wants one more waits for a place.
#: A relay counts the sessions of each client too: Postfix refuses the 51st.
SESSIONS = 50

#: Of these, how many one user may have: whoever sends with more programs at once can wait, and
#: one stolen password does not keep all the others from sending.
SESSIONS_OF_USER = 10

#: Seconds that relays get to answer QUIT when the server stops, which must not take longer for a
#: relay that hangs than whoever stops it allows.
LAST_GOODBYE = 1.0

# A semaphore belongs to a loop; a process has one loop for serving, tests have several.
_places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
    weakref.WeakKeyDictionary()
)


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay is spoken to.

    Attributes:
        host: its name, its IP address, or the path of its Unix socket.
        port: its port, 0 for a Unix socket.
        tls: `verify`, `implicit`, `may` or `none`, as `smtp.relay-tls` explains them.
        hostname: what we call ourselves.
        user: the name to log in with, empty for none.
        password: that goes with it.
        ca: a PEM file of authorities, empty for the host's.
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
    def near(self) -> bool:
        """What is sent there stays on this host, so that a password may go in plain text."""
        return not self.port or self.host == "localhost" or is_loopback(self.host)


def relay_of(values: Mapping[str, Any], hostname: str) -> RelaySettings | None:
    """Return the relay that a listener's rows describe, None if it has none."""
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
    """Return a context; shared, because to read the host's authorities takes milliseconds."""
    if ca:
        read_file(ca, _LARGEST_CA, "authorities")  # OpenSSL would wait for a pipe, and at a device
    context = ssl.create_default_context(cafile=ca or None)
    # Some builds of Python leave it to the configuration of OpenSSL, which may name none.
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    if not verified:
        # Encryption without a checked name is better than none, which is the alternative here.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Relay:
    """The relay of one listener.

    Attributes:
        settings: as given.
        context: for TLS, None where none is spoken.
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

    def session(self, envelope: Envelope, user: str = "") -> RelaySession:
        """Return a session for a message; nothing is connected yet.

        Args:
            envelope: the message's. Its recipients are not asked for until `recipient` is called.
            user: for whom; empty for ourselves.
        """
        from fastlisten.mail.relay.session import RelaySession

        return RelaySession(self, envelope, user)

    async def take_place(self, user: str) -> None:
        """Take one of the process's places for sessions, after waiting for one.

        Args:
            user: for whom; empty for ourselves.

        Raises:
            TimeoutError: none became free, or the user has too many.
        """
        if user and self._users[user] >= SESSIONS_OF_USER:
            raise TimeoutError(f"{user} has {SESSIONS_OF_USER} sessions already")
        loop = asyncio.get_running_loop()
        places = _places.get(loop)
        if places is None:
            places = _places[loop] = asyncio.Semaphore(SESSIONS)
        self._users[user] += 1  # before the wait, which others of the user share
        try:
            async with asyncio.timeout(self.settings.timeout):
                await places.acquire()
        except BaseException:
            self._forget(user)
            raise
        self.sessions += 1

    def give_place_back(self, user: str) -> None:
        """Give back what `take_place` took; on the same loop."""
        self.sessions -= 1
        self._forget(user)
        _places[asyncio.get_running_loop()].release()

    def _forget(self, user: str) -> None:
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]

    def end_later(self, ending: Coroutine[Any, Any, None]) -> None:
        """Let a session say goodbye without anybody waiting for it but `close`."""
        task = asyncio.get_running_loop().create_task(ending)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """Wait for the goodbyes, not for long: QUIT has been said, and no mail depends on it."""
        ending = list(self._ending)
        if ending:
            _, late = await asyncio.wait(ending, timeout=LAST_GOODBYE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
