"""Metrics: names, labels and values in both formats, read by the formats' own parsers."""

from __future__ import annotations

import datetime
import re
import socket
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from support.certificates import authority, table, write
from support.loops import on_loops
from support.management import IDS, listener, managed, settings
from support.server import connect, read_all, read_some, served
from support.waiting import eventually

from fastlisten.management.app import application
from fastlisten.management.metrics import OPENMETRICS, TEXT, wants_openmetrics

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: The Accept header of Prometheus.
PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

#: Metrics of mail, which exist from the first count on.
MAIL = {
    "fastlisten_messages_total": ("counter", {"listener", "worker", "result"}),
    "fastlisten_message_bytes_total": ("counter", {"listener", "worker"}),
    "fastlisten_rejections_total": ("counter", {"listener", "worker", "class", "reason"}),
    "fastlisten_logins_total": ("counter", {"listener", "worker", "result"}),
    "fastlisten_relay_answers_total": ("counter", {"listener", "worker", "step", "result"}),
    "fastlisten_sessions_ended_total": ("counter", {"listener", "worker", "reason"}),
    "fastlisten_delivery_duration_seconds": ("histogram", {"listener", "worker"}),
}

#: Every metric, its type and its labels.
NAMES = {
    "fastlisten_connections": ("gauge", {"listener", "worker"}),
    "fastlisten_connections_limit": ("gauge", {"listener"}),
    "fastlisten_accepted_total": ("counter", {"listener", "worker"}),
    "fastlisten_refused_total": ("counter", {"listener", "worker", "reason"}),
    "fastlisten_accept_errors_total": ("counter", {"listener", "worker", "errno"}),
    "fastlisten_tls_handshake_failures_total": ("counter", {"listener", "worker"}),
    **MAIL,
    "fastlisten_worker_restarts_total": ("counter", {"worker"}),
    "fastlisten_worker_responding": ("gauge", {"worker"}),
    "fastlisten_config_last_reload_successful": ("gauge", set()),
    "fastlisten_certificate_expiry_timestamp_seconds": ("gauge", {"listener", "certificate"}),
}


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return a text's values by name and label values, in the order of the labels."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def scrape(client: httpx.AsyncClient, accept: str = "text/plain") -> str:
    answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["vary"] == "accept"
    assert answer.headers["content-type"] == (OPENMETRICS if "openm" in accept else TEXT)
    return answer.text


@on_loops
async def test_names_types_and_labels(tmp_path: Path) -> None:
    async with managed(tmp_path, listener("it"), listener("gone")) as it, it.client() as client:
        it.server.listeners[0].sockets[0].sock.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: it.server.listeners[0].accept_errors(), "an error")
        families = list(text_string_to_metric_families(await scrape(client)))
        found: dict[str, tuple[str, set[str]]] = {}
        for family in families:
            assert family.documentation.endswith((".", "if not.")), family.name
            for sample in family.samples:
                found.setdefault(sample.name, (family.type, set(sample.labels)))
                assert set(sample.labels) == found[sample.name][1]
        # No listener here has a certificate.
        expected = {
            name: NAMES[name] for name in NAMES.keys() - MAIL.keys() if "certificate" not in name
        }
        assert found == expected


MANUAL = Path(__file__).parents[2] / "docs" / "management.md"


@pytest.mark.skipif(not MANUAL.exists(), reason="docs/ is not beside these tests")
def test_manual_has_every_metric() -> None:
    rows = re.findall(r"^\| `(fastlisten_\w+)` \| (.*?) ?\|", MANUAL.read_text(), re.MULTILINE)
    found = {name: set(filter(None, labels.split(", "))) for name, labels in rows}
    assert found == {name: labels for name, (_, labels) in NAMES.items()}


@on_loops
async def test_metric_values(tmp_path: Path) -> None:
    async with (
        managed(tmp_path, listener("it", "max-connections = 1")) as it,
        it.client() as client,
    ):
        port = it.server.listeners[0].sockets[0].port
        with await connect("127.0.0.1", port) as one:
            one.send(b"x")
            assert await read_some(one, 1) == b"x"
            with await connect("127.0.0.1", port) as two:
                assert await read_all(two) == b"refused: limit\n"
            values = samples(await scrape(client))
        assert values["fastlisten_connections", "it", "0"] == 1
        assert values["fastlisten_connections_limit", "it"] == 1
        assert values["fastlisten_accepted_total", "it", "0"] == 1
        assert values["fastlisten_refused_total", "it", "limit", "0"] == 1
        assert values["fastlisten_refused_total", "it", "overload", "0"] == 0
        assert values["fastlisten_tls_handshake_failures_total", "it", "0"] == 0
        assert values["fastlisten_worker_restarts_total", "0"] == 0
        assert values["fastlisten_worker_responding", "0"] == 1
        assert values["fastlisten_config_last_reload_successful",] == 1


