"""`socket.reuse-port` with several workers: each has an accept queue of its own, and none is lost.

Rules of this file: the program and the clients are real. In which queue a client is, and how many
are in it, is read in /proc/net/tcp. Workers that are to leave their clients waiting are stopped.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from support.arena_memory import shares_sockets
from support.attempts import attempts
from support.figures import show
from support.kernel import ended
from support.program import run
from support.queues import backlogs, queues, queues_of
from support.storm import Storm
from support.waiting import PATIENCE, until
from support.workers import WHO, Workers, line, patched, stopped, workers

OWN = f"{WHO}socket.reuse-port = true\n"

#: A worker that has ended is replaced at once, however many have ended before.
EAGER = (
    "from fastlisten.runtime.supervisor.back_off import BackOff\n"
    "BackOff.crashed = lambda self, served: 0.0\n"
)

#: So many clients that every one of three queues gets some: one that gets none of them is as likely
#: as (2/3)^60.
MANY = 60


def head(directory: Path) -> str:
    return f'shutdown-timeout = "1h"\ncontrol-socket = "{directory / "control"}"\n'


def command(directory: Path, name: str) -> tuple[int, str, str]:
    """Run a command for the server; return its exit code and what it says."""
    done = run(name, "--config", directory / "mail.toml", TOLD=str(directory))
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def many(server: Workers, count: int = MANY) -> Iterator[list[socket.socket]]:
    """Connect clients."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def greeted(clients: list[socket.socket], count: int) -> dict[socket.socket, int]:
    """Return which worker has greeted the first so many clients that are greeted."""
    found: dict[socket.socket, int] = {}

    def look() -> bool:
        waiting = [client for client in clients if client not in found]
        for client in select.select(waiting, [], [], 0)[0]:
            found[client] = int(line(client))
        return len(found) >= count

    until(look, f"{count} clients that are greeted")
    return found


def test_each_worker_has_a_queue_and_the_supervisor_has_all(tmp_path: Path) -> None:
    with workers(tmp_path, 3, OWN) as three:
        port = three.program.port()
        all_queues = set(queues(port))
        own = [queues_of(pid, port) for pid in three.pids]
        assert [len(one) for one in own] == [1, 1, 1]
        assert (
            {inode for one in own for inode in one} == all_queues == set(queues_of(three.pid, port))
        )
        assert len(all_queues) == 3
        # Nobody else decides when it accepts.
        assert not any(shares_sockets(three.pid, pid) for pid in three.pids)
        with many(three) as clients:
            assert set(greeted(clients, MANY).values()) == set(three.pids)
        assert three.end() == 0
    assert three.program.out.count(f"127.0.0.1:{port}") == 1


def test_queue_of_a_killed_worker_is_served_by_its_successor(tmp_path: Path) -> None:
    with workers(tmp_path, 3, OWN) as three:
        port, pids = three.program.port(), three.pids
        with stopped(*pids), many(three) as clients:
            until(lambda: sum(queues(port).values()) == MANY, "all clients in queues")
            waiting = queues(port)
            (queue,) = queues_of(pids[0], port)
            assert waiting[queue] > 0
            os.kill(pids[0], signal.SIGKILL)
            three.serve(4)
            (successor,) = set(three.pids) - set(pids)
            assert queues_of(successor, port) == [queue]
            # The others are still stopped, and their clients wait.
            served = greeted(clients, waiting[queue])
            assert set(served.values()) == {successor}
            assert queues(port) == {**waiting, queue: 0}
            for pid in pids[1:]:
                os.kill(pid, signal.SIGCONT)
            rest = greeted([one for one in clients if one not in served], MANY - len(served))
            assert set(rest.values()) == set(pids[1:])
        assert three.end() == 0
    show(
        f"{len(served)} clients in the queue of the killed worker, all served by its successor",
        f"{len(rest)} in the queues of two stopped ones, all served when they went on",
    )


def test_restart_and_sigterm_turn_no_client_away(tmp_path: Path) -> None:
    with workers(tmp_path, 2, OWN, head=head(tmp_path)) as two, attempts(two) as client:
        port, old = two.program.port(), two.pids
        before = queues(port).keys()
        assert command(tmp_path, "restart") == (0, "2 workers replaced\n", "")
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        client.more(50)
        for times, pid in enumerate(two.pids, 5):
            os.kill(pid, signal.SIGTERM)
            two.serve(times)
            until(lambda pid=pid: ended(pid), "the end of a worker")  # type: ignore[misc]
        client.more(50)
        assert client.failed == []
        assert queues(port).keys() == before
        assert [len(queues_of(pid, port)) for pid in two.pids] == [1, 1]
        client.end()
        assert two.end() == 0


def test_upgrade_keeps_the_queues(tmp_path: Path) -> None:
    with workers(tmp_path, 2, OWN, head=head(tmp_path)) as two, attempts(two) as client:
        port, old = two.program.port(), two.pids
        own = [queues_of(pid, port) for pid in old]
        assert command(tmp_path, "upgrade") == (0, "upgraded, 2 workers replaced\n", "")
        until(lambda: all(ended(pid) for pid in old), "the end of the old workers")
        client.more(50)
        assert client.failed == []
        assert [queues_of(pid, port) for pid in two.pids] == own
        client.end()
        path = tmp_path / "mail.toml"
        path.write_text(path.read_text().replace("reuse-port = true", "reuse-port = false"))
        code, _, err = command(tmp_path, "upgrade")
        assert code == 1
        key = "listener.it.socket.reuse-port"
        assert f"{key} is false, and true in the running server: that needs a stop" in err
        assert two.end() == 0


