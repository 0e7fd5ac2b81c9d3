"""Rules that combine values use those of the listener, before those of the server.

Rules of this file: `[server]` says the opposite of the listener, and each test checks the outcome
of a rule, not the value itself.
"""

from __future__ import annotations

import pytest
from support.config import listener, listener_problem, load_text

CERTIFICATE = "[certificate.one]\ncert = '-----BEGIN CERTIFICATE-----'\nprivate-key = 'file:///k'\n"


@pytest.mark.parametrize(
    ("protocol", "server", "own", "port"),
    [
        ("smtp", "false", "true", 465),
        ("smtp", "true", "false", 25),
        ("http", "false", "true", 443),
        ("http", "true", "false", 80),
    ],
)
def test_default_port(protocol: str, server: str, own: str, port: int) -> None:
    it = listener(
        f'protocol = "{protocol}"\nbind = "192.0.2.1"\ntls.implicit = {own}',
        before=CERTIFICATE + f"[server]\ntls.implicit = {server}\n",
    )
    assert [bind.port for bind in it.bind] == [port]


def test_server_speaks_first() -> None:
    # If the client waits for the server, waiting for the client's first bytes is a mistake.
    implicit = listener(
        "tls.implicit = true\nsocket.defer-accept = '5s'",
        before=CERTIFICATE + "[server]\ntls.implicit = false\n",
    )
    assert not implicit.server_speaks_first
    assert implicit["socket.defer-accept"] == 5
    problem = listener_problem(
        "tls.implicit = false\nsocket.defer-accept = '5s'",
        before=CERTIFICATE + "[server]\ntls.implicit = true\n",
    )
    assert problem.key == "server.listener.it.socket.defer-accept"


def test_starttls_is_offered() -> None:
    off = listener("tls.enable = false", before=CERTIFICATE + "[server]\ntls.enable = true\n")
    assert not off.starttls
    on = listener("tls.enable = true", before=CERTIFICATE + "[server]\ntls.enable = false\n")
    assert on.starttls


def test_certificate_in_use() -> None:
    two = CERTIFICATE + CERTIFICATE.replace("one", "two")
    table = '[server.listener.it]\nprotocol = "smtp"\nbind = "192.0.2.1:25"\n'
    config = load_text(two + '[server]\ntls.certificate = "one"\n' + table)
    assert [warning.key for warning in config.warnings] == ["certificate.two"]
    config = load_text(
        two + '[server]\ntls.certificate = "one"\n' + table + 'tls.certificate = "two"\n'
    )
    assert [warning.key for warning in config.warnings] == ["certificate.one"]


def test_remaining_cipher_suites() -> None:
    # TLS 1.3 alone cannot use a suite of TLS 1.2.
    problem = listener_problem(
        'tls.protocols = ["TLSv1.3"]\ntls.ciphers = ["ECDHE-RSA-AES128-GCM-SHA256"]',
        before=CERTIFICATE + '[server]\ntls.protocols = ["TLSv1.2"]\n',
    )
    assert problem.key == "server.listener.it.tls.ciphers"
    it = listener(
        'tls.protocols = ["TLSv1.2"]\ntls.ciphers = ["ECDHE-RSA-AES128-GCM-SHA256"]',
        before=CERTIFICATE + '[server]\ntls.protocols = ["TLSv1.3"]\n',
    )
    assert it["tls.protocols"] == ("TLSv1.2",)
