"""Samples of IMAP servers: what a command costs, what a session in IDLE holds, how soon it is told.

Rules of this file: as in measure.py. Each sample has mail and a server of its own; what a server
does only once (imports, the first index) has been done in another account before anything is
measured, unless that is what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from benchmarks.certificates import Certificate
from benchmarks.deliveries import RUN, count_files, data_directory
from benchmarks.mailboxes import OTHER, names_of, write_mail
from benchmarks.measure import Plan, Sample, negotiated, processor_time
from benchmarks.process import Load, MeasurementError, Server
from benchmarks.workloads import CANDIDATES, SOURCES, Mail, Workload

__all__ = ["LMTP_PORT", "measure_imap"]

#: A file in `RUN` with the port where a candidate takes mail.
LMTP_PORT = "lmtp-port"

#: Messages, and accounts, of which a quick run has all.
FEW = 60

#: Seconds after which a server holds what it needs for waiting sessions, and no more: fastlisten
#: closes an index 10 to 20 s after its last use.
AT_REST = 22.0

#: Connections that are opened at once.
OPENING = 16


def measure_imap(
    workload: Workload, candidate: str, plan: Plan, certificates: Mapping[str, Certificate]
) -> Sample:
    """As `measure.measure`, of workloads in mode imap."""
    assert workload.mail is not None
    assert workload.data
    mail = _limited(workload.mail, plan)
    command = [*CANDIDATES[candidate], *workload.serve]
    if workload.tls:
        command += certificates[workload.tls].arguments
    with ExitStack() as stack:
        directory = stack.enter_context(data_directory(workload.data))
        (Path(directory) / RUN).mkdir()
        write_mail(Path(directory), mail)
        command += ["--data", directory]
        if mail.indexed:
            with Server(command, plan.server_core) as server:
                _first(workload, server, plan, names_of(mail)[0])
        server = stack.enter_context(Server(command, plan.server_core))
        _first(workload, server, plan, OTHER)
        if workload.kind == "once":
            return _once(workload, server, plan)
        if workload.kind == "memory":
            return _memory(workload, server, plan, mail)
        if workload.kind == "latency":
            return _latency(workload, server, plan, mail, directory)
        appends = any(word.startswith("APPEND ") for word in workload.options)
        before = count_files(directory) if appends else 0
        sample = processor_time(workload, server, plan)
        if appends:
            stored = sample.detail["stored"] = count_files(directory) - before
            if stored < sample.detail["operations"]:
                raise MeasurementError(f"only {stored} messages have been stored")
        return sample


def _limited(mail: Mail, plan: Plan) -> Mail:
    """Return the mail that there is, with no more accounts than connections may be held."""
    return replace(
        mail,
        messages=max(min(mail.messages, FEW), round(mail.messages * plan.mail)),
        accounts=min(max(min(mail.accounts, FEW), round(mail.accounts * plan.mail)), plan.held),
    )


def _tls(workload: Workload) -> list[str]:
    return ["--tls"] if workload.tls else []


def _first(workload: Workload, server: Server, plan: Plan, user: str) -> None:
    """Have some sessions of an account, as in any server that has been running for a while."""
    words = ["--user", user, "--first", "SELECT INBOX", "--sessions", "--command", "NOOP"]
    words += ["--command", "UID FETCH 1 (FLAGS BODY.PEEK[])", "--command", "FETCH 1:* (FLAGS)"]
    words += ["--connections", "1", "--count", "10", "--duration", "60", "--grace", "60"]
    with Load("imap", server.port, plan.client_core, [*words, *_tls(workload)]) as load:
        load.event("done")
    server.settled()


def _once(workload: Workload, server: Server, plan: Plan) -> Sample:
    """Measure a command that is said once, in ms."""
    long = replace(plan, seconds=60.0, warm_up=0.0)
    sample = processor_time(workload, server, long)
    if sample.detail["operations"] != 1:
        raise MeasurementError(f"{sample.detail['operations']} commands were answered, not 1")
    return replace(sample, value=sample.value / 1e3, user=sample.user / 1e3, rate=0.0)


def _waiting(workload: Workload, mail: Mail) -> list[str]:
    """Return the options for clients that wait in IDLE."""
    return [
        *workload.options,
        *_tls(workload),
        *("--sources", str(SOURCES), "--connections", str(mail.accounts)),
        *("--in-flight", str(OPENING)),
    ]


def _memory(workload: Workload, server: Server, plan: Plan, mail: Mail) -> Sample:
    before = server.memory()
    with Load("imap", server.port, plan.client_core, _waiting(workload, mail)) as load:
        opened = load.event("open")
        if plan.mail == 1.0:  # a quick run does not say how much memory it is
            time.sleep(AT_REST)
        server.settled()
        after = server.memory()
        # A session counts as held if it still answers: each says DONE, and IDLE again.
        load.tell("ping")
        answered = load.event("ping")
    held = mail.accounts
    if not opened["open"] == answered["operations"] == held:
        raise MeasurementError(f"{opened['open']} waited, {answered['operations']} answered")
    grown = {key: (after[key] - before[key]) / held for key in ("Private_Dirty", "Pss")}
    return Sample(
        value=grown["Private_Dirty"],
        detail={"held": held, "opening": opened["seconds"], **grown, **negotiated(answered)},
    )


def _latency(workload: Workload, server: Server, plan: Plan, mail: Mail, directory: str) -> Sample:
    port = (Path(directory) / RUN / LMTP_PORT).read_text()
    options = [*_waiting(workload, mail), "--lmtp-port", port, "--duration", str(2 * plan.seconds)]
    with Load("imap", server.port, plan.client_core, options) as load:
        opened = load.event("open")
        server.settled()
        before = server.usage()
        began = time.monotonic()
        load.tell("deliver")
        result = load.event("delivered")
        took = time.monotonic() - began
        used = server.usage() - before
    if opened["open"] != mail.accounts:
        raise MeasurementError(f"{opened['open']} of {mail.accounts} sessions were open")
    latency = result["latency_us"]
    return Sample(
        value=latency["p99"] / 1e3,
        rate=result["rate"],
        busy=used.cpu / took,
        detail={
            "operations": result["operations"],
            "latency_us": latency,
            "cpu_us": used.cpu / max(1, result["operations"]) * 1e6,
        },
    )
