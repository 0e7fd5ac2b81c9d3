"""`check` and `show`: exit codes, output streams, and the four forms of `show`."""

from __future__ import annotations

import io
import json
import socket
from pathlib import Path

import pytest
from support.config import MACHINE, listener_table, load_text

from fastlisten.cli import check, show
from fastlisten.config import load
from fastlisten.config.export import to_plain, to_toml

MAIL = """\
[server]
hostname = "mx.example.org"
max-connections = 100
socket = { ttl = 60, linger = "1500ms" }

[smtp]
max-recipients = 500

[certificate."a.b"]
cert = "file:///x.pem"
private-key = "-----BEGIN PRIVATE KEY----- secret"

[log]
level = "debug"

[server.listener."in.smtp"]
protocol = "smtp"
bind = ["[::]:0", "unix:/run/smtp", "a:3f::2", "fd:7"]
socket.ttl = false
socket.tos = "EF"
limits.rate = "20 / 5m"
limits.deny = ["10.0.0.0/8", "2001:db8::/32"]
proxy.trusted-networks = "unix"
smtp.max-errors = 3
socket.mode = "0660"

[server.listener.imap]
protocol = "imap"
bind = "127.0.0.1:2143"
tls.implicit = true
tls.sni = [{ subject = "a.org", certificate = "a.b" }]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mail.toml"
    path.write_text(MAIL)
    return str(path)


def shown(file: str | None, mode: show.Mode) -> str:
    out, err = io.StringIO(), io.StringIO()
    assert show.run(file, mode, out, err) == 0
    return out.getvalue()


def test_check_reports_problem_and_place(tmp_path: Path) -> None:
    path = tmp_path / "mail.toml"
    path.write_text("[server]\nfoo = 1\nsockt.ttl = 5" + listener_table("it", "bind = ':25'"))
    out, err = io.StringIO(), io.StringIO()
    assert check.run(str(path), out, err) == 2
    assert out.getvalue() == ""
    lines = err.getvalue().splitlines()
    assert "ignored: server.foo" in lines[0]
    assert lines[1].startswith(f"error: {path}:3: server.sockt")
    assert lines[2].startswith(f"error: {path}:6: server.listener.it.bind")
    assert lines[3] == "2 errors"


def test_check_accepts_what_this_version_cannot_serve(file: str) -> None:
    text = Path(file).read_text()
    text = text.replace("[server]\n", "[server]\ntls.enable = false\n", 1)
    text = text.replace('protocol = "imap"', 'protocol = "managesieve"')
    Path(file).write_text(text.replace("tls.implicit = true\n", ""))
    out, err = io.StringIO(), io.StringIO()
    assert check.run(file, out, err) == 0
    assert out.getvalue() == f"{file}: 2 listeners, no errors, 4 settings that `serve` refuses\n"
    notes = [line for line in err.getvalue().splitlines() if line.startswith("note: ")]
    assert len(notes) == 4
    assert all(
        note.endswith(": not available in this version; `serve` refuses this file")
        for note in notes
    )
    assert any('limits.rate = "20 / 5m": not' in note for note in notes)


def test_check_counts_handlers_that_cannot_be_imported(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    body = "protocol = 'own'\nbind = '127.0.0.1:7000'\nhandler = 'no_such_module:It'"
    path.write_text(listener_table("it", body))
    out, err = io.StringIO(), io.StringIO()
    assert check.run(str(path), out, err) == 0
    assert err.getvalue().endswith("and `serve` will fail\n")
    assert out.getvalue() == f"{path}: 1 listener, no errors, 1 setting that `serve` refuses\n"


def test_check_tries_certificates(file: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert check.run(file, out, err) == 2
    assert out.getvalue() == ""
    *_, line, count = err.getvalue().splitlines()
    assert line.startswith(f'error: {file}:10: certificate."a.b".cert = "file:///x.pem": cannot')
    assert line.endswith('No such file or directory (listeners "imap", "in.smtp")')
    assert count == "1 error"


def test_check_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mail.toml"
    path.write_text(
        f"[server]\ndata-directory = '{tmp_path}/data'"
        + listener_table("it", "bind = '127.0.0.1:2465'\ntls.implicit = true")
    )
    out, err = io.StringIO(), io.StringIO()
    assert check.run(str(path), out, err) == 0
    assert err.getvalue() == (
        'warning: no certificate is configured (listener "it"): clients will see a self-signed '
        "certificate that they do not trust; it will be created at startup\n"
    )
    assert list(tmp_path.iterdir()) == [path]


def test_check_and_show_without_a_file() -> None:
    out, err = io.StringIO(), io.StringIO()
    assert check.run(None, out, err) == 0
    assert out.getvalue() == "the embedded default: 9 listeners, no errors, 2 left out by `serve`\n"
    assert (
        err.getvalue().count("not available in this version; `serve` leaves this listener out\n")
        == 2
    )
    assert 'listener "managesieve"' in shown(None, "text")


def test_show_of_a_file_with_errors(tmp_path: Path) -> None:
    out, err = io.StringIO(), io.StringIO()
    assert show.run(str(tmp_path / "missing"), "json", out, err) == 2
    assert out.getvalue() == ""
    assert "cannot be read" in err.getvalue()
    assert err.getvalue().endswith("1 error\n")


def test_show_text(file: str) -> None:
    text = shown(file, "text")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert 'listener "in.smtp": smtp, plain text until STARTTLS' in lines
    assert 'listener "imap": imap, TLS from the first byte' in lines
    reach = "all IPv4 and IPv6 addresses of this host, a port that the kernel chooses"
    assert f"[::]:0: {reach}" in lines
    assert "unix:/run/smtp: processes on this host that may open the file" in lines
    assert "a:3f::2: whoever can reach a:3f::2, port 25" in lines
    assert "fd:7: whoever can reach the inherited socket" in lines
    assert "127.0.0.1:2143: this host only, port 2143" in lines
    assert "max-connections 100 server, line 3" in lines
    assert "socket.ttl not set listener, line 19" in lines
    assert 'socket.linger "1500ms" server, line 4' in lines
    assert "smtp.max-recipients 500 server, line 7" in lines
    assert 'server.hostname "mx.example.org" server, line 2' in lines
    assert 'log.level "debug" server, line 14' in lines
    assert 'log.format "text" default' in lines
    assert "not available in this version" in lines


@pytest.mark.parametrize(
    ("bind", "words"),
    [
        ('"0.0.0.0:25"', "all IPv4 addresses of this host, port 25"),
        ('["[::]:25", "0.0.0.0:25"]', "all IPv6 addresses of this host, port 25"),
        ('"[::1]:25"', "this host only, port 25"),
        ('"[fe80::1%eth0]:25"', "whoever can reach fe80::1 on interface eth0, port 25"),
    ],
)
def test_show_says_who_can_reach_a_bind(bind: str, words: str) -> None:
    config = load_text(listener_table("it", f"bind = {bind}"))
    assert show.reachable(config.listeners[0].bind[0]) == words


@pytest.mark.parametrize(
    ("workers", "words"), [(3, "this host only, port 25; 3 accept queues"), (1, "port 25")]
)
def test_show_says_how_many_accept_queues_there_are(
    tmp_path: Path, workers: int, words: str
) -> None:
    path = tmp_path / "queues.toml"
    binds = 'bind = ["127.0.0.1:25", "unix:/x"]\nsocket.reuse-port = true'
    path.write_text(f"[server]\nworkers = {workers}\n{listener_table('it', binds)}")
    lines = [one.partition(": ") for one in shown(str(path), "text").splitlines()]
    found = {where.strip(): said for where, _, said in lines}
    assert found["127.0.0.1:25"].endswith(words)
    assert found["unix:/x"] == "processes on this host that may open the file"


def test_show_json(file: str) -> None:
    found = json.loads(shown(file, "json"))
    assert list(found) == ["format", "listeners"]
    assert found["format"] == 1
    imap, smtp = found["listeners"]
    assert (imap["id"], imap["protocol"]) == ("imap", "imap")
    assert smtp["bind"][2] == {
        "text": "a:3f::2",
        "family": "inet6",
        "address": "a:3f::2",
        "port": 25,
    }
    assert smtp["bind"][3] == {"text": "fd:7", "family": "fd", "address": "", "port": 0, "fd": 7}
    assert smtp["max-connections"] == {"value": 100, "origin": "server"}
    assert smtp["socket.ttl"] == {"value": None, "origin": "listener"}
    assert smtp["socket.tos"] == {"value": 184, "origin": "listener"}
    assert smtp["socket.linger"] == {"value": 1.5, "origin": "server"}
    assert smtp["socket.mode"] == {"value": "0660", "origin": "listener"}
    assert smtp["socket.backlog"] == {"value": 1024, "origin": "default"}
    assert smtp["limits.rate"] == {"value": "20 / 5m", "origin": "listener"}
    assert smtp["limits.deny"]["value"] == ["10.0.0.0/8", "2001:db8::/32"]
    assert smtp["smtp.max-errors"] == {"value": 3, "origin": "listener"}
    assert imap["tls.certificate"] == {"value": "a.b", "origin": "default"}
    assert imap["tls.sni"]["value"] == [{"subject": "a.org", "certificate": "a.b"}]
    assert "smtp.max-errors" not in imap


def test_show_json_with_a_scoped_address() -> None:
    config = load_text(listener_table("it", "bind = '[fe80::1%eth0]:25'"))
    assert to_plain(config)["listeners"][0]["bind"][0]["scope"] == "eth0"


def test_show_toml_round_trip(file: str) -> None:
    text = shown(file, "toml")
    before, after = load(file, machine=MACHINE), load_text(text)
    assert after.listeners == before.listeners
    assert after.process == before.process
    assert after.server == before.server
    assert to_plain(after) == to_plain(before)
    assert to_toml(after) == text


def test_show_hides_private_keys(file: str) -> None:
    for mode in ("text", "json", "toml"):
        assert "secret" not in shown(file, mode)


def test_show_effective(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "mail.toml"
        unix = tmp_path / "socket"
        path.write_text(
            listener_table(
                "it",
                f"bind = ['127.0.0.1:0', '127.0.0.1:{port}', 'unix:{unix}', 'fd:99', '[::1%x]:0']\n"
                "socket.send-buffer-size = 40000\nsocket.congestion = 'nonsense'\n"
                "socket.linger = 0\nsocket.priority = 3",
            )
        )
        text = shown(str(path), "effective")
        lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == 'listener "it"'
    assert "socket.send-buffer-size SO_SNDBUF asked 40000 got 80000" in lines
    assert "socket.linger SO_LINGER asked on, 0 s got on, 0 s" in lines
    assert lines.count("socket.priority SO_PRIORITY asked 3 got 3") >= 2
    assert any(line.startswith("socket.congestion TCP_CONGESTION asked nonsense") for line in lines)
    assert "bind: Address already in use" in lines
    assert "inherited: options are set by `serve`" in lines
    assert any(line.startswith("socket.backlog listen asked 1024 got") for line in lines)
    assert not unix.exists()


def test_show_effective_of_a_dual_stack_socket(tmp_path: Path) -> None:
    path = tmp_path / "mail.toml"
    path.write_text(listener_table("it", "bind = '[::]:0'\nsocket.ttl = 9"))
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    text = shown(str(path), "effective")
    if "no socket of this family" in text:
        pytest.skip("this host has no IPv6")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "IPV6_V6ONLY asked 0 got 0" in lines
    assert "socket.ttl IP_TTL asked 9 got 9" in lines
    assert "socket.ttl IPV6_UNICAST_HOPS asked 9 got 9" in lines
