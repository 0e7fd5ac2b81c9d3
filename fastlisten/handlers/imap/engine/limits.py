"""What is fixed for all IMAP sessions of a listener.

Rules of this file: data only.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a session, and what may be done without TLS.

    Attributes:
        max_command: octets of a command after login, with its literals but without messages. As
            Dovecot's imap_max_line_length: clients name thousands of messages in one command.
        max_literal: octets of a literal that is no message.
        max_command_before_login: the same before login; no user name or password is longer.
        max_response: octets of a line of the AUTHENTICATE dialogue, and of an AUTHENTICATE
            command; the bound that RFC 4954 4 sets for SMTP.
        max_message_size: octets of a message of APPEND.
        max_bad_commands: commands in a row that are answered with BAD; the last of them ends the
            session. As in Dovecot.
        max_bad_before_login: the same before login, as in Dovecot: whoever sends them is no mail
            client.
        disabled: names of commands, in upper case, that are answered as unknown ones.
        starttls: clients may begin TLS by STARTTLS.
        mechanisms: names, in upper case, of the SASL mechanisms that AUTHENTICATE takes.
        login_in_clear: LOGIN and AUTHENTICATE are taken without TLS too: for programs that protect
            the way otherwise.
    """

    max_command: int = 65_536
    max_literal: int = 65_536
    max_command_before_login: int = 8192
    max_response: int = 12_288
    max_message_size: int = 50 * 1024 * 1024
    max_bad_commands: int = 20
    max_bad_before_login: int = 3
    disabled: frozenset[str] = frozenset()
    starttls: bool = False
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN")
    login_in_clear: bool = False
