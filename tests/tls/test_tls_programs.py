"""Other projects' programs as clients: OpenSSL's s_client, curl, sslscan.

Rules of this file: the server runs in the test's own loop, the program beside it, and the program's
output is what counts. Each test is skipped if its program is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Literal

import pytest
from support.environment import own_environment
from support.listener import Echo
from support.loops import LoopFactory, run
from support.marks import external
from support.tls_contexts import certificate_files, server_context
from support.tls_listener import TlsListener, tls_listening
from support.waiting import PATIENCE, eventually

from fastlisten.testing import serve

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Upper(Echo):
    """Answers in capitals; "bye" ends the connection."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data.upper())
        if b"bye" in data:
            self.transport.close()


class Http(Echo):
    """Answers a request with a page, or with how much was sent."""

    def __init__(self) -> None:
        self.request = b""

    def data_received(self, data: bytes) -> None:
        self.request += data
        head, found, body = self.request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not found or len(body) < int(length[1] if length else 0):
            return
        self.request = b""
        page = b"%d bytes\n" % len(body) if length else b"page\n" * 100_000
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page))


class Program:
    """A running program with pipes.

    Attributes:
        output: what it has printed so far, errors included.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = b""

    async def wait_for(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until the output matches; return the match."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while not (found := re.search(pattern, self.output)):
                more = await self.process.stdout.read(65536)
                assert more, f"ended without {pattern!r}: {self.output!r}"
                self.output += more
        return found

    async def tell(self, words: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        await self.process.stdin.drain()

    async def end(self) -> str:
        """Close its input and wait for its end; return all its output."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
            await self.process.stdin.wait_closed()
        async with asyncio.timeout(PATIENCE):
            self.output += await self.process.stdout.read()
            await self.process.wait()
        return self.output.decode(errors="replace")


async def start(*command: str) -> Program:
    """Start a program that ends when its input does."""
    return Program(
        await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=own_environment(),
        )
    )


async def s_client(listener: TlsListener, *options: str) -> Program:
    """Start OpenSSL's client, which trusts only our authority."""
    host, port = listener.address
    return await start(
        *("openssl", "s_client", "-connect", f"{host}:{port}", "-CAfile"),
        *(certificate_files().authority, "-verify_return_error", *options),
    )


