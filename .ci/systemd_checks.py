"""The service of contrib/ under a systemd that is PID 1, as docs/service.md says.

    python3 .ci/systemd_checks.py        as root, in a Debian booted for it: see `.ci/full systemd`

Rules of this file: checks run in their order, and each starts the service with a configuration of
its own. What one prints is what it saw. The first that fails ends the run, with the end of the
journal.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import smtplib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from booted import (
    ALICE,
    DATA,
    FILE,
    PASSWORD,
    PATIENCE,
    PROGRAM,
    SOURCES,
    UNITS,
    Clients,
    changed_unit,
    configure,
    cursor,
    deliver,
    documented,
    end_message,
    forget,
    logged,
    message_in_progress,
    occupied,
    restart,
    run,
    shown,
    state,
    until,
    until_changed,
    workers,
)

#: The most that `systemd-analyze security` may find, as docs/service.md says.
MAX_EXPOSURE = 2.0

#: A listener whose socket others may use.
SHARED_SOCKET = """
[server.listener.shared]
protocol = "lmtp"
bind = "unix:/run/fastlisten/shared.sock"
socket.group = "mail"
socket.mode = "660"
"""

#: The socket units, and the addresses of their listeners.
BOTH = "fastlisten.socket fastlisten-submission.socket"
PASSED = {"smtp": "systemd:smtp", "submission": "systemd:submission"}


def installed_as_documented() -> None:
    """Follow docs/service.md; look at the status, the journal, the files, the confinement."""
    configure()
    since = cursor()
    run(documented("service.md", "useradd"))
    assert (state(), shown("UnitFileState")) == ("active: serving 4 listeners", "enabled")
    for path, mode in ((DATA, "700"), (Path("/run/fastlisten/control.sock"), "600")):
        assert run(f"stat -c '%U %a' {path}").split() == ["fastlisten", mode]
    warned = logged(since, "-p warning").splitlines()
    assert warned
    assert all(" WARNING " in line for line in warned), warned
    assert " INFO " in logged(since)
    print(f"journalctl -p warning: {len(warned)} of {len(logged(since).splitlines())} lines")
    (figure,) = re.findall(
        r"level for fastlisten.service: ([\d.]+)", run("systemd-analyze security fastlisten")
    )
    assert float(figure) < MAX_EXPOSURE
    status = Path(f"/proc/{shown('MainPID')}/status").read_text(encoding="utf-8")
    found = dict(re.findall(r"(\w+):\t(.*)", status))
    assert (found["NoNewPrivs"], found["Seccomp"], int(found["CapBnd"], 16)) == ("1", "2", 1 << 10)
    print(f"systemd-analyze security: {figure}")


def accounts_and_mail() -> None:
    """Add an account as the service's user; deliver, log in, ask the management.

    System calls that the unit does not allow kill the service here, so it makes none of them.
    """
    command = f"{PROGRAM} account add {ALICE} --config {FILE} --password-stdin"
    run(f"sudo -u fastlisten {command} <<<'{PASSWORD}'")
    assert run(f"stat -c %U {DATA}/accounts.toml") == "fastlisten\n"
    with changed_unit("[Service]\nSystemCallErrorNumber=kill\nSupplementaryGroups=mail\n"):
        for number in (1, 4):
            configure(number, more=SHARED_SOCKET)
            restart()
            assert run("stat -c '%G %a' /run/fastlisten/shared.sock") == "mail 660\n"
            deliver()
            deliver(587, login=True)
            for path in ("/metrics", "/healthz/ready", "/openapi.json"):
                url = f"http://127.0.0.1:8080{path}"
                with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                    assert answer.status == 200
            configure(number)
            run("systemctl reload fastlisten")
            if number > 1:
                run(f"{PROGRAM} restart --config {FILE}; {PROGRAM} upgrade --config {FILE}")
            run("systemctl stop fastlisten")
            assert shown("Result") == "success"
    count = len(list((DATA / "mail" / ALICE / "new").iterdir()))
    assert count == 4
    print(f"{count} messages delivered, by one process and by four workers; no call was refused")


def reloads() -> None:
    """Reload a good file, one with a mistake, one with an address in use."""
    for number in (1, 4):
        configure(number)
        restart()
        serving = state()
        since, pid = cursor(), shown("MainPID")
        configure(number, more="max-connections = 77\n")
        run("systemctl reload fastlisten")
        assert "max-connections = 77 (was" in logged(since)
        configure(number, more="max-connectoins = 77\n")
        run("systemctl reload fastlisten", code=1)
        assert "did you mean max-connections?" in logged(since, "-p err")
        assert "status=2" in run("systemctl status fastlisten")
        assert state() == serving
        with occupied(2525):
            configure(number, smtp="127.0.0.1:2525")
            run("systemctl reload fastlisten", code=1)
        assert state() == f"{serving}; the last reload failed", state()
        configure(number)
        run("systemctl reload fastlisten")
        assert (state(), shown("MainPID")) == (serving, pid)
        print(f"{serving}: two reloads done, two refused with exit code 1")


def reloads_by_notification() -> None:
    """Let systemd send SIGHUP, and wait for READY=1."""
    with changed_unit("[Service]\nType=notify-reload\nExecReload=\n"):
        for number in (1, 4):
            configure(number)
            restart()
            serving, since = state(), cursor()
            configure(number, more="max-connections = 77\n")
            run("systemctl reload fastlisten")
            assert "max-connections = 77 (was" in logged(since)
            configure(number, more="max-connectoins = 77\n")
            # systemd has no way to learn that it failed.
            run("systemctl reload fastlisten")
            assert state() == f"{serving}; the last reload failed"
    print("notify-reload: done; a failed one is in the status only")


def stops_and_drains() -> None:
    """Stop during a transaction: it ends, idle clients get 421, new ones are refused."""
    for number in (1, 4):
        configure(number)
        restart()
        with message_in_progress() as busy:
            idle = smtplib.SMTP("127.0.0.1", 25, timeout=PATIENCE)
            with subprocess.Popen(["systemctl", "stop", "fastlisten"]) as stopping:
                assert idle.getreply()[0] == 421
                until(lambda: state() == "deactivating: draining", "the drain")
                with socket.socket() as late:
                    assert late.connect_ex(("127.0.0.1", 25)) != 0
                end_message(busy)
                assert stopping.wait(PATIENCE) == 0
            idle.close()
        assert (shown("Result"), state()) == ("success", "inactive: draining")
    print("stop: the message in progress was taken, with one process and with four workers")


def supervisor_killed() -> None:
    """The workers drain, and the service starts again when the last one has ended."""
    configure(4)
    restart()
    pid = shown("MainPID")
    with message_in_progress() as client:
        os.kill(int(pid), signal.SIGKILL)
        until(lambda: shown("ActiveState") == "deactivating", "the drain")
        end_message(client)
    until(lambda: shown("ActiveState") == "active", "a restart")
    assert shown("MainPID") not in (pid, "0")
    print("supervisor killed: the message in progress was taken, then started again")


def upgrade_and_faults() -> None:
    """Upgrade four workers, kill one, stop the supervisor: the watchdog sees that."""
    with changed_unit("[Service]\nWatchdogSec=2\n"):
        configure(4)
        restart()
        pid, serving, before = shown("MainPID"), state(), workers()
        with Clients() as clients:
            run(f"{PROGRAM} upgrade --config {FILE}")
            clients.wait(200)
        assert clients.failures == []
        assert (shown("MainPID"), state()) == (pid, serving)
        assert not set(before) & set(workers())
        assert run(f"ps -o comm= -p {pid}") == "fastlisten\n"
        # The new program sends signs of life, too.
        for _ in range(3):
            until_changed("WatchdogTimestampMonotonic")
        assert shown("MainPID") == pid
        print(f"upgrade: the same process, {clients.served} clients, none failed")
        killed = workers()[-1]
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in workers() and len(workers()) == 4, "another worker")
        assert (shown("MainPID"), shown("NRestarts"), state()) == (pid, "0", serving)
        print("a worker killed: another one serves")
        for number in (4, 1):
            configure(number)
            restart()
            pid, since = shown("MainPID"), cursor()
            os.kill(int(pid), signal.SIGSTOP)
            until(
                lambda: shown("NRestarts") == "1" and shown("ActiveState") == "active", "a restart"
            )
            assert shown("MainPID") != pid
            run("journalctl --sync")
            assert "Watchdog timeout" in logged(since)
            deliver()
        print("SIGSTOP: killed by the watchdog, started again")


def starts_that_fail() -> None:
    """A mistake ends it; an address that is in use is tried until it is free."""
    configure(more="nonsense = 1\n")
    restart(code=1)
    assert (state(), shown("ExecMainStatus"), shown("NRestarts")) == ("failed", "2", "0")
    configure()
    forget()
    with occupied(8080):
        run("systemctl start fastlisten", code=1)
        until(lambda: int(shown("NRestarts")) > 6, "more starts than systemd allows by default")
    until(lambda: shown("ActiveState") == "active", "a start")
    print(f"address in use: serves after {shown('NRestarts')} more starts")


def limits_of_files() -> None:
    """LimitNOFILE= is what all processes get, and a warning says if that is too low."""
    with changed_unit("[Service]\nLimitNOFILE=512:4096\n"):
        configure(4, more="max-connections = 20000\n")
        since = cursor()
        restart()
        for pid in (int(shown("MainPID")), *workers()):
            assert re.search(
                r"Max open files +4096 +4096 ",
                Path(f"/proc/{pid}/limits").read_text(encoding="utf-8"),
            )
        assert "may open 4096 files" in logged(since, "-p warning")
    print("LimitNOFILE: in force, with a warning")


@contextlib.contextmanager
def sockets(change: str = "") -> Iterator[None]:
    """Let systemd open ports 25 and 587 for a service without capabilities, otherwise changed."""
    run("cp contrib/fastlisten.socket /etc/systemd/system/")
    text = (SOURCES / "contrib/fastlisten.socket").read_text(encoding="utf-8")
    other = text.replace("port 25", "port 587").replace("[::]:25", "[::]:587")
    other = other.replace("Name=smtp", "Name=submission\nService=fastlisten.service")
    (UNITS / "fastlisten-submission.socket").write_text(other, encoding="utf-8")
    with changed_unit(f"{change}\n[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n"):
        run(f"systemctl enable --now {BOTH}")
        try:
            yield
        finally:
            run(f"systemctl disable --now {BOTH}; rm {UNITS}/fastlisten*.socket")


def socket_activation() -> None:
    """The first client starts the service; clients wait over restarts, reloads and upgrades."""
    with sockets():
        for number in (1, 4):
            configure(number, **PASSED)
            run("systemctl stop fastlisten")
            assert state().startswith("inactive")
            deliver(587, login=True)
            deliver()
            assert state().startswith("active: serving 4 listeners")
            with Clients() as clients:
                for _ in range(4):
                    clients.wait(200)
                    restart()
            assert clients.failures == []
            print(
                f"{number} worker(s), 4 restarts: {clients.served} clients, none failed, "
                f"the longest took {clients.longest:.1f} s"
            )
            run("systemctl reload fastlisten")
            run(f"{PROGRAM} upgrade --config {FILE}", code=0 if number > 1 else 1)
            deliver()


def a_mistake_with_sockets() -> None:
    """Clients start the service again, until systemd gives up; the page says what to do."""
    # However slow this machine is.
    with sockets("[Unit]\nStartLimitIntervalSec=1h"):
        configure(1, **PASSED, more="nonsense = 1\n")
        with socket.create_connection(("127.0.0.1", 25), timeout=PATIENCE):
            until(
                lambda: shown("Result", BOTH.split()[0]) == "service-start-limit-hit", "the limit"
            )
        configure(1, **PASSED)
        run(documented("service.md", "systemctl").replace("fastlisten.socket", BOTH))
        deliver()
    print("given up, and started again as documented")


def user_made_by_systemd() -> None:
    """DynamicUser= works, with several workers too."""
    with changed_unit("[Service]\nDynamicUser=yes\nUser=fastlisten-dynamic\n"):
        run(f"mv {DATA} {DATA}.static")
        configure(4)
        restart()
        run(f"{PROGRAM} account add {ALICE} --config {FILE} --password-stdin <<<'{PASSWORD}'")
        assert DATA.readlink() == Path("private/fastlisten")
        deliver(587, login=True)
        configure(4, more="max-connections = 77\n")
        run("systemctl reload fastlisten")
        run(f"{PROGRAM} upgrade --config {FILE}")
        deliver(587, login=True)
        owner = Path(f"/proc/{shown('MainPID')}").stat().st_uid
        assert owner >= 61184  # the range that systemd takes such users from
        print(f"DynamicUser: served as user {owner}")
    run(f"rm -r {DATA} /var/lib/private/fastlisten; mv {DATA}.static {DATA}")


CHECKS = (
    installed_as_documented,
    accounts_and_mail,
    reloads,
    reloads_by_notification,
    stops_and_drains,
    supervisor_killed,
    upgrade_and_faults,
    starts_that_fail,
    limits_of_files,
    socket_activation,
    a_mistake_with_sockets,
    user_made_by_systemd,
)


def main() -> int:
    """Run all checks; return 1 if one fails."""
    print(run("systemctl --version").splitlines()[0], flush=True)
    begin = time.monotonic()
    for check in CHECKS:
        print(f"-- {check.__name__.replace('_', ' ')}", flush=True)
        try:
            check()
        except BaseException:
            print(
                run("journalctl -u fastlisten -u fastlisten.socket -n 60 --no-pager -o short"),
                flush=True,
            )
            raise
    print(f"{len(CHECKS)} passed, 0 failed, {time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
