"""Which value applies to a listener: defaults, the server's, its own, and rules between them."""

from __future__ import annotations

import os

import pytest
from support.config import (
    MACHINE,
    listener,
    listener_problem,
    listener_table,
    load_text,
    machine_with,
    only_problem,
    problems,
)

from fastlisten.config import default_config

PEM = "-----BEGIN CERTIFICATE-----"
CERTIFICATE = f"[certificate.'{{}}']\ncert = '{PEM}'\nprivate-key = 'file:///k'\n"


def test_defaults() -> None:
    it = listener("")
    assert it["max-connections"] == 8192
    assert it["limit-action"] == "refuse"
    assert it["socket.backlog"] == 1024
    assert it["socket.reuse-addr"] is True
    assert it["socket.reuse-port"] is False
    assert it["socket.nodelay"] is True
    assert it["socket.linger"] is None
    assert it["tls.enable"] is True
    assert it["tls.implicit"] is False
    assert it["tls.timeout"] == 60.0
    assert it["proxy.timeout"] == 5.0
    assert it["smtp.max-recipients"] == 100
    assert {it.origin(key) for key in it.keys()} == {"default"}  # noqa: SIM118
    assert it.server_speaks_first


@pytest.mark.parametrize(
    ("protocol", "first_byte", "idle"),
    [
        ("smtp", 300.0, 300.0),
        ("lmtp", 300.0, 300.0),
        ("imap", 60.0, 1800.0),
        ("managesieve", 60.0, 1800.0),
        ("jmap", 30.0, 60.0),
        ("http", 30.0, 60.0),
    ],
)
def test_timeouts_differ_by_protocol(protocol: str, first_byte: float, idle: float) -> None:
    it = listener(f'protocol = "{protocol}"')
    assert (it["timeout.first-byte"], it["timeout.idle"]) == (first_byte, idle)
    server = "[server.timeout]\nidle = '7s'"
    assert listener(f'protocol = "{protocol}"', before=server)["timeout.idle"] == 7.0


def test_listener_overrides_server_overrides_default() -> None:
    it = listener(
        "socket.backlog = 2048\nmax-connections = '5'",
        before="[server]\nsocket.backlog = 100\nsocket.ttl = 9\nmax-connections = 6",
    )
    assert (it["socket.backlog"], it.origin("socket.backlog")) == (2048, "listener")
    assert (it["max-connections"], it.origin("max-connections")) == (5, "listener")
    assert (it["socket.ttl"], it.origin("socket.ttl")) == (9, "server")
    assert (it["socket.tos"], it.origin("socket.tos")) == (None, "default")
    assert it.line("socket.ttl") == 3
    assert it.line("socket.backlog") == 8
    assert it.line("socket.tos") == 5  # not set anywhere: the listener's table
    assert it.settings["socket.backlog"] == 2048
    assert tuple(it.settings) == it.keys()
    assert "bind" not in it.settings


def test_unknown_key_is_a_key_error() -> None:
    it = listener("")
    with pytest.raises(KeyError):
        it["socket.nonsense"]
    with pytest.raises(KeyError):
        it.origin("socket.nonsense")


def test_false_cancels_a_default() -> None:
    it = listener("socket.ttl = false", before="[server.socket]\nttl = 5")
    assert (it["socket.ttl"], it.origin("socket.ttl")) == (None, "listener")


def test_empty_list_turns_proxy_off() -> None:
    before = "[server.proxy]\ntrusted-networks = ['10.0.0.0/8']"
    assert listener("proxy.trusted-networks = []", before=before)["proxy.trusted-networks"] == ()
    assert len(listener("", before=before)["proxy.trusted-networks"]) == 1


def test_listener_overrides_defaults_of_the_handlers_table() -> None:
    before = "[smtp]\nmax-recipients = 200\nmax-errors = 3\n"
    it = listener("smtp.max-recipients = 300", before=before)
    assert it.handler_options["max-recipients"] == 300
    assert it.handler_options["max-errors"] == 3
    assert it.handler_options["max-message-size"] == 50 << 20
    assert it.origin("smtp.max-recipients") == "listener"
    assert it.origin("smtp.max-errors") == "server"
    assert it.line("smtp.max-errors") == 3
    assert it.path("smtp.max-errors") == ("smtp", "max-errors")


