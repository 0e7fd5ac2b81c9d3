"""The command line: `fastlisten serve|check|show|dns|account`, and those for a running server.

Rules of this file: arguments and exit codes. A subcommand's module is imported only if it runs, so
that `check` needs no event loop, and nothing that takes time is imported before `serve` handles
signals. Exit codes: 0 success, 1 failed while running or to write output, 2 invalid configuration
(argparse uses 2 for usage errors, too), 3 cannot start; of commands for a running server: 1 it
refused or did not answer, 3 there is none.
"""

from __future__ import annotations

import contextlib
import os
import sys

from fastlisten.cli.program_signals import ProgramSignals, Stopped

# For type checkers. Importing typing would take longer than the rest of this file.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from fastlisten.cli.control_client import ControlClient
    from fastlisten.config import Config

__all__ = ["main"]

#: Something failed while running.
_FAILED = 1

#: What `account` does with mail, and not with the accounts file.
_MAIL_ACTIONS = ("backup", "folders", "rebuild", "restore", "usage")

#: It cannot even start.
_NO_START = 3


def _parser() -> argparse.ArgumentParser:
    import argparse

    parser = argparse.ArgumentParser(
        prog="fastlisten", description="The listener layer of a mail server."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve the listeners of a configuration")
    check = commands.add_parser("check", help="report every mistake in a configuration")
    show = commands.add_parser(
        "show", help="print every setting of every listener, and where it comes from"
    )
    dns = commands.add_parser(
        "dns", help="print the DNS records with which mail programs find the server"
    )
    dns.add_argument(
        "--domain",
        action="append",
        default=[],
        metavar="DOMAIN",
        help="a domain of mail, instead of those of the accounts; may be repeated",
    )
    for one in (serve, check, show, dns):
        one.add_argument(
            "file",
            nargs="?",
            metavar="FILE",
            help="the configuration file; without one, the embedded default",
        )
    form = show.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="mode", action="store_const", const="json", help="print a JSON document"
    )
    form.add_argument(
        "--toml",
        dest="mode",
        action="store_const",
        const="toml",
        help="print a configuration file that can be loaded once its secrets are filled in",
    )
    form.add_argument(
        "--effective",
        dest="mode",
        action="store_const",
        const="effective",
        help="bind the sockets and print requested and actual values of socket options",
    )

    _account_parser(
        commands.add_parser("account", help="add, change, list and remove mail accounts")
    )
    _control_parsers(commands)
    # Run by a server that is to be upgraded; without help, so that it is not listed.
    commands.add_parser("upgrade-check").add_argument("file", nargs="?")
    return parser


