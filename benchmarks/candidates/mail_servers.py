"""Candidates: Dovecot's LMTP and IMAP servers, and Postfix with its delivery agent virtual(8).

Each runs with a configuration that is created here, below the data directory that it delivers to;
the host's configuration is not read. The first line printed is the port, the id of this process and
the word "tree", because the work is done by its descendants; or a sentence that says why it cannot
serve. The servers end when this program's standard input does.

The terms are equal: one account, Maildir, the server's own defaults about syncing. Dovecot syncs a
message and its directory before it replies. Postfix syncs its queue file before it replies and
delivers to the Maildir afterwards; its processor time is read when all messages are there.

Dovecot's IMAP server has accounts and mail that are there already (mailboxes.py), takes passwords
without TLS, and delivers to the same mail by LMTP.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.candidates.process_tree import (
    await_end,
    give_up,
    kill_descendants,
    reap_orphans,
)
from benchmarks.deliveries import RUN
from benchmarks.mailboxes import PASSWORD, give_to
from benchmarks.measure_imap import LMTP_PORT
from benchmarks.process import end_when_told

#: Where distributions put administrators' programs.
PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))

#: The owner of the Maildir: an unprivileged user that every Debian system has.
USER = "mail"

#: Seconds that a server has to start and greet, and to end.
PATIENCE = 20.0

DOVECOT_2_3 = """\
base_dir = {place}/run
state_dir = {place}/run
log_path = {place}/log
protocols = lmtp
ssl = no
mail_location = maildir:{data}/mail/%u
first_valid_uid = 1
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={data}/mail/%u
}}
passdb {{
  driver = static
  args = nopassword=y
}}
service lmtp {{
  process_min_avail = 4
  process_limit = 200
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"""

#: IMAP by Dovecot 2.3. Its own defaults hold but for numbers of processes and sessions.
DOVECOT_IMAP = """\
base_dir = {place}/run
state_dir = {place}/run
log_path = {place}/log
protocols = imap lmtp
mail_location = maildir:{data}/mail/%u
first_valid_uid = 1
disable_plaintext_auth = no
mail_max_userip_connections = 0
{tls}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={data}/mail/%u
}}
passdb {{
  driver = static
  args = password={password}
}}
service imap-login {{
  process_min_avail = 1
  service_count = 0
  client_limit = 12000
  inet_listener imap {{
    address = 127.0.0.1
    port = {plain_port}
  }}
  inet_listener imaps {{
    address = 127.0.0.1
    port = {tls_port}
  }}
}}
service imap {{
  process_limit = 12000
  client_limit = 1
}}
service anvil {{
  client_limit = 15000
}}
service auth {{
  client_limit = 15000
}}
service lmtp {{
  process_min_avail = 4
  process_limit = 200
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
}}
"""

#: The same for Dovecot 2.4, which refuses a configuration that doesn't begin with its version, and
#: by default more than ten deliveries to an account at a time.
DOVECOT_2_4 = """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = {place}/run
state_dir = {place}/run
log_path = {place}/log
protocols = lmtp
ssl = no
lmtp_user_concurrency_limit = unlimited
mail_driver = maildir
mail_path = {data}/mail/%{{user}}
first_valid_uid = 1
userdb static {{
  fields {{
    uid = {uid}
    gid = {gid}
    home = {data}/mail/%{{user}}
  }}
}}
passdb static {{
  fields {{
    nopassword = yes
  }}
}}
service lmtp {{
  process_min_avail = 4
  process_limit = 200
  inet_listener lmtp {{
    listen = 127.0.0.1
    port = {port}
  }}
}}
"""

POSTFIX = """\
compatibility_level = 3.6
queue_directory = {place}/queue
data_directory = {place}/data
maillog_file = {place}/log
maillog_file_prefixes = {place}
myhostname = mail.example.org
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = loopback-only
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_client_message_rate_limit = 0
default_process_limit = 200
in_flow_delay = 0
virtual_mailbox_domains = example.org
virtual_mailbox_base = {data}/mail
virtual_mailbox_maps = inline:{{ alice@example.org=alice/ }}
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""

SERVICES = """\
127.0.0.1:{port} inet n - n - - smtpd
anvil   unix - - n - 1 anvil
cleanup unix n - n - 0 cleanup
proxymap unix - - n - - proxymap
qmgr    unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
trace   unix - - n - 0 bounce
error   unix - - n - - error
retry   unix - - n - - error
virtual unix - n n - - virtual
postlog unix-dgram n - n - 1 postlogd
"""


