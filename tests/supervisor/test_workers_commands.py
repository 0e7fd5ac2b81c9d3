"""The commands that control a running server, with several workers.

Rules of this file: server and commands are the program.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from support.certificates import authority, table, write
from support.program import run
from support.waiting import until
from support.workers import PATIENT, WHO, patched, workers

#: No message is longer than a packet.
SMALL = """
import fastlisten.runtime.supervisor.channel as channel
channel.MAX_PAYLOAD = channel.MAX_INLINE
"""


def test_commands_reach_all_workers(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    environ = {"XDG_RUNTIME_DIR": "", "RUNTIME_DIRECTORY": "", "TOLD": str(tmp_path)}
    with workers(tmp_path, 2, environ={**environ, **patched(tmp_path, PATIENT)}) as two:

        def command(*words: str) -> str:
            done = run(words[0], *words[1:], "--config", file, **environ)
            assert (done.returncode, done.stderr) == (0, ""), done
            return done.stdout

        with two.served_by(two.pids[0]), two.served_by(two.pids[1]):
            found = json.loads(command("status", "--json"))
            assert found["server"]["pid"] == two.pid
            assert [one["number"] for one in found["server"]["workers"]] == [0, 1]
            (listener,) = found["listeners"]
            assert [one["connections"] for one in listener["workers"]] == [1, 1]
        command("limit", "it", "7")
        command("pause", "it")
        assert "paused" in command("status")
        until(lambda: json.loads(command("status", "--json"))["listeners"][0]["limit"] == 7, "it")
        with two.connect() as client:
            os.kill(two.pids[0], signal.SIGKILL)
            two.serve(3)
            command("resume", "it")
            assert client.recv(1)
        assert two.end() == 0
    assert not (tmp_path / "data" / "control.sock").exists()
    assert two.err.count("paused by uid") == 1


def test_certificates_too_large_for_a_message_fail_the_reload_only(tmp_path: Path) -> None:
    head = f'control-socket = "{tmp_path / "control"}"\n'
    cert, _ = write(tmp_path, authority().sign("mx.example.org"))
    text = f"{WHO}tls.implicit = true\n{table(tmp_path)}"
    with workers(tmp_path, 2, text, head=head, environ=patched(tmp_path, SMALL)) as two:
        pids = two.pids
        cert.write_bytes(cert.read_bytes() * 100)
        reload = run("reload", "--config", tmp_path / "mail.toml", TOLD=str(tmp_path))
        assert reload.returncode == 1
        assert "cannot be given the new configuration: a message has at most 65536" in reload.stderr
        assert two.pids == pids
        assert two.end() == 0
