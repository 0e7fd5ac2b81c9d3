"""The role of a listener, mx or submission, and the one it has by default.

Rules of this file: only types are imported, because the configuration asks this, too.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Role", "role_by_port"]

#: `mx` takes mail from anybody for the accounts here, `submission` from users who log in.
Role = Literal["mx", "submission"]

#: The ports of submission: RFC 6409, RFC 8314, and the ones beside them that need no privilege.
_SUBMISSION_PORTS = frozenset((587, 465, 2587, 2465))


def role_by_port(port: int) -> Role:
    """Return the role of a listener whose first port is this one; 0 for one without ports."""
    return "submission" if port in _SUBMISSION_PORTS else "mx"