@external("openssl")
@pytest.mark.parametrize(("option", "version"), [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")])
@pytest.mark.parametrize("key", ["rsa", "p256"])
def test_s_client(loop_factory: LoopFactory, option: str, version: str, key: str) -> None:
    async def main() -> None:
        async with tls_listening(Upper, server_context(key=key)) as listener:
            client = await s_client(
                listener, option, "-servername", "localhost", "-verify_hostname", "localhost"
            )
            await client.wait_for(rb"Verify return code: 0 \(ok\)")
            assert re.search(rb"New, (\S+), Cipher is", client.output)
            await client.tell(b"hello\n")
            await client.wait_for(rb"HELLO\n")
            await client.tell(b"bye\n")
            await client.wait_for(rb"BYE\n")
            said = await client.end()
            assert version in said
            # Newer programs print it only if renegotiation exists at all.
            assert version == "TLSv1.3" or "Secure Renegotiation IS" in said
            assert "Compression: NONE" in said
            await listener.empty()
            assert listener.count("handshake_failures") == 0

    run(loop_factory, main)


@external("openssl")
def test_s_client_alpn(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        context = server_context(alpn=("two", "one"))
        async with tls_listening(Upper, context) as listener:
            for offered, chosen in (("one,two", "two"), ("one", "one"), ("none", None)):
                client = await s_client(listener, "-alpn", offered)
                await client.wait_for(rb"Verify return code")
                said = await client.end()
                found = re.search(r"ALPN protocol: (\S+)", said)
                assert (found[1] if found else None) == chosen
            await listener.empty()

    run(loop_factory, main)


@external("openssl")
@pytest.mark.parametrize("option", ["-tls1_2", "-tls1_3"])
def test_s_client_resumes(loop_factory: LoopFactory, option: str, tmp_path: Path) -> None:
    """With a ticket kept in a file."""
    ticket = str(tmp_path / "session.pem")

    async def main() -> None:
        async with tls_listening(Upper) as listener:
            for direction, word in (("-sess_out", rb"\nNew, "), ("-sess_in", rb"\nReused, ")):
                client = await s_client(listener, option, direction, ticket)
                await client.wait_for(word)
                # An answer, so that the tickets of TLS 1.3 have come before the end.
                await client.tell(b"hello\n")
                await client.wait_for(rb"HELLO\n")
                await client.end()
            await listener.empty()

    run(loop_factory, main)


@external("openssl")
def test_s_client_reconnects_with_its_session(loop_factory: LoopFactory) -> None:
    """Five times, with TLS 1.2."""

    async def main() -> None:
        async with tls_listening(Upper) as listener:
            client = await s_client(listener, "-tls1_2", "-reconnect")
            said = await client.end()
            assert said.count("\nReused, TLSv1.2") == 5
            await listener.empty()
            assert listener.count("accepted") == 6
            assert listener.count("handshake_failures") == 0

    run(loop_factory, main)


@external("openssl")
def test_s_client_cannot_renegotiate(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with tls_listening(Upper) as listener:
            client = await s_client(listener, "-tls1_2")
            await client.wait_for(rb"Verify return code")
            await client.tell(b"R\n")
            await client.wait_for(rb"RENEGOTIATING\n")
            said = await client.end()
            assert "no renegotiation" in said
            await listener.empty()

    run(loop_factory, main)


@external("openssl")
def test_s_client_updates_keys(loop_factory: LoopFactory) -> None:
    """Its own, and ours at its request; data continues."""

    async def main() -> None:
        async with tls_listening(Upper) as listener:
            client = await s_client(listener, "-tls1_3")
            await client.wait_for(rb"Verify return code")
            for letter in (b"k", b"K", b"K"):
                await client.tell(letter + b"\n")
                await client.wait_for(rb"KEYUPDATE\n")
                client.output = b""
                await client.tell(b"and on\n")
                await client.wait_for(rb"AND ON\n")
            await client.end()
            await listener.empty()
            assert listener.count("handshake_failures") == listener.count("truncated") == 0

    run(loop_factory, main)


@external("openssl")
@pytest.mark.parametrize("option", ["-tls1", "-tls1_1"])
def test_s_client_with_old_versions(loop_factory: LoopFactory, option: str) -> None:
    async def main() -> None:
        async with tls_listening(Upper) as listener:
            client = await s_client(listener, option, "-cipher", "ALL:@SECLEVEL=0")
            said = await client.end()
            assert "alert protocol version" in said
            await listener.empty()
            assert listener.count("handshake_failures") == 1

    run(loop_factory, main)


@external("openssl")
def test_s_client_with_a_certificate(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        names: list[Any] = []

        class Named(Upper):
            def data_received(self, data: bytes) -> None:
                names.append(self.transport.get_extra_info("peercert")["subject"][0][0][1])
                super().data_received(data)

        async with tls_listening(Named, server_context(ask_client=True)) as listener:
            client = await s_client(listener, "-cert", certificate_files().client)
            await client.tell(b"hello\n")
            await client.wait_for(rb"HELLO\n")
            await client.end()
            client = await s_client(listener, "-cert", certificate_files().stranger)
            await client.wait_for(rb"alert unknown ca")
            await client.end()
            await listener.empty()
            assert names == ["client.test"]

    run(loop_factory, main)


@external("curl")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl(loop_factory: LoopFactory, version: str, tmp_path: Path) -> None:
    """A page and an upload of 5 MB on one connection."""
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(range(250)) * 20_000)

    async def main() -> None:
        async with tls_listening(Http) as listener:
            page = f"https://localhost:{listener.address[1]}/"
            curl = await start(
                *("curl", "--silent", "--show-error", "--ipv4", "--http1.1", "--noproxy", "*"),
                *(
                    "--cacert",
                    certificate_files().authority,
                    f"--tlsv{version}",
                    "--tls-max",
                    version,
                ),
                *(page, "--next", "--silent", "--show-error", "--ipv4", "--http1.1"),
                *("--noproxy", "*", "--cacert", certificate_files().authority),
                *("--header", "Expect:", "--data-binary", f"@{upload}", page),
            )
            said = await curl.end()
            assert said == "page\n" * 100_000 + "5000000 bytes\n"
            assert curl.process.returncode == 0
            await listener.empty()
            assert listener.count("handshake_failures") == listener.count("truncated") == 0

    run(loop_factory, main)


async def sslscan(report: Path, address: Any, *options: str) -> None:
    """Let sslscan write its report."""
    host, port = address
    # Without a timeout of its own, it gives a server three seconds.
    limits = (f"--timeout={PATIENCE:.0f}", f"--connect-timeout={PATIENCE:.0f}")
    scan = await start(
        "sslscan", f"--xml={report}", "--sni-name=localhost", *limits, *options, f"{host}:{port}"
    )
    await scan.end()
    assert scan.process.returncode == 0


def check_report(report: Path, *, aead: bool) -> None:
    """Assert that a report contains nothing that sslscan rates worse than acceptable.

    Args:
        report: the XML file.
        aead: whether ciphers without authenticated encryption are errors, too.
    """
    test = ElementTree.parse(report).getroot().find("ssltest")
    assert test is not None
    enabled = {
        (found.get("type"), found.get("version"))
        for found in test.findall("protocol")
        if found.get("enabled") == "1"
    }
    assert enabled == {("tls", "1.2"), ("tls", "1.3")}
    ciphers = test.findall("cipher")
    assert {cipher.get("sslversion") for cipher in ciphers} == {"TLSv1.2", "TLSv1.3"}
    for cipher in ciphers:
        name = cipher.get("cipher") or ""
        assert cipher.get("strength") in ("strong", "acceptable"), name
        assert int(cipher.get("bits") or 0) >= 128, name
        assert not re.search("RC4|DES|NULL|EXP|MD5|ADH|AECDH|anon", name)
        if aead:
            assert re.search("GCM|CHACHA20|CCM", name), name
    assert test.findall("heartbleed")
    assert all(found.get("vulnerable") == "0" for found in test.findall("heartbleed"))
    assert all(found.get("supported") == "0" for found in test.findall("compression"))
    renegotiation = test.find("renegotiation")
    assert renegotiation is not None
    assert renegotiation.get("supported") == "0"
    certificate = test.find("certificates/certificate")
    assert certificate is not None
    assert (certificate.findtext("signature-algorithm") or "").lower() == "ecdsa-with-sha256"


@external("sslscan")
@pytest.mark.parametrize("key", ["rsa", "p256"])
def test_sslscan(key: str, tmp_path: Path) -> None:
    """With Python's own defaults; connections dropped in the handshake leave nothing behind."""

    async def main() -> None:
        async with tls_listening(Upper, server_context(key=key)) as listener:
            await sslscan(tmp_path / "report.xml", listener.address)
            await eventually(lambda: listener.acceptor.connections == 0)
            await listener.empty()
            assert listener.count("handshake_failures") > 5

    run(asyncio.SelectorEventLoop, main)
    check_report(tmp_path / "report.xml", aead=False)


@external("sslscan")
@pytest.mark.parametrize("how", ["implicit", "starttls"])
def test_sslscan_of_a_configured_listener(
    how: Literal["implicit", "starttls"], tmp_path: Path
) -> None:
    """With our defaults."""

    async def main() -> None:
        async with serve("smtp", tls=how) as served:
            options = ["--starttls-smtp"] if how == "starttls" else []
            await sslscan(tmp_path / "report.xml", (served.host, served.port), *options)

    run(asyncio.SelectorEventLoop, main)
    check_report(tmp_path / "report.xml", aead=True)
