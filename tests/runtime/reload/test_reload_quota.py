"""`server.quota` reaches the mailboxes, and a reload changes it for the next message."""

from __future__ import annotations

import asyncio
from pathlib import Path

from support.accounts import write_accounts
from support.reloading import Reloadable, reloadable

ALICE = "alice@example.org"

DIALOGUE = (
    b"EHLO client.example.com\r\nMAIL FROM:<bob@example.com>\r\nRCPT TO:<alice@example.org>\r\n"
    b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n"
)


def configuration(directory: Path, quota: str) -> str:
    return (
        f'[server]\ndata-directory = "{directory}"\nhostname = "mx.example.org"\nquota = {quota}\n'
        '[server.listener.it]\nprotocol = "smtp"\nbind = "127.0.0.1:0"\n'
    )


async def taken(server: Reloadable) -> bool:
    """Send a message; return whether it was taken."""
    said = await server.answer(said=DIALOGUE)
    return b"250 2.0.0 Ok, id " in said


def test_quota_of_the_configuration(tmp_path: Path) -> None:
    write_accounts(tmp_path / "accounts.toml", f'[account."{ALICE}"]\n')

    async def main() -> None:
        async with reloadable(tmp_path, configuration(tmp_path, "{ messages = 1 }")) as server:
            assert [await taken(server) for _ in range(2)] == [True, False]
            await server.reload(configuration(tmp_path, "{ messages = 2 }"))
            assert [await taken(server) for _ in range(2)] == [True, False]
            await server.reload(configuration(tmp_path, '{ bytes = "1MiB" }'))
            assert [await taken(server) for _ in range(2)] == [True, True]
            await server.reload(configuration(tmp_path, "{ bytes = 1, messages = false }"))
            assert not await taken(server)
            # What the accounts file says comes first.
            write_accounts(
                tmp_path / "accounts.toml", f'[account."{ALICE}"]\nquota.bytes = false\n'
            )
            assert await taken(server)

    asyncio.run(main())
