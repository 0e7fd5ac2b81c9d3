"""The states of an IMAP session (RFC 3501 3), and what the engine reads next.

Rules of this file: names and drawings; nothing is executed here.

    NOT_AUTHENTICATED --LOGIN, AUTHENTICATE--> AUTHENTICATED --SELECT, EXAMINE--> SELECTED
                                                     ^                               |
                                                     +--CLOSE, UNSELECT, failed SELECT--+

    any of these --LOGOUT, BYE--> LOGOUT

What is read next (`Reading`):

    COMMAND --a literal--> LITERAL --its octets--> COMMAND
       | APPEND's message, accepted --> MESSAGE --its octets--> COMMAND (the rest of the line)
       | a refused literal {n+} --> SWALLOW --its octets--> REST --CRLF--> COMMAND
       | AUTHENTICATE, challenged --> RESPONSE --accepted, refused, cancelled--> COMMAND
       | IDLE, accepted --> IDLE --DONE, or anything else--> COMMAND
       | STARTTLS, accepted --> TLS --tls_started()--> COMMAND
       |                         | input: nothing is said, nothing is carried out
       +--LOGOUT, BYE--> END <---+
"""

from __future__ import annotations

import enum

__all__ = ["Reading", "State"]


class State(enum.IntEnum):
    """Where a session is. The values are bits: a command is allowed in one state or several."""

    NOT_AUTHENTICATED = 1
    AUTHENTICATED = 2
    SELECTED = 4
    LOGOUT = 8


class Reading(enum.IntEnum):
    """What the client's next octets are."""

    COMMAND = enum.auto()
    LITERAL = enum.auto()  # octets of a literal that belongs to the command
    MESSAGE = enum.auto()  # octets of a message of APPEND
    SWALLOW = enum.auto()  # octets of a literal of a command that has been refused
    REST = enum.auto()  # what follows such a literal, up to the end of the command
    RESPONSE = enum.auto()  # a line of the AUTHENTICATE dialogue
    IDLE = enum.auto()  # DONE
    TLS = enum.auto()  # the go-ahead for TLS has been given, the handshake is not done
    END = enum.auto()  # the last response has been given