def _dovecot(place: Path, **values: object) -> list[str]:
    """Write Dovecot's configuration; return its command."""
    if not any(Path(library, "dovecot/lmtp").exists() for library in ("/usr/lib", "/usr/libexec")):
        give_up("Dovecot's lmtp is not installed (Debian: dovecot-lmtpd)")
    program = _program("dovecot")
    # "2.3.19.1 (9b53102964)"; older ones than 2.3 are not expected.
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    template = DOVECOT_2_3 if said.stdout.startswith("2.3.") else DOVECOT_2_4
    path = place / "dovecot.conf"
    path.write_text(template.format(place=place, **values))
    return [program, "-F", "-c", str(path)]


def _dovecot_imap(place: Path, **values: Any) -> list[str]:
    """Write Dovecot's configuration for IMAP; return its command."""
    program = _program("dovecot")
    if not Path("/usr/lib/dovecot/imap").exists():
        give_up("Dovecot's imap is not installed (Debian: dovecot-imapd)")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    if not said.stdout.startswith("2.3."):
        give_up(f"Dovecot {said.stdout.split()[0]} is configured otherwise than 2.3")
    given_tls = values["certificate"] is not None
    tls = (
        f"ssl = yes\nssl_cert = <{values['certificate']}\nssl_key = <{values['key']}"
        if given_tls
        else "ssl = no"
    )
    # A port of 0 switches a listener off.
    ports = {"plain_port": 0 if given_tls else values["port"]}
    ports["tls_port"] = values["port"] if given_tls else 0
    ports["lmtp_port"] = _free_port()
    (place / LMTP_PORT).write_text(str(ports["lmtp_port"]))
    give_to(values["data"], values["uid"], values["gid"])
    path = place / "dovecot.conf"
    filled = {**values, **ports, "tls": tls, "password": PASSWORD}
    path.write_text(DOVECOT_IMAP.format(place=place, **filled))
    return [program, "-F", "-c", str(path)]


def _postfix(place: Path, **values: object) -> list[str]:
    """Write Postfix's configuration; return its command."""
    for name in ("etc", "queue", "data"):
        (place / name).mkdir()
    shutil.chown(place / "data", "postfix")
    (place / "etc" / "main.cf").write_text(POSTFIX.format(place=place, **values))
    (place / "etc" / "master.cf").write_text(SERVICES.format(**values))
    return [_program("postfix"), "-c", str(place / "etc"), "start-fg"]


SERVERS: dict[str, Callable[..., list[str]]] = {
    "dovecot": _dovecot,
    "dovecot-imap": _dovecot_imap,
    "postfix": _postfix,
}


def _program(name: str) -> str:
    program = shutil.which(name, path=PATH)
    if program is None:
        give_up(f"{name} is not installed")
    return program


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _await_greeting(port: int, process: subprocess.Popen[bytes], log: Path, *, tls: bool) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client,
        ):
            if tls or client.recv(1024).startswith((b"220 ", b"* OK")):
                return
        if process.poll() is not None or time.monotonic() > until:
            tail = log.read_text().splitlines()[-3:] if log.exists() else []
            give_up(f"it sends no greeting: {' / '.join(tail)}")
        time.sleep(0.02)


def main() -> None:
    """Run a server until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("server", choices=SERVERS)
    parser.add_argument("--data", required=True, help="directory that gets the Maildir")
    parser.add_argument("--lmtp", action="store_true", help="required for Dovecot")
    parser.add_argument("--certificate", help="for Dovecot's IMAP")
    parser.add_argument("--key")
    given = parser.parse_args()
    if os.geteuid() != 0:
        give_up("Dovecot and Postfix must be started by root")
    data, user, port = Path(given.data), pwd.getpwnam(USER), _free_port()
    data.chmod(0o755)  # the servers' own users must be able to traverse it
    for name in ("mail", RUN):
        (data / name).mkdir(exist_ok=True)
    shutil.chown(data / "mail", user.pw_uid, user.pw_gid)
    end_when_told()
    reap_orphans()
    command = SERVERS[given.server](
        data / RUN,
        data=data,
        uid=user.pw_uid,
        gid=user.pw_gid,
        port=port,
        certificate=given.certificate,
        key=given.key,
    )
    # Standard input belongs to this program, which ends when it does.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, stderr=sys.stderr
    )
    try:
        _await_greeting(port, process, data / RUN / "log", tls=given.certificate is not None)
        print(port, os.getpid(), "tree", flush=True)
        await_end()
    finally:
        kill_descendants()


if __name__ == "__main__":
    main()
