"""npm's imapflow does a day's work, with and without QRESYNC, and is told of new mail in IDLE.

Rules of this file: the program below is given the account, and prints what it has seen as JSON.
`.ci/full imapflow` installs the package; elsewhere it is skipped, unless NODE_PATH has it.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.external_programs import run
from support.imap_account import ImapAccount, served_account
from support.imap_sync import message
from support.marks import npm

account = served_account

PROGRAM = r"""
const {ImapFlow} = require("imapflow");
const fs = require("fs");
const {port, user, password, authority, qresync, directory} = JSON.parse(process.argv[2]);

function make() {
  return new ImapFlow({
    host: "127.0.0.1", port, secure: true, auth: {user, pass: password}, logger: false, qresync,
    tls: {ca: fs.readFileSync(authority)},
  });
}

async function main() {
  const seen = {}, client = make();
  await client.connect();
  const created = await client.mailboxCreate(["Work", "Entwürfe & Co"]);
  seen.created = created.created;
  for (let number = 0; number < 5; number++) {
    const source = fs.readFileSync(`${directory}/${number}`);
    const date = new Date(Date.UTC(2026, 1, number + 1, 10));
    const appended = await client.append("INBOX", source, number % 2 ? ["\\Seen"] : [], date);
    seen.uid = appended.uid;
  }
  const lock = await client.getMailboxLock("INBOX");
  try {
    seen.exists = client.mailbox.exists;
    const all = await client.fetchAll("1:*", {
      uid: true, flags: true, envelope: true, bodyStructure: true, internalDate: true, size: true,
    });
    seen.subjects = all.map(one => one.envelope.subject);
    seen.types = all.map(one => one.bodyStructure.type);
    seen.days = all.map(one => one.internalDate.getUTCDate());
    seen.read = all.map(one => one.flags.has("\\Seen"));
    const {source} = await client.fetchOne("3", {source: true});
    seen.same = source.equals(fs.readFileSync(`${directory}/2`));
    const {content} = await client.download("4", "2");
    seen.part = 0;
    for await (const chunk of content) seen.part += chunk.length;
    seen.found = await client.search({subject: "flow-3"}, {uid: true});
    seen.unseen = await client.search({seen: false, or: [{from: "bob"}, {from: "nobody"}]});
    await client.messageFlagsAdd("1", ["\\Flagged", "$Label1"]);
    seen.flags = [...(await client.fetchOne("1", {flags: true})).flags].sort();
    const copied = await client.messageCopy("1:2", "Work/Entwürfe & Co");
    seen.copied = [...copied.uidMap.keys()];
    const moved = await client.messageMove("5", "Work/Entwürfe & Co");
    seen.moved = [...moved.uidMap.values()];
    await client.messageDelete("2");
    seen.left = await client.search({all: true}, {uid: true});
    seen.status = await client.status("Work/Entwürfe & Co", {messages: true, unseen: true});
    const told = new Promise(resolve => client.once("exists", resolve));
    const other = make();
    await other.connect();
    const idling = client.idle();
    await other.append("INBOX", fs.readFileSync(`${directory}/0`));
    seen.told = (await told).count;
    await other.logout();
    await client.noop();
    await idling;
  } finally {
    lock.release();
  }
  await client.mailboxRename("Work/Entwürfe & Co", "Work/Drafts");
  seen.names = (await client.list()).map(one => one.path).filter(one => one.startsWith("Work/"));
  await client.mailboxDelete("Work/Drafts");
  await client.logout();
  console.log(JSON.stringify(seen));
}

main().catch(error => { console.error(error); process.exit(1); });
"""


@npm("imapflow")
@pytest.mark.parametrize("qresync", [False, True], ids=["plain", "qresync"])
def test_work(account: ImapAccount, tmp_path: Path, qresync: bool) -> None:
    for number in range(5):
        (tmp_path / str(number)).write_bytes(message(f"flow-{number}", number))
    given = {
        "port": account.port,
        "user": account.user,
        "password": account.password,
        "authority": account.authority,
        "qresync": qresync,
        "directory": str(tmp_path),
    }
    program = tmp_path / "program.js"
    program.write_text(PROGRAM, encoding="utf-8")
    seen = json.loads(run("node", program, json.dumps(given)).stdout)
    assert seen == {
        "created": True,
        "uid": 5,
        "exists": 5,
        "subjects": [f"flow-{number}" for number in range(5)],
        "types": ["multipart/mixed" if not number % 3 else "text/plain" for number in range(5)],
        "days": [1, 2, 3, 4, 5],
        "read": [False, True, False, True, False],
        "same": True,
        "part": len(b"line 3\r\n.\r\n..\r\n" * 4),
        "found": [4],
        "unseen": [1, 3, 5],
        "flags": ["$Label1", "\\Flagged", "\\Recent"],
        "copied": [1, 2],
        "moved": [3],
        "left": [1, 3, 4],
        "status": {"path": "Work/Entwürfe & Co", "messages": 3, "unseen": 2},
        "told": 4,
        "names": ["Work/Drafts"],
    }
