"""For asyncio programs: `create_server`, `new_event_loop`, `start_tls`, `sendfile`.

Rules of this package: asyncio's interfaces on top of the native core. Nothing here depends on the
configuration, on handlers or on a protocol.
"""
