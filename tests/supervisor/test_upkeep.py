"""What a supervisor does at fixed times, with a clock of the test.

Rules of this file: the service manager is a datagram socket; certificates are real.
"""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import pytest
from support.certificates import authority, table, write
from support.config import listener_table
from support.configured_certificates import made

from fastlisten.runtime.service_manager import ServiceManager
from fastlisten.runtime.supervisor.upkeep import Upkeep
from fastlisten.runtime.tls.expiry_check import INTERVAL

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_certificates_are_looked_at_once_a_day(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    write(tmp_path, authority().sign("mx", last=now + datetime.timedelta(days=3, minutes=5)))
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    clock = [1000.0]
    upkeep = Upkeep(ServiceManager({}), lambda: it, lambda: clock[0])
    upkeep.act()
    due = [upkeep.deadline]
    upkeep.begin()
    due.append(upkeep.deadline)
    assert due == [None, 1000 + INTERVAL]
    clock[0] += INTERVAL - 1
    upkeep.act()
    assert caplog.messages == []
    clock[0] += 1
    upkeep.act()
    (message,) = caplog.messages
    assert "expires on" in message
    assert upkeep.deadline == clock[0] + INTERVAL


def test_signs_of_life_at_half_of_the_timeout(tmp_path: Path) -> None:
    it = made(tmp_path, listener_table("it", "tls.enable = false"))
    address = f"{tmp_path}/n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)

        def signs() -> int:
            count = 0
            while True:
                try:
                    count += manager.recv(100) == b"WATCHDOG=1"
                except BlockingIOError:
                    return count

        clock = [1000.0]
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}
        upkeep = Upkeep(ServiceManager(environ), lambda: it, lambda: clock[0])
        upkeep.act()
        assert signs() == 0
        upkeep.begin()
        assert (signs(), upkeep.deadline) == (1, 1005)
        clock[0] = 1004.9
        upkeep.act()
        assert signs() == 0
        clock[0] = 1007
        upkeep.act()
        assert (signs(), upkeep.deadline) == (1, 1012)
