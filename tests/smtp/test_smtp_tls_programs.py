"""SMTP over TLS with other programs as clients: swaks, curl, openssl s_client."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.environment import own_environment
from support.smtp_harness import HELLO, MAIL, MESSAGE, RCPT, Served, Tls, body_of, codes, serve

SWAKS = shutil.which("swaks")
CURL = shutil.which("curl")
OPENSSL = shutil.which("openssl")

swaks = pytest.mark.skipif(SWAKS is None, reason="swaks is not installed")
curl = pytest.mark.skipif(CURL is None, reason="curl is not installed")
openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")

KINDS: list[Tls] = ["implicit", "starttls"]


def implicit(served: Served) -> bool:
    return served.handler.settings.tls_implicit


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, tls=request.param) as server:
        yield server


@pytest.fixture
def authority(served: Served, tmp_path: Path) -> str:
    """A file with the certificate that clients must trust."""
    with served.connect() if implicit(served) else served.secured() as client:
        assert isinstance(client, ssl.SSLSocket)
        certificate = client.getpeercert(binary_form=True)
    assert certificate is not None
    path = tmp_path / "authority.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(certificate))
    return str(path)


def run(*command: str | None, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [word for word in command if word is not None],
        input=text,
        env=own_environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )


def the_message(served: Served) -> bytes:
    (stored,) = served.delivered()
    assert b" with ESMTPS id " in stored
    assert b"\t(using TLSv1." in stored
    return body_of(stored)


@swaks
@pytest.mark.external("swaks")
@pytest.mark.parametrize("version", ["tlsv1_2", "tlsv1_3"])
def test_swaks_delivers(served: Served, version: str) -> None:
    done = run(
        SWAKS,
        *("--server", "127.0.0.1", "--port", str(served.port), "--helo", "client.example.com"),
        *("--from", "sender@example.com", "--to", "alice@example.org", "--body", "hello"),
        *("--tls-on-connect" if implicit(served) else "--tls", "--tls-protocol", version),
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    assert f"TLS started with cipher {version.replace('_', '.').upper().replace('V', 'v')}" in said
    # swaks marks lines received over TLS with "<~".
    assert "<~  250 HELP" in said
    assert "<~  250-STARTTLS" not in said
    assert ("<-  250-STARTTLS" in said) is not implicit(served)
    assert the_message(served).endswith(b"\r\nhello\r\n\r\n\r\n")


@curl
@pytest.mark.external("curl")
def test_curl_delivers(served: Served, authority: str, tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_bytes(MESSAGE)
    scheme = "smtps" if implicit(served) else "smtp"
    done = run(
        CURL,
        *("--silent", "--show-error", "--ssl-reqd", "--cacert", authority),
        *("--mail-from", "sender@example.com", "--mail-rcpt", "alice@example.org"),
        *("--upload-file", str(letter), f"{scheme}://127.0.0.1:{served.port}/client.example.com"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert the_message(served) == MESSAGE


@curl
@pytest.mark.external("curl")
def test_curl_fails_without_tls(tmp_path: Path) -> None:
    with serve(tmp_path) as plain:
        done = run(
            CURL,
            *("--silent", "--ssl-reqd", "--mail-from", "a@b", "--mail-rcpt", "alice@example.org"),
            *("--upload-file", "-", f"smtp://127.0.0.1:{plain.port}/c"),
        )
        assert done.returncode == 64  # its exit code for: the wanted level of TLS failed
        assert plain.delivered() == []


@openssl
@pytest.mark.external("openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_delivers(served: Served, authority: str, version: str) -> None:
    # Lower-case "rcpt" because of s_client's own command R; -quiet would end them, and with them
    # its report.
    commands = HELLO + MAIL + RCPT.lower() + b"DATA\r\n" + MESSAGE[:12] + b"\r\n.\r\nquit\r\n"
    done = run(
        OPENSSL,
        *("s_client", "-connect", f"127.0.0.1:{served.port}", "-ign_eof", version),
        *("-CAfile", authority, "-verify_return_error", "-verify_ip", "127.0.0.1"),
        *(() if implicit(served) else ("-starttls", "smtp")),
        text=commands,
    )
    assert done.returncode == 0, done.stderr
    assert b"Verify return code: 0 (ok)" in done.stdout
    said = [line + b"\r\n" for line in done.stdout.split(b"\r\n") if line[:3].isdigit()]
    assert codes(b"".join(said))[-6:] == [250, 250, 250, 354, 250, 221]
    assert the_message(served) == MESSAGE[:12] + b"\r\n"


@openssl
@pytest.mark.external("openssl")
def test_old_tls_version_is_refused(served: Served) -> None:
    done = run(
        OPENSSL,
        *("s_client", "-connect", f"127.0.0.1:{served.port}"),
        *("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0"),
        *(() if implicit(served) else ("-starttls", "smtp")),
    )
    assert done.returncode == 1
    assert b"alert protocol version" in done.stderr
