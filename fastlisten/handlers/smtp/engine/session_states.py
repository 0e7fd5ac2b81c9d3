"""The states of an SMTP session, and the transitions between them.

Rules of this file: names, and the table of transitions; nothing is executed here. Only
`Session.enter` changes the state, and allows only the transitions in `NEXT`.

    COMMAND --DATA--> CONTENT --CRLF.CRLF--> COMMAND --QUIT, 421--> CLOSING --> CLOSED
                         | too large, bare CR or LF: Reset
                         v
                      DISCARD --CRLF.CRLF--> COMMAND (the refusal is given here)

    COMMAND --BDAT--> CHUNK --its octets--> COMMAND
       | out of order,   | bare CR or LF: Reset
       | too large       v
       +-----Reset--> SWALLOW --its octets--> COMMAND (the refusal is given here)

    COMMAND --AUTH, challenged--> DIALOGUE --accepted, rejected, bad response--> COMMAND
                                   ^  | response, challenged
                                   +--+

    COMMAND --STARTTLS, accepted--> SECURING --tls_started()--> COMMAND
                                       | input: nothing is said
                                       v
                                    CLOSING --> CLOSED

While an event waits for its answer the state is that to which the answer will be given: COMMAND for
a whole message as well as for MAIL. A reply that ends the session is always given in COMMAND.
"""

from __future__ import annotations

import enum

__all__ = ["NEXT", "SessionState"]


class SessionState(enum.IntEnum):
    """Where a session is. (An IntEnum: other enums take ten times as long to look up.)"""

    COMMAND = enum.auto()
    CONTENT = enum.auto()  # inside a message
    DISCARD = enum.auto()  # inside a message that will be refused at its end
    CHUNK = enum.auto()  # inside a chunk of a message
    SWALLOW = enum.auto()  # inside a chunk that will be refused at its end
    DIALOGUE = enum.auto()  # the client is to say something to a challenge
    SECURING = enum.auto()  # the go-ahead for TLS has been given, the handshake is not done
    CLOSING = enum.auto()  # the last reply has been given, the user has not been told yet
    CLOSED = enum.auto()


#: The ways of the drawing: what may follow each state.
NEXT: dict[SessionState, frozenset[SessionState]] = {
    SessionState.COMMAND: frozenset(
        {
            SessionState.CONTENT,
            SessionState.CHUNK,
            SessionState.SWALLOW,
            SessionState.DIALOGUE,
            SessionState.SECURING,
            SessionState.CLOSING,
        }
    ),
    SessionState.CONTENT: frozenset({SessionState.COMMAND, SessionState.DISCARD}),
    SessionState.DISCARD: frozenset({SessionState.COMMAND}),
    SessionState.CHUNK: frozenset({SessionState.COMMAND, SessionState.SWALLOW}),
    SessionState.SWALLOW: frozenset({SessionState.COMMAND}),
    SessionState.DIALOGUE: frozenset({SessionState.COMMAND, SessionState.DIALOGUE}),
    SessionState.SECURING: frozenset({SessionState.COMMAND, SessionState.CLOSING}),
    SessionState.CLOSING: frozenset({SessionState.CLOSED}),
    SessionState.CLOSED: frozenset(),
}
