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
from typing import TextIO

__all__ = ["main"]

#: Something failed while running.
_FAILED = 1

#: The descriptor of standard error.
_STDERR = 2


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
        "--toml",
        dest="mode",
        action="store_const",
        const="toml",
        help="as a file that loads again, given its secrets",
    )
    form.add_argument(
        "--effective",
        dest="mode",
        action="store_const",
        const="effective",
        help="bind the sockets and compare the options with what the kernel made of them",
    )

    _account_parser(commands.add_parser("account", help="add, change and list mail accounts"))
    return parser


def _account_parser(account: argparse.ArgumentParser) -> None:
    actions = account.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="add an account")
    passwd = actions.add_parser("passwd", help="give an account another password")
    alias = actions.add_parser("alias", help="give an account one more address")
    remove = actions.add_parser("remove", help="remove an account; its mail stays")
    listing = actions.add_parser("list", help="list the accounts and their aliases")
    for one in (add, passwd, alias, remove):
        one.add_argument("name", metavar="ADDRESS", help="alice@example.org")
    for one in (add, passwd):
        source = one.add_mutually_exclusive_group()
        source.add_argument(
            "--password-stdin",
            action="store_true",
            help="the password is the first line of standard input",
        )
        source.add_argument(
            "--generate", action="store_true", help="make up a password and print it"
        )
    alias.add_argument(
        "alias", metavar="ALIAS", help="al@example.org, or @example.org for the whole domain"
    )
    remove.add_argument("--delete-mail", action="store_true", help="delete its mail, too")
    for one in (add, passwd, alias, remove, listing):
        one.add_argument(
            "--config", metavar="FILE", help="whose accounts; default: the embedded default's"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    if sys.stderr is None:
        sys.stderr = _nowhere()
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
        # The reader of our output (head, less) has gone; nothing is left to say to nobody.
        _write_no_more()
        return 1
    parser.print_help(sys.stderr)
    return 2


def _nowhere() -> TextIO:
    """Return a standard error for a process that was started without one.

    Its descriptor is taken, too: a connection that got it would be sent what libraries print.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    if null != _STDERR:
        os.dup2(null, _STDERR)
        os.close(null)
    return open(_STDERR, "w", encoding="utf-8", closefd=False)


def _write_no_more() -> None:
    """Drop what standard output holds; Python would complain once more when it flushes at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def _account(given: argparse.Namespace) -> int:
    """Do what is asked, and see to it that what is said arrives."""
    if sys.stdout is None:  # nothing is changed that nobody is told of
        print("standard output is closed", file=sys.stderr)
        return _FAILED
    generated = getattr(given, "generate", False)
    try:
        code = _act(given)
        sys.stdout.flush()
    except OSError as error:  # of writing; those of the file are reported
        if isinstance(error, BrokenPipeError) and not generated:
            raise
        _write_no_more()
        print(f"cannot write what was done: {error.strerror}", file=sys.stderr)
        if generated:
            # The file has been changed: what was made up is the password, and nobody knows it.
            again = f"fastlisten account passwd {given.name}"
            print(f"the password is lost; make another: {again}", file=sys.stderr)
        return _FAILED
    return code


def _act(given: argparse.Namespace) -> int:
    """Do what is asked of the accounts."""
    from fastlisten.cli import account
    from fastlisten.cli.check import CONFIGURATION_ERROR, open_config

    config = open_config(given.config, sys.stderr)
    if config is None:
        return CONFIGURATION_ERROR
    directory = config.process["server.data-directory"]
    file = config.process["server.accounts"] or os.path.join(directory, "accounts.toml")
    if given.action == "list":
        return account.list_accounts(file, sys.stdout, sys.stderr)
    if given.action == "alias":
        return account.add_alias(given.name, given.alias, file, sys.stdout, sys.stderr)
    if given.action == "remove":
        mail = os.path.join(directory, "mail")
        return account.remove(
            given.name, file, mail, sys.stdout, sys.stderr, delete_mail=given.delete_mail
        )
    if given.generate:
        password = account.generate()
    else:
        try:
            password = account.ask(
                sys.stdin, from_stdin=given.password_stdin, needed=given.action == "passwd"
            )
        except account.PasswordError as error:
            print(error, file=sys.stderr)
            return CONFIGURATION_ERROR
    if given.action == "passwd":
        code = account.passwd(given.name, file, password, sys.stdout, sys.stderr)
    else:
        code = account.add(given.name, file, sys.stdout, sys.stderr, password=password)
    if given.generate and code == 0:
        print(f"password: {password}")
    return code
