"""imapclient's own tests of servers, `python -m imapclient.livetest`, against `fastlisten serve`.

Rules of this file: what does not pass is listed with its reason; one that passes must come off the
list. Dovecot from Debian passes 46 of these tests, skips 8 and fails 5 by faults of the tests.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.external_programs import run
from support.imap_account import ImapAccount, served_account

account = served_account

CONFIGURATION = """
[DEFAULT]
host = 127.0.0.1
port = {port}
username = {user}
password = {password}
ssl = true
ssl_ca_file = {authority}
"""

#: Runs the tests of some classes, and prints the names of those that did not pass. One test sleeps
#: for ten seconds; `--awake` leaves that out.
DRIVER = """
import json, sys, time, unittest
from imapclient import livetest

def name(test):
    return f"{type(test).__name__}.{test._testMethodName}"

def run(module):
    tests, result = unittest.TestSuite(), unittest.TestResult()
    for chosen in classes:
        tests.addTest(unittest.defaultTestLoader.loadTestsFromName(chosen, sys.modules[module]))
    tests.run(result)
    skipped = [name(test) for test, _ in result.skipped]
    failed = {name(test): text for test, text in result.failures + result.errors}
    print(json.dumps([result.testsRun, skipped, failed]))

if "--awake" in sys.argv:
    sys.argv.remove("--awake")
    time.sleep = lambda seconds: None
classes = sys.argv[2:]
unittest.main = run
livetest.main()
"""

#: Tests of what others than Dovecot have, or no server any more.
NOWHERE = {
    "TestGeneral.test_xlist": "XLIST was Gmail's before RFC 6154",
    "*.test_getacl": "ACL",
    "*.test_gmail_labels": "X-GM-EXT-1",
    "*.test_gmail_search": "X-GM-EXT-1",
    "TestWithoutUIDs.test_uid_expunge": "it is for UIDs only",
}
#: Extensions that Dovecot has and this server does not.
NOT_HERE = {f"*.test_{name}{kind}": "SORT and THREAD (RFC 5256)"
            for name in ("sort", "thread") for kind in ("", "_with_unicode")}  # fmt: skip

FAILURES = {
    "*.test_fetch": "compares a tuple with an Envelope, which is none, since imapclient 2.2",
    "TestWithoutUIDs.test_move": "calls a method move() that imaplib does not have",
    "TestSocketTimeout.test_small_connection_timeout_fail": "expects a slow network",
    "TestSocketTimeout.test_small_read_timeout_fail": "expects a slow network",
    "TestGeneral.test_subscriptions": "CREATE subscribes here, as users of many clients expect",
}

KINDS = ("TestWithUIDs", "TestWithoutUIDs")


def each(listed: dict[str, str], classes: Sequence[str]) -> set[str]:
    """Return the names of tests in some classes; a star stands for both kinds of numbers."""
    names = {name.replace("*", kind) for name in listed for kind in KINDS}
    return {name for name in names if name.split(".")[0] in classes}


def livetest(account: ImapAccount, directory: Path, *words: str) -> tuple[int, Any, Any]:
    """Run the tests; return how many there are, those skipped and those that failed."""
    path = directory / "livetest.ini"
    path.write_text(
        CONFIGURATION.format(
            port=account.port,
            user=account.user,
            password=account.password.replace("%", "%%"),
            authority=account.authority,
        )
    )
    count, skipped, failed = json.loads(run(sys.executable, "-c", DRIVER, path, *words).stdout)
    assert set(failed) == each(FAILURES, words), failed
    assert set(skipped) == each(NOWHERE | NOT_HERE, words)
    return count, skipped, failed


def test_with_uids(account: ImapAccount, tmp_path: Path) -> None:
    count, *_ = livetest(account, tmp_path, "TestGeneral", "TestWithUIDs", "--awake")
    assert count == 36


@pytest.mark.soak
def test_all(account: ImapAccount, tmp_path: Path) -> None:
    classes = ("TestGeneral", "TestSocketTimeout", *KINDS)
    count, skipped, failed = livetest(account, tmp_path, *classes)
    assert (count, len(skipped), len(failed)) == (59, 16, 6)
