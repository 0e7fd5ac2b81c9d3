"""The server's counters for Prometheus, in its text format or in OpenMetrics.

Rules of this file: metrics are made from reports, not from the running server, so that a thread can
write them. Names, labels and help texts do not change: dashboards and alerts depend on them.

    fastlisten_connections{listener,worker}                     open, in this worker
    fastlisten_connections_limit{listener}                      over all workers
    fastlisten_accepted_total{listener,worker}
    fastlisten_refused_total{listener,worker,reason}            limit, total, overload
    fastlisten_accept_errors_total{listener,worker,errno}       EMFILE ...; other
    fastlisten_tls_handshake_failures_total{listener,worker}
    fastlisten_worker_restarts_total{worker}
    fastlisten_worker_responding{worker}                        1 or 0
    fastlisten_config_last_reload_successful                    1 or 0
    fastlisten_certificate_expiry_timestamp_seconds{listener,certificate}   self-signed: ""

Those of mail are in mail_metrics.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from fastlisten.management.mail_metrics import mail_metrics
from fastlisten.runtime.report_json import errno_name
from fastlisten.runtime.reports import ListenerReport, ServerReport

__all__ = ["OPENMETRICS", "TEXT", "Metrics", "wants_openmetrics"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Metrics(Collector):
    """All metrics at one moment.

    Args:
        server: the report on the server as a whole.
        reports: one for each listener.
    """

    def __init__(self, server: ServerReport, reports: Iterable[ListenerReport]) -> None:
        self._server = server
        self._reports = tuple(reports)

    def write(self, openmetrics: bool) -> bytes:
        """Return the text; takes a while if there are thousands of listeners."""
        registry = CollectorRegistry()
        registry.register(self)
        if openmetrics:
            made: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
            return made
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by the library."""
        connections = GaugeMetricFamily(
            "fastlisten_connections",
            "Connections in flight, from accept to close.",
            labels=("listener", "worker"),
        )
        limit = GaugeMetricFamily(
            "fastlisten_connections_limit",
            "Most connections that all workers together may have in flight.",
            labels=("listener",),
        )
        accepted = CounterMetricFamily(
            "fastlisten_accepted", "Connections accepted.", labels=("listener", "worker")
        )
        refused = CounterMetricFamily(
            "fastlisten_refused",
            "Connections refused, by reason.",
            labels=("listener", "worker", "reason"),
        )
        errors = CounterMetricFamily(
            "fastlisten_accept_errors",
            "Failures of accept(2), by errno.",
            labels=("listener", "worker", "errno"),
        )
        handshakes = CounterMetricFamily(
            "fastlisten_tls_handshake_failures",
            "TLS handshakes that failed.",
            labels=("listener", "worker"),
        )
        for report in self._reports:
            limit.add_metric((report.id,), report.limit)
            for number, counters in report.workers.items():
                where = (report.id, str(number))
                connections.add_metric(where, counters.connections)
                accepted.add_metric(where, counters.accepted)
                for reason, count in counters.refused.items():
                    refused.add_metric((*where, reason), count)
                for errno, count in counters.accept_errors.items():
                    errors.add_metric((*where, errno_name(errno)), count)
                handshakes.add_metric(where, counters.handshake_failures)
        yield from (connections, limit, accepted, refused, errors, handshakes)
        yield from mail_metrics(self._reports)
        restarts = CounterMetricFamily(
            "fastlisten_worker_restarts",
            "Workers that were replaced because they had ended unasked.",
            labels=("worker",),
        )
        for number, count in self._server.worker_restarts.items():
            restarts.add_metric((str(number),), count)
        yield restarts
        responding = GaugeMetricFamily(
            "fastlisten_worker_responding",
            "1 if the worker has reported its counters, 0 if the last ones known are shown.",
            labels=("worker",),
        )
        stale = set(self._server.stale).union(*(report.stale for report in self._reports))
        for number in self._server.worker_restarts:
            responding.add_metric((str(number),), float(number not in stale))
        yield responding
        yield GaugeMetricFamily(
            "fastlisten_config_last_reload_successful",
            "1 if all that the last reload read could be used, 0 if not.",
            value=float(self._server.reload_succeeded),
        )
        expiry = GaugeMetricFamily(
            "fastlisten_certificate_expiry_timestamp_seconds",
            "When a listener's certificates cease to be valid, in Unix time.",
            labels=("listener", "certificate"),
        )
        for listener, certificates in self._server.certificate_expiry.items():
            for certificate, end in certificates.items():
                expiry.add_metric((listener, certificate), end)
        yield expiry


def wants_openmetrics(accept: str) -> bool:
    """Tell whether an Accept header (RFC 9110 12.5.1) prefers OpenMetrics to the text format.

    It has to name OpenMetrics; a wildcard does not count. Versions are not compared: every reader
    reads the one that is written.
    """
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind in best:
            best[kind] = max(best[kind], _quality(parameters))
    openmetrics, text = best.values()
    return openmetrics > 0 and openmetrics >= text


def _quality(parameters: list[str]) -> float:
    """Return the weight among the parameters of a media range; 0 if it is malformed."""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.rstrip() == "q":
            try:
                weight = float(value)
            except ValueError:
                return 0.0
            return weight if 0.0 <= weight <= 1.0 else 0.0
    return 1.0
