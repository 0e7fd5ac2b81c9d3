"""What to watch on mail servers: metrics and JSON about a listener's mail.

Rules of this file: counts come from real sessions. A listener without mail has no series, and no
series has a label that a client could choose.
"""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.accounts import write_accounts
from support.loops import on_loops
from support.management import listener, managed
from support.relay import FOREIGN, client_of, rcpt, relaying, serving
from support.smtp_harness import MAIL, RCPT, read_all
from support.waiting import eventually

from fastlisten.handlers.smtp.engine.reasons import REASONS, reason_of
from fastlisten.mail.counts import DURATIONS, Counts
from fastlisten.management.mail_metrics import mail_metrics
from fastlisten.management.schemas import SCHEMAS

MANUAL = Path(__file__).parents[2] / "docs" / "management.md"

MX = """
[server.listener.mx]
protocol = "smtp"
bind = "127.0.0.1:0"
[server.listener.idle]
protocol = "smtp"
bind = "127.0.0.1:0"
"""

MESSAGE = b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"

SAID = (
    b"EHLO c\r\n" + MAIL + RCPT + b"RCPT TO:<x@example.org>\r\nRCPT TO:<x@y.example>\r\n"
    + MESSAGE + MAIL + RCPT + b"DATA\r\na\nb\r\n.\r\nQUIT\r\n"
)  # fmt: skip


def talk(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(said)
        read_all(client)


@on_loops
async def test_metrics_and_json_of_mail(tmp_path: Path) -> None:
    write_accounts(tmp_path / "accounts.toml", '[account."alice@example.org"]\n')
    async with managed(tmp_path, MX, listener("echo")) as it, it.client() as client:
        port = it.server.listeners[2].sockets[0].port
        assert it.server.listeners[2].name == "mx"
        assert "fastlisten_messages" not in (await client.get("/metrics")).text
        await asyncio.to_thread(talk, port, SAID)
        await asyncio.to_thread(talk, port, b"EHLO c\r\nNOPE\r\nQUIT\r\n")
        counts = it.server.listeners[2].handler.counts
        assert counts is not None
        await eventually(lambda: counts.ends == {"quit": 2}, "the ends")
        text = (await client.get("/metrics")).text
        report = (await client.get("/api/listeners/mx")).json()["mail"]
        idle = (await client.get("/api/listeners/idle")).json()["mail"]
        assert (await client.get("/api/listeners/echo")).json()["mail"] == idle
    values = {
        (one.name, *(value for name, value in one.labels.items() if name != "worker")): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }
    assert values["fastlisten_messages_total", "mx", "accepted"] == 1
    assert values["fastlisten_messages_total", "mx", "rejected"] == 1
    octets = values["fastlisten_message_bytes_total", "mx"]
    assert octets == len(b"Subject: x\r\n\r\nx\r\n")
    rejected = {
        "unknown-recipient": 1,
        "relay-denied": 1,
        "bare-line-break": 1,
        "syntax": 1,
    }
    for reason, count in rejected.items():
        assert values["fastlisten_rejections_total", "5xx", "mx", reason] == count
    assert values["fastlisten_sessions_ended_total", "mx", "quit"] == 2
    assert values["fastlisten_delivery_duration_seconds_count", "mx"] == 1
    assert values["fastlisten_delivery_duration_seconds_bucket", "+Inf", "mx"] == 1
    assert values["fastlisten_delivery_duration_seconds_sum", "mx"] > 0
    # Listeners without mail have no series.
    assert not [key for key in values if key[1:2] in (("idle",), ("echo",)) and "mess" in key[0]]
    assert report == {
        "messages": {"accepted": 1, "rejected": 1},
        "bytes": octets,
        "rejections": rejected,
        "deferrals": {},
        "logins": {},
        "sessions-ended": {"quit": 2},
    }
    assert set(report) == set(SCHEMAS["Mail"]["properties"])
    assert not any(idle.values())


def test_counters_of_logins_and_the_relay(tmp_path: Path) -> None:
    with relaying() as relay, serving(tmp_path, relay) as served:
        with client_of(served) as client:
            client.say(MAIL)
            client.say(rcpt(FOREIGN))
            client.say(b"DATA")
            assert client.say(b"x\r\n.\r\n").startswith(b"250 ")
        counts = served.handler.counts
    assert counts.logins == {"succeeded": 1}
    assert counts.relay == {("recipient", "accepted"): 1, ("message", "accepted"): 1}


def test_histogram_buckets_are_cumulative() -> None:
    counts = Counts()
    for seconds in (0.001, 0.005, 0.006, 1000.0):
        counts.delivery(seconds)
    counts.relayed("message", b"450 4.2.1 later\r\n")
    counts.relayed("message", b"550 5.1.1 no\r\n")

    class Counters:
        mail = counts

    class Report:
        id = "it"
        workers = {0: Counters}  # noqa: RUF012

    families = {one.name: one for one in mail_metrics([Report()])}  # type: ignore[list-item]
    buckets = {
        one.labels["le"]: one.value
        for one in families["fastlisten_delivery_duration_seconds"].samples
        if one.name.endswith("_bucket")
    }
    assert len(buckets) == len(DURATIONS) + 1
    assert (buckets["0.005"], buckets["0.01"], buckets["300.0"], buckets["+Inf"]) == (2, 3, 3, 4)
    answers = families["fastlisten_relay_answers"].samples
    assert {(one.labels["result"], one.value) for one in answers} == {
        ("deferred", 1),
        ("rejected", 1),
    }


def test_copy_of_counters_does_not_change() -> None:
    counts = Counts()
    copy = counts.copy()
    counts.message("accepted", 3)
    counts.rejection(b"550 x", "other")
    counts.login("failed")
    counts.relayed("message")
    counts.ended("quit")
    counts.delivery(1.0)
    for name in Counts.__slots__:
        assert getattr(copy, name) == getattr(Counts(), name), name
        assert getattr(counts.copy(), name) == getattr(counts, name) != getattr(copy, name), name


def test_reasons_are_a_fixed_set() -> None:
    """They are labels: no reply code or status of another server makes a new one."""
    verbs = (b"", b"RCPT", b"MAIL", b"AUTH", b"STARTTLS", b"GET", b"X")
    reasons = {
        reason_of(b"%d %d.%d.%d text\r\n" % (code, code // 100, subject, detail), verb)
        for code in (*range(400, 600), 999)
        for subject in range(8)
        for detail in range(8)
        for verb in verbs
    } | {reason_of(b"4", b""), reason_of(b"", b"")}
    assert reasons | {"pregreet"} == REASONS


@pytest.mark.skipif(not MANUAL.exists(), reason="docs/ is not beside these tests")
def test_manual_has_every_reason() -> None:
    part = MANUAL.read_text().partition("The reasons of negative replies are")[2]
    part = part.partition("With imap,")[0]
    assert set(re.findall(r"`([a-z-]+)`", part)) == REASONS
