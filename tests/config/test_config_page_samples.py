"""Every sample on the documented page of listeners: complete ones load, fragments lack lines."""

from __future__ import annotations

import pytest
from support.config import load_text, only_problem, problems
from support.page_samples import WHOLE

from fastlisten.config.unavailable import find_unavailable

MANY_ADDRESSES = """\
[server.listener."smtp"]
bind = ["10.0.0.21:25", "10.0.0.22:25", "a:3f::2"]
"""
ALL_INTERFACES = """\
[server.listener."smtp"]
bind = "[::]:25"
"""
TWO_PROTOCOLS = """\
[server.listener."smtp"]
bind = ["[::]:25"]
protocol = "smtp"

[server.listener."imap"]
bind = ["[::]:143"]
protocol = "imap"
"""
TLS = """\
[server.tls]
enable = true
implicit = false
timeout = "1m"
certificate = "default"
sni = [ { subject = "otherdomain.org", certificate = "otherdomain_org" },
        { subject = "otherdomain.net", certificate = "otherdomain_net" } ]
protocols = [ "TLSv1.2", "TLSv1.3" ]
ciphers = [ "TLS13_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" ]
ignore-client-order = true
"""
CERTIFICATE = """\
[certificate."default"]
cert = '''-----BEGIN CERTIFICATE-----
MIIFCTCCAvGgAwIBAgIUCgHGQYUqtelbHGVSzCVwBL3fyEUwDQYJKoZIhvcNAQEL
...
-----END CERTIFICATE-----
'''
private-key = "file:///opt/stalwart-smtp/etc/private/tls.key"
"""
LIMIT = """\
[server]
max-connections = 8192
"""
LIMIT_OF_ONE = """\
[server.listener."submissions"]
bind = ["[::]:465"]
protocol = "smtp"
tls.implicit = true
max-connections = 1024
"""
OVERRIDE_TLS = """\
[server.listener."submissions"]
tls.implicit = true

[server.tls]
implicit = false
"""
OVERRIDE_BACKLOG = """\
[server.listener."smtp"]
socket.backlog = 2048

[server.socket]
backlog = 1024
"""


def completed(sample: str, *lines: str) -> str:
    """Return a sample with lines added to its first listener's table."""
    head, _, rest = sample.partition("\n")
    return "\n".join((head, *lines, rest))


def test_many_addresses() -> None:
    problem = only_problem(MANY_ADDRESSES)
    assert (problem.line, problem.message) == (1, "the key protocol is missing")
    (smtp,) = load_text(completed(MANY_ADDRESSES, 'protocol = "smtp"')).listeners
    assert [(bind.family, bind.address, bind.port) for bind in smtp.bind] == [
        ("inet", "10.0.0.21", 25),
        ("inet", "10.0.0.22", 25),
        ("inet6", "a:3f::2", 25),
    ]


def test_all_interfaces() -> None:
    problem = only_problem(ALL_INTERFACES)
    assert (problem.line, problem.message) == (1, "the key protocol is missing")
    (smtp,) = load_text(completed(ALL_INTERFACES, 'protocol = "smtp"')).listeners
    (bind,) = smtp.bind
    assert bind.wildcard
    assert bind.v6only is False


def test_two_protocols() -> None:
    config = load_text(TWO_PROTOCOLS)
    assert [(each.id, each.protocol) for each in config.listeners] == [
        ("imap", "imap"),
        ("smtp", "smtp"),
    ]
    assert not config.warnings


def test_tls() -> None:
    certificates = CERTIFICATE + "".join(
        CERTIFICATE.replace('"default"', name) for name in ("otherdomain_org", "otherdomain_net")
    )
    problem = only_problem(TLS + certificates + TWO_PROTOCOLS)
    # Only this version of Python prevents it.
    assert (problem.key, problem.line) == ("server.tls.ciphers", 9)
    assert "cannot choose" in problem.message
    without = TLS.replace('"TLS13_CHACHA20_POLY1305_SHA256", ', "")
    smtp = load_text(without + certificates + TWO_PROTOCOLS).listeners[1]
    assert smtp["tls.timeout"] == 60.0
    assert smtp["tls.certificate"] == "default"
    assert smtp["tls.sni"][1] == ("otherdomain.net", "otherdomain_net")
    assert smtp["tls.ciphers"] == ("ECDHE-RSA-CHACHA20-POLY1305",)
    assert smtp.origin("tls.ignore-client-order") == "server"


def test_tls_without_certificates() -> None:
    keys = [problem.key for problem in problems(TLS + TWO_PROTOCOLS)]
    assert keys == [f"server.tls.{name}" for name in ("certificate", "sni", "sni", "ciphers")]


def test_certificate() -> None:
    config = load_text(CERTIFICATE + WHOLE)
    assert config.certificates["default"].cert.startswith("-----BEGIN CERTIFICATE-----\nMII")
    key = "file:///opt/stalwart-smtp/etc/private/tls.key"
    assert config.certificates["default"].private_key == key
    assert config.listeners[3]["tls.certificate"] == "default"
    assert not config.warnings


def test_limits() -> None:
    assert only_problem(LIMIT).message == "no listener is configured"
    config = load_text(LIMIT + LIMIT_OF_ONE + ALL_INTERFACES + 'protocol = "smtp"')
    smtp, submissions = config.listeners
    assert (smtp["max-connections"], smtp.origin("max-connections")) == (8192, "server")
    assert (submissions["max-connections"], submissions.origin("max-connections")) == (
        1024,
        "listener",
    )
    assert submissions["tls.implicit"] is True


@pytest.mark.parametrize("sample", [OVERRIDE_TLS, OVERRIDE_BACKLOG])
def test_override_samples_lack_two_lines(sample: str) -> None:
    assert [(problem.line, problem.message) for problem in problems(sample)] == [
        (1, "the key bind is missing"),
        (1, "the key protocol is missing"),
    ]


def test_override_tls() -> None:
    text = completed(OVERRIDE_TLS, 'bind = "[::]:465"', 'protocol = "smtp"')
    (submissions,) = load_text(text).listeners
    assert submissions["tls.implicit"] is True
    assert submissions.origin("tls.implicit") == "listener"


def test_override_backlog() -> None:
    text = completed(OVERRIDE_BACKLOG, 'bind = "[::]:25"', 'protocol = "smtp"')
    (smtp,) = load_text(text).listeners
    assert (smtp["socket.backlog"], smtp.origin("socket.backlog")) == (2048, "listener")


def test_complete_example() -> None:
    config = load_text(WHOLE)
    assert [
        (each.id, each.protocol, each.bind[0].text, each["tls.implicit"])
        for each in config.listeners
    ] == [
        ("management", "http", "127.0.0.1:8080", False),
        ("smtp", "smtp", "[::]:25", False),
        ("submission", "smtp", "[::]:587", False),
        ("submissions", "smtp", "[::]:465", True),
    ]
    # It has no certificate and runs as it is.
    assert config.warnings == ()
    assert find_unavailable(config) == ()
    assert [each.starttls for each in config.listeners] == [False, True, True, False]