@on_loops
async def test_counters_never_decrease(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.manager() as client:
        with await connect("127.0.0.1", it.server.listeners[0].sockets[0].port) as one:
            one.send(b"x")
            assert await read_some(one, 1) == b"x"
        it.server.listeners[0].sockets[0].sock.shutdown(socket.SHUT_RDWR)
        await eventually(lambda: it.server.listeners[0].accept_errors(), "an error")
        before = samples(await scrape(client))
        assert before["fastlisten_accept_errors_total", "EINVAL", "it", "0"] == 1
        await client.post("/api/listeners/it/drain")
        await eventually(lambda: it.server.listeners[0].state.value == "closed", "the end")
        assert samples(await scrape(client)) == before


@on_loops
async def test_openmetrics_format(tmp_path: Path) -> None:
    async with managed(tmp_path, *(listener(id) for id in IDS)) as it, it.client() as client:
        plain = samples(await scrape(client))
        text = await scrape(client, PROMETHEUS)
        assert text.endswith("# EOF\n")
        families = list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        same = {
            (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
            for family in families
            for sample in family.samples
        }
        assert same == plain
        listed = {key[1] for key in plain if key[0] == "fastlisten_connections"}
        assert listed == set(IDS)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0", True),
        (PROMETHEUS, True),
        ("text/plain,application/openmetrics-text;q=0.9", False),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.9", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text; version=x; q = 1", True),
        ("application/openmetrics-text;q=nan", False),
        ("text/plain;q=0.5, application/openmetrics-text;q=7", False),
        ("text/plain;q=7, application/openmetrics-text;q=0.5", True),
        ("application/openmetrics-text;q=x,*/*", False),
        ("application/openmetrics-text;q=-1;q=2", False),
        (";;,,;q=;=,/" * 50, False),
    ],
)
def test_format_by_accept_header(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) is wanted


@on_loops
async def test_any_accept_header_gets_a_response(tmp_path: Path) -> None:
    async with managed(tmp_path) as it, it.client() as client:
        for accept in (
            "text/plain;version=abc",
            "application/openmetrics-text;version=9..9",
            "\xff",
        ):
            answer = await client.get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])
            assert answer.status_code == 200


@on_loops
async def test_certificate_expiry_and_reloads(tmp_path: Path) -> None:
    """The expiry of each certificate, with the listeners that show it, and the result of a
    reload."""
    chain = authority()
    end = datetime.datetime(2031, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    write(tmp_path, chain.sign("mx.example.org", last=end))
    write(tmp_path, chain.sign("other.example.org"), "other")
    sni = 'subject = "other.example.org", certificate = "other"'
    text = (
        f'[server]\ndata-directory = "{tmp_path}"\n'
        + table(tmp_path)
        + table(tmp_path, "other", "other")
        + listener("a", "tls.implicit = true")
        + listener("b", "tls.implicit = true", f"tls.sni = [{{{sni}}}]")
        + listener("c", "tls.enable = false")
    )
    name = "fastlisten_certificate_expiry_timestamp_seconds"
    async with served(text) as server:
        app = application(settings(server, tmp_path))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            values = samples(await scrape(client))
            shown = {key[1:]: value for key, value in values.items() if key[0] == name}
            assert set(shown) == {("default", "a"), ("default", "b"), ("other", "b")}
            assert shown["default", "a"] == shown["default", "b"] == end.timestamp()
            # The file is unusable: the certificate in use stays.
            (tmp_path / "mail.crt").write_text("nothing")
            await server.reload()
            values = samples(await scrape(client))
            assert values["fastlisten_config_last_reload_successful",] == 0
            assert values[name, "default", "a"] == end.timestamp()
            later = end + datetime.timedelta(days=90)
            write(tmp_path, chain.sign("mx.example.org", last=later))
            await server.reload()
            values = samples(await scrape(client))
            assert values["fastlisten_config_last_reload_successful",] == 1
            assert values[name, "default", "a"] == later.timestamp()


@on_loops
async def test_self_signed_certificate_has_no_name(tmp_path: Path) -> None:
    text = f'[server]\ndata-directory = "{tmp_path}"\n' + listener("it", "tls.implicit = true")
    async with served(text) as server:
        (only,) = (await server.control.server()).certificate_expiry.values()
        years = (only[""] - datetime.datetime.now().timestamp()) / 86400 / 365
        assert 9 < years < 11
