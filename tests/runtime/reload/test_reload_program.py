"""`fastlisten serve` reloaded: by SIGHUP and by `fastlisten reload`, with the lines of both.

Rules of this file: the program is a process of its own, and its file is rewritten while it runs.
"""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

from support.program import Program, program, run
from support.waiting import PATIENCE, until


def listener(id: str, *lines: str) -> str:
    text = "\n".join(lines)
    return (
        f'[server.listener.{id}]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
        f"tls.enable = false\n{text}\n"
    )


def rewrite(started: Program, old: str, new: str) -> None:
    path = started.directory / "mail.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def said(started: Program) -> list[str]:
    """Return what the server itself has logged since the reload, with the level."""
    found = re.findall(r"^\S+ \S+ ([A-Z]+) fastlisten: (.*)$", started.err, re.MULTILINE)
    lines = [f"{level} {line}" for level, line in found]
    return lines[lines.index("INFO SIGHUP: reloading") + 1 :]


def test_sighup_logs_a_line_for_each_change(tmp_path: Path) -> None:
    text = '[log]\nlevel = "info"\n' + listener("gone") + listener("it", "max-connections = 5")
    with program(tmp_path, text, listeners=2) as started:
        with socket.create_connection(("127.0.0.1", started.port()), PATIENCE) as client:
            assert client.recv(100).startswith(b"220 mx.example.org ")
            rewrite(started, listener("gone"), listener("new"))
            rewrite(started, "connections = 5", 'connections = 6\nsmtp.relay = "127.0.0.1:26"')
            rewrite(started, 'level = "info"', 'level = "info"\nformat = "json"')
            started.signal(signal.SIGHUP)
            ends = ("reloaded", 'listener "gone": closed')
            until(lambda: all(line in started.err for line in ends), "the report")
            client.sendall(b"QUIT\r\n")
            assert client.recv(100).startswith(b"221 ")
        lines = said(started)
        assert started.stop() == 0
    (new,) = [line for line in lines if line.startswith('INFO listener "new": smtp on 127.')]
    lines.remove(new)
    lines.remove('INFO listener "gone": closed')
    assert lines == [
        'INFO listener "gone": removed from the configuration; draining',
        'WARNING log.format = "json" needs a stop and a start of the server; still "text"',
        'INFO listener "it": max-connections = 6 (was 5)',
        'INFO listener "it": smtp.relay = "127.0.0.1:26" (was not set)',
        f"INFO reloaded {tmp_path}/mail.toml: 1 listener added, 1 listener removed, "
        "2 settings changed, 1 setting waiting for a stop and a start",
    ]


def test_log_level_is_used_at_once(tmp_path: Path) -> None:
    """Connections, which the native core records only if they are logged, are included."""
    with program(tmp_path, '[log]\nlevel = "info"\n' + listener("it")) as started:
        port = started.port()

        def visited() -> int:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                client.recv(100)
            return started.err.count("connection from")

        for level, logs in (("debug", True), ("error", False)):
            rewrite(started, f'level = "{"info" if logs else "debug"}"', f'level = "{level}"')
            result = run("reload", "--config", tmp_path / "mail.toml")
            assert result.returncode == 0, result.stderr
            assert f'log.level = "{level}" (was ' in result.stdout
            before = started.err
            if logs:
                until(lambda: visited(), "a line about a connection")
            else:
                visited()
                assert started.err == before
        assert started.stop() == 0


def test_command_prints_what_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    with program(tmp_path, listener("it") + listener("gone"), listeners=2) as started:
        rewrite(started, listener("gone"), listener("new"))
        rewrite(started, listener("it"), listener("it", "socket.reuse-port = true"))
        result = run("reload", "--config", file)
        assert (result.returncode, result.stdout) == (
            0,
            'listener "new": added\nlistener "gone": removed, draining\n',
        )
        assert result.stderr == (
            'warning: listener "it": socket.reuse-port = true needs a stop and a start of the '
            "server; still false\n"
        )
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = f"127.0.0.1:{other.getsockname()[1]}"
            more = listener("more").replace("127.0.0.1:0", taken)
            rewrite(started, "socket.reuse-port = true\n", more)
            result = run("reload", "--config", file)
            assert (result.returncode, result.stdout) == (1, "")
            problem, summary = result.stderr.splitlines()
            start = f'error: listener "more" on {taken}: bind: Address already in use'
            assert problem.startswith(start)
            assert summary == f"reload of {file} failed with 1 problem; nothing has changed"
            rewrite(started, more, "")
        result = run("reload", "--config", file)
        assert (result.returncode, result.stdout, result.stderr) == (0, "nothing has changed\n", "")
        assert started.stop() == 0
