"""TLS 1.3 records built by hand, which a client could send but no library does.

Rules of this file: OpenSSL performs the handshake and logs its secret; from the first record built
here on, the client's OpenSSL must not send anything, because it does not know the record numbers.
It may go on receiving. Sections are those of RFC 8446.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import struct
import tempfile
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from support.tls_contexts import client_context
from support.tls_world import TlsClient, TlsWorld

#: Content types (5.1).
HANDSHAKE, APPLICATION_DATA = 22, 23
#: The type of the message (4), its length, and what it asks for follows (4.6.3).
KEY_UPDATE = b"\x18\x00\x00\x01"
#: A meaningless record that every server must accept before the handshake is done (5).
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"


class Records:
    """What a client sends after its handshake.

    Args:
        secret: its client_application_traffic_secret_0 (7.1).
        suite: OpenSSL's name of the cipher suite; one of AES-GCM's.
    """

    def __init__(self, secret: bytes, suite: str) -> None:
        assert "_GCM_" in suite, suite
        self._hash = hashlib.sha384 if suite.endswith("SHA384") else hashlib.sha256
        self._key_size = 16 if "_128_" in suite else 32
        self._use(secret)

    def _expand(self, label: bytes, size: int) -> bytes:
        """HKDF-Expand-Label (7.1) with an empty context, of no more than one hash's output."""
        label = b"tls13 " + label
        info = struct.pack("!HB", size, len(label)) + label + b"\0"
        found = hmac.digest(self._secret, info + b"\1", self._hash)
        assert size <= len(found)
        return found[:size]

    def _use(self, secret: bytes) -> None:
        """Encrypt with a secret from now on (7.3)."""
        self._secret = secret
        self._cipher = AESGCM(self._expand(b"key", self._key_size))
        self._start = int.from_bytes(self._expand(b"iv", 12), "big")
        self._number = 0

    def record(self, kind: int, content: bytes) -> bytes:
        """Return a record (5.2) of a content type."""
        inner = content + bytes([kind])
        head = struct.pack("!BHH", APPLICATION_DATA, 0x0303, len(inner) + 16)
        nonce = (self._start ^ self._number).to_bytes(12, "big")
        self._number += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def data(self, content: bytes) -> bytes:
        """Return a record of data, at most 16,384 bytes."""
        return self.record(APPLICATION_DATA, content)

    def key_update(self, *, answer: bool) -> bytes:
        """Return a record with a key update that does or does not ask for one in return."""
        found = self.record(HANDSHAKE, KEY_UPDATE + bytes([answer]))
        self._use(self._expand(b"traffic upd", self._hash().digest_size))
        return found

    def key_updates(self, count: int, *, answer: bool) -> bytes:
        """Return many of them."""
        return b"".join(self.key_update(answer=answer) for _ in range(count))


async def crafted(world: TlsWorld, **options: Any) -> tuple[TlsClient, Records]:
    """Perform a handshake with the latest server.

    Args:
        world: the world of the server.
        options: sizes of the client's socket buffers, see `World.connect`.

    Returns:
        The client, and the builder of its records. The server may not be done yet.
    """
    context: Any = client_context(version=ssl.TLSVersion.TLSv1_3)
    with tempfile.NamedTemporaryFile("r", prefix="tls-tests-") as log:
        # Lines as of SSLKEYLOGFILE: label, the client's random, secret.
        context.keylog_filename = log.name
        client = await world.join(context, **options)
        context.keylog_filename = None
        secrets = {line.split()[0]: line.split()[-1] for line in log if line.strip()}
    cipher = client.tls.cipher()
    assert cipher is not None
    secret = bytes.fromhex(secrets["CLIENT_TRAFFIC_SECRET_0"])
    return client, Records(secret, cipher[0])
