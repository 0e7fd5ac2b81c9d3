"""The command line: `fastlisten serve|check|show|account`.

Rules of this file: arguments and exit codes. A subcommand's module is imported when it is asked
for, so that `check` needs no loop. Exit codes: 0 clean, 1 failure while running, 2 configuration
(argparse uses it for usage, too), 3 cannot start.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastlisten", description="The listener layer of a mail server."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the listeners of a configuration")
    serve.add_argument("file", nargs="?", metavar="FILE", help="default: the embedded default")

    check = commands.add_parser("check", help="report all mistakes of a configuration")
    check.add_argument("file", nargs="?", metavar="FILE", help="default: the embedded default")

    show = commands.add_parser("show", help="print every listener as it is resolved")
    show.add_argument("file", nargs="?", metavar="FILE", help="default: the embedded default")
    form = show.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="mode", action="store_const", const="json", help="as one JSON document"
    )
    form.add_argument(
        "--toml", dest="mode", action="store_const", const="toml", help="as a file that loads again"
    )
    form.add_argument(
        "--effective",
        dest="mode",
        action="store_const",
        const="effective",
        help="bind the sockets and compare the options with what the kernel made of them",
    )

    account = commands.add_parser("account", help="add and list mail accounts")
    actions = account.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="add an account")
    add.add_argument("name", metavar="ADDRESS", help="alice@example.org")
    listing = actions.add_parser("list", help="list the accounts and their aliases")
    for one in (add, listing):
        one.add_argument(
            "--config", metavar="FILE", help="whose accounts; default: the embedded default's"
        )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.version:
        from fastlisten import __version__

        print(f"fastlisten {__version__}")
        return 0
    try:
        if given.command == "serve":
            from fastlisten.cli import serve

            return serve.run(given.file, sys.stdout, sys.stderr)
        if given.command == "check":
            from fastlisten.cli import check

            return check.run(given.file, sys.stdout, sys.stderr)
        if given.command == "show":
            from fastlisten.cli import show

            return show.run(given.file, given.mode or "text", sys.stdout, sys.stderr)
        if given.command == "account":
            return _account(given)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone. Python would complain once more when it
        # flushes at exit; nothing is left to say to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    parser.print_help(sys.stderr)
    return 2


def _account(given: argparse.Namespace) -> int:
    from fastlisten.cli import account
    from fastlisten.cli.check import CONFIGURATION_ERROR, open_config

    config = open_config(given.config, sys.stderr)
    if config is None:
        return CONFIGURATION_ERROR
    directory = config.process["server.data-directory"]
    file = config.process["server.accounts"] or os.path.join(directory, "accounts.toml")
    if given.action == "add":
        return account.add(given.name, file, sys.stdout, sys.stderr)
    return account.list_accounts(file, sys.stdout, sys.stderr)
