"""Several clients change one mailbox at once, each of another kind; see support/imap_models.py.

Rules of this file: sessions of one process; those of several workers are in
test_imap_workers_models.py.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.imap_models import KINDS, Model, agree, play
from support.imap_server import MESSAGE, serve_imap

ROUNDS = 60


@pytest.mark.parametrize("seed", range(4))
def test_models(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with serve_imap(tmp_path) as server:
        server.deliver(*[MESSAGE] * 12)
        models = [Model(server.lines, kind) for kind in KINDS]
        play(models, ROUNDS, rng, server.deliver)
        agree(models)
        assert sum(one.returned for one in models) > len(models)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 160))
def test_models_for_long(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with serve_imap(tmp_path) as server:
        server.deliver(*[MESSAGE] * rng.choice([1, 12, 300]))
        models = [Model(server.lines, kind) for kind in KINDS * 2]
        play(models, 4 * ROUNDS, rng, server.deliver)
        agree(models)