def test_limit_is_exact_over_all_queues(tmp_path: Path) -> None:
    text = f"{OWN}max-connections = 8\n"
    with workers(tmp_path, 3, text, environ=patched(tmp_path, EAGER)) as three:
        storm = Storm(three.program.port(), 8, 24, seed=12)
        killed: list[int] = []

        def step(_: object) -> None:
            if len(killed) < 6 and storm.served > 40 * (len(killed) + 1) and len(three.pids) == 3:
                killed.append(three.pids[0])
                os.kill(killed[-1], signal.SIGKILL)

        try:
            storm.blow(lambda: storm.served < 400, step)
        finally:
            storm.calm()
        assert len(killed) == 6
        assert storm.most <= 8
        until(lambda: three.err.count("has ended: SIGKILL") == 6, "all ends")
        three.serve(9)
        until(lambda: served_at_once(three) == 8, "free places")
        assert three.end() == 0
    show(f"{len(killed)} workers killed", str(storm))


def served_at_once(server: Workers) -> int:
    """Return how many of many clients are served at a time."""
    with many(server, 20) as clients:
        return sum(line(client)[:-1].isdigit() for client in clients)


def test_waiting_clients_of_all_queues_are_served(tmp_path: Path) -> None:
    text = f'{OWN}max-connections = 2\nlimit-action = "wait"\n'
    with workers(tmp_path, 3, text) as three, many(three) as clients:
        port = three.program.port()
        until(lambda: sum(queues(port).values()) == MANY - 2, "two clients that are served")
        left, pids = list(clients), set()
        while left:
            served = greeted(left, min(2, len(left)))
            assert len(served) <= 2
            pids |= set(served.values())
            for client in served:
                left.remove(client)
                client.close()
        assert pids == set(three.pids)
        assert three.end() == 0


def test_worker_that_cannot_start_again_leaves_its_share_to_the_others(tmp_path: Path) -> None:
    environ = patched(tmp_path, EAGER)
    with workers(tmp_path, 2, OWN, head=head(tmp_path), environ=environ) as two:
        port, (first, second) = two.program.port(), two.pids
        (tmp_path / "exit").write_text("3")
        os.kill(first, signal.SIGKILL)
        until(lambda: "is not started again; 1 of 2 workers are left" in two.err, "the end")
        assert list(queues(port)) == queues_of(second, port)
        with many(two) as clients:
            assert set(greeted(clients, MANY).values()) == {second}
        (tmp_path / "exit").unlink()
        assert command(tmp_path, "restart") == (0, "2 workers replaced\n", "")
        until(lambda: ended(second), "the end of the old worker")
        assert len(queues(port)) == 2
        with many(two) as clients:
            assert set(greeted(clients, MANY).values()) == set(two.pids)
        assert two.end() == 0


def test_listener_that_a_reload_adds_has_queues(tmp_path: Path) -> None:
    more = OWN.replace("listener.it", "listener.more")
    with workers(tmp_path, 2, OWN, head=head(tmp_path)) as two:
        path, it = tmp_path / "mail.toml", two.program.port()
        before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in (two.pid, *two.pids)}
        text = path.read_text()
        path.write_text(text.replace("[server.listener.it]", f"{more}\n[server.listener.it]\n"))
        assert command(tmp_path, "reload") == (0, 'listener "more": added\n', "")
        logged = two.err.rpartition('listener "more": http on 127.0.0.1:')[2]
        port = int(logged.partition(";")[0])
        own = [queues_of(pid, port) for pid in two.pids]
        assert [len(one) for one in own] == [1, 1]
        assert own[0] != own[1]
        assert not any(shares_sockets(two.pid, pid) for pid in two.pids)
        for address in (it, port):
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", address), PATIENCE))
                    for _ in range(MANY)
                ]
                assert set(greeted(clients, MANY).values()) == set(two.pids)
        path.write_text(f"{text}socket.backlog = 77\n")
        code, out, _ = command(tmp_path, "reload")
        assert code == 0
        assert 'listener "more": removed, draining' in out
        # Every queue of the listener that stays has the new backlog, and is still its worker's.
        assert backlogs(two.pid, it) == [77, 77]
        assert not any(shares_sockets(two.pid, pid) for pid in two.pids)
        assert len(queues(it)) == 2
        until(
            lambda: {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in before} == before,
            "the end of the sockets",
        )
        with many(two) as clients:
            assert set(greeted(clients, MANY).values()) == set(two.pids)
        assert two.end() == 0


def test_unix_socket_of_the_same_listener_is_shared(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    text = OWN.replace('"127.0.0.1:0"', f'["127.0.0.1:0", "unix:{path}"]')
    with workers(tmp_path, 2, text) as two:
        first, second = two.pids
        assert len(queues(two.program.port())) == 2
        assert all(shares_sockets(two.pid, pid) for pid in two.pids)
        for pid, other in ((first, second), (second, first)):
            with stopped(other):
                for _ in range(4):
                    with socket.socket(socket.AF_UNIX) as client:
                        client.settimeout(PATIENCE)
                        client.connect(str(path))
                        assert int(line(client)) == pid
        assert two.end() == 0
