"""Protocols: what is said on a connection.

    base        what a handler is
    registry    how a protocol's handler is found
    streams     a function `(reader, writer)` as a handler
    smtp/       smtp and lmtp
    http/       an ASGI application, or the management

Rules of this package: handlers know no configuration, and protocols do not import each other; what
several of them need is in `mail/`.
"""
