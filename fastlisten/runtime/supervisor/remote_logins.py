"""The logins that all workers have verified, in a worker.

Rules of this file: it is given the function that sends a message, and the messages that arrive. The
supervisor is trusted, and is told without waiting: what is lost is verified once more.
"""

from __future__ import annotations

import contextlib
import hmac

from fastlisten.mail.logins.login_cache import LoginCache
from fastlisten.runtime.supervisor.channel import ChannelError
from fastlisten.runtime.supervisor.remembered_logins import LOGIN_VERIFIED, LOGINS_WANTED
from fastlisten.runtime.supervisor.remote_control import SendUp
from fastlisten.runtime.supervisor.worker_requests import Body

__all__ = ["RemoteLogins"]


class RemoteLogins:
    """What this worker and the others have verified.

    Args:
        send: sends a message to the supervisor, from any thread.
        key: a secret, the same in all workers.

    Attributes:
        cache: knows all of them.
    """

    def __init__(self, send: SendUp, key: bytes) -> None:
        self._send = send
        # Not the same key as for other digests.
        own = hmac.digest(key, b"remembered logins", "sha256")
        self.cache = LoginCache(key=own, added=self._added)

    def begin(self) -> None:
        """Ask for what the others know."""
        with contextlib.suppress(ChannelError):
            self._send(LOGINS_WANTED, {})

    def receive(self, body: Body) -> None:
        """Take the body of a message of the kind ``logins-known``."""
        for login, verified in body["logins"]:
            self.cache.restore(bytes.fromhex(login), verified)

    def _added(self, login: bytes) -> None:
        with contextlib.suppress(ChannelError):
            self._send(LOGIN_VERIFIED, {"login": login.hex()})
