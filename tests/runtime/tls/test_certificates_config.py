"""A configuration's certificates: shared, all mistakes reported, the self-signed one."""

from __future__ import annotations

import datetime
import os
import ssl
from pathlib import Path

import pytest
from support.certificates import authority, rsa_key, shake, table, trusting_all, write
from support.config import listener_table
from support.configured_certificates import der, made, renewed, shown
from support.without_cryptography import no_library  # noqa: F401  (a fixture)

from fastlisten.errors import ConfigurationError
from fastlisten.runtime.tls.pem import KeyPair, fingerprint

pytestmark = pytest.mark.usefixtures("descriptors_back")

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
IMPLICIT = "tls.implicit = true"


def mistakes(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        made(directory, text)
    return [str(problem).removeprefix(f"{directory}/") for problem in caught.value.problems]


# --- which ------------------------------------------------------------------------------------


def test_listeners_with_a_context(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    text = table(tmp_path) + "".join(
        listener_table(name, f"bind = '127.0.0.1:{port}'\n{body}")
        for port, (name, body) in enumerate(
            {
                "implicit": IMPLICIT,
                "starttls": "",
                "none": "tls.enable = false",
                "http": "protocol = 'http'",
                "https": f"protocol = 'http'\n{IMPLICIT}",
                "own": "protocol = 'own'\nhandler = 'a:B'",
            }.items(),
            2000,
        )
    )
    it = made(tmp_path, text)
    assert it.notes == []
    contexts = {name: it.context(name) for name in ("implicit", "starttls", "https", "own")}
    # Listeners with the same settings and handler share one, with one set of session ticket keys.
    assert contexts["implicit"] is contexts["starttls"]
    assert len(set(contexts.values())) == 3
    assert None not in contexts.values()
    assert [it.context(name) for name in ("none", "http", "unheard of")] == [None] * 3


@pytest.mark.parametrize(
    "body",
    [
        "tls.certificate = 'other'",
        "tls.sni = [{subject = 'a.example', certificate = 'other'}]",
        "tls.protocols = 'TLSv1.3'",
        "tls.ciphers = ['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES128-GCM-SHA256']",
        "tls.ignore-client-order = false",
        "tls.client-ca = 'ca.pem'",
    ],
)
def test_different_settings_make_another_context(tmp_path: Path, body: str) -> None:
    write(tmp_path, authority().sign("mx"))
    write(tmp_path, authority().sign("other"), "other")
    (tmp_path / "ca.pem").write_bytes(authority().pem)
    text = table(tmp_path) + table(tmp_path, "other", "other")
    text += listener_table("a", "bind = '127.0.0.1:1'") + listener_table("b", body)
    text += listener_table("c", f"bind = '127.0.0.1:3'\n{body}\ntls.timeout = '7s'")
    it = made(tmp_path, text)
    assert it.context("a") is not it.context("b")
    assert it.context("b") is it.context("c")


def test_alpn_protocols_are_those_of_the_handler(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    text = table(tmp_path) + "".join(
        listener_table(name, f"bind = '127.0.0.1:{port}'\nhandler = 'x:{name}'")
        for port, name in enumerate("ab", 1)
    )
    it = made(tmp_path, text)
    it.set_alpn("a", ("smtp",))
    it.set_alpn("b", ())
    one = trusting_all()
    one.set_alpn_protocols(["smtp"])

    def chosen(name: str) -> str | None:
        context = it.context(name)
        assert context is not None
        return shake(context, one).client.selected_alpn_protocol()

    assert (chosen("a"), chosen("b")) == ("smtp", None)
    write(tmp_path, authority().sign("renewed"))
    it, found = renewed(it)
    assert found.changed
    assert (chosen("a"), chosen("b")) == ("smtp", None)


def test_certificates_inline_by_file_and_by_name(tmp_path: Path) -> None:
    default, other = authority().sign("mx"), authority().sign("other")
    write(tmp_path, other, "other")
    text = (
        f"[certificate.default]\ncert = '''{default.cert.decode()}'''\n"
        f"private-key = '''{default.key.decode()}'''\n"
        "[certificate.x]\ncert = 'file://other.crt'\nprivate-key = 'file://other.key'\n"
    ) + listener_table("it", "tls.sni = [{subject = 'Other.Example', certificate = 'x'}]")
    it = made(tmp_path, text)
    assert shown(it) == der(default)
    assert shown(it, "other.example") == der(other)
    assert renewed(it)[1].files == 2


# --- mistakes ---------------------------------------------------------------------------------


def test_all_mistakes_are_reported_at_their_lines(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"), "good")
    write(tmp_path, KeyPair(authority().sign("mx").cert, authority().sign("mx").key), "mixed")
    (tmp_path / "garbage").write_text("hello")
    text = (
        "[certificate.default]\ncert = 'file://good.crt'\nprivate-key = 'file://missing.key'\n"
        "[certificate.mixed]\ncert = 'file://mixed.crt'\nprivate-key = 'file://mixed.key'\n"
        "[certificate.unused]\ncert = 'file://missing'\nprivate-key = 'file://missing'\n"
        "[certificate.text]\ncert = '-----BEGIN CERTIFICATE----- x'\nprivate-key = 'file://garbage'"
    )
    text += listener_table("a", "bind = '127.0.0.1:1'")
    text += listener_table("b", f"tls.certificate = 'mixed'\n{IMPLICIT}\nbind = '127.0.0.1:2'")
    text += listener_table("c", "tls.certificate = 'text'\ntls.client-ca = 'garbage'")
    assert mistakes(tmp_path, text) == [
        f'mail.toml:5: certificate.default.private-key = "file://{tmp_path}/missing.key": '
        'cannot be read: No such file or directory (listener "a")',
        f'mail.toml:8: certificate.mixed.private-key = "file://{tmp_path}/mixed.key": '
        'the private key does not match the certificate (listener "b")',
        'mail.toml:13: certificate.text.cert: it contains no PEM certificate (listener "c")',
        f'mail.toml:29: server.listener.c.tls.client-ca = "{tmp_path}/garbage": '
        'it contains no PEM certificate (listener "c")',
    ]


def test_message_names_only_some_of_many_listeners(tmp_path: Path) -> None:
    text = table(tmp_path) + "".join(
        listener_table(str(port), f"bind = '127.0.0.1:{port}'") for port in range(1, 6)
    )
    (line,) = mistakes(tmp_path, text)
    assert line.endswith('No such file or directory (listeners "1", "2", "3" and 2 more)')


def test_messages_do_not_repeat_secrets(tmp_path: Path) -> None:
    good = authority().sign("mx")
    text = f"[certificate.x]\ncert = '''{good.cert.decode()}'''\n"
    text += "private-key = '''-----BEGIN PRIVATE KEY-----\nsecret'''" + listener_table("it", "")
    (line,) = mistakes(tmp_path, text)
    assert "certificate.x.private-key: the private key is damaged" in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("days", "says"), [((-9, -2), "expired on"), ((2, 9), "is not valid before")]
)
def test_expired_or_future_certificate_warns(
    tmp_path: Path, days: tuple[int, int], says: str
) -> None:
    first, last = (
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=day) for day in days
    )
    expired = authority().sign("mx", first=first, last=last)
    write(tmp_path, expired)
    it = made(tmp_path, table(tmp_path) + listener_table("it", ""))
    (note,) = it.notes
    day = last if says == "expired on" else first
    assert "mail.toml:4: certificate.default.cert = " in note
    assert note.endswith(f'the certificate {says} {day:%Y-%m-%d} (listener "it")')
    assert shown(it) == der(expired)


def test_cipher_suites_that_do_not_fit_the_key(tmp_path: Path) -> None:
    write(tmp_path, authority().sign("mx"))
    body = "tls.ciphers = 'ECDHE-RSA-AES128-GCM-SHA256'"
    it = made(tmp_path, table(tmp_path) + listener_table("it", body))
    (note,) = it.notes
    assert note.endswith(
        "no configured TLS 1.2 cipher suite works with the key of "
        'certificate "default" (listener "it")'
    )
    write(tmp_path, authority().sign("mx", key=rsa_key()))
    assert made(tmp_path, table(tmp_path) + listener_table("it", body)).notes == []


# --- the self-signed certificate --------------------------------------------------------------


def test_self_signed_certificate_is_used_without_any_other(tmp_path: Path) -> None:
    text = listener_table("it", IMPLICIT)
    first = made(tmp_path, text)
    path = tmp_path / "data" / "self-signed.pem"
    print_ = fingerprint(path.read_bytes())
    assert first.notes == [
        'no certificate is configured (listener "it"): clients will see a self-signed '
        f"certificate that they do not trust, kept in {path}; SHA-256 {print_}"
    ]
    second = made(tmp_path, text)
    assert second.notes == first.notes
    assert shown(first) == shown(second)
    for it in (first, second):
        _, found = renewed(it)
        assert (found.changed, found.problems, found.files) == ([], [], 1)


def test_several_certificates_without_a_default(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path, authority().sign(name), name)
    text = table(tmp_path, "a", "a") + table(tmp_path, "b", "b") + listener_table("it", "")
    (note,) = made(tmp_path, text).notes
    assert note.startswith(
        "tls.certificate is not set, and there is no default certificate (listener"
    )


def test_self_signed_certificate_is_made_only_when_needed(tmp_path: Path) -> None:
    made(tmp_path, listener_table("it", "protocol = 'http'"))
    made(tmp_path, listener_table("it", "tls.enable = false"))
    made(tmp_path, listener_table("it", "protocol = 'own'\nhandler = 'a:B'"))
    assert os.listdir(tmp_path) == []


def test_unwritable_data_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    assert mistakes(tmp_path, listener_table("it", "")) == [
        f'mail.toml:2: server.data-directory = "{tmp_path}/data": '
        "cannot keep a self-signed certificate there: Not a directory"
    ]


def test_damaged_self_signed_certificate(tmp_path: Path) -> None:
    made(tmp_path, listener_table("it", ""))
    path = tmp_path / "data" / "self-signed.pem"
    path.write_bytes(path.read_bytes()[:300])
    (line,) = mistakes(tmp_path, listener_table("it", ""))
    assert f"the self-signed certificate in {path}: " in line
    path.write_text("")
    (line,) = mistakes(tmp_path, listener_table("it", ""))
    assert line.endswith("cannot be used: it contains neither a certificate nor a key")


@pytest.mark.usefixtures("no_library")
def test_without_cryptography(tmp_path: Path) -> None:
    for body, key in ((IMPLICIT, "tls.implicit"), ("tls.enable = true", "tls.enable")):
        (line,) = mistakes(tmp_path, listener_table("it", body))
        assert line == (
            f"mail.toml:7: server.listener.it.{key} = true: no certificate is configured, and "
            "creating a self-signed certificate needs the package cryptography: "
            "pip install 'fastlisten[tls]' (listener \"it\"); "
            'allowed: a table [certificate."default"] with cert and private-key'
        )
    # No listener asks for STARTTLS here: it is left out, with a warning.
    it = made(tmp_path, listener_table("it", ""))
    (note,) = it.notes
    assert note.startswith('STARTTLS is not offered (listener "it"): no certificate is configured')
    assert it.context("it") is None