def _control_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands that talk to a running server."""
    status = commands.add_parser("status", help="show what a running server is doing")
    form = status.add_mutually_exclusive_group()
    form.add_argument(
        "--json", dest="mode", action="store_const", const="json", help="print a JSON document"
    )
    form.add_argument(
        "--watch",
        dest="mode",
        action="store_const",
        const="watch",
        help="print it again every second, until interrupted",
    )
    reload = commands.add_parser("reload", help="let a running server read its files again")
    restart = commands.add_parser(
        "restart", help="replace the workers of a running server, one after the other"
    )
    upgrade = commands.add_parser(
        "upgrade", help="replace a running server by the program that is installed now"
    )
    pause = commands.add_parser("pause", help="stop a listener from accepting connections")
    resume = commands.add_parser("resume", help="let a paused listener accept again")
    drain = commands.add_parser(
        "drain", help="close a listener; connections in progress may finish"
    )
    limit = commands.add_parser("limit", help="change the max-connections of a listener")
    for one in (pause, resume, drain, limit):
        one.add_argument("id", metavar="ID", help="the listener's id: smtp")
    limit.add_argument(
        "limit", metavar="N", type=int, help="the most connections until the next start"
    )
    for one in (status, reload, restart, upgrade, pause, resume, drain, limit):
        one.add_argument(
            "--config",
            metavar="FILE",
            help="the configuration that the server was started with; without it, any server's "
            "socket in its usual places",
        )
        one.add_argument("--socket", metavar="PATH", help="the server's control socket")


def _account_parser(account: argparse.ArgumentParser) -> None:
    actions = account.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = actions.add_parser("add", help="add an account")
    passwd = actions.add_parser("passwd", help="change the password of an account")
    alias = actions.add_parser("alias", help="add an alias to an account")
    remove = actions.add_parser("remove", help="remove an account, but keep its mail")
    listing = actions.add_parser("list", help="list all accounts and their aliases")
    folders = actions.add_parser("folders", help="list the folders of an account")
    usage = actions.add_parser("usage", help="show how much mail accounts have, and their quotas")
    backup = actions.add_parser("backup", help="copy the mail of an account, also while it is used")
    backup.add_argument("name", metavar="ADDRESS", help="the account's address")
    backup.add_argument(
        "target",
        metavar="TARGET",
        help="a new file if it ends with .tar, otherwise a new or empty directory; -: standard "
        "output",
    )
    restore = actions.add_parser("restore", help="make the mail of an account from a backup")
    restore.add_argument("name", metavar="ADDRESS", help="the account's address")
    restore.add_argument(
        "source", metavar="SOURCE", help="a tar archive or a directory; -: standard input"
    )
    restore.add_argument(
        "--force", action="store_true", help="replace the mail that is there, which is kept aside"
    )
    rebuild = actions.add_parser("rebuild", help="make the index of an account's mail again")
    usage.add_argument("name", nargs="?", default="", metavar="ADDRESS", help="only this account")
    for one in (folders, usage):
        one.add_argument("--json", action="store_true", help="print a JSON document")
    for one in (add, passwd, alias, remove, folders, rebuild):
        one.add_argument("name", metavar="ADDRESS", help="the account's address: alice@example.org")
    for one in (add, passwd):
        source = one.add_mutually_exclusive_group()
        source.add_argument(
            "--password-stdin",
            action="store_true",
            help="read the password from the first line of standard input",
        )
        source.add_argument(
            "--generate", action="store_true", help="generate a password and print it"
        )
    alias.add_argument(
        "alias",
        metavar="ALIAS",
        help="another address: al@example.org, or @example.org for the whole domain",
    )
    remove.add_argument("--delete-mail", action="store_true", help="delete its mail, too")
    for one in (
        *(add, passwd, alias, remove, listing),
        *(folders, usage, rebuild, backup, restore),
    ):
        one.add_argument(
            "--config",
            metavar="FILE",
            help="the configuration whose accounts to use; without one, the embedded default",
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    Args:
        arguments: the arguments after the program's name. Signals and standard streams of the
            process are then left alone. None to run as the program, with `sys.argv`.
    """
    if arguments is not None:
        return _run(arguments, None)
    words = sys.argv[1:]
    serving = words[:1] == ["serve"]
    signals = ProgramSignals() if serving else None
    from fastlisten.cli import standard_streams

    standard_streams.set_up(serving=serving)
    if signals is not None:
        signals.watch()
    try:
        code = _program(words, signals)
    except standard_streams.OutputError as error:
        # No message if the reader of our output (head, less) has quit.
        if not error.broken:
            print(error, file=sys.stderr)
        code = _FAILED
    if signals is not None:
        signals.end(code)
    return code


def _program(words: Sequence[str], signals: ProgramSignals | None) -> int:
    """Run the command line as the program; return the exit code."""
    import signal

    try:
        code = _run(words, signals)
    except Stopped as stopped:
        print(f"{stopped.number.name}: stopped while starting", file=sys.stderr)
        code = 0
    except SystemExit as end:  # from argparse (help, a usage error) or an application
        code = _code(end)
    except MemoryError:  # while modules are imported; later it is logged
        print("error: cannot start: not enough memory", file=sys.stderr)
        code = _NO_START
    except KeyboardInterrupt:
        # End by the signal, as the parent process expects.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
        code = _FAILED
    sys.stdout.flush()
    return code


