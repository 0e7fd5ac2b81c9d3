"""`Controller` and its variants: threads, loops, start and stop; and `serve_smtp`."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.aiosmtpd import ENVELOPE, Recorder, server_context, serving, started
from support.environment import clean_environment
from support.loops import on_loops
from support.smtp_client import MESSAGE, SmtpClient, connected
from support.waiting import until

import fastlisten
from fastlisten.handlers import smtp

pytestmark = pytest.mark.usefixtures("descriptors_back")

HELLO, MAIL, RCPT = ENVELOPE


class Waits:
    """A handler whose hook waits for ever."""

    def __init__(self) -> None:
        self.began, self.ended = threading.Event(), threading.Event()

    async def handle_NOOP(self, *arguments: Any) -> str:
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.set()
        return "250 never"


def test_stop_with_open_connections_and_running_hook() -> None:
    handler = Waits()
    before = set(threading.enumerate())
    controller: Any = smtp.Controller(handler, "127.0.0.1", 0)
    assert not controller.smtpd
    controller.start()
    assert controller.port
    assert controller.smtpd is not None
    assert controller.smtpd.loop is controller.loop
    assert not hasattr(controller.smtpd, "session")
    assert controller.server is not None
    with connected(controller.port) as idle, connected(controller.port) as busy:
        idle.codes("RSET")
        busy.send("NOOP")
        assert handler.began.wait(20)
        assert controller.smtpd is not None
        controller.stop()
        assert handler.ended.is_set()
        for client in (idle, busy):
            assert client.answer()[0] == 421
            assert client.answer() == (0, [])
    assert controller.server is None
    assert controller.loop.is_closed()
    assert set(threading.enumerate()) <= before
    with pytest.raises(AssertionError, match="not running"):
        controller.stop()
    controller.stop(no_assert=True)


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        controller = smtp.Controller(Recorder(), "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            controller.start()
        assert controller.loop.is_closed()
        # As in `try: start() finally: stop()`: stop() doesn't hide the error.
        controller.stop()
        with pytest.raises(AssertionError, match="not running"):
            controller.stop()
    # Another start, on another port, succeeds.
    controller.port = 0
    for _ in range(2):
        with started(controller), connected(controller.port) as client:
            assert client.codes("NOOP") == [250]


def test_given_loop_survives_failed_start() -> None:
    loop = asyncio.SelectorEventLoop()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        controller = smtp.Controller(Recorder(), "127.0.0.1", taken.getsockname()[1], loop)
        with pytest.raises(OSError, match="in use"):
            controller.start()
        controller.stop()
    controller.port = 0
    with started(controller), connected(controller.port) as client:
        assert client.codes("NOOP") == [250]
    assert loop.is_closed()


def test_cancel_tasks() -> None:
    handler = Waits()
    with started(smtp.Controller(handler, "127.0.0.1", 0)) as controller:
        with connected(controller.port) as client:
            client.send("NOOP")
            assert handler.began.wait(20)
            controller.loop.call_soon_threadsafe(controller.cancel_tasks, False)
            assert handler.ended.wait(20)
            assert client.answer()[0] == 421
        controller.loop.call_soon_threadsafe(controller.cancel_tasks)
        until(controller.loop.is_closed, "the end of the loop")


@pytest.mark.parametrize("make_loop", [fastlisten.new_event_loop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_system_exit_in_a_hook_stops_the_controller(
    suspends: bool, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    class Exits:
        async def handle_NOOP(self, *arguments: Any) -> str:
            if suspends:
                await asyncio.sleep(0)
            raise SystemExit(3)

    controller = smtp.Controller(Exits(), "127.0.0.1", 0, make_loop())
    controller.start()
    with connected(controller.port) as idle, connected(controller.port) as client:
        assert idle.codes("RSET") == [250]
        client.send("NOOP")
        until(controller.loop.is_closed, "the end of the loop")
        assert controller.server is None
        # Neither connected nor new clients are left waiting.
        assert idle.answer()[0] == 421
        assert idle.answer() == (0, [])
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", controller.port), 20)
    controller.stop()


def test_given_loop() -> None:
    loop = asyncio.SelectorEventLoop()
    with started(smtp.Controller(Recorder(), "127.0.0.1", 0, loop)) as controller:
        assert controller.loop is loop
        with connected(controller.port) as client:
            assert client.codes("NOOP") == [250]
    assert loop.is_closed()


def test_idle_timeout() -> None:
    """A client that waits for a hook is not idle."""

    class Slow:
        async def handle_NOOP(self, *arguments: Any) -> str:
            await asyncio.sleep(0.5)
            return "250 slow"

    with (
        serving(Slow(), timeout=0.2) as controller,
        connected(controller.port) as silent,
        connected(controller.port) as client,
    ):
        assert client.codes("NOOP") == [250]
        for idle in (client, silent):
            code, (text,) = idle.answer()
            assert code == 421
            assert text.endswith(" Timeout; closing connection")
            assert idle.answer() == (0, [])


def test_max_connections() -> None:
    with (
        serving(Recorder(), max_connections=1) as controller,
        connected(controller.port) as client,
    ):
        assert client.codes("NOOP") == [250]
        with socket.create_connection(("127.0.0.1", controller.port), 20) as other:
            assert other.recv(100).startswith(b"421 ")


def test_unix_socket_controller(tmp_path: Path) -> None:
    path, handler = tmp_path / "socket", Recorder()
    with started(smtp.UnixSocketController(handler, path)) as controller:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(controller.unix_socket)
        client = SmtpClient(sock)
        assert client.answer()[0] == 220
        client.codes(*ENVELOPE)
        assert client.data()[0] == 250
        client.close()
    assert not path.exists()
    ((_, session),) = handler.messages
    assert session.peer == ""


def test_unthreaded_controller(tmp_path: Path) -> None:
    def dialogue(client: SmtpClient) -> None:
        assert client.answer()[0] == 220
        assert client.codes(*ENVELOPE) == [250, 250, 250]
        assert client.data()[0] == 250
        client.close()

    async def end(controller: Any) -> None:
        controller.end()
        while not controller.ended.is_set():
            await asyncio.sleep(0.001)

    for path in ("", str(tmp_path / "socket")):
        loop, handler = fastlisten.new_event_loop(), Recorder()
        controller: Any
        if path:
            controller = smtp.UnixSocketUnthreadedController(handler, path, loop)
        else:
            controller = smtp.UnthreadedController(handler, "127.0.0.1", 0, loop)
        controller.begin()
        sock = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        sock.connect(path or ("127.0.0.1", controller.port))
        loop.run_until_complete(asyncio.to_thread(lambda one: dialogue(SmtpClient(one)), sock))
        assert handler.only().content == MESSAGE
        if path:
            loop.run_until_complete(end(controller))
        else:
            controller.end()
        assert controller.server is None
        loop.run_until_complete(loop.shutdown_default_executor())
        asyncio.set_event_loop(None)
        loop.close()


def test_serve_smtp_on_a_running_loop() -> None:
    async def serve() -> None:
        handler = Recorder()
        async with smtp.serve_smtp(handler, port=0, server_hostname="mx.example.org") as server:
            port = server.sockets[0].getsockname()[1]
            await asyncio.to_thread(dialogue, port)
            assert server.statistics()["accepted"] == 1
        assert handler.only().content == MESSAGE
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    def dialogue(port: int) -> None:
        with connected(port) as client:
            assert client.codes(*ENVELOPE) == [250, 250, 250]
            assert client.data()[0] == 250

    on_loop = on_loops(serve)
    for factory in (asyncio.SelectorEventLoop, fastlisten.new_event_loop):
        on_loop(factory)


def test_serve_smtp_on_a_bound_socket() -> None:
    async def serve() -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        async with smtp.serve_smtp(Recorder(), sock=sock):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await reader.readline()).startswith(b"220 ")
            writer.close()
            await writer.wait_closed()

    asyncio.run(serve())


def test_server_survives_failed_handshake() -> None:
    with serving(Recorder(), tls_context=server_context()) as controller:
        with connected(controller.port) as client:
            assert client.codes(HELLO, "STARTTLS") == [250, 220]
            stranger = ssl.create_default_context()
            with pytest.raises(ssl.SSLError):
                stranger.wrap_socket(client.sock, server_hostname="localhost")
        server = controller.server
        assert server is not None
        until(lambda: server.connections == 0, "the end of the connection")
        with connected(controller.port) as client:
            assert client.codes(HELLO, "STARTTLS") == [250, 220]
            client.starttls()
            assert client.codes(MAIL, HELLO, MAIL) == [503, 250, 250]


# -- without aiosmtpd


def test_works_without_aiosmtpd_installed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import smtplib, sys\n"
        "sys.modules['aiosmtpd'] = None\n"
        "from fastlisten.handlers.smtp import Controller\n"
        "from fastlisten.handlers.smtp.aiosmtpd.types import AuthResult, INSTALLED\n"
        "assert not INSTALLED\n"
        "class Handler:\n"
        "    async def handle_DATA(self, server, session, envelope):\n"
        "        print(envelope.mail_from, envelope.rcpt_tos, session.auth_data, session)\n"
        "        return '250 OK'\n"
        "def check(server, session, envelope, mechanism, data):\n"
        "    return AuthResult(success=True, auth_data=data)\n"
        "given = dict(authenticator=check, auth_require_tls=False)\n"
        "controller = Controller(Handler(), '127.0.0.1', 0, **given)\n"
        "controller.start()\n"
        "with smtplib.SMTP('127.0.0.1', controller.port) as client:\n"
        "    client.login('user', 'secret')\n"
        "    client.sendmail('a@example.com', ['b@example.org'], 'x')\n"
        "controller.stop()\n"
    )
    ran = subprocess.run(
        [sys.executable, "-X", "dev", program],
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=60,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.startswith(
        "a@example.com ['b@example.org'] LoginPassword(login='user', password=...) <"
    )


def test_aiosmtpd_layer_is_imported_lazily() -> None:
    code = (
        "import sys, fastlisten.handlers.smtp\n"
        "print([name for name in sys.modules if 'aiosmtpd' in name])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean_environment()
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")
