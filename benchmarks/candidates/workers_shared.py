"""Candidates: workers as most servers in Python have them, forked after binding, without a balance.

One listening socket that all workers watch, as in gunicorn, or with SO_REUSEPORT a socket and a
queue for each. They accept with uvloop, or with this package's core, whose workers know nothing of
each other here: what differs from `fastlisten serve` is then little but the balance.

The first line printed is the port, this process's id and the word "tree", because its children
serve; it is printed when all of them do. They end when this program's standard input does, and when
this program ends in another way.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import socket
import sys
from typing import NoReturn

import uvloop

import fastlisten
from benchmarks.candidates.process_tree import await_end, end_with_parent, kill_descendants
from benchmarks.candidates.protocol import greeting_echo, worker_greeting
from benchmarks.process import end_when_told

#: As in `workers_fastlisten`.
BACKLOG = 4096


def _listening_socket(port: int, reuse_port: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if reuse_port:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.setblocking(False)
    sock.listen(BACKLOG)
    return sock


async def _serve(sock: socket.socket, core: str, ready: int) -> None:
    factory = greeting_echo(worker_greeting())
    if core == "uvloop":
        loop = asyncio.get_running_loop()
        await loop.create_server(factory, sock=sock, backlog=BACKLOG)
    else:
        await fastlisten.create_server(factory, sock=sock, backlog=BACKLOG)
    os.write(ready, b".")
    await asyncio.Event().wait()


def _be_worker(sock: socket.socket, core: str, ready: int) -> NoReturn:
    end_with_parent()
    os.close(sys.stdin.fileno())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(sock, core, ready))
    os._exit(1)


def main() -> None:
    """Run the workers until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--core", choices=("uvloop", "fastlisten"), default="uvloop")
    parser.add_argument("--reuse-port", action="store_true")
    given = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sockets = [_listening_socket(0, given.reuse_port)]
    port = sockets[0].getsockname()[1]
    if given.reuse_port:
        sockets += [_listening_socket(port, True) for _ in range(1, given.workers)]
    read, write = os.pipe()
    gc.freeze()
    for number in range(given.workers):
        if os.fork() == 0:
            mine = sockets[number % len(sockets)]
            for sock in sockets:
                if sock is not mine:
                    sock.close()
            _be_worker(mine, given.core, write)
    end_when_told()
    try:
        # This process never accepts, and must keep no queue alive.
        for sock in sockets:
            sock.close()
        os.close(write)
        served = 0
        while served < given.workers:
            if not (said := os.read(read, 4096)):
                sys.exit("the workers have ended")
            served += len(said)
        print(port, os.getpid(), "tree", flush=True)
        await_end()
    finally:
        kill_descendants()


if __name__ == "__main__":
    main()
