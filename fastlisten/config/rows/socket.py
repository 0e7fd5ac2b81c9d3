"""The rows of `socket.*`: socket options of a listener's sockets.

Rules of this file: data only. Options are set in the order of the rows. This matters once: setting
the TOS also sets the priority, so `tos` comes before `priority`. Numbers that the socket module of
some Python version lacks have a comment with the header that defines them.
"""

from __future__ import annotations

import socket

from fastlisten.option import Option, SocketOption

__all__ = ["SOCKET_OPTIONS"]

# linux/in.h and linux/in6.h: bind to an address that no interface has (yet).
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78

# The kernel doubles the value, so the maximum is half of the largest int.
_MAX_BUFFER = 2**30 - 1

# net/tcp.h: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL seconds, MAX_TCP_KEEPCNT probes.
_MAX_KEEPALIVE_TIME = 32767
_MAX_KEEPALIVE_PROBES = 127

# setsockopt takes milliseconds as an int: whole days that fit into it, in seconds.
_MAX_USER_TIMEOUT = 24 * 86400

_SOL = socket.SOL_SOCKET
_TCP = socket.IPPROTO_TCP
_IP = socket.IPPROTO_IP
_IPV6 = socket.IPPROTO_IPV6

SOCKET_OPTIONS: tuple[Option, ...] = (
    Option(
        key="socket.reuse-addr",
        kind="boolean",
        default=True,
        text="Bind even if connections of an earlier process linger on the port (SO_REUSEADDR).",
        sockets=(SocketOption("ip", "bind", _SOL, socket.SO_REUSEADDR, "SO_REUSEADDR"),),
    ),
    Option(
        key="socket.reuse-port",
        kind="boolean",
        default=False,
        text="Give each worker an accept queue of its own, balanced by the kernel (SO_REUSEPORT), "
        "instead of one that all share; while a worker hangs, or is replaced, the clients in its "
        "queue wait, however idle the others are.",
        # Each worker has its sockets from the start, and what is bound with the option stays open
        # to other programs' sockets.
        reload="restart",
        sockets=(SocketOption("ip", "bind", _SOL, socket.SO_REUSEPORT, "SO_REUSEPORT"),),
    ),
    Option(
        key="socket.free-bind",
        kind="boolean",
        default=False,
        text="Allow addresses that no interface has yet (IP_FREEBIND, IPV6_FREEBIND).",
        sockets=(
            SocketOption("inet", "bind", _IP, _IP_FREEBIND, "IP_FREEBIND"),
            SocketOption("inet6", "bind", _IPV6, _IPV6_FREEBIND, "IPV6_FREEBIND"),
        ),
    ),
    Option(
        key="socket.backlog",
        kind="integer",
        default=1024,
        minimum=1,
        maximum=2**31 - 1,
        unit="connections",
        text="How many connections may wait to be accepted; the kernel caps it at "
        "net.core.somaxconn.",
    ),
    Option(
        key="socket.nodelay",
        kind="boolean",
        default=True,
        text="Send small writes at once instead of collecting them (TCP_NODELAY).",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_NODELAY, "TCP_NODELAY"),),
    ),
    Option(
        key="socket.ttl",
        kind="integer",
        default=None,
        minimum=1,
        maximum=255,
        unit="hops",
        text="The hop limit of outgoing packets (IP_TTL, IPV6_UNICAST_HOPS).",
        sockets=(
            SocketOption("inet", "listen", _IP, socket.IP_TTL, "IP_TTL"),
            SocketOption("inet6", "listen", _IPV6, socket.IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS"),
        ),
        extra={"optional": True},
    ),
    Option(
        key="socket.tos",
        kind="tos",
        default=None,
        minimum=0,
        maximum=255,
        text="Type of service: a number or the name of a DSCP class (IP_TOS, IPV6_TCLASS); the low "
        "two bits belong to the kernel.",
        sockets=(
            SocketOption("inet", "listen", _IP, socket.IP_TOS, "IP_TOS"),
            SocketOption("inet6", "listen", _IPV6, socket.IPV6_TCLASS, "IPV6_TCLASS"),
        ),
        extra={"optional": True},
    ),
    Option(
        key="socket.priority",
        kind="integer",
        default=None,
        minimum=0,
        maximum=2**31 - 1,
        text="Queueing priority of outgoing packets (SO_PRIORITY); above 6 needs CAP_NET_ADMIN.",
        sockets=(
            SocketOption("ip", "listen", _SOL, socket.SO_PRIORITY, "SO_PRIORITY"),
            # sk_clone_lock() resets it to 0 on the accepted socket.
            SocketOption("ip", "accepted", _SOL, socket.SO_PRIORITY, "SO_PRIORITY"),
        ),
        extra={"optional": True},
    ),
    Option(
        key="socket.send-buffer-size",
        kind="size",
        default=None,
        minimum=1,
        maximum=_MAX_BUFFER,
        unit="bytes",
        text="Requested size of the send buffer (SO_SNDBUF); the kernel caps it at "
        "net.core.wmem_max and doubles it.",
        sockets=(SocketOption("any", "listen", _SOL, socket.SO_SNDBUF, "SO_SNDBUF"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.recv-buffer-size",
        kind="size",
        default=None,
        minimum=1,
        maximum=_MAX_BUFFER,
        unit="bytes",
        text="Requested size of the receive buffer (SO_RCVBUF); the kernel caps it at "
        "net.core.rmem_max and doubles it.",
        sockets=(SocketOption("any", "listen", _SOL, socket.SO_RCVBUF, "SO_RCVBUF"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.linger",
        kind="linger",
        default=None,
        minimum=0,
        maximum=3600,
        unit="seconds",
        text="How long unsent data may still be sent after a connection is closed; then the "
        "connection is reset. `0` resets at once and loses unsent data. Only `0` uses SO_LINGER.",
        sockets=(SocketOption("ip", "listen", _SOL, socket.SO_LINGER, "SO_LINGER"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.keepalive",
        kind="boolean",
        default=False,
        text="Probe idle connections to detect dead peers (SO_KEEPALIVE).",
        sockets=(SocketOption("ip", "listen", _SOL, socket.SO_KEEPALIVE, "SO_KEEPALIVE"),),
    ),
    Option(
        key="socket.keepalive-time",
        kind="duration",
        default=None,
        minimum=1,
        maximum=_MAX_KEEPALIVE_TIME,
        unit="seconds",
        text="Idle time before the first probe (TCP_KEEPIDLE).",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_KEEPIDLE, "TCP_KEEPIDLE"),),
        extra={"optional": True, "whole": True},
    ),
    Option(
        key="socket.keepalive-interval",
        kind="duration",
        default=None,
        minimum=1,
        maximum=_MAX_KEEPALIVE_TIME,
        unit="seconds",
        text="Time between probes (TCP_KEEPINTVL).",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_KEEPINTVL, "TCP_KEEPINTVL"),),
        extra={"optional": True, "whole": True},
    ),
    Option(
        key="socket.keepalive-probes",
        kind="integer",
        default=None,
        minimum=1,
        maximum=_MAX_KEEPALIVE_PROBES,
        unit="probes",
        text="The number of unanswered probes after which a connection is ended (TCP_KEEPCNT).",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_KEEPCNT, "TCP_KEEPCNT"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.user-timeout",
        kind="duration",
        default=None,
        minimum=0.001,
        maximum=_MAX_USER_TIMEOUT,
        unit="seconds",
        text="How long sent data may stay unacknowledged before the connection is ended "
        "(TCP_USER_TIMEOUT).",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.defer-accept",
        kind="duration",
        default=None,
        minimum=1,
        maximum=3600,
        unit="seconds",
        text="Wake the server only when the client has sent data (TCP_DEFER_ACCEPT); only for "
        "protocols in which the client speaks first.",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT"),),
        extra={"optional": True, "whole": True},
    ),
    Option(
        key="socket.congestion",
        kind="congestion",
        default=None,
        text="Congestion control algorithm (TCP_CONGESTION); the kernel must have it.",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_CONGESTION, "TCP_CONGESTION"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.mode",
        kind="mode",
        default=None,
        text="Permission bits of a `unix:` socket's file, in octal; if not set, the umask decides.",
        extra={"optional": True},
    ),
    Option(
        key="socket.user",
        kind="string",
        default=None,
        text="Owner of a `unix:` socket's file.",
    ),
    Option(
        key="socket.group",
        kind="string",
        default=None,
        text="Group of a `unix:` socket's file.",
    ),
)
