"""Signals while `fastlisten serve` starts mean what they mean later.

Rules of this file: a signal is sent when the program has reported where it is, never after a time.
Every test also runs as PID 1 of a namespace, as in a container: there the kernel drops signals
without a handler instead of ending the process.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.staged_program import CONFIG, OTHERS, STOPS, WRAPPERS, staged
from support.waiting import until

#: Where the program is, and how it gets there; each stage would last for ever.
STAGES = {
    "the application is imported": """
        here("x")
        time.sleep(600)
    """,
    "an extension waits without looking": """
        import ctypes
        here("x")
        while True:
            ctypes.CDLL(None).usleep(1000)
    """,
    "an extension never looks": """
        import ctypes, threading
        import fastlisten.cli.program_signals
        fastlisten.cli.program_signals.STOP_TIMEOUT = 0.1
        mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        def look():
            while "futex" not in open(f"/proc/self/task/{os.getpid()}/wchan").read():
                pass
            here("x")
        threading.Thread(target=look, daemon=True).start()
        lock(mutex)
    """,
    "an import that failed is tried again": """
        import fastlisten.cli.program_signals
        fastlisten.cli.program_signals.STOP_TIMEOUT = 0.1
        try:
            here("x")
            time.sleep(600)
        except BaseException:
            while True:
                time.sleep(600)
    """,
    "an exception in a finalizer is lost": """
        class Slow:
            def __del__(self):
                here("x")
                time.sleep(600)
        Slow()
        here("not stopped")
    """,
    "the application starts": """
        async def lifespan():
            import asyncio
            here("x")
            await asyncio.sleep(600)
    """,
    "the application starts and blocks the loop": """
        import fastlisten.cli.program_signals
        fastlisten.cli.program_signals.STOP_TIMEOUT = 0.1
        async def lifespan():
            here("x")
            time.sleep(600)
    """,
    "the application starts and swallows what ends it": """
        import asyncio
        async def lifespan():
            os.kill(os.getpid(), signal.SIGTERM)
            while True:
                try:
                    await asyncio.sleep(600)
                except asyncio.CancelledError:
                    here("x")
    """,
}


@WRAPPERS
@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
@pytest.mark.parametrize("stage", STAGES)
def test_stop_signal_ends_the_start(
    tmp_path: Path, stage: str, number: signal.Signals, wrapper: tuple[str, ...]
) -> None:
    with staged(tmp_path, STAGES[stage], wrapper=wrapper) as one:
        assert one.reached() == "x"
        one.program.signal(number)
        assert one.program.ended() == 0
        assert one.reached() in ("", "not stopped")
        assert one.program.out == ""
        # Python reports exceptions in finalizers.
        assert ("Traceback" in one.program.err) == ("finalizer" in stage)


@WRAPPERS
@pytest.mark.parametrize("name", ["argparse", "uvloop"])
def test_stop_signal_before_imports(tmp_path: Path, name: str, wrapper: tuple[str, ...]) -> None:
    """Two modules that the program imports, one of them before it reads its arguments."""
    source = "here('x')\ntime.sleep(600)\n"
    text = CONFIG.replace('app = "staged:app"\n', "")
    with staged(tmp_path, source, text=text, name=name, wrapper=wrapper) as one:
        assert one.reached() == "x"
        one.program.signal()
        assert one.program.ended() == 0
        assert one.program.err == "SIGTERM: stopped while starting\n"


def test_signals_are_handled_before_aiosmtpd_is_imported(tmp_path: Path) -> None:
    text = CONFIG.replace('"http"', '"smtp"').replace(
        'app = "staged:app"', 'smtp.aiosmtpd-handler = "staged:H"'
    )
    source = """
        class H:
            def __init__(self):
                here("made")
                time.sleep(600)
            async def handle_DATA(self, server, session, envelope):
                return "250 OK"
    """
    with staged(tmp_path, source, text=text) as one:
        assert one.reached() == "made"
        one.program.signal()
        assert one.program.ended() == 0
        assert "Traceback" not in one.program.err


def test_stop_signal_runs_the_applications_cleanup(tmp_path: Path) -> None:
    """A stop is an exception: `finally` blocks and atexit functions run."""
    source = """
        import atexit
        atexit.register(here, "atexit")
        try:
            here("x")
            time.sleep(600)
        finally:
            here("finally")
    """
    with staged(tmp_path, source) as one:
        assert one.reached() == "x"
        one.program.signal()
        assert [one.reached() for _ in range(3)] == ["finally", "atexit", ""]
        assert one.program.ended() == 0
        assert one.program.err == "SIGTERM: stopped while starting\n"


@WRAPPERS
def test_second_stop_signal_ends_the_start_at_once(
    tmp_path: Path, wrapper: tuple[str, ...]
) -> None:
    source = """
        import fastlisten.cli.program_signals
        fastlisten.cli.program_signals.STOP_TIMEOUT = 600
        try:
            here("x")
            time.sleep(600)
        finally:
            here("finally")
            while True:
                try:
                    time.sleep(600)
                except BaseException:
                    pass
    """
    with staged(tmp_path, source, wrapper=wrapper) as one:
        assert one.reached() == "x"
        one.program.signal()
        assert one.reached() == "finally"
        one.program.signal()
        assert one.program.ended() == 0


#: Stages that wait for the test, and what the program does after them.
PAUSES = {
    "imported": 'pause("x")',
    "starting": 'async def lifespan():\n    pause("x")',
}


@WRAPPERS
@pytest.mark.parametrize("stage", PAUSES)
def test_sighup_during_the_start_is_handled_after_it(
    tmp_path: Path, stage: str, wrapper: tuple[str, ...]
) -> None:
    with staged(tmp_path, PAUSES[stage], wrapper=wrapper) as one:
        assert one.reached() == "x"
        one.program.signal(signal.SIGHUP)
        one.program.signal(signal.SIGHUP)
        assert "SIGHUP" not in one.program.err
        one.go_on()
        until(lambda: one.program.addresses, "the start")
        until(lambda: "no changes in" in one.program.err, "the reload")
        assert one.program.stop() == 0
        assert one.program.err.count("SIGHUP: reloading") == 1


@WRAPPERS
@pytest.mark.parametrize("stage", PAUSES)
@pytest.mark.parametrize("number", OTHERS, ids=lambda number: number.name)
def test_sigusr_during_the_start_is_logged(
    tmp_path: Path, number: signal.Signals, stage: str, wrapper: tuple[str, ...]
) -> None:
    with staged(tmp_path, PAUSES[stage], wrapper=wrapper) as one:
        assert one.reached() == "x"
        one.program.signal(number)
        one.go_on()
        until(lambda: one.program.addresses, "the start")
        until(lambda: f"INFO fastlisten: {number.name}: ignored\n" in one.program.err, "the line")
        assert one.program.stop() == 0
