"""aiosmtpd's controllers on our engine: ``from fastlisten.handlers.smtp import Controller``.

Rules of this file: aiosmtpd's names, arguments and their order; no SMTP. A controller makes a loop
(`new_event_loop`) or takes one. `Controller` and `UnixSocketController` run and close it in a
thread of their own; with `UnthreadedController` and `UnixSocketUnthreadedController` the program
runs it. A program whose loop is already running uses `serve_smtp`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.serve_smtp import SmtpService, serve_smtp
from fastlisten.loop.connection_server import ConnectionServer
from fastlisten.loop.event_loop import new_event_loop
from fastlisten.loop.listening_sockets import bind_unix

__all__ = [
    "Controller",
    "UnixSocketController",
    "UnixSocketUnthreadedController",
    "UnthreadedController",
    "serve_smtp",
]

#: Seconds that `start` waits by default; aiosmtpd's default.
READY_TIMEOUT = 5.0


def _localhost() -> str:
    """Return the loopback address: ::1 if this host has IPv6, as in aiosmtpd."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return "127.0.0.1"
    return "::1"


class _BaseController:
    """What all controllers have in common.

    Attributes:
        handler: the handler.
        loop: the loop that serves.
        ssl_context: for TLS from the first byte.
        server: the server while it serves, else None.
    """

    def __init__(
        self,
        handler: Any,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        server_hostname: str | None = None,
        **parameters: Any,
    ) -> None:
        if hasattr(type(self), "factory"):
            raise TypeError(
                "factory() is not supported: there are no SMTP objects here. Pass parameters to "
                "the controller, and move what the SMTP subclass does into hooks"
            )
        self.handler = handler
        self.ssl_context = ssl_context
        self.server: ConnectionServer | None = None
        self._service = SmtpService(handler, parameters, ssl_context, server_hostname)
        self._owns_loop = loop is None
        self.loop = new_event_loop() if loop is None else loop

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{type(self).__name__}.{name} is not supported; see docs/aiosmtpd.md",
            name=name,
        )

    @property
    def smtpd(self) -> HookServer | None:
        """What the hooks of the newest connection get as `server`, None if nothing is served.

        Before the first connection it has no session and no envelope.
        """
        service = self._service
        if service.newest is None and self.server is not None:
            service.newest = HookServer(service.served, None, self.loop)
        return service.newest

    def cancel_tasks(self, stop_loop: bool = True) -> None:
        """Cancel all tasks of the loop; call it on the loop.

        Args:
            stop_loop: stop the loop, too.
        """
        if stop_loop:
            self.loop.stop()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()

    async def _serve(self) -> ConnectionServer:
        raise NotImplementedError

    def _ended(self) -> None:
        """Note that serving has ended."""
        self.server = None


