"""`fastlisten` as a program: run to its end, or serving until the end of a block.

Rules of this file: the program is a separate process with real files; its output is written to
files and read from them.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fastlisten.cli.log_writer import GATHER
from support.accounts import write_accounts
from support.environment import clean_environment
from support.waiting import PATIENCE, until

__all__ = ["ACCOUNTS", "Program", "program", "run"]

#: Seconds that a busy thread is waited for before the log is read, in case that it writes the log.
LONGEST_BUSY = 5.0

ACCOUNTS = '[account."alice@example.org"]\n'


def _wait_for_log_writers(pid: int) -> None:
    """Wait until all that a running program has logged is written.

    A thread of it writes the log (fastlisten/cli/log_writer.py). It has written everything when it
    waits for the next record, which has no timeout, unlike the wait for records to gather. Other
    threads that wait for work look the same; one that is busy is waited for too, but not for long.
    """
    end = time.monotonic() + LONGEST_BUSY
    try:
        while _has_busy_thread(pid) and time.monotonic() < end:
            time.sleep(0.001)
    except PermissionError:  # as if there were no /proc/PID/syscall
        time.sleep(3 * GATHER)


def _has_busy_thread(pid: int) -> bool:
    """Whether a thread of a process or its descendants, other than the main one, does something."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            if any(map(_has_busy_thread, map(int, (task / "children").read_text().split()))):
                return True
            if task.name == str(pid):
                continue
            where = (task / "wchan").read_text()  # 0 if the kernel does not tell
            call = (task / "syscall").read_text().split()  # number, arguments; or "running"
            unlimited = where.startswith(("futex", "0")) and call[4:5] == ["0x0"]
            if not unlimited and not where.startswith(("poll", "ep_poll", "do_epoll")):
                return True
    return False


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run `fastlisten` until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "fastlisten", *map(str, arguments)],
        env=clean_environment(**environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Program:
    """A running `fastlisten serve`.

    Attributes:
        process: the process.
        directory: the directory of its files; mail is in ``data``.
    """

    def __init__(self, process: subprocess.Popen[bytes], directory: Path) -> None:
        self.process = process
        self.directory = directory

    @property
    def out(self) -> str:
        """Standard output so far."""
        return (self.directory / "out").read_text()

    @property
    def err(self) -> str:
        """Standard error so far, with everything that a running program has logged before."""
        if self.process.poll() is None:
            _wait_for_log_writers(self.process.pid)
        return (self.directory / "err").read_text()

    @property
    def addresses(self) -> dict[str, list[str]]:
        """The bound addresses of each listener that has been listed."""
        whole = self.out.rpartition("\n")[0].split("\n")
        said = "\n".join(json.loads(it)["message"] if it[:1] == "{" else it for it in whole)
        lines = re.findall(r'^listener "(.*)": \S+ on (.*?);', said, re.MULTILINE)
        return {name: addresses.split(", ") for name, addresses in lines}

    def port(self, listener: str = "it", index: int = 0) -> int:
        """Return the port of a listener's bind."""
        return int(self.addresses[listener][index].rpartition(":")[2])

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the program, not to its wrapper."""
        os.kill(self.pid, number)

    @property
    def pid(self) -> int:
        """The process id of the program itself, the last in a chain of wrappers such as strace."""
        pid = self.process.pid
        while children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            pid = int(children[0])
        return pid

    def ended(self) -> int:
        """Wait for its end; return its exit code."""
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Send SIGTERM and wait for the end; return the exit code."""
        self.signal()
        return self.ended()

    def messages(self, account: str = "alice@example.org") -> list[bytes]:
        """Return the messages that were delivered to an account."""
        new = self.directory / "data" / "mail" / account / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"))]


@contextlib.contextmanager
def program(
    directory: Path,
    text: str | None,
    *,
    accounts: str | None = ACCOUNTS,
    unchanged: bool = False,
    listeners: int = 1,
    wrapper: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Program]:
    """Run `fastlisten serve` until the end of the block, at the latest.

    Args:
        directory: for its files; the mail of alice@example.org goes to ``data`` in it.
        text: the configuration without data directory and hostname; None for the default one.
        accounts: the content of the accounts file, unless the default configuration is used; None
            to leave the file as it is.
        unchanged: use the text as it is, with the default data directory, which STATE_DIRECTORY
            makes the same.
        listeners: the number of listeners to wait for; 0 to wait for the program's end, -1 not to
            wait.
        wrapper: a command that runs the program, with its arguments.
        environ: changes to the environment.
        pass_fds: descriptors that the program inherits.
    """
    arguments = [*wrapper, sys.executable, "-m", "fastlisten", "serve"]
    if text is not None:
        (directory / "data").mkdir(exist_ok=True)
        if accounts is not None:
            write_accounts(directory / "data" / "accounts.toml", accounts)
        if unchanged:
            environ = {"STATE_DIRECTORY": str(directory / "data"), **(environ or {})}
        else:
            head = '[server]\nhostname = "mx.example.org"\n'
            text = f'{head}data-directory = "{directory / "data"}"\n{text}'
        (directory / "mail.toml").write_text(text)
        arguments.append(str(directory / "mail.toml"))
    with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
        process = subprocess.Popen(
            arguments,
            env=clean_environment(**(environ or {})),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=pass_fds,
        )
    started = Program(process, directory)
    try:
        if listeners == 0:
            process.wait(PATIENCE)
        else:
            until(
                lambda: len(started.addresses) >= listeners or process.poll() is not None,
                f"{listeners} listeners",
            )
            assert process.poll() is None, started.err
        yield started
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                started.signal(signal.SIGKILL)
            process.kill()
            process.wait()
