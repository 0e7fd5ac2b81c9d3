"""Reports: all mistakes of a file at once, each with its place; syntax, macros, unknown keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.config import (
    MACHINE,
    listener,
    listener_table,
    load_text,
    machine_with,
    only_problem,
    problems,
)

from fastlisten.config import load, loads
from fastlisten.errors import ConfigurationError

LISTENER = listener_table("it", "")


def test_all_mistakes_are_reported_in_order_of_line() -> None:
    found = problems(
        """\
[server]
max-connections = 0
hostnme = "mx"
[server.socket]
tll = 5
backlog = "many"
[server.listener.b]
bind = ["[::]:25", "localhost"]
protocol = "smpt"
socket.linger = true
[server.listener.a]
backlog = 5
"""
    )
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "server.max-connections"),
        (3, "server.hostnme"),
        (5, "server.socket.tll"),
        (6, "server.socket.backlog"),
        (8, "server.listener.b.bind[1]"),
        (9, "server.listener.b.protocol"),
        (10, "server.listener.b.socket.linger"),
        (11, "server.listener.a"),
        (11, "server.listener.a"),
        (12, "server.listener.a.backlog"),
    ]
    assert found[1].suggestion == "hostname"
    assert found[2].suggestion == "socket.ttl"
    assert found[5].suggestion == "smtp"
    assert found[9].suggestion == "socket.backlog"


def test_format_of_a_report() -> None:
    with pytest.raises(ConfigurationError) as caught:
        loads("[server]\nmax-conections = 5" + LISTENER, file="mail.toml", machine=MACHINE)
    assert str(caught.value) == (
        "mail.toml:2: server.max-conections = 5: unknown key; did you mean max-connections?"
    )


@pytest.mark.parametrize(
    ("body", "key", "suggestion"),
    [
        ("backlog = 5", "backlog", "socket.backlog"),
        ("socket.reuse_addr = true", "socket.reuse_addr", "socket.reuse-addr"),
        ("maxConnections = 5", "maxConnections", "max-connections"),
        ("max-conn = 5", "max-conn", "max-connections"),
        ("sokcet.ttl = 5", "sokcet", "socket"),
        ("socket.nodealy = true", "socket.nodealy", "socket.nodelay"),
        ("tls.implict = true", "tls.implict", "tls.implicit"),
        ("tls.cert = 'x'", "tls.cert", "tls.certificate"),
        ('"socket.ttl" = 5', '"socket.ttl"', "socket.ttl"),
        ("smtp.max-recipient = 500", "smtp.max-recipient", "smtp.max-recipients"),
        ("socket.xyzzy = 5", "socket.xyzzy", ""),
    ],
)
def test_unknown_keys_of_a_listener(body: str, key: str, suggestion: str) -> None:
    problem = only_problem(listener_table("it", body))
    assert problem.key == f"server.listener.it.{key}"
    assert problem.message == "unknown key"
    assert problem.suggestion == suggestion


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("[server]\nmax-conections = 5", "server.max-conections", "max-connections"),
        ("[server]\nlisteners.x = 5", "server.listeners", "listener"),
        ("[server.sockets]\nttl = 5", "server.sockets", "socket"),
        ("[server]\nbind = '[::]:25'", "server.bind", "belongs to a listener"),
        ("[server]\nblocked-ip = []", "server.blocked-ip", "limits.deny"),
        ("[server.tls]\nacme = 'x'", "server.tls.acme", "ACME"),
        ("[acme.x]\n", "acme", "ACME"),
        ("[serve]\n", "serve", "server"),
        ("[listener.x]\n", "listener", "server.listener"),
        ("[listeners.x]\n", "listeners", "server.listener"),
        ("[socket]\nttl = 5", "socket", "server.socket"),
        ("[certificates.x]\n", "certificates", "certificate"),
        ("[smpt]\n", "smpt", "smtp"),
        ("[smtp]\nrelai = 'x'", "smtp.relai", "relay"),
        ("[log]\nlevle = 'info'", "log.levle", "level"),
        ("[server.run-as]\nusr = 'x'", "server.run-as.usr", "run-as.user"),
        ("[server]\nproxy.xyzzy = 1", "server.proxy.xyzzy", "unknown key"),
        ("[certificate.x]\ncert='file://x'\nprivate-kye='file://x'", "certificate.x", "missing"),
    ],
)
def test_misspelt_keys_outside_listeners(text: str, key: str, says: str) -> None:
    # At the end of the text, but a top-level key goes before all tables.
    found = problems(text + LISTENER)
    assert found[0].key == key
    assert says in str(found[0])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("workers = 2", "this can only be set for the whole server, as server.workers"),
        ("run-as.user = 'x'", "this can only be set for the whole server, as server.run-as"),
        ("imap.x = 5", "this is only for imap listeners; this listener speaks smtp"),
        ("tls.acme = 'x'", "ACME"),
    ],
)
def test_misplaced_keys(body: str, says: str) -> None:
    assert says in only_problem(listener_table("it", body)).message


def test_keys_of_other_programs_are_ignored_with_one_warning() -> None:
    config = load_text(
        "version = 3\n[queue]\nx = 1\n[server]\nhttp.url = 'x'\nsecurity = 5\n"
        "[pop3]\nx = 1\n[[session]]\n[store.x]\nsocket = 5" + LISTENER
    )
    (warning,) = config.warnings
    names = "server.http, server.security, version, queue, pop3, session, store"
    assert warning.message.endswith(f"ignored: {names}")


def test_override_flags_are_ignored_with_a_warning() -> None:
    config = load_text(
        "[server]\ntls.override = true\n" + listener_table("it", "socket.override = false")
    )
    assert [warning.key for warning in config.warnings] == [
        "server.tls.override",
        "server.listener.it.socket.override",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("server = 3", "server"),
        ("[[server]]", "server"),
        ("server.listener = 3", "server.listener"),
        ("server.listener = []", "server.listener"),
        ("[[server.listener]]\nbind = '[::]'", "server.listener"),
        ("server.listener.x = 3", "server.listener.x"),
        ("[[server.listener.x]]", "server.listener.x"),
        ("[server.listener]\nbind = '[::]:25'", "server.listener.bind"),
        ("server.socket = 'x'" + LISTENER, "server.socket"),
        ("server.tls = []" + LISTENER, "server.tls"),
        ("log = true" + LISTENER, "log"),
        ("smtp = 1" + LISTENER, "smtp"),
        ("certificate = 1" + LISTENER, "certificate"),
        ("certificate.x = 1" + LISTENER, "certificate.x"),
        (listener_table("x", "socket = 3"), "server.listener.x.socket"),
        (listener_table("x", "tls = [{implicit = true}]"), "server.listener.x.tls"),
        (listener_table("x", "protocol = 3"), "server.listener.x.protocol"),
        (listener_table("x", "bind = 3"), "server.listener.x.bind"),
        (listener_table("x", "bind = [['[::]:25']]"), "server.listener.x.bind"),
        (listener_table("x", "bind = {}"), "server.listener.x.bind"),
        (listener_table("x", "smtp = 1"), "server.listener.x.smtp"),
    ],
)
def test_wrong_types_are_errors(text: str, key: str) -> None:
    assert key in {problem.key for problem in problems(text)}


def test_wrong_type_of_a_parent_table_is_the_only_report() -> None:
    assert only_problem("server = 3").key == "server"
    assert only_problem("server.listener = 3").key == "server.listener"


def test_messages_do_not_repeat_the_key() -> None:
    found = problems(
        "[certificate.x]\nprivate-key = 'MIIEsecret'\nprivate_key = '-----BEGIN secret'\n"
        "cert = ['secret']" + LISTENER
    )
    assert len(found) == 3
    assert "secret" not in "".join(map(str, found))


def test_listener_needs_bind_and_protocol() -> None:
    found = problems("[server.listener.x]")
    assert [problem.message for problem in found] == [
        "the key bind is missing",
        "the key protocol is missing",
    ]
    assert '"managesieve"' in found[1].allowed


@pytest.mark.parametrize("text", ["", "[server]\nmax-connections = 5", "[server.listener]"])
def test_no_listener_is_an_error(text: str) -> None:
    assert only_problem(text).message == "no listener is configured"


@pytest.mark.parametrize(
    ("protocol", "suggestion"),
    [("smpt", "smtp"), ("https", "http with tls.implicit = true"), ("pop3", ""), (" ", "")],
)
def test_unknown_protocols(protocol: str, suggestion: str) -> None:
    problem = only_problem(listener_table("x", f"protocol = '{protocol}'\nbind = '[::1]'"))
    assert problem.message == "unknown protocol"
    assert problem.suggestion == suggestion
    assert '"lmtp"' in problem.allowed


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("limit-action = 'drop'", '"refuse" or "wait"'),
        ("smtp.relay-tls = 'never'", '"may", "verify", "implicit" or "none"'),
    ],
)
def test_choices_are_listed(line: str, allowed: str) -> None:
    assert only_problem(listener_table("it", line)).allowed == allowed


def test_empty_protocol() -> None:
    assert only_problem(listener_table("x", "protocol = ''")).message == "this is empty"


# --- invalid TOML


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("[server\nx = 1", 1, "not valid TOML"),
        ("x = 1\nx = 2", 2, "not valid TOML"),
        ("x = [1,\n2", 2, "not valid TOML"),
        ("x = 2024-13-45", 1, "not valid TOML"),
        ("x = 1\ny = " + "9" * 5000, 2, "a number with 5,000 digits is too long"),
        ("x = 1\ny = {" + "a" * 100, 2, "not valid TOML"),
        ("x = " + "[" * 5000, 0, "nested too deeply"),
        ("x = " + "[" * 40 + "]" * 40, 0, "tables are nested more than 32 levels deep"),
        (".".join(["a"] * 40) + " = 1", 0, "tables are nested more than 32 levels deep"),
        (".".join(["a"] * 5000) + " = 1", 0, "nested"),
        (b"x = 1\ny = '\xff'", 2, "byte 0xff is not UTF-8"),
        ("x = 1\ny = '\udcff'", 2, "a lone surrogate"),
    ],
)
def test_syntax_error_is_the_only_report(text: str | bytes, line: int, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loads(text, file="x.toml", machine=MACHINE)
    (problem,) = caught.value.problems
    assert problem.line == line
    assert problem.file == "x.toml"
    assert says in problem.message


def test_bytes_and_a_byte_order_mark() -> None:
    assert loads(b"\xef\xbb\xbf" + LISTENER.encode(), machine=MACHINE).listeners


def test_overlong_number_is_reported() -> None:
    problem = only_problem(listener_table("x", "socket.ttl = 0x" + "f" * 9000))
    assert problem.value == "a very long number"


# --- files


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing", tmp_path / "nul\0"):
        with pytest.raises(ConfigurationError) as caught:
            load(path)
        (problem,) = caught.value.problems
        assert problem.file == str(path)
        assert "cannot be read" in problem.message


def test_too_large_file(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(ConfigurationError, match="larger than 64 MiB"):
        load(path)


def test_relative_paths_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mail.toml"
    file.write_text("[server]\ndata-directory = 'data'\ngreeting = '%{file:hello}%'" + LISTENER)
    (tmp_path / "hello").write_text("hello there\r\n")
    config = load(file, machine=MACHINE)
    assert config.file == str(file)
    assert config.process["server.data-directory"] == str(tmp_path / "data")
    assert config.process["server.greeting"] == "hello there"


# --- macros


@pytest.mark.parametrize(
    ("body", "key", "value"),
    [
        ("max-connections = '%{env:PORT}%'", "max-connections", 2525),
        ("tls.implicit = '%{env:YES}%'", "tls.implicit", True),
        ("socket.user = 'a%{env:PORT}%b%{env:YES}%'", "socket.user", "a2525btrue"),
        ('socket.user = "\\u0025{env:PORT}%"', "socket.user", "2525"),
    ],
)
def test_macros(body: str, key: str, value: object) -> None:
    assert listener(body + "\nbind = 'unix:/x'")[key] == value


def test_macros_in_binds_and_protocols() -> None:
    it = listener(
        "bind = ['127.0.0.1:%{env:PORT}%']\nprotocol = '%{env:P}%'",
        machine=machine_with(environ={"PORT": "26", "P": "imap"}),
    )
    assert (it.protocol, it.bind[0].port) == ("imap", 26)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("%{env:MISSING}%", "variable MISSING is not set"),
        ("%{env:BYTES}%", "is not UTF-8"),
        ("%{env:}%", "unknown macro"),
        ("%{cfg:x}%", "unknown macro"),
        ("%{env:PORT}", "missing its closing"),
        ("%{file:/nonexistent}%", "/nonexistent cannot be read: No such file"),
        ("%{file:/dev/zero}%", "it is a character device, not a regular file"),
        ("%{file:a\\u0000b}%", "cannot be read"),
    ],
)
def test_failing_macros(value: str, says: str) -> None:
    assert says in only_problem(listener_table("x", f'socket.user = "{value}"')).message


def test_file_macro_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    value = f"%{{file:{tmp_path}/binary}}%"
    problem = only_problem(listener_table("x", f"socket.user = '{value}'"))
    assert "binary is not UTF-8" in problem.message


def test_macro_result_is_not_expanded_again() -> None:
    machine = machine_with(environ={"A": "%{env:B}%", "B": "x"})
    config = load_text("[server]\ngreeting = '%{env:A}%'" + LISTENER, machine=machine)
    assert config.process["server.greeting"] == "%{env:B}%"


def test_macros_in_other_programs_tables_are_ignored() -> None:
    assert load_text("[store]\nsecret = '%{file:/nonexistent}%'" + LISTENER).listeners
