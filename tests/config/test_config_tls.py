"""TLS settings: suites that fit the versions, and which listeners offer STARTTLS."""

from __future__ import annotations

import pytest
from support.config import listener, listener_problem, listener_table, load_text, machine_with

PEM = "-----BEGIN CERTIFICATE-----"
CERTIFICATE = f"[certificate.'{{}}']\ncert = '{PEM}'\nprivate-key = 'file:///k'\n"


def test_choosing_tls13_suites_needs_python_support() -> None:
    body = "tls.ciphers = ['TLS13_CHACHA20_POLY1305_SHA256']"
    assert "cannot choose" in listener_problem(body).message
    assert listener(body, machine=machine_with(tls13_choice=True))["tls.ciphers"]
    every = ["TLS13_AES_256_GCM_SHA384", "TLS13_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"]
    # Nor can it order them.
    config = load_text(listener_table("it", f"tls.ciphers = {every}\ntls.protocols = 'TLSv1.3'"))
    assert len(config.listeners[0]["tls.ciphers"]) == 3
    (warning,) = config.warnings
    assert warning.message == (
        "this Python cannot set the order of TLS 1.3 suites; it is TLS_AES_256_GCM_SHA384, "
        "TLS_CHACHA20_POLY1305_SHA256, TLS_AES_128_GCM_SHA256"
    )
    every[1:] = reversed(every[1:])
    text = listener_table("it", f"tls.ciphers = {every}\ntls.protocols = 'TLSv1.3'")
    assert load_text(text).warnings == ()


OLDER = "'ECDHE-RSA-AES128-GCM-SHA256'"
NEWER = "'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_128_GCM_SHA256'"


@pytest.mark.parametrize(("version", "suites"), [("TLSv1.3", OLDER), ("TLSv1.2", NEWER)])
def test_suites_and_versions_must_fit(version: str, suites: str) -> None:
    body = f"tls.protocols = '{version}'\ntls.ciphers = [{suites}]"
    assert "none of these suites can be used" in listener_problem(body).message
    both = f"tls.protocols = '{version}'\ntls.ciphers = [{OLDER}, {NEWER}]"
    assert load_text(listener_table("it", both)).warnings == ()
    assert load_text(listener_table("it", f"tls.enable = false\n{body}")).warnings == ()


@pytest.mark.parametrize(("suites", "version"), [(OLDER, "TLSv1.3"), (NEWER, "TLSv1.2")])
def test_version_without_suites_warns(suites: str, version: str) -> None:
    listeners = listener_table("a", "bind = '127.0.0.1:1'") + listener_table("b", "")
    (warning,) = load_text(f"[server]\ntls.ciphers = [{suites}]" + listeners).warnings
    assert (warning.key, warning.line) == ("server.tls.ciphers", 2)
    assert warning.message == f"none of these suites is for {version}, which is therefore disabled"
    (warning,) = load_text(listener_table("it", f"tls.ciphers = [{suites}]")).warnings
    assert warning.key == "server.listener.it.tls.ciphers"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("", True),
        ("protocol = 'imap'", True),
        ("protocol = 'lmtp'", True),
        ("protocol = 'managesieve'", True),
        ("protocol = 'http'", False),
        ("protocol = 'jmap'", False),
        ("protocol = 'http'\ntls.enable = true", False),
        ("tls.enable = false", False),
        ("tls.implicit = true", False),
        # A protocol known only to its handler: if a TLS setting is meant for it.
        ("protocol = 'own'\nhandler = 'a:B'", False),
        ("protocol = 'own'\nhandler = 'a:B'\ntls.enable = true", True),
        ("protocol = 'own'\nhandler = 'a:B'\ntls.certificate = 'x'", True),
    ],
)
def test_listeners_that_offer_starttls(body: str, expected: bool) -> None:
    others = CERTIFICATE.format("x") + CERTIFICATE.format("y")
    assert listener(body, before=others).starttls is expected


def test_tls_defaults_apply_to_custom_protocols() -> None:
    own = "protocol = 'own'\nhandler = 'a:B'"
    assert listener(own, before="[server]\ntls.enable = true").starttls
    assert listener(own, before=CERTIFICATE.format("only")).starttls
