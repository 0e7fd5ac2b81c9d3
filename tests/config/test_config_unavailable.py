"""Settings that this version does not have yet: found wherever used, and nowhere else."""

from __future__ import annotations

import pytest
from support.config import listener_table, load_text

from fastlisten.config import default_config
from fastlisten.config.rows.listener import LISTENER_OPTIONS
from fastlisten.config.unavailable import find_unavailable
from fastlisten.option import Option

CERTIFICATE = "[certificate.x]\ncert = 'file:///x'\nprivate-key = 'file:///x'\n"


def unavailable(text: str) -> list[str]:
    return [problem.key for problem in find_unavailable(load_text(text))]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "tls.implicit = true\ntls.timeout = '5s'\ntls.ignore-client-order = false",
        "tls.certificate = 'x'\ntls.sni = [{subject = 'a', certificate = 'x'}]",
        "tls.protocols = ['TLSv1.2', 'TLSv1.3']\ntls.client-ca = '/x'",
        "proxy.trusted-networks = []",
        "proxy.timeout = '7s'",
        "limits.per-address = false\nlimits.rate = false",
        "limits.deny = []",
        "limit-action = 'wait'",
        "timeout.idle = '5s'\ntimeout.first-byte = '5s'",
        "socket.linger = 3\nsocket.reuse-port = true\nsocket.tos = 'EF'",
        "socket.congestion = 'reno'",
        "bind = ['unix:/x', 'fd:3', 'systemd:x', '[::1]:0']",
        "handler = 'package.module:Class'",
        "handler = 'package.module:Class'\nprotocol = 'managesieve'",
        "protocol = 'http'\napp = 'package.module:make()'\nhttp.max-body-size = false",
        "smtp.max-recipients = 500",
        "smtp.role = 'mx'\nsmtp.relay = 'a:25'\nsmtp.relay-tls = 'verify'",
        "smtp.max-received = 50\nsmtp.greeting-delay = '2s'",
    ],
)
def test_available_settings(body: str) -> None:
    assert unavailable(CERTIFICATE + listener_table("it", body)) == []


@pytest.mark.parametrize(
    ("body", "key"),
    [
        ("proxy.trusted-networks = 'unix'", "proxy.trusted-networks"),
        ("limits.per-address = 5", "limits.per-address"),
        ("limits.rate = '5 / 1m'", "limits.rate"),
        ("limits.exempt = '10.0.0.0/8'", "limits.exempt"),
        ("limits.allow = '10.0.0.0/8'", "limits.allow"),
        ("limits.deny = '10.0.0.0/8'", "limits.deny"),
        ("forward = '127.0.0.1:25'", "forward"),
        ("protocol = 'jmap'\ntls.implicit = true", "protocol"),
        ("protocol = 'managesieve'", "protocol"),
    ],
)
def test_unavailable_settings(body: str, key: str) -> None:
    config = load_text(CERTIFICATE + listener_table("it", body))
    (problem,) = find_unavailable(config)
    assert problem.key == f"server.listener.it.{key}"
    assert problem.line > 3
    assert problem.message == "not available in this version"


def test_default_is_reported_once_with_its_listeners() -> None:
    text = "[server.limits]\nper-address = 9\n" + "".join(
        listener_table(str(port), f"bind = '127.0.0.1:{port}'") for port in range(1, 6)
    )
    (problem,) = find_unavailable(load_text(text))
    assert (problem.key, problem.line) == ("server.limits.per-address", 2)
    assert problem.message.endswith('(listeners "1", "2", "3" and 2 more)')


@pytest.mark.parametrize(
    ("default", "body"),
    [
        ("limits.rate = '5 / 1m'", "limits.rate = false"),
        ("proxy.trusted-networks = 'unix'\nproxy.timeout = '5s'", "proxy.trusted-networks = []"),
    ],
)
def test_unused_default_is_not_reported(default: str, body: str) -> None:
    text = f"[server]\n{default}\n" + listener_table("it", body)
    assert unavailable(text) == []


def test_inherited_default_is_reported() -> None:
    text = "[server]\nlimits.rate = '5 / 1m'\n" + listener_table("it", "")
    assert unavailable(text) == ["server.limits.rate"]


def test_embedded_default_is_available() -> None:
    blocked = {problem.key.split(".")[2] for problem in find_unavailable(default_config())}
    assert blocked == {"managesieve", "jmap"}


@pytest.mark.parametrize(
    "option", [row for row in LISTENER_OPTIONS if not row.available], ids=lambda row: row.key
)
def test_row_defaults_are_available(option: Option) -> None:
    # The default must be available, and so must the value that turns a feature off.
    if option.default in (None, False, ()):
        assert option.default in option.inert or option.default is None