def test_listeners_are_sorted_by_id() -> None:
    ids = ["b", "a.b", "A", "", "é", "x y", '"']
    text = "".join(listener_table(id.replace('"', '\\"'), 'bind = "127.0.0.1:0"') for id in ids)
    assert [each.id for each in load_text(text).listeners] == sorted(ids)


def test_protocol_names_are_case_insensitive() -> None:
    assert listener('protocol = " SMTP "').protocol == "smtp"


# --- TLS


def test_listeners_implicit_tls_overrides_inherited_enable_false() -> None:
    it = listener("tls.implicit = true", before="[server.tls]\nenable = false")
    assert (it["tls.enable"], it.origin("tls.enable")) == (True, "listener")
    assert it["tls.implicit"] is True
    assert not it.server_speaks_first


def test_listeners_enable_false_overrides_inherited_implicit_tls() -> None:
    it = listener("tls.enable = false", before="[server.tls]\nimplicit = true")
    assert (it["tls.enable"], it["tls.implicit"]) == (False, False)


@pytest.mark.parametrize("place", ["server", "listener"])
def test_implicit_without_enable_in_one_table_is_an_error(place: str) -> None:
    tls = "tls.implicit = true\ntls.enable = false\n"
    if place == "server":
        problem = only_problem("[server]\n" + tls + listener_table("it", ""))
        assert problem.key == "server.tls.enable"
    else:
        problem = listener_problem(tls)
        assert problem.key == "server.listener.it.tls.enable"
    assert "contradicts" in problem.message


def test_named_certificate_must_exist() -> None:
    problem = listener_problem("tls.certificate = 'x'", before=CERTIFICATE.format("y"))
    assert problem.message == 'there is no [certificate."x"]'
    assert problem.allowed == '"y"'
    sni = "[server.tls]\nsni = [{subject='a', certificate='z'}]"
    found = problems(sni + listener_table("a", ""))
    assert [problem.key for problem in found] == ["server.tls.sni"]


@pytest.mark.parametrize(
    ("ids", "chosen"),
    [(["default", "x"], "default"), (["x"], "x"), (["x", "y"], None), ([], None)],
)
def test_default_certificate_choice(ids: list[str], chosen: str | None) -> None:
    before = "".join(CERTIFICATE.format(id) for id in ids)
    config = load_text(before + listener_table("it", "tls.implicit = true"))
    it = config.listeners[0]
    assert (it["tls.certificate"], it.origin("tls.certificate")) == (chosen, "default")
    assert list(config.certificates) == ids


def test_certificate_as_file_or_pem() -> None:
    text = CERTIFICATE.format("x") + listener_table("it", "")
    certificate = load_text(text).certificates["x"]
    assert (certificate.cert, certificate.private_key) == (PEM, "file:///k")
    assert "private" not in repr(certificate)
    found = problems("[certificate.x]\ncert = 3\n[certificate]\ny = 4" + listener_table("it", ""))
    keys = [problem.key for problem in found]
    assert keys == ["certificate.x", "certificate.x.cert", "certificate.y"]


def test_tls_settings_without_tls_warn() -> None:
    config = load_text(listener_table("it", "protocol = 'http'\ntls.enable = true"))
    (warning,) = config.warnings
    assert "http has no STARTTLS" in warning.message


# --- other rules


def test_defer_accept_requires_clients_that_speak_first() -> None:
    body = "socket.defer-accept = '5s'"
    assert "both sides would wait" in listener_problem(body).message
    assert listener(body + "\nprotocol = 'http'")["socket.defer-accept"] == 5.0
    assert listener(body + "\ntls.implicit = true")["socket.defer-accept"] == 5.0
    inherited = listener("", before="[server.socket]\ndefer-accept = '5s'")
    assert inherited["socket.defer-accept"] is None
    assert inherited.origin("socket.defer-accept") == "server"
    http = listener("protocol = 'http'", before="[server.socket]\ndefer-accept = '5s'")
    assert http["socket.defer-accept"] == 5.0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("handler = 'a:B'\nforward = '127.0.0.1:25'", "only one of handler and forward"),
        ("handler = 'a:B'\napp = 'c:d'\nprotocol = 'http'", "only one of handler and app"),
        ("app = 'c:d'", "only http listeners can have an app; this listener speaks smtp"),
    ],
)
def test_only_one_of_handler_forward_app(body: str, says: str) -> None:
    assert says in listener_problem(body).message


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("socket.tos", "0x2d", "packets will carry 44"),
        ("socket.linger", "0", "every close resets the connection"),
        ("socket.backlog", "5000", "net.core.somaxconn = 4096"),
    ],
)
def test_values_that_warn(key: str, value: str, says: str) -> None:
    for text in (
        listener_table("it", f"{key} = {value}"),
        f"[server]\n{key} = {value}" + listener_table("it", ""),
    ):
        (warning,) = load_text(text).warnings
        assert says in warning.message
        assert warning.key.endswith(key)
        assert warning.line > 0


