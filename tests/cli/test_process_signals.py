"""Signals while `fastlisten serve` serves, drains and ends, and signals to the other commands.

Rules of this file: as in test_process_signals_start.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import clean_environment
from support.program import program, run
from support.staged_program import OTHERS, STOPS, WRAPPERS, staged
from support.waiting import PATIENCE, until


def without_uvloop(directory: Path) -> dict[str, str]:
    (directory / "modules").mkdir()
    (directory / "modules" / "uvloop.py").write_text("raise ImportError('not here')\n")
    path = f"{directory / 'modules'}{os.pathsep}{clean_environment()['PYTHONPATH']}"
    return {"PYTHONPATH": path}


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_signals_while_serving_and_draining(
    tmp_path: Path, uvloop: bool, number: signal.Signals
) -> None:
    environ = {} if uvloop else without_uvloop(tmp_path)
    text = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\ntls.enable = false\n'
    with program(tmp_path, text, environ=environ) as started:

        def logged(name: signal.Signals, line: str) -> None:
            before = started.err.count(line)
            started.signal(name)
            until(lambda: started.err.count(line) == before + 1, line)

        logged(signal.SIGUSR1, "SIGUSR1: ignored")
        logged(signal.SIGUSR2, "SIGUSR2: ignored")
        logged(signal.SIGHUP, "no changes in")
        with socket.create_connection(("127.0.0.1", started.port()), PATIENCE) as client:
            file = client.makefile("rwb")
            file.readline()
            for command in (b"LHLO", b"EHLO c", b"MAIL FROM:<>", b"RCPT TO:<alice@example.org>"):
                file.write(command + b"\r\n")
                file.flush()
                while file.readline()[3:4] == b"-":
                    pass
            file.write(b"DATA\r\n")
            file.flush()
            assert file.readline().startswith(b"354")
            logged(number, f"{number.name}: draining")
            logged(signal.SIGUSR1, "SIGUSR1: ignored")
            logged(signal.SIGHUP, "SIGHUP: ignored while draining")
            logged(number, f"{number.name}: closing at once")
            assert started.ended() == 0
            file.close()
    assert "Traceback" not in started.err


@pytest.mark.parametrize("uvloop", [True, False], ids=["uvloop", "asyncio"])
def test_signal_wakes_a_loop_about_to_sleep(tmp_path: Path, uvloop: bool) -> None:
    """Python runs its handlers between instructions; only its wake-up descriptor ends
    epoll_wait."""
    source = """
        async def lifespan():
            fd = signal.set_wakeup_fd(-1)
            signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
            here("woken" if fd != -1 else "asleep")
            here("uvloop" if "uvloop" in sys.modules else "asyncio")
    """
    environ = {} if uvloop else without_uvloop(tmp_path)
    with staged(tmp_path, source, environ=environ) as one:
        assert one.reached() == "woken"
        assert one.reached() == ("uvloop" if uvloop else "asyncio")
        until(lambda: one.program.addresses, "the start")
        assert one.program.stop() == 0


#: The loop is closed: Python calls atexit functions, or has removed its signal handlers and takes
#: its modules apart.
ENDS = {
    "atexit": """
        import atexit
        atexit.register(pause, "ending")
    """,
    "modules": """
        class Late:
            def __del__(self, say=os.write, said=int(os.environ["SAID"]),
                        hear=os.read, heard=int(os.environ["HEARD"])):
                say(said, b"ending\\n")
                hear(heard, 1)
        late = Late()
    """,
}


@WRAPPERS
@pytest.mark.parametrize("end", ENDS)
def test_signals_after_the_end_of_the_loop(
    tmp_path: Path, end: str, wrapper: tuple[str, ...]
) -> None:
    with staged(tmp_path, ENDS[end], wrapper=wrapper) as one:
        until(lambda: one.program.addresses, "the start")
        one.program.signal()
        assert one.reached() == "ending"
        for number in (*OTHERS, signal.SIGHUP, signal.SIGTERM):
            one.program.signal(number)
        one.go_on()
        assert one.program.ended() == 0
        assert "Traceback" not in one.program.err


@WRAPPERS
def test_second_signal_ends_a_hanging_exit(tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    source = """
        import atexit
        import fastlisten.cli.program_signals
        fastlisten.cli.program_signals.STOP_TIMEOUT = 600
        atexit.register(time.sleep, 600)
        atexit.register(here, "ending")
    """
    with staged(tmp_path, source, wrapper=wrapper) as one:
        until(lambda: one.program.addresses, "the start")
        one.program.signal()
        assert one.reached() == "ending"
        one.program.signal()
        one.program.signal(signal.SIGINT)
        assert one.program.ended() == 0


def test_children_inherit_the_original_signal_handlers(tmp_path: Path) -> None:
    """Programs inherit ignored signals, forks inherit handlers: none of ours must be left."""
    source = """
        import subprocess
        status = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
        ignored = next(line for line in status.split("\\n") if line.startswith("SigIgn"))
        here(ignored.split()[1])
        if os.fork() == 0:
            here("waiting")
            time.sleep(600)
            here("not ended")
        else:
            _, status = os.wait()
            here(str(os.WTERMSIG(status)))
            time.sleep(600)
    """
    with staged(tmp_path, source) as one:
        ignored = int(one.reached(), 16)
        for number in (*STOPS, *OTHERS, signal.SIGHUP):
            assert not ignored & 1 << number - 1
        assert one.reached() == "waiting"
        os.kill(one.program.pid, signal.SIGTERM)  # the last in the chain: the fork
        assert one.reached() == str(int(signal.SIGTERM))
        one.program.signal()
        assert one.program.ended() == 0


def test_applications_signal_handlers_are_kept(tmp_path: Path) -> None:
    source = """
        signal.signal(signal.SIGUSR1, lambda *_: here("mine"))
        signal.signal(signal.SIGTERM, lambda *_: here("mine"))
    """
    with staged(tmp_path, source) as one:
        until(lambda: one.program.addresses, "the start")
        one.program.signal(signal.SIGUSR1)
        assert one.reached() == "mine"
        one.program.signal()
        assert one.reached() == ""
        assert one.program.ended() == 0


def test_exit_code_of_the_application_is_kept(tmp_path: Path) -> None:
    with staged(tmp_path, "sys.exit('no licence')") as one:
        assert one.program.ended() == 1
        assert one.program.err == "no licence\n"


def test_other_commands_die_by_the_signal() -> None:
    source = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started without
import fastlisten.cli.check as check
check.run = lambda *_: os.kill(os.getpid(), signal.SIGINT)
from fastlisten.cli.main import main
sys.argv[1:] = ["check"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", source], env=clean_environment(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_library_use_does_not_touch_signals() -> None:
    """Neither importing the command line nor calling it with arguments installs handlers."""
    source = """
import signal
before = [signal.getsignal(n) for n in signal.valid_signals()]
import fastlisten
from fastlisten.cli.main import main
fastlisten.Server, fastlisten.new_event_loop().close()
main(["serve", "/nothing.toml"])
assert [signal.getsignal(n) for n in signal.valid_signals()] == before
"""
    done = subprocess.run(
        [sys.executable, "-c", source], env=clean_environment(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_version_imports_no_server() -> None:
    """Before signals are handled, only the package's names are imported."""
    done = run("--version", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    imported = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines()]
    ours = [name for name in imported if name.startswith("fastlisten")]
    assert "fastlisten.cli.program_signals" in ours
    before = imported[: imported.index("fastlisten.cli.program_signals")]
    assert [name for name in before if name in ("asyncio", "uvloop", "ssl", "argparse")] == []
    assert not [name for name in imported if name in ("asyncio", "uvloop")]