class _TcpController(_BaseController):
    """A controller that listens on a TCP port.

    Attributes:
        hostname: the address to listen on; empty for all interfaces.
        port: the port; if it was 0, from `start` on the one that was chosen.
    """

    def __init__(
        self,
        handler: Any,
        hostname: str | None = None,
        port: int = 8025,
        loop: asyncio.AbstractEventLoop | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(handler, loop, **parameters)
        self.hostname = _localhost() if hostname is None else hostname
        self.port = port

    async def _serve(self) -> ConnectionServer:
        server = await self._service.serve(self.hostname or None, self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server


class _UnixController(_BaseController):
    """A controller that listens on a Unix socket.

    Attributes:
        unix_socket: its path.
    """

    def __init__(
        self,
        handler: Any,
        unix_socket: str | Path,
        loop: asyncio.AbstractEventLoop | None = None,
        **parameters: Any,
    ) -> None:
        super().__init__(handler, loop, **parameters)
        self.unix_socket = str(unix_socket)

    async def _serve(self) -> ConnectionServer:
        return await self._service.serve(sock=bind_unix(self.unix_socket))

    def _ended(self) -> None:
        super()._ended()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.unix_socket)


class _ThreadedController(_BaseController):
    """A controller that serves in a thread."""

    def __init__(
        self,
        handler: Any,
        loop: asyncio.AbstractEventLoop | None = None,
        *,
        ready_timeout: float = READY_TIMEOUT,
        **parameters: Any,
    ) -> None:
        super().__init__(handler, loop, **parameters)
        self.ready_timeout = float(os.getenv("AIOSMTPD_CONTROLLER_TIMEOUT", ready_timeout))
        self._thread: threading.Thread | None = None
        self._failures: list[BaseException] = []
        self._ending = False  # the loop is being shut down
        self._ready = threading.Event()

    def start(self) -> None:
        """Serve in a thread; return when clients are accepted.

        `stop` closes the loop, also one that was given; only a controller that makes its own can be
        started again.

        Raises:
            OSError: listening failed.
            TimeoutError: the server did not listen within `ready_timeout`.
        """
        assert self._thread is None or not self._thread.is_alive(), "SMTP daemon already running"
        self._ready.clear()
        self._failures.clear()
        if self._owns_loop and self.loop.is_closed():
            self.loop = new_event_loop()  # started before, and stopped
        # A daemon thread, as in aiosmtpd, so that a program that forgets stop() still exits.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._ready.wait(self.ready_timeout):
            raise TimeoutError(
                f"the server did not listen within ready_timeout, {self.ready_timeout} s"
            )
        if self._failures:
            # The thread is kept: stop() may be called after a start that failed.
            self._thread.join()
            raise self._failures.pop()

    def stop(self, no_assert: bool = False) -> None:
        """End all connections, the loop and the thread.

        Args:
            no_assert: it may have been stopped already.
        """
        assert no_assert or self._thread is not None, "SMTP daemon not running"
        if self._thread is not None:
            if self._thread.is_alive():
                # Something else may have stopped the loop, and closed it.
                with contextlib.suppress(RuntimeError):
                    self.loop.call_soon_threadsafe(self._stop_loop)
                self._thread.join()
            self._thread = None

    def _stop_loop(self) -> None:
        if not self._ending:
            self.loop.stop()

    def _run(self) -> None:
        loop = self.loop
        self._ending = False
        asyncio.set_event_loop(loop)
        try:
            self.server = loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failures.append(error)
            if self._owns_loop:
                self._close_loop()
            asyncio.set_event_loop(None)
            self._ready.set()
            return
        loop.call_soon(self._ready.set)
        try:
            loop.run_forever()
        finally:
            # Also if a hook's SystemExit has ended the loop: clients must not connect and wait.
            self._ending = True
            try:
                self._end()
            finally:
                self._ended()
                self._close_loop()

    def _end(self) -> None:
        """Stop serving, whatever hooks raise in the meantime."""
        assert self.server is not None
        ending = self.loop.create_task(self._service.end(self.server))
        while not ending.done():
            # If the hook had suspended, its exception ends the loop twice: its task raises it, too.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                self.loop.run_until_complete(ending)
        ending.result()

    def _close_loop(self) -> None:
        """Cancel what handlers have left running on the loop, and close it."""
        loop = self.loop
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


class _UnthreadedController(_BaseController):
    """A controller without a thread: the program runs the loop.

    Attributes:
        ended: set when `finalize` is done.
    """

    def __init__(
        self, handler: Any, loop: asyncio.AbstractEventLoop | None = None, **parameters: Any
    ) -> None:
        super().__init__(handler, loop, **parameters)
        self.ended = threading.Event()

    def begin(self) -> None:
        """Listen; connections are served while the loop runs."""
        asyncio.set_event_loop(self.loop)
        self.server = self.loop.run_until_complete(self._serve())

    async def finalize(self) -> None:
        """Stop listening and end all connections."""
        self.ended.clear()
        assert self.server is not None
        await self._service.end(self.server)
        self._ended()
        self.ended.set()

    def end(self) -> None:
        """Run `finalize`; in a task if the loop is running."""
        self.ended.clear()
        if self.loop.is_running():
            self._finalizing = self.loop.create_task(self.finalize())
        else:
            self.loop.run_until_complete(self.finalize())


class Controller(_TcpController, _ThreadedController):
    """Serves on a TCP port, in a thread."""


class UnixSocketController(_UnixController, _ThreadedController):
    """Serves on a Unix socket, in a thread."""


class UnthreadedController(_TcpController, _UnthreadedController):
    """Serves on a TCP port, on a loop that the program runs."""


class UnixSocketUnthreadedController(_UnixController, _UnthreadedController):
    """Serves on a Unix socket, on a loop that the program runs."""
