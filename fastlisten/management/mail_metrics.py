"""The counters of mail for Prometheus.

Rules of this file: as in metrics.py. A series appears with its first count: a thousand listeners
with twenty reasons each would otherwise make a huge page.

    fastlisten_messages_total{listener,worker,result}                accepted, rejected, deferred
    fastlisten_message_bytes_total{listener,worker}
    fastlisten_rejections_total{listener,worker,class,reason}        4xx, 5xx
    fastlisten_logins_total{listener,worker,result}                  succeeded, failed, deferred
    fastlisten_relay_answers_total{listener,worker,step,result}
    fastlisten_sessions_ended_total{listener,worker,reason}
    fastlisten_delivery_duration_seconds{listener,worker}            histogram
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from fastlisten.mail.counts import DURATIONS, Counts
from fastlisten.runtime.reports import ListenerReport

__all__ = ["mail_metrics"]

_WHERE = ("listener", "worker")


def mail_metrics(reports: Iterable[ListenerReport]) -> Iterator[Metric]:
    """Yield the metrics of mail that have a value."""
    messages = _counter("messages", "Messages, by result.", "result")
    octets = _counter("message_bytes", "Bytes of the messages that were accepted.")
    rejections = _counter("rejections", "Negative replies, by reason.", "class", "reason")
    logins = _counter("logins", "Attempts to log in, by result.", "result")
    relay = _counter("relay_answers", "Answers of the relay, by step and result.", "step", "result")
    ended = _counter("sessions_ended", "Sessions that have ended, by reason.", "reason")
    durations = HistogramMetricFamily(
        "fastlisten_delivery_duration_seconds",
        "Time from the end of a message to the reply that it is accepted.",
        labels=_WHERE,
    )
    for where, counts in _counts_of_mail(reports):
        _add(messages, where, _single(counts.messages))
        _add(rejections, where, counts.rejections.items())
        _add(logins, where, _single(counts.logins))
        _add(relay, where, counts.relay.items())
        _add(ended, where, _single(counts.ends))
        if counts.octets:
            octets.add_metric(where, counts.octets)
        if any(counts.durations):
            durations.add_metric(where, _buckets(counts), counts.seconds)
    for family in (messages, octets, rejections, logins, relay, ended, durations):
        if family.samples:
            yield family


def _counts_of_mail(
    reports: Iterable[ListenerReport],
) -> Iterator[tuple[tuple[str, str], Counts]]:
    """Yield what each listener's workers have counted of mail, with their labels."""
    for report in reports:
        for number, counters in report.workers.items():
            if counters.mail is not None:
                yield (report.id, str(number)), counters.mail


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(f"fastlisten_{name}", text, labels=(*_WHERE, *labels))


def _single(counts: Mapping[str, int]) -> list[tuple[tuple[str, ...], int]]:
    return [((name,), value) for name, value in counts.items()]


def _add(
    family: CounterMetricFamily,
    where: tuple[str, str],
    counts: Iterable[tuple[tuple[str, ...], int]],
) -> None:
    for labels, value in sorted(counts):
        family.add_metric((*where, *labels), value)


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    """Return the histogram in Prometheus's form: each bucket includes those before it."""
    bounds = [*(str(bound) for bound in DURATIONS), "+Inf"]
    return list(zip(bounds, accumulate(counts.durations), strict=True))
