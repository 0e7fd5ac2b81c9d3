"""What a former program passes to the new one, and the check before that, without a server.

Rules of this file: checks are real programs; descriptors are real, and what is taken is given back.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import pytest
from support.kernel import is_open, open_descriptors
from support.waiting import until

from fastlisten.runtime.supervisor.channel import sealed
from fastlisten.runtime.supervisor.upgrade import (
    VARIABLE,
    Check,
    UpgradeError,
    differences,
    passed_state,
    unix_socket,
)


def test_check_that_hangs_is_given_up_and_killed() -> None:
    before = open_descriptors()
    check = Check([sys.executable, "-c", "import time; time.sleep(3600)"], "", {})
    assert not check.ended()
    check.deadline = 0.0
    with pytest.raises(UpgradeError, match="has not ended its check within 60 s"):
        check.ended()
    check.end()
    assert open_descriptors() == before


def test_check_gets_the_shape_and_its_last_output_is_told() -> None:
    code = (
        "import sys; print('x' * 9000); print('got', sys.stdin.read(), sys.argv[1:]); sys.exit(5)"
    )
    check = Check([sys.executable, "-c", code], "mail.toml", {"a": [1]})
    with pytest.raises(UpgradeError) as raised:
        until(check.ended, "the end of the check")
    check.end()
    text = str(raised.value)
    assert "(exit code 5)" in text
    assert "got {\"a\": [1]} ['upgrade-check', 'mail.toml']" in text
    assert len(text) < 4300


def test_differences_name_both_values() -> None:
    before = {"server.workers": 2, "listener.gone.bind": ["a:1"], "same": 1, "total": None}
    now = {"server.workers": 3, "listener.new.bind": ["b:1"], "same": 1, "total": 5}
    before |= {"listener.it.bind": ["a:2"], "listener.it.reserve": 1}
    now |= {"listener.it.bind": ["b:2"], "listener.it.reserve": 2, "listener.new.reserve": 0}
    assert differences(before, before) == []
    assert differences(before, now) == [
        "server.workers is 3, and 2 in the running server: that needs a stop and a start",
        'listener.gone.bind is not set, and ["a:1"] in the running server: run fastlisten reload '
        "first",
        "total is 5, and not set in the running server: that needs a stop and a start",
        'listener.it.bind is ["b:2"], and ["a:2"] in the running server: run fastlisten reload '
        "first",
        "listener.it.reserve is 2, and 1 in the running server: that needs a stop and a start",
        'listener.new.bind is ["b:1"], and not set in the running server: run fastlisten reload '
        "first",
        "listener.new.reserve is 0, and not set in the running server: run fastlisten reload first",
    ]


def test_state_is_read_once() -> None:
    fd = sealed(json.dumps({"a": 1}).encode())
    environ = {VARIABLE: f"{os.getpid()}:{fd}", "other": "stays"}
    assert passed_state(environ) == {"a": 1}
    assert environ == {"other": "stays"}
    assert not is_open(fd)
    assert passed_state(environ) is None


def test_state_for_another_process_is_not_ours() -> None:
    assert passed_state({VARIABLE: f"{os.getppid()}:0"}) is None
    assert passed_state({VARIABLE: f"{os.getpid()}:x"}) is None


def test_state_that_somebody_could_change_is_refused() -> None:
    fd = os.memfd_create("open", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, b"{}")
        with pytest.raises(UpgradeError, match="not what a former program has passed"):
            passed_state({VARIABLE: f"{os.getpid()}:{fd}"})
    finally:
        os.close(fd)


def test_descriptor_that_is_something_else_is_refused() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with pytest.raises(UpgradeError, match="is not the socket that it was"):
            unix_socket(ours.fileno(), socket.SOCK_STREAM)
        assert is_open(ours.fileno())
        fd = os.dup(ours.fileno())
        os.set_inheritable(fd, True)
        with unix_socket(fd, socket.SOCK_SEQPACKET) as taken:
            assert not taken.get_inheritable()
