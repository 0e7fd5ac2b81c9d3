"""Candidate: smtp-sink, Postfix's C program that receives messages and discards them.

smtp-sink cannot report the port that the kernel chose, and does not end when its standard input
does. This program looks the port up under /proc, prints it with the id of smtp-sink's process, and
ends smtp-sink when its own input ends or when it is killed. With a data directory, smtp-sink writes
each message to a file there; it never syncs.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

#: Where distributions put administrators' programs.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))

#: The user that it runs as when root starts it, because it refuses to serve as root.
USER = "nobody"

#: The longest time until it listens, in seconds.
PATIENCE = 10.0

#: prctl(2): sets the signal that the process gets when its parent ends.
PR_SET_PDEATHSIG = 1

#: State of a listening socket in /proc/net/tcp.
LISTENING = "0A"


def _command() -> tuple[list[str], str | None]:
    """Return the command, and the directory to run it in."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="directory that gets a file per message")
    parser.add_argument("--lmtp", action="store_true")
    given = parser.parse_args()
    program = shutil.which("smtp-sink", path=PATH)
    if program is None:
        sys.exit("smtp-sink (of Postfix) is not installed")
    options = ["-L"] if given.lmtp else []
    if os.geteuid() == 0 and given.data:
        shutil.chown(given.data, USER)
    if given.data:
        # Relative, because a directory above may be accessible to root only.
        options += ["-d", "%M."]
    options += ["-h", "mail.example.org", "inet:127.0.0.1:0", "1024"]
    return [program, *options], given.data


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _listening_port(pid: int) -> int:
    """Return the port that a process listens on, or 0 if there is none yet."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        inodes.add(os.readlink(descriptor))
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
        if state == LISTENING and f"socket:[{inode}]" in inodes:
            return int(local.rpartition(":")[2], 16)
    return 0


def main() -> None:
    """Run smtp-sink until standard input ends."""
    # Not by smtp-sink's option -u, because a change of user clears the parent-death signal. Popen
    # changes the user before preexec_fn sets the signal.
    identity = pwd.getpwnam(USER) if os.geteuid() == 0 else None
    command, directory = _command()
    with subprocess.Popen(
        command,
        cwd=directory,
        user=identity and identity.pw_uid,
        group=identity and identity.pw_gid,
        extra_groups=None if identity is None else [],
        preexec_fn=_end_with_parent,
    ) as sink:
        try:
            until = time.monotonic() + PATIENCE
            while (port := _listening_port(sink.pid)) == 0:
                if sink.poll() is not None or time.monotonic() > until:
                    sys.exit("smtp-sink does not listen")
                time.sleep(0.01)
            print(port, sink.pid, flush=True)
            sys.stdin.read()
        finally:
            sink.kill()


if __name__ == "__main__":
    main()
