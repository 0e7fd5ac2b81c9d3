"""What the configuration checks of an smtp listener: role and relay; hidden passwords."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.config import listener_problem, listener_table, load_text, only_problem

from fastlisten.config.export import to_plain, to_toml
from fastlisten.errors import ConfigurationError, Problem

RELAY = 'smtp.relay = "relay.example.org:25"\n'
LOGIN = 'smtp.relay-user = "u"\nsmtp.relay-password = "p4ss"\n'


@pytest.mark.parametrize(
    ("body", "key", "words"),
    [
        ('smtp.relay-user = "u"', "smtp.relay-user", "without smtp.relay"),
        ('smtp.relay-timeout = "5s"', "smtp.relay-timeout", "without smtp.relay"),
        (RELAY + 'smtp.relay-user = "u"', "smtp.relay-user", "relay-password, which is not set"),
        (RELAY + 'smtp.relay-password = "p"', "smtp.relay-password", "relay-user, which is not"),
        (RELAY + LOGIN + 'smtp.relay-tls = "may"', "smtp.relay-tls", "in plain text"),
        (RELAY + LOGIN + 'smtp.relay-tls = "none"', "smtp.relay-tls", "in plain text"),
        (RELAY + 'smtp.relay-ca = "/ca.pem"', "smtp.relay-ca", "is not checked unless"),
        (
            RELAY + 'smtp.relay-tls = "none"\nsmtp.relay-ca = "/ca.pem"',
            "smtp.relay-ca",
            "is not checked unless",
        ),
        ('smtp.relay = "unix:/x"\nsmtp.relay-tls = "verify"', "smtp.relay-tls", "Unix socket"),
        ('smtp.aiosmtpd-args = "x"', "smtp.aiosmtpd-args", "without aiosmtpd-handler"),
        (
            'protocol = "lmtp"\nlmtp.aiosmtpd-args = "x"',
            "lmtp.aiosmtpd-args",
            "without aiosmtpd-handler",
        ),
        ('smtp.role = "submission"\ntls.enable = false', "smtp.role", "over TLS only"),
        ('bind = "127.0.0.1:587"\ntls.enable = false', "tls.enable", "over TLS only"),
    ],
)
def test_invalid_settings(body: str, key: str, words: str) -> None:
    problem = listener_problem(body)
    assert problem.key == f"server.listener.it.{key}"
    assert words in problem.message
    assert problem.line


@pytest.mark.parametrize(
    "body",
    [
        RELAY + LOGIN,
        RELAY + LOGIN + 'smtp.relay-tls = "implicit"\nsmtp.relay-ca = "/ca.pem"',
        'smtp.relay = "127.0.0.1:25"\nsmtp.relay-tls = "none"\n' + LOGIN,
        'smtp.relay = "[::1]:25"\nsmtp.relay-tls = "may"\n' + LOGIN,
        'smtp.relay = "localhost:25"\nsmtp.relay-tls = "none"\n' + LOGIN,
        'smtp.relay = "unix:/run/relay"\n' + LOGIN,
        RELAY + 'smtp.relay-timeout = "30s"',
        'bind = "127.0.0.1:465"\ntls.implicit = true',
        'bind = "127.0.0.1:587"\ntls.enable = false\nsmtp.role = "mx"',
    ],
)
def test_valid_settings(body: str) -> None:
    assert load_text(listener_table("it", body)).warnings == ()


def about_roles(text: str) -> list[Problem]:
    """Return all warnings, but those about a port that is used with TLS elsewhere."""
    return [one for one in load_text(text).warnings if "tls.implicit" not in one.message]


@pytest.mark.parametrize(
    ("ports", "role", "other"),
    [
        ((25, 587), "is mx and takes mail from strangers on port 587 too", "submission"),
        ((587, 25), "is submission and takes mail only after a login on port 25 too", "mx"),
        ((465, 587, 2525), "takes mail only after a login on port 2525 too", "mx"),
    ],
)
def test_ports_of_both_roles_warn(ports: tuple[int, ...], role: str, other: str) -> None:
    binds = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
    text = listener_table("it", f"bind = [{binds}]")
    (warning,) = about_roles(text)
    assert (warning.key, warning.line) == ("server.listener.it", 2)
    assert role in warning.message
    assert "make two listeners" in warning.message
    for body in (
        'smtp.role = "mx"',
        f'smtp.role = "{other}"',
        'handler = "support.serving_handlers:Echo"',
    ):
        assert about_roles(text + body) == []


def test_ports_of_one_role() -> None:
    for binds in ('["127.0.0.1:587", "[::1]:465"]', '["127.0.0.1:25", "unix:/run/x"]'):
        assert about_roles(listener_table("it", f"bind = {binds}")) == []


def test_inherited_mistake_is_reported_once() -> None:
    text = '[smtp]\nrelay = "a.example:25"\nrelay-user = "u"\n' + "".join(
        listener_table(str(port), f"bind = '127.0.0.1:{port}'") for port in (2, 3)
    )
    with pytest.raises(ConfigurationError) as caught:
        load_text(text)
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("smtp.relay-user", 3)


@pytest.mark.parametrize("where", ["[smtp]\n", ""])
def test_invalid_value_causes_no_further_problems(where: str) -> None:
    prefix = "" if where else "smtp."
    lines = (
        f'{prefix}relay = "a.example:25"\n{prefix}relay-user = "u"\n'
        f'{prefix}relay-password = "%{{file:/nowhere}}%"\n'
    )
    text = where + lines + listener_table("it", "") if where else listener_table("it", lines)
    problem = only_problem(text)
    assert problem.key.endswith("smtp.relay-password")
    assert "/nowhere cannot be read" in problem.message


def test_relay_default_without_a_relay_warns() -> None:
    config = load_text('[smtp]\nrelay-tls = "may"\n' + listener_table("it", ""))
    assert [problem.key for problem in config.warnings] == ["smtp.relay-tls"]
    config = load_text('[smtp]\nrelay-tls = "may"\n' + listener_table("it", RELAY))
    assert config.warnings == ()
    for name in ("smtp", "lmtp"):
        table = listener_table("it", f'protocol = "{name}"')
        config = load_text(f'[{name}]\naiosmtpd-args = "x"\n' + table)
        assert [problem.key for problem in config.warnings] == [f"{name}.aiosmtpd-args"]
        table = (
            f'[{name}]\naiosmtpd-args = "x"\naiosmtpd-handler = "support.serving_handlers:Echo"\n'
            + table
        )
        assert load_text(table).warnings == ()


def test_password_is_never_shown() -> None:
    config = load_text(listener_table("it", RELAY + LOGIN))
    (listener,) = config.listeners
    assert listener["smtp.relay-password"] == "p4ss"
    for text in (to_toml(config), json.dumps(to_plain(config)), repr(config), repr(listener)):
        assert "p4ss" not in text
        assert "(not shown)" in text
    problem = listener_problem(RELAY + 'smtp.relay-user = "u"\nsmtp.relay-password = 12345')
    assert "12345" not in str(problem)


def test_placeholder_of_the_password_is_rejected() -> None:
    config = load_text(listener_table("it", RELAY + LOGIN))
    problem = only_problem(to_toml(config))
    assert problem.key == "server.listener.it.smtp.relay-password"
    assert "instead of a secret" in problem.message
    assert problem.line


def test_password_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    body = RELAY + f'smtp.relay-user = "u"\nsmtp.relay-password = "%{{file:{file}}}%"'
    (listener,) = load_text(listener_table("it", body)).listeners
    assert listener["smtp.relay-password"] == "s3cret"


def test_lmtp_has_its_own_table() -> None:
    text = "[lmtp]\nmax-recipients = 500\n" + listener_table(
        "it", 'protocol = "lmtp"\nlmtp.max-message-size = "1MiB"'
    )
    (listener,) = load_text(text).listeners
    assert listener.handler_options["max-recipients"] == 500
    assert listener.handler_options["max-message-size"] == 1 << 20
    problem = listener_problem('protocol = "lmtp"\nlmtp.relay = "a:25"')
    assert problem.key == "server.listener.it.lmtp.relay"
