"""The command table: the function of each verb, for the sessions of a listener.

Rules of this file: tables and look-ups. The commands are in base_commands.py and
extension_commands.py.

A verb in `Limits.told` causes a Command event first, and is carried out when the engine's user
accepts that.
"""

from __future__ import annotations

from collections.abc import Callable

from fastlisten import _mail_syntax as syntax
from fastlisten.handlers.smtp.engine import base_commands as base
from fastlisten.handlers.smtp.engine import extension_commands as extension
from fastlisten.handlers.smtp.engine.replies import Limits
from fastlisten.handlers.smtp.engine.smtp_events import Command, Event
from fastlisten.handlers.smtp.engine.smtp_session import Session
from fastlisten.handlers.smtp.engine.verbs import KNOWN

__all__ = ["Carrier", "carry_out", "commands_of", "execute"]

#: What carries a command out; called with the session, the verb in upper case and what follows it.
Carrier = Callable[[Session, bytes, bytes], Event | None]

#: The same, but it only returns the usual reply.
Replier = Callable[[Session, bytes, bytes], bytes]

#: The verbs of which the user can be told: what the reply would be, and what is done.
_TELLABLE: dict[bytes, tuple[Replier, Carrier]] = {
    b"EHLO": (base.hello_reply, base.hello),
    b"LHLO": (base.hello_reply, base.hello),
    b"HELO": (base.hello_reply, base.hello),
    b"RSET": (base.rset_reply, base.rset),
    b"NOOP": (base.noop_reply, base.noop),
    b"VRFY": (base.vrfy_reply, base.vrfy),
    b"HELP": (base.help_reply, base.help_),
    b"QUIT": (base.quit_reply, base.quit_),
}

#: The others.
_COMMANDS: dict[bytes, Carrier] = {
    b"MAIL": base.mail,
    b"RCPT": base.rcpt,
    b"DATA": base.data,
    b"BDAT": extension.bdat,
    b"AUTH": extension.auth,
    b"STARTTLS": extension.starttls,
}

_KNOWN = KNOWN
_unknown = base.unknown


def commands_of(limits: Limits) -> dict[bytes, Carrier]:
    """Return the function of each verb, for all sessions with the same limits."""
    if not limits.commands:
        commands = dict(_COMMANDS)
        other = (b"EHLO", b"HELO") if limits.protocol == "lmtp" else (b"LHLO",)
        for verb, (_, carrier) in _TELLABLE.items():
            if verb not in other:
                commands[verb] = _tell if verb.decode() in limits.told else carrier
        limits.commands.update(commands)  # at once: another thread may have sessions, too
    return limits.commands


def execute(session: Session, commands: dict[bytes, Carrier], line: bytes) -> Event | None:
    """Execute a command line.

    Raises:
        Refused: it is not carried out.
    """
    # White space at the end is tolerated (4.1.1). So are more spaces than one before the
    # argument, as everywhere; a tab there is not.
    verb, argument = syntax.split_command(line)
    session.verb = _KNOWN.get(verb, b"")
    return commands.get(verb, _unknown)(session, verb, argument)


def _tell(session: Session, verb: bytes, argument: bytes) -> Event | None:
    usual = _TELLABLE[verb][0](session, verb, argument)
    event = session.waiting = Command(verb.decode(), argument.decode(errors="replace"), usual)
    return event


def carry_out(session: Session, command: Command, answer: bytes) -> None:
    """Do what a command does of which the user has been told.

    Args:
        session: has received it.
        command: the event.
        answer: the complete reply, empty for the usual one.
    """
    verb = command.verb.encode()
    _TELLABLE[verb][1](session, verb, command.argument.encode())
    if answer:
        session.unsent[-1] = answer
