"""The rows of `socket.*`: what is asked of the kernel for the sockets of a listener.

Rules of this file: data only. The order of rows is the order in which options are set, which
matters once: the kernel derives a socket's priority from its TOS, so `tos` stands before
`priority`. Numbers that Python's socket module does not name on every version carry the header
that defines them.
"""

from __future__ import annotations

import socket

from fastlisten.option import Option, SocketOption

__all__ = ["SOCKET_OPTIONS"]

# linux/in.h and linux/in6.h: bind to an address that no interface has (yet).
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78

# The kernel stores twice the value that was asked for, so half of the largest int is the most.
_MAX_BUFFER = 2**30 - 1

# net/tcp.h: MAX_TCP_KEEPIDLE and MAX_TCP_KEEPINTVL seconds, MAX_TCP_KEEPCNT probes.
_MAX_KEEPALIVE_TIME = 32767
_MAX_KEEPALIVE_PROBES = 127

# setsockopt takes an int of milliseconds; this is that, in whole days.
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
        text="Bind although connections of an earlier process linger on the port (SO_REUSEADDR).",
        reload="rebind",
        sockets=(SocketOption("ip", "bind", _SOL, socket.SO_REUSEADDR, "SO_REUSEADDR"),),
    ),
    Option(
        key="socket.reuse-port",
        kind="boolean",
        default=False,
        text="One accept queue per worker, balanced by the kernel's hash (SO_REUSEPORT), instead "
        "of one that all workers share.",
        reload="rebind",
        sockets=(SocketOption("ip", "bind", _SOL, socket.SO_REUSEPORT, "SO_REUSEPORT"),),
    ),
    Option(
        key="socket.free-bind",
        kind="boolean",
        default=False,
        text="Bind to an address that no interface has yet (IP_FREEBIND, IPV6_FREEBIND).",
        reload="rebind",
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
        text="How many connections may wait to be accepted; the kernel clamps it to "
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
        text="Hops that a packet may make (IP_TTL, IPV6_UNICAST_HOPS).",
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
        text="Type of service, or the name of a DSCP class (IP_TOS, IPV6_TCLASS); the low two bits "
        "belong to the kernel.",
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
        text="Queueing priority of packets (SO_PRIORITY); above 6 needs CAP_NET_ADMIN.",
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
        text="Size asked for the send buffer (SO_SNDBUF); the kernel doubles it and caps it at "
        "net.core.wmem_max.",
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
        text="Size asked for the receive buffer (SO_RCVBUF); the kernel doubles it and caps it at "
        "net.core.rmem_max.",
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
        text="How long unsent data may still be sent after a connection is closed, then it is "
        "reset; 0 resets at once and loses what was not sent. Only the 0 uses SO_LINGER.",
        sockets=(SocketOption("ip", "listen", _SOL, socket.SO_LINGER, "SO_LINGER"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.keepalive",
        kind="boolean",
        default=False,
        text="Probe idle connections, so that dead ones are noticed (SO_KEEPALIVE).",
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
        text="Unanswered probes after which the connection is dead (TCP_KEEPCNT).",
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
        text="How long sent data may stay unacknowledged before the connection is dead "
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
        text="Wake the server when the client has sent data, and only then; for protocols whose "
        "client speaks first (TCP_DEFER_ACCEPT).",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT"),),
        extra={"optional": True, "whole": True},
    ),
    Option(
        key="socket.congestion",
        kind="congestion",
        default=None,
        text="Congestion control algorithm (TCP_CONGESTION), one that the kernel has.",
        sockets=(SocketOption("ip", "listen", _TCP, socket.TCP_CONGESTION, "TCP_CONGESTION"),),
        extra={"optional": True},
    ),
    Option(
        key="socket.mode",
        kind="mode",
        default=None,
        text="Permission bits of a `unix:` socket's file, in octal; not set: what the umask "
        "leaves.",
        reload="rebind",
        extra={"optional": True},
    ),
    Option(
        key="socket.user",
        kind="string",
        default=None,
        text="Owner of a `unix:` socket's file.",
        reload="rebind",
    ),
    Option(
        key="socket.group",
        kind="string",
        default=None,
        text="Group of a `unix:` socket's file.",
        reload="rebind",
    ),
)
