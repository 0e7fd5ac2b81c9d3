"""`fastlisten serve FILE` as a program: what it prints, and its exit codes.

0 drained, 1 failed while running, 2 configuration, 3 cannot start. Failures of sockets (3) are in
test_sockets_failures.py.
"""

from __future__ import annotations

import re
import signal
import smtplib
import socket
from pathlib import Path

import pytest
from support.marks import external
from support.page_samples import WHOLE
from support.program import program, run
from support.waiting import until

#: The page's complete sample, with one listener that needs what this version does not have.
FULL = (
    WHOLE
    + """
[server.listener."scripts"]
bind = ["127.0.0.1:4190"]
protocol = "managesieve"
"""
)

SMTP = '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'


def echo(handler: str = "Echo", *lines: str, name: str = "it") -> str:
    return (
        f'[server.listener.{name}]\nprotocol = "http"\nbind = "127.0.0.1:0"\n'
        f'handler = "support.serving_handlers:{handler}"\n' + "".join(f"{line}\n" for line in lines)
    )


def refused(tmp_path: Path, text: str) -> list[str]:
    """Return the program's output for a configuration for which it must exit with 2."""
    (tmp_path / "mail.toml").write_text(text)
    done = run("serve", tmp_path / "mail.toml", XDG_DATA_HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return [
        line.replace(f"{tmp_path}/", "")
        for line in done.stderr.splitlines()
        if not line.startswith("warning:")
    ]


# --- 0 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    with program(tmp_path, SMTP) as started:
        started.signal(number)
        assert started.ended() == 0
        assert f"INFO fastlisten: {number.name}: draining\n" in started.err
        assert started.err.endswith(" INFO fastlisten: stopped\n")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", started.port()), 20)


def test_program_lists_its_listeners(tmp_path: Path) -> None:
    text = echo(name="b") + 'max-connections = 5\nlimit-action = "wait"\n'
    text += SMTP.replace('"127.0.0.1:0"', '["127.0.0.1:0", "127.0.0.2:0"]')
    with program(tmp_path, text, listeners=2) as started:
        until(lambda: "it echoes" in started.out)
        lines = [re.sub(r":[0-9]+([,;])", r":PORT\1", line) for line in started.out.splitlines()]
        assert started.stop() == 0
    assert lines == [
        'listener "b": http on 127.0.0.1:PORT; max-connections 5, then wait',
        'listener "it": smtp on 127.0.0.1:PORT, 127.0.0.2:PORT; max-connections 8192, then refuse',
        'listener "b": it echoes',
    ]


def test_low_descriptor_limit_names_the_settings(tmp_path: Path) -> None:
    text = echo(name="a") + "max-connections = 50\n" + echo(name="b") + "max-connections = 5000\n"
    limited = ["sh", "-c", 'ulimit -n 1000 && exec "$@"', "sh"]
    with program(tmp_path, text, listeners=2, wrapper=limited) as started:
        until(lambda: "it echoes" in started.out)  # a note comes after the listeners
        few, many, note = started.out.splitlines()
        assert started.stop() == 0
    assert few.endswith("max-connections 50, then refuse")
    assert many.endswith("; needs up to 5001 descriptors, this process may have 1000")
    assert note == 'listeners "a", "b": it echoes'


def test_program_delivers_mail(tmp_path: Path) -> None:
    body = b"Subject: hello\r\n\r\n..two dots\r\n.one dot\r\nBytes: \xc3\xa4\xff\r\n"
    with program(tmp_path, SMTP) as started:
        with smtplib.SMTP("127.0.0.1", started.port(), "client.example.com", timeout=20) as session:
            assert session.sendmail("s@example.com", ["alice@example.org"], body) == {}
            with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
                session.sendmail("s@example.com", ["nobody@example.org"], body)
            assert caught.value.recipients["nobody@example.org"][0] == 550
        assert started.stop() == 0
        (message,) = started.messages()
        assert message.endswith(b"\r\n" + body)
        (line,) = [one for one in started.err.splitlines() if "delivered" in one]
        assert "fastlisten.smtp: it: " in line
        assert f"to alice@example.org: {len(message)} octets delivered" in line


def test_limits_above_the_descriptor_limit_warn(tmp_path: Path) -> None:
    """Only limits that were set explicitly: the default is the same on every machine."""
    limited = ["sh", "-c", 'ulimit -n 600; exec "$@"', "sh"]
    with program(tmp_path, echo(), wrapper=limited) as started:
        assert started.stop() == 0
        assert "RLIMIT_NOFILE" not in started.err
    with program(tmp_path, echo("Echo", "max-connections = 500"), wrapper=limited) as started:
        assert started.stop() == 0
        (line,) = [one for one in started.err.splitlines() if "RLIMIT_NOFILE" in one]
    assert "max-connections add up to 500, but this process may open 600 files" in line


def test_soft_descriptor_limit_is_raised(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -S -n 100; ulimit -H -n 700; exec "$@"', "sh"]
    with program(tmp_path, echo(), wrapper=limited) as started:
        limits = Path(f"/proc/{started.pid}/limits").read_text()
        assert re.search(r"^Max open files +700 +700 ", limits, re.MULTILINE)
        assert started.stop() == 0


# --- 1 ----------------------------------------------------------------------------------------


def test_failure_while_running_exits_with_1(tmp_path: Path) -> None:
    with program(tmp_path, echo("NeverEnds", name="a") + echo(name="b"), listeners=2) as started:
        assert started.stop() == 1
        assert "ERROR fastlisten: failed: the store is gone\n" in started.err
        assert "RuntimeError: the store is gone" in started.err
        assert 'listener "a": its handler failed to stop' in started.err


# --- 2 ----------------------------------------------------------------------------------------


def test_unavailable_protocol_exits_with_2(tmp_path: Path) -> None:
    yet = "not available in this version"
    assert refused(tmp_path, FULL) == [
        f'error: mail.toml:20: server.listener.scripts.protocol = "managesieve": {yet}',
    ]


def test_complete_sample_passes_check(tmp_path: Path) -> None:
    """Only `serve` refuses it; it is checked and shown like any other."""
    (tmp_path / "mail.toml").write_text(FULL)
    assert run("check", tmp_path / "mail.toml").returncode == 0
    assert run("show", tmp_path / "mail.toml").returncode == 0


def test_all_mistakes_are_reported(tmp_path: Path) -> None:
    lines = refused(tmp_path, SMTP + "socket.bcklog = 3\nmax-connections = 0\n")
    assert len(lines) == 3
    assert lines[0].startswith("error: mail.toml:4: server.listener.it.socket.bcklog")
    assert "did you mean" in lines[0]
    assert lines[1].startswith("error: mail.toml:5: server.listener.it.max-connections = 0: ")
    assert lines[2] == "2 errors"


def test_missing_file_exits_with_2(tmp_path: Path) -> None:
    done = run("serve", tmp_path / "nothing.toml")
    assert done.returncode == 2
    assert "nothing.toml" in done.stderr
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ("proxy.trusted-networks = ['10.0.0.0/8']", "server.listener.it.proxy.trusted-networks"),
        ("limits.per-address = 3", "server.listener.it.limits.per-address"),
        ("limits.rate = '20 / 5m'", "server.listener.it.limits.rate"),
    ],
)
def test_unavailable_settings_exit_with_2(tmp_path: Path, lines: str, key: str) -> None:
    text = f"{lines}\n{SMTP}" if "[server]" in lines else f"{SMTP}{lines}\n"
    (line,) = refused(tmp_path, text)
    assert key in line
    assert line.endswith("not available in this version")


