"""SIGKILL at random moments: every message that was acknowledged is there exactly once, whole."""

from __future__ import annotations

import collections
import os
import random
import smtplib
import subprocess
import sys
import threading
import time
from pathlib import Path

from smtp_harness import ACCOUNTS, body_of

SERVER = """
import sys, threading
from pathlib import Path
from smtp_harness import serve
with serve(Path(sys.argv[1]), accounts=None) as server:
    print(server.port, flush=True)
    threading.Event().wait()
"""

ROUNDS = 5


def start(directory: Path) -> tuple[subprocess.Popen[bytes], int]:
    paths = [str(Path(__file__).parent), *(entry for entry in sys.path if entry)]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(directory)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def send_until_killed(
    port: int, sender: str, sent: dict[str, bytes], acknowledged: list[str]
) -> None:
    """Send messages of mixed sizes to both accounts until the server is gone."""
    chance = random.Random(sender)
    number = 0
    try:
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
            while True:
                number += 1
                key = f"{sender}-{number}"
                filler = (b"." * chance.choice((0, 1, 70)) + b"\r\n") * chance.choice((1, 9000))
                sent[key] = f"Subject: {key}\r\n\r\n".encode() + filler + b"the end\r\n"
                client.sendmail("a@b", ["alice@example.org", "bob@example.org"], sent[key])
                acknowledged.append(key)
    except (OSError, smtplib.SMTPException):
        return


def test_acknowledged_messages_survive_sigkill(tmp_path: Path) -> None:
    (tmp_path / "accounts.toml").write_text(ACCOUNTS)
    sent: dict[str, bytes] = {}
    acknowledged: list[str] = []
    for number in range(ROUNDS):
        server, port = start(tmp_path)
        senders = [
            threading.Thread(
                target=send_until_killed, args=(port, f"{number}.{name}", sent, acknowledged)
            )
            for name in range(4)
        ]
        before = len(acknowledged)
        for sender in senders:
            sender.start()
        while len(acknowledged) < before + 20:
            time.sleep(0.001)
        time.sleep(random.uniform(0, 0.05))
        server.kill()
        server.wait()
        assert server.stdout is not None
        server.stdout.close()
        for sender in senders:
            sender.join()
    for account in ("alice@example.org", "bob@example.org"):
        found = collections.Counter[str]()
        for path in (tmp_path / "mail" / account / "new").iterdir():
            body = body_of(path.read_bytes())
            key = body.partition(b"\r\n")[0].removeprefix(b"Subject: ").decode()
            assert body == sent[key]
            found[key] += 1
        assert set(acknowledged) <= set(found)
        assert set(found.values()) == {1}
    assert len(acknowledged) >= 20 * ROUNDS
