"""Benchmarks of MIME: what the structure of a message costs, and its compact form.

Rules of this file: messages as they come in practice, with the header that a delivery leaves. The
number of rounds is fixed; the least time of them counts, of this process's CPU. Counting the line
ends of the same message is measured beside it: no parser can do with less. Not part of the test
suite:

    python -m pytest benchmarks/bench_mime.py --benchmark-enable
    python -m benchmarks.bench_mime                                     # the least times alone
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from fastlisten.mail.mime.compact import pack, unpack
from fastlisten.mail.mime.parser import parse

ROUNDS = 15

HEADER = (
    b"Received: from mail.example.com (mail.example.com [192.0.2.1])\r\n"
    b"\tby mx.example.org with ESMTPS id 0123456789abcdef\r\n"
    b"\tfor <bob@example.org>; Mon, 30 Nov 2026 14:00:00 +0000\r\n" * 4
    + b"DKIM-Signature: v=1; a=rsa-sha256; d=example.com; s=x;\r\n\tb=" + b"x" * 300 + b"\r\n"
    b"Date: Mon, 30 Nov 2026 14:00:00 +0000\r\nFrom: Alice Example <alice@example.com>\r\n"
    b'To: "Bob" <bob@example.org>, carol@example.org\r\nSubject: Hello world\r\n'
    b"Message-ID: <1234@example.com>\r\nIn-Reply-To: <99@example.com>\r\nMIME-Version: 1.0\r\n"
)  # fmt: skip

PLAIN = (
    HEADER + b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    + b"hello world, this is text\r\n" * 30
)  # fmt: skip


def mixed(size: int) -> bytes:
    """Return a message with a text, the same as HTML, and an attachment of this many octets."""
    attachment = base64.encodebytes(random.Random(1).randbytes(size)).replace(b"\n", b"\r\n")
    return (
        HEADER + b'Content-Type: multipart/mixed; boundary="=_outer"\r\n\r\n--=_outer\r\n'
        b'Content-Type: multipart/alternative; boundary="=_inner"\r\n\r\n--=_inner\r\n'
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"text line\r\n" * 50
        + b"--=_inner\r\nContent-Type: text/html; charset=utf-8\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"<p>text line</p>\r\n" * 80
        + b"--=_inner--\r\n--=_outer\r\nContent-Type: application/pdf; name=x.pdf\r\n"
        b"Content-Disposition: attachment; filename=x.pdf\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n" + attachment + b"--=_outer--\r\n"
    )  # fmt: skip


MESSAGES = {"2 kB plain": PLAIN, "12 kB mixed": mixed(6000), "1 MiB mixed": mixed(764_000)}

#: What is measured of each message.
WORK: dict[str, Callable[[bytes], Callable[[], object]]] = {
    "count line ends": lambda data: partial(data.count, b"\n"),
    "parse": lambda data: partial(parse, data),
    "parse, of LFs": lambda data: partial(parse, data.replace(b"\r\n", b"\n")),
    "pack": lambda data: partial(pack, parse(data)),
    "unpack": lambda data: partial(unpack, pack(parse(data))),
}


def iterations(data: bytes) -> int:
    """Return how often a round repeats the work, so that it takes milliseconds."""
    return 20 if len(data) > 100_000 else 300


@pytest.mark.benchmark(group="mime")
@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("work", WORK)
def test_mime(benchmark: Any, work: str, message: str) -> None:
    data = MESSAGES[message]
    benchmark.pedantic(WORK[work](data), rounds=ROUNDS, iterations=iterations(data))


def least(call: Callable[[], object], count: int) -> float:
    """Return the least CPU time of a call, in microseconds."""
    found = []
    for _ in range(ROUNDS):
        before = time.process_time()
        for _ in range(count):
            call()
        found.append((time.process_time() - before) / count * 1e6)
    return min(found)


def main() -> None:
    """Print the least times."""
    for message, data in MESSAGES.items():
        print(f"{message} ({len(data)} octets, {len(pack(parse(data)))} packed)")
        for name, work in WORK.items():
            print(f"  {name:16} {least(work(data), iterations(data)):8.1f} us")


if __name__ == "__main__":
    main()