def test_unusable_handlers_are_reported_together(tmp_path: Path) -> None:
    text = (
        echo(name="a", handler="NoSuchThing")
        + echo(name="b", handler="Picky")
        + echo(name="c", handler="NOT_A_HANDLER")
        + echo(name="d", handler="WithoutSettings")
        + echo(name="e", handler="WithoutProtocols")
    )
    lines = refused(tmp_path, text)
    assert [line.partition(": ")[2].partition(" = ")[0] for line in lines] == [
        "mail.toml:4: server.listener.a.handler",
        "mail.toml:8: server.listener.b.handler",
        "mail.toml:12: server.listener.c.handler",
        "mail.toml:16: server.listener.d.handler",
        "mail.toml:20: server.listener.e.handler",
    ]
    assert "has no attribute 'NoSuchThing'" in lines[0]
    assert "Picky rejects its settings: ValueError: no such store" in lines[1]
    assert "neither a subclass of fastlisten.Handler" in lines[2]
    assert lines[3].endswith(
        "WithoutSettings has no settings; its __init__ must call super().__init__(settings)"
    )
    assert lines[4].endswith("WithoutProtocols cannot serve clients: it has no method connection()")


def test_refusal_that_is_not_bytes_is_a_line_at_start(tmp_path: Path) -> None:
    with program(tmp_path, echo(name="a", handler="WrongWords"), listeners=0) as started:
        assert started.ended() == 3
        (line,) = started.err.splitlines()
    assert line.endswith(
        'cannot start: listener "a": the refusal of WrongWords must be bytes, not str'
    )