def test_default_backlog_above_somaxconn_warns_once() -> None:
    text = listener_table("a", "bind = '127.0.0.1:1'") + listener_table("b", "bind = '[::1]:2'")
    (warning,) = load_text(text, machine=machine_with(somaxconn=128)).warnings
    assert "default socket.backlog = 1024" in warning.message
    assert not load_text(text, machine=machine_with(somaxconn=None)).warnings
    quiet = "[server.socket]\nbacklog = 100" + text
    assert not load_text(quiet, machine=machine_with(somaxconn=128)).warnings


# --- the whole process


def test_process_defaults_come_from_the_host() -> None:
    config = load_text(listener_table("it", ""))
    assert config.process["server.hostname"] == "this.example.org"
    assert config.process["server.data-directory"] == "/home/mail/.local/share/fastlisten"
    assert config.process["server.accounts"] == "/home/mail/.local/share/fastlisten/accounts.toml"
    assert config.process["server.shutdown-timeout"] == 30.0
    assert config.process["log.level"] == "info"
    assert config.origin("server.hostname") == "default"
    assert config.line("server.hostname") == 0
    assert config.workers == 1


@pytest.mark.parametrize(
    ("environ", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/h"}, "/var/lib/a"),
        ({"XDG_DATA_HOME": "/data", "HOME": "/h"}, "/data/fastlisten"),
        ({"XDG_DATA_HOME": "data", "HOME": "/h"}, "/h/.local/share/fastlisten"),
        ({"HOME": "h"}, "/var/lib/fastlisten"),
    ],
)
def test_data_directory(environ: dict[str, str], directory: str) -> None:
    config = load_text(listener_table("it", ""), machine=machine_with(environ=environ))
    assert config.process["server.data-directory"] == directory


def test_process_values() -> None:
    config = load_text(
        "[server]\nhostname = 'mx.example.org'\nworkers = 'auto'\nrun-as.user = 'mail'\n"
        "data-directory = '/data'\n[log]\nlevel = 'debug'" + listener_table("it", "")
    )
    assert config.process["server.hostname"] == "mx.example.org"
    assert config.process["server.workers"] == "auto"
    assert config.workers == 4
    assert config.process["server.run-as.user"] == "mail"
    assert config.process["server.accounts"] == "/data/accounts.toml"
    assert config.process["log.level"] == "debug"
    assert config.origin("log.level") == "server"
    assert config.line("log.level") == 7
    with pytest.raises(KeyError):
        config.origin("server.nonsense")


def test_relative_paths_of_a_text() -> None:
    config = load_text("[server]\ndata-directory = 'data'" + listener_table("it", ""))
    assert config.process["server.data-directory"] == os.path.join(os.getcwd(), "data")


def test_embedded_default() -> None:
    config = default_config("/srv/mail", machine=MACHINE)
    ports = {each.id: each.bind[0].port for each in config.listeners}
    assert ports == {
        "smtp": 2525,
        "submission": 2587,
        "submissions": 2465,
        "lmtp": 2424,
        "imap": 2143,
        "imaps": 2993,
        "managesieve": 2190,
        "jmap": 2443,
        "http": 2080,
    }
    assert all(each.bind[0].address == "127.0.0.1" for each in config.listeners)
    assert {each["max-connections"] for each in config.listeners} == {1000}
    assert config.process["server.data-directory"] == "/srv/mail"
    assert config.process["server.accounts"] == "/srv/mail/accounts.toml"
