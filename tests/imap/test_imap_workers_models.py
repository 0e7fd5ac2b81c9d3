"""Several clients change one mailbox at once through two workers; see support/imap_models.py.

Rules of this file: what one process does, clients of the other are told as if it were theirs. Each
worker has a client of each kind.
"""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.accounts import cheap_hash
from support.certificates import authority, rsa_key, table, write
from support.imap_models import KINDS, Model, agree, play
from support.imap_server import ADDRESS, MESSAGE, PASSWORD, Lines
from support.mail_store import deliver
from support.waiting import PATIENCE
from support.workers import stopped, workers

ACCOUNTS = f'[account."{ADDRESS}"]\npassword = "{cheap_hash(PASSWORD)}"\n'
LISTENER = """
[server.listener.imaps]
bind = "127.0.0.1:0"
protocol = "imap"
tls.implicit = true
imap.sessions-per-user = false
"""


@contextlib.contextmanager
def two_workers(directory: Path) -> Iterator[tuple[list[Callable[[], Lines]], Path]]:
    """Serve; yield what connects to each of the workers, and the account's directory."""
    write(directory, authority().sign("mx.example.org", "127.0.0.1", key=rsa_key()))
    context = authority().client_context()
    with (
        workers(directory, 2, table(directory) + LISTENER, accounts=ACCOUNTS) as whole,
        contextlib.ExitStack() as clients,
    ):
        pids = whole.pids
        port = whole.program.port("imaps")

        def connect(pid: int) -> Lines:
            with stopped(*(one for one in pids if one != pid)):
                plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
                client = Lines(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            clients.callback(client.close)
            client.ok(f"LOGIN {ADDRESS} {PASSWORD}")
            return client

        root = whole.program.directory / "data" / "mail" / ADDRESS
        yield [lambda pid=pid: connect(pid) for pid in pids], root  # type: ignore[misc]
        clients.close()
        assert whole.end() == 0
        assert " ERROR " not in whole.err


@pytest.mark.parametrize("seed", range(2))
def test_models(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with two_workers(tmp_path) as (connects, root):
        for _ in range(12):
            deliver(str(root), MESSAGE)
        models = [Model(connect, kind) for connect in connects for kind in KINDS]
        play(models, 40, rng, lambda: deliver(str(root), MESSAGE))
        agree(models)
        assert sum(one.returned for one in models) > len(models)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
def test_models_for_long(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with two_workers(tmp_path) as (connects, root):
        for _ in range(rng.choice([1, 12, 200])):
            deliver(str(root), MESSAGE)
        models = [Model(connect, kind) for connect in connects for kind in KINDS]
        play(models, 300, rng, lambda: deliver(str(root), MESSAGE))
        agree(models)