def _code(end: SystemExit) -> int:
    """Return the exit code that Python would end with, and print what it would print."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return _FAILED


def _run(arguments: Sequence[str], signals: ProgramSignals | None) -> int:
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.version:
        from fastlisten import __version__

        print(f"fastlisten {__version__}")
        return 0
    if given.command == "serve":
        from fastlisten.cli import serve

        return serve.run(given.file, sys.stdout, sys.stderr, signals)
    if given.command == "check":
        from fastlisten.cli import check

        return check.run(given.file, sys.stdout, sys.stderr)
    if given.command == "upgrade-check":
        from fastlisten.cli import upgrade_check

        return upgrade_check.run(given.file, sys.stdin, sys.stdout, sys.stderr)
    if given.command == "show":
        from fastlisten.cli import show

        return show.run(given.file, given.mode or "text", sys.stdout, sys.stderr)
    if given.command == "dns":
        from fastlisten.cli import dns

        return dns.run(given.file, given.domain, sys.stdout, sys.stderr)
    if given.command == "account":
        return _account(given)
    if given.command is not None:
        return _ask_server(given)
    parser.print_help(sys.stderr)
    return 2


def _ask_server(given: argparse.Namespace) -> int:
    """Run a command that talks to a running server."""
    from fastlisten.cli import control_client
    from fastlisten.cli.standard_streams import check_output

    check_output()  # change nothing if the result cannot be printed
    try:
        client = control_client.find(given.config, given.socket, sys.stderr)
        try:
            return _ask(given, client)
        finally:
            client.close()
    except control_client.ControlError as error:
        if str(error):
            print(f"error: {error}", file=sys.stderr)
        elif given.command not in ("reload", "restart", "upgrade"):
            # The server may be up, and can be looked after before the file is mended.
            note = "the file is read only to find the control socket; --socket PATH does without it"
            print(f"note: {note}", file=sys.stderr)
        return error.code


def _ask(given: argparse.Namespace, client: ControlClient) -> int:
    if given.command == "status":
        from fastlisten.cli import status

        return status.run(client, given.mode or "text", sys.stdout)
    if given.command == "reload":
        from fastlisten.cli import reload

        return reload.run(client, sys.stdout, sys.stderr)
    if given.command == "restart":
        from fastlisten.cli import restart

        return restart.run(client, sys.stdout, sys.stderr)
    if given.command == "upgrade":
        from fastlisten.cli import upgrade

        return upgrade.run(client, sys.stdout, sys.stderr)
    from fastlisten.cli import listener_commands

    values = {"limit": given.limit} if given.command == "limit" else {}
    return listener_commands.run(client, given.command, given.id, sys.stdout, **values)


def _account(given: argparse.Namespace) -> int:
    """Run an `account` command, and make sure that its output is written."""
    from fastlisten.cli.standard_streams import OutputError, check_output

    check_output()  # change nothing if the result cannot be printed
    generated = getattr(given, "generate", False)
    try:
        code = _act(given)
        sys.stdout.flush()
    except OutputError as error:
        if not generated:
            raise
        # The account has a generated password that was not printed.
        again = f"fastlisten account passwd {given.name}"
        print(error, file=sys.stderr)
        print(f"the password is lost; set another one: {again}", file=sys.stderr)
        return _FAILED
    return code


def _act(given: argparse.Namespace) -> int:
    """Run an action on the configuration's accounts."""
    from fastlisten.cli.check import CONFIGURATION_ERROR, open_config

    config = open_config(given.config, sys.stderr)
    if config is None:
        return CONFIGURATION_ERROR
    directory = config.process["server.data-directory"]
    file = config.process["server.accounts"] or os.path.join(directory, "accounts.toml")
    # Perhaps there is a configuration, and --config was forgotten.
    unnamed = given.config is None and not os.path.exists(file)
    if given.action == "add":
        _make_data_directory(config)
    if given.action in _MAIL_ACTIONS:
        code = _act_on_mail(given, config, file)
    else:
        code = _act_on(given, file, directory)
    if unnamed:
        stream = sys.stdout if code == 0 else sys.stderr
        print("(no --config given: using the accounts of the embedded default)", file=stream)
    return code


def _make_data_directory(config: Config) -> None:
    """Create the data directory for the user that serves, if root is about to create it."""
    from fastlisten.errors import ConfigurationError
    from fastlisten.privileges import PrivilegesError
    from fastlisten.runtime.privileges import identity_of, make_directory

    # `serve` reports a user that cannot be used.
    with contextlib.suppress(ConfigurationError, PrivilegesError, OSError):
        identity = identity_of(config)
        if identity is not None:
            make_directory(identity, config)


def _act_on_mail(given: argparse.Namespace, config: Config, file: str) -> int:
    """Run an action on an account's mail."""
    from fastlisten.cli import account_mail
    from fastlisten.mail.accounts.quota import Quota

    values = config.process
    quota = Quota(values["server.quota.bytes"], values["server.quota.messages"])
    place = account_mail.Place(file, values["server.data-directory"], quota)

    def work() -> None:
        if given.action == "folders":
            account_mail.folders(given.name, place, sys.stdout, as_json=given.json)
        elif given.action == "usage":
            account_mail.usage(given.name, place, sys.stdout, as_json=given.json)
        elif given.action == "backup":
            from fastlisten.cli import account_backup

            account_backup.backup(given.name, given.target, place, sys.stdout)
        elif given.action == "restore":
            from fastlisten.cli import account_backup

            account_backup.restore(given.name, given.source, place, sys.stdout, force=given.force)
        else:
            account_mail.rebuild(given.name, place, sys.stdout)

    return account_mail.run(work, sys.stderr)


def _act_on(given: argparse.Namespace, file: str, directory: str) -> int:
    """Run an action on an accounts file."""
    from fastlisten.cli import account
    from fastlisten.cli.check import CONFIGURATION_ERROR

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