def test_systemd_unit_must_name_a_file(tmp_path: Path) -> None:
    done = run("serve", INVOCATION_ID="1", NOTIFY_SOCKET="/nowhere", HOME=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "error: under systemd a configuration file must be given\n"


def test_usage_errors_exit_with_2() -> None:
    assert run("serve", "--nonsense").returncode == 2
    assert run().returncode == 2


# --- 3 ----------------------------------------------------------------------------------------


def test_handler_that_cannot_start_exits_with_3(tmp_path: Path) -> None:
    with program(tmp_path, echo("NotReady"), listeners=0) as started:
        assert started.ended() == 3
        assert started.out == ""
        assert "ERROR fastlisten: cannot start: the store is not there\n" in started.err
        assert "RuntimeError: the store is not there" in started.err


# --- system calls -----------------------------------------------------------------------------

OPTIONS = (
    "socket.ttl = 60",
    "socket.tos = 72",
    "socket.send-buffer-size = 65536",
    "socket.recv-buffer-size = 65536",
    'socket.linger = "3s"',
    "socket.keepalive = true",
    'socket.keepalive-time = "2m"',
    'socket.user-timeout = "30s"',
)


@external("strace")
@pytest.mark.parametrize(("extra", "each"), [("", 0), ("socket.priority = 3", 1)])
def test_accepting_sets_only_the_priority(tmp_path: Path, extra: str, each: int) -> None:
    """Accepted sockets inherit all options but the priority, which is set once per connection."""
    connections = 20
    trace = tmp_path / "trace"
    wrapper = ["strace", "-f", "-o", str(trace), "-e", "trace=accept4,setsockopt"]
    text = SMTP + "\n".join((*OPTIONS, extra)) + "\n"
    with program(tmp_path, text, wrapper=wrapper) as started:
        for _ in range(connections):
            with smtplib.SMTP("127.0.0.1", started.port(), "c.example.com", timeout=20) as session:
                session.sendmail("s@example.com", ["alice@example.org"], b"Subject: x\r\n\r\n")
        assert started.stop() == 0
    lines = trace.read_text().splitlines()
    # The connection that shows what is inherited, before the start, is accepted blocking.
    first = next(at for at, line in enumerate(lines) if re.search("accept4.*SOCK_NONBLOCK", line))
    names = re.findall(r"^\d+ +(\w+)\(.* = \d+", "\n".join(lines[first:]), re.MULTILINE)
    assert names.count("accept4") >= connections
    assert names.count("setsockopt") == each * connections
    # They were set on the listening socket.
    assert sum("setsockopt(" in line for line in lines[:first]) > len(OPTIONS)
