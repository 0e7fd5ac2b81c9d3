"""Secrets in a configuration: no message, listing or log repeats them.

Rules of this file: the secret is always the word p4ssw0rd, and everything printed about a text is
searched for it. Hiding too much is no mistake, except where a value is needed to find a mistake.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from support.config import MACHINE, listener_table, load_text, machine_with, only_problem

from fastlisten.cli import check, show
from fastlisten.config import loads
from fastlisten.config.export import to_plain, to_toml
from fastlisten.config.notation import show_value
from fastlisten.config.secret_names import is_secret_name
from fastlisten.config.unavailable import find_unavailable
from fastlisten.errors import ConfigurationError

SECRET = "p4ssw0rd"
RELAY = 'smtp.relay = "relay.example.org:25"\nsmtp.relay-user = "u"\n'


def messages_for(text: str) -> str:
    """Return all messages about a text, whether it loads or not."""
    machine = machine_with(environ={"RELAY_PASSWORD": SECRET, "HOME": "/x"})
    try:
        config = loads(text, machine=machine)
    except ConfigurationError as error:
        return "\n".join(map(repr, (error, *error.problems, *error.warnings, str(error))))
    parts = [to_toml(config), json.dumps(to_plain(config)), repr(config), repr(config.listeners)]
    return "\n".join([*parts, *map(repr, config.warnings), *map(repr, find_unavailable(config))])


@pytest.mark.parametrize(
    "key",
    [
        "smtp.relay-passwrd",
        "smtp.relay-password2",
        "smtp.relay_password",
        "smtp.relay-pasword",
        "smtp.relay-passowrd",
        "smtp.password",
        "smtp.pw",
        "smtp.relay-secret",
        "smtp.relay-scret",
        "smtp.relayToken",
        "smtp.relay-tokne",
        "smtp.api-key",
        "smtp.apikey",
        "smtp.credentials",
        "smtp.relay-pass",
        "smtp.auth",
        "smtp.auth.plain",
        "password.x",
        "secret",
        "tls.key",
        "tls.private-key",
        "tls.passphrase",
        "smtp.elay-password",
        "smtp.relaypass",
        "smtp.relay-pswd",
        "smtp.relaypw",
        "smtp.kennwort",
        "smtp.rp",
        "smtp.rp.x",
        "tls.dbpass",
    ],
)
def test_misspelt_key(key: str) -> None:
    text = listener_table("it", f'{key} = "{SECRET}"')
    problem = only_problem(text)
    assert f"server.listener.it.{key}".startswith(problem.key)
    assert problem.message.startswith(("unknown key", "this"))
    assert SECRET not in messages_for(text)


@pytest.mark.parametrize(
    "text",
    [
        f'[smtp]\nrelay-passwrd = "{SECRET}"\n' + listener_table("it", ""),
        f'[smtp]\nrp = "{SECRET}"\n' + listener_table("it", ""),
        listener_table("it", f'xyzzy = "--password={SECRET}"'),
        listener_table("it", f"xyzzy = '-v --auth-token  \"{SECRET} {SECRET}\"'"),
        f'[smtp.relay]\nhost = "x"\npassword = "{SECRET}"\n' + listener_table("it", ""),
        f'[[smtp]]\nrelay-password = "{SECRET}"\n' + listener_table("it", ""),
        f'[smpt]\nrelay-password = "{SECRET}"\n' + listener_table("it", ""),
        f'[server]\nrelay-password = "{SECRET}"\n' + listener_table("it", ""),
        f'[[server]]\nx = {{ secret = "{SECRET}" }}\n',
        f'[storage]\npassword = "{SECRET}"\n[store.x]\nsecret-key = "{SECRET}"\n'
        + listener_table("it", ""),
        f'[server.listener]\nbind = {{ password = "{SECRET}" }}',
        f'[server.listener]\nx = [{{ password = "{SECRET}" }}]',
        listener_table("it", f'tls.sni = [{{ subject = "a", password = "{SECRET}" }}]'),
        listener_table("it", f'smtp.relay = "smtp://u:{SECRET}@relay.example.org:25"'),
        listener_table("it", f'smtp.relay = "u:{SECRET}@relay.example.org:25"'),
        listener_table("it", f'bind = "u:{SECRET}@127.0.0.1"'),
        listener_table("it", f'protocol = "jmap"\nurl = "https://u:{SECRET}@a.example"'),
        listener_table("it", f'protocol = "http"\nhttp.hosts = "https://u:{SECRET}@a.example"'),
        listener_table("it", f'tls.certificate = "-----BEGIN PRIVATE KEY-----\\n{SECRET}"'),
        listener_table("it", f'xyzzy = "$argon2id$v=19$m=1,t=1,p=1$c2FsdA${SECRET}"'),
        listener_table("it", f'xyzzy = "{{SSHA}}{SECRET}"'),
        listener_table("it", f'xyzzy = ["$6$salt${SECRET}"]'),
        f'[certificate.x]\ncert = "{SECRET}"\nprivate-key = "{SECRET}"\nkey = "{SECRET}"\n'
        + listener_table("it", ""),
        listener_table("it", RELAY + f"smtp.relay-password = ['{SECRET}']"),
        listener_table("it", RELAY + f'smtp.relay-password = "{SECRET}\\u0000"'),
    ],
)
def test_misplaced_secret(text: str) -> None:
    assert SECRET not in messages_for(text)


MACRO = "%{env:RELAY_PASSWORD}%"


@pytest.mark.parametrize(
    "body",
    [
        f'tls.protocols = "{MACRO}"',
        f'limits.deny = ["{MACRO}"]',
        f'protocol = "http"\nhttp.hosts = "{MACRO} x"',
        f'tls.sni = [{{ subject = "{MACRO} x", certificate = "x" }}]',
        f'protocol = "{MACRO}"',
        f'socket.user = "{MACRO}"',
        f'greeting = "{MACRO}"',
        f'tls.certificate = "{MACRO}"',
        f'{RELAY}smtp.relay-password = "{MACRO}"',
        f'max-connections = "{MACRO}"',
        f'handler = "{MACRO}"',
    ],
)
def test_macro_with_a_secret_name(body: str) -> None:
    assert SECRET not in messages_for(listener_table("it", body))


def test_macro_with_a_secret_name_is_expanded() -> None:
    machine = machine_with(environ={"RELAY_PASSWORD": SECRET})
    text = listener_table("it", f'greeting = "{MACRO}"')
    assert f"{load_text(text, machine=machine).listeners[0]['greeting']}" == SECRET
    problem = only_problem(
        to_toml(load_text(text, machine=machine)).replace("greeting", "socket.user")
    )
    assert "instead of a secret" in problem.message


def test_password_in_handler_arguments() -> None:
    arguments = f"inbox --db-password {SECRET}"
    body = f'smtp.aiosmtpd-handler = "a:B"\nsmtp.aiosmtpd-args = "{arguments}"'
    text = listener_table("it", body)
    assert SECRET not in messages_for(text)
    value = load_text(text).listeners[0]["smtp.aiosmtpd-args"]
    assert f"{value}" == arguments
    assert SECRET not in repr(value)
    shown = listener_table("it", body.replace(arguments, "inbox --size 5"))
    assert 'aiosmtpd-args = "inbox --size 5"' in messages_for(shown)


def test_other_macros_and_values_are_shown() -> None:
    text = listener_table("it", "greeting = '%{env:PORT}%'")
    assert 'greeting = "2525"' in to_toml(load_text(text, machine=MACHINE))
    assert only_problem(listener_table("it", "xyzzy = 'plover'")).value == '"plover"'
    assert only_problem(listener_table("it", "tls.timeout = 'plover'")).value == '"plover"'


@pytest.mark.parametrize(
    "name",
    ["bind", "backlog", "tls.certificate", "hostname", "keepalive", "relay-user", "greeting",
     "trusted-networks", "ignore-client-order", "monkey", "tokyo", "passive", "x", "",
     "aiosmtpd-handler"],
)  # fmt: skip
def test_names_not_taken_for_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["password", "PASSWD", "dbPassword", "db_pass", "/run/secrets/x", "TOKEN", "x-api-key"]
)
def test_names_taken_for_secrets(name: str) -> None:
    assert is_secret_name(name)


def test_values_in_messages() -> None:
    assert show_value({"u": 1, "Password": SECRET, "a": {"key": 1}}) == (
        "{ u = 1, Password = (not shown), a = { key = (not shown) } }"
    )
    assert show_value(f"redis://:x@h redis://u:{SECRET}@h:1/0") == (
        '"redis://:x@h redis://u:***@h:1/0"'
    )
    assert show_value("mail.example.org:25") == '"mail.example.org:25"'
    assert show_value("%{MACHINE}%") == '"%{MACHINE}%"'


def test_commands_do_not_print_secrets(tmp_path: Path) -> None:
    path = tmp_path / "mail.toml"
    path.write_text(
        listener_table("it", RELAY + f'tls.enable = false\nsmtp.relay-password = "{SECRET}"')
    )
    for mode in ("text", "json", "toml"):
        out, err = io.StringIO(), io.StringIO()
        assert show.run(str(path), mode, out, err) == 0
        assert SECRET not in out.getvalue() + err.getvalue()
    path.write_text(path.read_text().replace("relay-password", "relay-passwrd"))
    out, err = io.StringIO(), io.StringIO()
    assert check.run(str(path), out, err) == 2
    assert "smtp.relay-passwrd: unknown key" in err.getvalue()
    assert "did you mean smtp.relay-password?" in err.getvalue()
    assert SECRET not in err.getvalue()
